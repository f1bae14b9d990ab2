//! A real Lightning node on LDK, with its own keys or with a signer's: TCP peers, gossip, routing, on-chain claims.
//!
//! Everything runs in the background; the methods here start things and look at how they went.

mod circle;
mod events;
mod history;
mod keys;
mod kit;
mod payments;
mod run;
mod start;
mod store;
mod wallet;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf, Transaction};
use claviger_ldk::{LinkError, Resumer};
use lightning::chain::channelmonitor::Balance;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::errors::APIError;
use thiserror::Error;

pub use history::{FORWARDING_FEE_MSAT, History, Payment};
pub use keys::AnyKeys;
pub use kit::ChainAccess;
pub use payments::payment_hash;
pub use start::{Keys, Settings};
pub use store::Store;
pub use wallet::AnyWallet;

/// Why a node could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// The operator's limits, or the signer's rules, say no.
    #[error("the signer does not approve the payment")]
    NotApproved,
    /// The signer did not answer.
    #[error(transparent)]
    Signer(#[from] LinkError),
    /// LDK refused.
    #[error("{0}")]
    Ldk(String),
    /// Files or sockets.
    #[error("{0}")]
    Io(String),
}

impl From<APIError> for NodeError {
    fn from(error: APIError) -> Self {
        Self::Ldk(format!("{error:?}"))
    }
}

/// How long a node that stops waits for messages that are being handled. One may wait for a signer that is away.
const LAST_MESSAGES: Duration = Duration::from_secs(10);

/// A running node. [`stop`](Self::stop) it to start it again from its [`Store`]; dropped, it ends without a word.
pub struct LdkNode {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    resumer: Option<Resumer>,
}

struct Inner {
    id: PublicKey,
    addr: SocketAddr,
    keys: Arc<AnyKeys>,
    wallet: Arc<AnyWallet>,
    chain: Arc<dyn ChainAccess>,
    store: Arc<Store>,
    log: Arc<kit::Log>,
    fees: Arc<kit::Fees>,
    broadcaster: Arc<kit::Broadcaster>,
    chain_monitor: Arc<kit::ChainMonitor>,
    channels: Arc<kit::ChannelManager>,
    peers: Arc<kit::PeerManager>,
    onion: Arc<kit::OnionMessenger>,
    bump: kit::BumpHandler,
    known_peers: Mutex<BTreeMap<PublicKey, SocketAddr>>,
    /// Whether incoming payments wait in the store, under [`HELD`].
    holding: AtomicBool,
    /// The height up to which everything was done that the chain asked for.
    settled: AtomicU32,
    stopped: AtomicBool,
}

