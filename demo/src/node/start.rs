//! Assembles a node from its store, or a new one.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{BlockHash, Network};
use claviger_ldk::{ClavigerKeys, Resumer};
use lightning::chain::BestBlock;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::events::bump_transaction::sync::WalletSync;
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::scoring::ProbabilisticScoringDecayParameters;
use lightning::sign::{EntropySource, KeysManager, NodeSigner, Recipient};
use lightning::util::config::UserConfig;
use lightning::util::ser::ReadableArgs;

use super::keys::{AnyKeys, AnySigner};
use super::kit::{self, ChainAccess, catch_up};
use super::store::{MONITOR, Store};
use super::wallet::{AnyWallet, LocalWallet};
use super::{Inner, LdkNode, NodeError};

/// Where the node's keys come from.
pub enum Keys {
    /// From a seed of its own.
    Local([u8; 32]),
    /// From a signer.
    Remote(Arc<ClavigerKeys>),
}

/// How a node behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For logs.
    pub name: String,
    /// sat per 1000 weight.
    pub feerate: u32,
    /// Whether channels are announced to everyone.
    pub announce: bool,
    /// Zero-fee anchors (the usual), or plain static-remotekey channels.
    pub anchors: bool,
}

impl Settings {
    /// Anchor channels, announced, at 1000 sat per 1000 weight.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), feerate: 1000, announce: true, anchors: true }
    }

    fn user_config(&self) -> UserConfig {
        let mut config = UserConfig::default();
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = self.anchors;
        config.channel_handshake_config.announce_for_forwarding = self.announce;
        config.channel_handshake_config.minimum_depth = 3;
        config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config.accept_forwards_to_priv_channels = true;
        config.manually_accept_inbound_channels = true;
        config.manually_handle_bolt12_invoices = true;
        config
    }
}

