//! The parts of the example that any LDK node has: its types, how they are put together, and a log, fees, a way to the
//! Bitcoin network and a disk.

use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::constants::genesis_block;
use bitcoin::{Network, Transaction};
use claviger_ldk::{ClavigerKeys, ClavigerSigner, Wallet};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{self, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter};
use lightning::events::bump_transaction::sync::{BumpTransactionEventHandlerSync, WalletSync};
use lightning::ln::channelmanager::{self, ChainParameters};
use lightning::onion_message::messenger::DefaultMessageRouter;
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::sign::NodeSigner;
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;

pub(crate) type Error = Box<dyn std::error::Error>;
pub(crate) type Keys = Arc<ClavigerKeys>;
pub(crate) type Graph = NetworkGraph<Arc<Host>>;
pub(crate) type Scorer = ProbabilisticScorer<Arc<Graph>, Arc<Host>>;
pub(crate) type Router =
    DefaultRouter<Arc<Graph>, Arc<Host>, Keys, Arc<RwLock<Scorer>>, ProbabilisticScoringFeeParameters, Scorer>;
pub(crate) type MessageRouter = DefaultMessageRouter<Arc<Graph>, Arc<Host>, Keys>;
// claviger: `ClavigerSigner` where a plain node has `InMemorySigner`.
pub(crate) type ChainMonitor = chainmonitor::ChainMonitor<
    ClavigerSigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Host>,
    Arc<Host>,
    Arc<Host>,
    Arc<Host>,
    Keys,
>;
pub(crate) type ChannelManager = channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Host>,
    Keys,
    Keys,
    Keys,
    Arc<Host>,
    Arc<Router>,
    Arc<MessageRouter>,
    Arc<Host>,
>;
pub(crate) type BumpHandler =
    BumpTransactionEventHandlerSync<Arc<Host>, Arc<WalletSync<Arc<Wallet>, Arc<Host>>>, Keys, Arc<Host>>;

/// A node without channels. One that had some reads its monitors and its manager back from disk instead.
pub(crate) fn assemble(keys: &Keys) -> Result<(Arc<ChannelManager>, Arc<ChainMonitor>), Error> {
    let host = Arc::new(Host);
    let graph = Arc::new(Graph::new(Network::Regtest, host.clone()));
    let scorer = Arc::new(RwLock::new(Scorer::new(Default::default(), graph.clone(), host.clone())));
    let router = Arc::new(Router::new(graph.clone(), host.clone(), keys.clone(), scorer, Default::default()));
    let message_router = Arc::new(MessageRouter::new(graph, keys.clone()));
    let chain_monitor = Arc::new(ChainMonitor::new(
        None,
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
        keys.clone(),
        keys.get_peer_storage_key(),
    ));
    let best_block = BestBlock::new(genesis_block(Network::Regtest).block_hash(), 0);
    let channels = Arc::new(ChannelManager::new(
        host.clone(),
        chain_monitor.clone(),
        host.clone(),
        router,
        message_router,
        host,
        keys.clone(),
        keys.clone(),
        keys.clone(),
        UserConfig { manually_accept_inbound_channels: true, ..Default::default() },
        ChainParameters { network: Network::Regtest, best_block },
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as u32,
    ));
    Ok((channels, chain_monitor))
}

/// A node would use its own: `bitcoind`, a database, a log file.
pub(crate) struct Host;

impl Logger for Host {
    fn log(&self, record: Record) {
        println!("{} {}", record.level, record.args);
    }
}

impl FeeEstimator for Host {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        1000
    }
}

impl BroadcasterInterface for Host {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        for tx in transactions {
            println!("bitcoin-cli sendrawtransaction {}", bitcoin::consensus::encode::serialize_hex(*tx));
        }
    }
}

impl Persist<ClavigerSigner> for Host {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<ClavigerSigner>,
    ) -> ChannelMonitorUpdateStatus {
        match std::fs::write(format!("{name}.monitor"), monitor.encode()) {
            Ok(()) => ChannelMonitorUpdateStatus::Completed,
            Err(_) => ChannelMonitorUpdateStatus::UnrecoverableError,
        }
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<ClavigerSigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.persist_new_channel(name, monitor)
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        let _ = std::fs::remove_file(format!("{name}.monitor"));
    }
}