impl LdkNode {
    /// The node's public key.
    pub fn id(&self) -> PublicKey {
        self.inner.id
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// Connects, and again whenever the connection is lost.
    pub fn connect(&self, peer: &LdkNode) {
        lock(&self.inner.known_peers).insert(peer.id(), peer.addr());
    }

    /// Whether a connection to `peer` is up.
    pub fn is_connected(&self, peer: &PublicKey) -> bool {
        self.inner.peers.peer_by_node_id(peer).is_some()
    }

    /// Ends a connection that this node made, for good.
    pub fn disconnect(&self, peer: &PublicKey) {
        lock(&self.inner.known_peers).remove(peer);
        self.inner.peers.disconnect_by_node_id(*peer);
    }

    /// Opens a channel; its funding transaction is made when the peer accepted.
    pub fn open_channel(&self, peer: &PublicKey, value: Amount, push_msat: u64) -> Result<ChannelId, NodeError> {
        Ok(self.inner.channels.create_channel(*peer, value.to_sat(), push_msat, 0, None, None)?)
    }

    /// All channels that are not closed.
    pub fn channels(&self) -> Vec<ChannelDetails> {
        self.inner.channels.list_channels()
    }

    /// The first channel with `peer`.
    pub fn channel_with(&self, peer: &PublicKey) -> Option<ChannelDetails> {
        self.channels().into_iter().find(|channel| channel.counterparty.node_id == *peer)
    }

    /// All channels with `peer`.
    pub fn channels_with(&self, peer: &PublicKey) -> Vec<ChannelDetails> {
        self.channels().into_iter().filter(|channel| channel.counterparty.node_id == *peer).collect()
    }

    /// Closes with the peer's help. Fails while the peer is away or a change of the channel is being kept: ask again.
    pub fn close(&self, channel: &ChannelDetails) -> Result<(), NodeError> {
        Ok(self.inner.channels.close_channel(&channel.channel_id, &channel.counterparty.node_id)?)
    }

    /// Closes without it.
    pub fn force_close(&self, channel: &ChannelDetails) -> Result<(), NodeError> {
        let peer = &channel.counterparty.node_id;
        let reason = "as asked".to_string();
        Ok(self.inner.channels.force_close_broadcasting_latest_txn(&channel.channel_id, peer, reason)?)
    }

    /// What happened so far, over all starts of the node.
    pub fn history(&self) -> History {
        self.inner.store.history().clone()
    }

    /// How an outgoing payment ended, if it did.
    pub fn payment(&self, hash: &PaymentHash) -> Option<Payment> {
        self.inner.store.history().payments.get(hash).cloned()
    }

    /// Where to send coins to.
    pub fn script(&self) -> ScriptBuf {
        self.inner.wallet.script()
    }

    /// All that [`script`](Self::script) may ever answer.
    pub fn scripts(&self) -> Vec<ScriptBuf> {
        self.inner.wallet.scripts()
    }

    /// Confirmed coins that no transaction on its way spends.
    pub fn balance(&self) -> Amount {
        self.inner.wallet.balance(|coin| self.inner.chain.is_in_flight(coin))
    }

    /// What channels still owe us, or owe us on the chain.
    pub fn claimable(&self) -> Vec<Balance> {
        self.inner.chain_monitor.get_claimable_balances(&[])
    }

    /// The height this node has seen, and done everything about: its claims and sweeps are signed and broadcast, unless
    /// its signer was away or not willing yet.
    pub fn height(&self) -> u32 {
        self.inner.settled.load(Ordering::SeqCst)
    }

    /// Sets the feerate the node estimates, in sat per 1000 weight, and lets it tell its peers.
    pub fn set_feerate(&self, sat_per_1000_weight: u32) {
        self.inner.fees.set(sat_per_1000_weight);
        self.inner.channels.timer_tick_occurred();
    }

    /// Lets a minute of LDK's pass: parts of payments that wait for others in vain go back, a silent peer is hung up on.
    pub fn tick(&self) {
        self.inner.channels.timer_tick_occurred();
    }

    /// The last lines of the node's log.
    pub fn log(&self, lines: usize) -> Vec<String> {
        self.inner.log.tail(lines)
    }

    /// The commitment that is valid now, signed, to be broadcast after it was revoked: what a cheater keeps. Only a node
    /// that holds its own keys can do this.
    pub fn keep_commitment(&self, channel: &ChannelId) -> Option<Vec<Transaction>> {
        match &*self.inner.keys {
            AnyKeys::Local(_) => {
                let monitor = self.inner.chain_monitor.get_monitor(*channel).ok()?;
                Some(monitor.unsafe_get_latest_holder_commitment_txn(&self.inner.log))
            }
            AnyKeys::Remote(_) => None,
        }
    }

    /// Stops the node and returns what it can be started from again.
    pub fn stop(mut self) -> Arc<Store> {
        self.inner.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.resumer = None;
        self.inner.peers.disconnect_all_peers();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(LAST_MESSAGES);
        }
        // Last: monitors that are ahead of the channel manager make LDK close their channels at the next start.
        self.inner.keep();
        self.inner.store.clone()
    }
}

impl Drop for LdkNode {
    /// Waits for nothing: the signer may be gone already, and LDK holds its locks for minutes while it waits for it.
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let (peers, resumer) = (self.inner.peers.clone(), self.resumer.take());
        std::thread::spawn(move || {
            peers.disconnect_all_peers();
            drop(resumer);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