impl LdkNode {
    /// Starts a node on regtest, with what `store` holds of an earlier run.
    pub fn start(
        settings: &Settings,
        keys: Keys,
        chain: Arc<dyn ChainAccess>,
        store: Arc<Store>,
    ) -> Result<Self, NodeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| NodeError::Io(e.to_string()))?;
        let (keys, wallet) = match keys {
            Keys::Local(seed) => {
                let wallet_key = sha256::Hash::hash(&[seed.as_slice(), b"wallet"].concat()).to_byte_array();
                let wallet_key = SecretKey::from_slice(&wallet_key).map_err(|e| NodeError::Io(e.to_string()))?;
                let keys = KeysManager::new(&seed, now.as_secs(), now.subsec_nanos(), true);
                (AnyKeys::Local(Box::new(keys)), AnyWallet::Local(LocalWallet::new(wallet_key)))
            }
            Keys::Remote(keys) => {
                let wallet = AnyWallet::Remote(keys.wallet().clone());
                (AnyKeys::Remote(keys), wallet)
            }
        };
        let (keys, wallet) = (Arc::new(keys), Arc::new(wallet));
        let id = keys.get_node_id(Recipient::Node).map_err(|()| NodeError::Ldk("no node id".into()))?;

        let log = Arc::new(kit::Log::new(&settings.name));
        let fees = Arc::new(kit::Fees::new(settings.feerate));
        let broadcaster = Arc::new(kit::Broadcaster { chain: chain.clone(), log: log.clone() });
        let graph = Arc::new(kit::Graph::new(Network::Regtest, log.clone()));
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = Arc::new(RwLock::new(kit::Scorer::new(decay, graph.clone(), log.clone())));
        let router = Arc::new(kit::Router::new(graph.clone(), log.clone(), keys.clone(), scorer, Default::default()));
        let message_router = Arc::new(kit::MessageRouter::new(graph.clone(), keys.clone()));
        let chain_monitor = Arc::new(kit::ChainMonitor::new(
            None,
            broadcaster.clone(),
            log.clone(),
            fees.clone(),
            store.clone(),
            keys.clone(),
            keys.get_peer_storage_key(),
        ));

        let mut monitors = Vec::new();
        for bytes in store.with_prefix(MONITOR) {
            let (_, monitor) =
                <(BlockHash, ChannelMonitor<AnySigner>)>::read(&mut Cursor::new(bytes), (&*keys, &*keys))
                    .map_err(|e| NodeError::Io(format!("a channel monitor cannot be read: {e:?}")))?;
            monitors.push(monitor);
        }
        let config = settings.user_config();
        let (channels, best) = match store.get("manager") {
            Some(bytes) => {
                let args = ChannelManagerReadArgs::new(
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    fees.clone(),
                    chain_monitor.clone(),
                    broadcaster.clone(),
                    router,
                    message_router.clone(),
                    log.clone(),
                    config,
                    monitors.iter().collect(),
                );
                let (_, channels) = <(BlockHash, kit::ChannelManager)>::read(&mut Cursor::new(bytes), args)
                    .map_err(|e| NodeError::Io(format!("the channel manager cannot be read: {e:?}")))?;
                let best = channels.current_best_block();
                (channels, best)
            }
            None => {
                let (height, hash) = chain.tip();
                let best_block = BestBlock::new(hash, height);
                let channels = kit::ChannelManager::new(
                    fees.clone(),
                    chain_monitor.clone(),
                    broadcaster.clone(),
                    router,
                    message_router.clone(),
                    log.clone(),
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    config,
                    ChainParameters { network: Network::Regtest, best_block },
                    now.as_secs() as u32,
                );
                (channels, best_block)
            }
        };

        // Everything catches up on its own before it goes on together.
        for monitor in monitors {
            let best = monitor.current_best_block();
            let channel_id = monitor.channel_id();
            let listener = (monitor, broadcaster.clone(), fees.clone(), log.clone());
            catch_up(&listener, best, &*chain);
            chain_monitor
                .load_existing_monitor(channel_id, listener.0)
                .map_err(|()| NodeError::Ldk("a channel monitor is there twice".into()))?;
        }
        let best = catch_up(&channels, best, &*chain);
        let channels = Arc::new(channels);
        let resumer = match &*keys {
            AnyKeys::Local(_) => None,
            AnyKeys::Remote(remote) => Some(resume_with(remote, &channels, &chain_monitor)),
        };

        let gossip = Arc::new(kit::Gossip::new(graph, None, log.clone()));
        let onion = Arc::new(kit::OnionMessenger::new(
            keys.clone(),
            keys.clone(),
            log.clone(),
            channels.clone(),
            message_router,
            channels.clone(),
            channels.clone(),
            IgnoringMessageHandler {},
            IgnoringMessageHandler {},
        ));
        let peers = Arc::new(kit::PeerManager::new(
            MessageHandler {
                chan_handler: channels.clone(),
                route_handler: gossip,
                onion_message_handler: onion.clone(),
                custom_message_handler: IgnoringMessageHandler {},
                send_only_message_handler: chain_monitor.clone(),
            },
            now.as_secs() as u32,
            &keys.get_secure_random_bytes(),
            log.clone(),
            keys.clone(),
        ));

        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| NodeError::Io(e.to_string()))?;
        let coin_selection = Arc::new(WalletSync::new(wallet.clone(), log.clone()));
        let inner = Arc::new(Inner {
            id,
            addr: listener.local_addr().map_err(|e| NodeError::Io(e.to_string()))?,
            bump: kit::BumpHandler::new(broadcaster.clone(), coin_selection, keys.clone(), log.clone()),
            keys,
            wallet,
            chain,
            store,
            log,
            fees,
            broadcaster,
            chain_monitor,
            channels,
            peers,
            onion,
            known_peers: Mutex::new(BTreeMap::new()),
            holding: AtomicBool::new(false),
            settled: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
        });
        let (thread, runtime) =
            super::run::spawn(inner.clone(), listener, best).map_err(|e| NodeError::Io(e.to_string()))?;
        Ok(LdkNode { inner, thread: Some(thread), runtime: Some(runtime), resumer })
    }
}

/// What LDK left pending while the signer was away goes on when it is back.
fn resume_with(
    keys: &ClavigerKeys,
    channels: &Arc<kit::ChannelManager>,
    chain_monitor: &Arc<kit::ChainMonitor>,
) -> Resumer {
    let (channels, chain_monitor) = (Arc::downgrade(channels), Arc::downgrade(chain_monitor));
    keys.resume_with(move || {
        if let (Some(channels), Some(chain_monitor)) = (channels.upgrade(), chain_monitor.upgrade()) {
            channels.signer_unblocked(None);
            chain_monitor.signer_unblocked(None);
        }
    })
}
