//! The small parts an LDK node is assembled from, and the types they add up to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::{BestBlock, Filter, Listen, chainmonitor};
use lightning::events::bump_transaction::sync::{BumpTransactionEventHandlerSync, WalletSync};
use lightning::ln::{channelmanager, peer_handler};
use lightning::onion_message::messenger;
use lightning::routing::utxo::UtxoLookup;
use lightning::routing::{gossip, router, scoring};
use lightning::util::logger::{Logger, Record};
use lightning_net_tokio::SocketDescriptor;

use crate::chain::Chain;

use super::keys::{AnyKeys, AnySigner};
use super::store::Store;
use super::wallet::AnyWallet;

/// The chain as a node sees it.
pub trait ChainAccess: Send + Sync {
    /// Height and hash of the tip.
    fn tip(&self) -> (u32, BlockHash);
    /// The best chain's block at `height`.
    fn block_at(&self, height: u32) -> Option<Arc<Block>>;
    /// A block by hash, also one that is no longer in the best chain.
    fn block(&self, hash: &BlockHash) -> Option<Arc<Block>>;
    /// The height of a block of the best chain.
    fn height_of(&self, hash: &BlockHash) -> Option<u32>;
    /// Whether an output is confirmed and not spent in a block.
    fn is_unspent(&self, outpoint: &OutPoint) -> bool;
    /// Whether a transaction that waits for a block spends an output.
    fn is_in_flight(&self, outpoint: &OutPoint) -> bool;
    /// Offers a transaction to the network. Says why it was not taken.
    fn broadcast(&self, tx: &Transaction) -> Result<(), String>;
}

impl ChainAccess for Chain {
    fn tip(&self) -> (u32, BlockHash) {
        Chain::tip(self)
    }

    fn block_at(&self, height: u32) -> Option<Arc<Block>> {
        Chain::block_at(self, height)
    }

    fn block(&self, hash: &BlockHash) -> Option<Arc<Block>> {
        Chain::block(self, hash)
    }

    fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        Chain::height_of(self, hash)
    }

    fn is_unspent(&self, outpoint: &OutPoint) -> bool {
        self.unspent(outpoint).is_some()
    }

    fn is_in_flight(&self, outpoint: &OutPoint) -> bool {
        self.spender(outpoint).is_some_and(|txid| self.confirmed_at(&txid).is_none())
    }

    fn broadcast(&self, tx: &Transaction) -> Result<(), String> {
        Chain::broadcast(self, tx).map(|_| ()).map_err(|e| e.to_string())
    }
}

pub(super) type Graph = gossip::NetworkGraph<Arc<Log>>;
pub(super) type Scorer = scoring::ProbabilisticScorer<Arc<Graph>, Arc<Log>>;
pub(super) type Router = router::DefaultRouter<
    Arc<Graph>,
    Arc<Log>,
    Arc<AnyKeys>,
    Arc<RwLock<Scorer>>,
    scoring::ProbabilisticScoringFeeParameters,
    Scorer,
>;
pub(super) type MessageRouter = messenger::DefaultMessageRouter<Arc<Graph>, Arc<Log>, Arc<AnyKeys>>;
pub(super) type ChainMonitor = chainmonitor::ChainMonitor<
    AnySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Log>,
    Arc<Store>,
    Arc<AnyKeys>,
>;
pub(super) type ChannelManager = channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Broadcaster>,
    Arc<AnyKeys>,
    Arc<AnyKeys>,
    Arc<AnyKeys>,
    Arc<Fees>,
    Arc<Router>,
    Arc<MessageRouter>,
    Arc<Log>,
>;
pub(super) type OnionMessenger = messenger::OnionMessenger<
    Arc<AnyKeys>,
    Arc<AnyKeys>,
    Arc<Log>,
    Arc<ChannelManager>,
    Arc<MessageRouter>,
    Arc<ChannelManager>,
    Arc<ChannelManager>,
    peer_handler::IgnoringMessageHandler,
    peer_handler::IgnoringMessageHandler,
>;
pub(super) type Gossip = gossip::P2PGossipSync<Arc<Graph>, Arc<dyn UtxoLookup + Send + Sync>, Arc<Log>>;
pub(super) type PeerManager = peer_handler::PeerManager<
    SocketDescriptor,
    Arc<ChannelManager>,
    Arc<Gossip>,
    Arc<OnionMessenger>,
    Arc<Log>,
    peer_handler::IgnoringMessageHandler,
    Arc<AnyKeys>,
    Arc<ChainMonitor>,
>;
pub(super) type BumpHandler = BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<WalletSync<Arc<AnyWallet>, Arc<Log>>>,
    Arc<AnyKeys>,
    Arc<Log>,
>;

/// Keeps the last lines, for when something goes wrong. `LDK_LOG=1` also prints them.
pub(super) struct Log {
    name: String,
    lines: Mutex<VecDeque<String>>,
    print: bool,
}

impl Log {
    const KEPT: usize = 2000;

    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), lines: Mutex::default(), print: std::env::var_os("LDK_LOG").is_some() }
    }

    pub(super) fn note(&self, line: String) {
        if self.print {
            eprintln!("{} {line}", self.name);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(super) fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

impl Logger for Log {
    fn log(&self, record: Record) {
        if record.level >= lightning::util::logger::Level::Debug {
            self.note(format!("{} {}:{} {}", record.level, record.module_path, record.line, record.args));
        }
    }
}

/// One feerate for everything, settable.
pub(super) struct Fees(AtomicU32);

impl Fees {
    pub(super) fn new(feerate: u32) -> Self {
        Self(AtomicU32::new(feerate))
    }

    pub(super) fn set(&self, feerate: u32) {
        self.0.store(feerate, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        use ConfirmationTarget::{
            ChannelCloseMinimum, MinAllowedAnchorChannelRemoteFee, MinAllowedNonAnchorChannelRemoteFee,
        };
        match target {
            MinAllowedAnchorChannelRemoteFee | MinAllowedNonAnchorChannelRemoteFee | ChannelCloseMinimum => 253,
            _ => self.get(),
        }
    }
}

/// Offers transactions to the chain. What is refused is logged and not kept: LDK rebroadcasts.
pub(super) struct Broadcaster {
    pub(super) chain: Arc<dyn ChainAccess>,
    pub(super) log: Arc<Log>,
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        for tx in transactions {
            let result = self.chain.broadcast(tx);
            self.log.note(format!("broadcast {}: {result:?}", tx.compute_txid()));
        }
    }
}

/// Brings `listener` from `best` to the chain's tip and returns the new best block.
pub(super) fn catch_up(listener: &impl Listen, mut best: BestBlock, chain: &dyn ChainAccess) -> BestBlock {
    let mut fork: Option<Header> = None;
    while chain.height_of(&fork.map_or(best.block_hash, |h| h.prev_blockhash)).is_none() {
        let hash = fork.map_or(best.block_hash, |h| h.prev_blockhash);
        let Some(block) = chain.block(&hash) else { return best };
        fork = Some(block.header);
    }
    if let Some(header) = fork {
        let hash = header.prev_blockhash;
        let Some(height) = chain.height_of(&hash) else { return best };
        best = BestBlock::new(hash, height);
        listener.blocks_disconnected(best);
    }
    while let Some(block) = chain.block_at(best.height + 1) {
        if block.header.prev_blockhash != best.block_hash {
            break; // reorganised meanwhile: next time
        }
        best = BestBlock::new(block.block_hash(), best.height + 1);
        listener.block_connected(&block, best.height);
    }
    best
}
