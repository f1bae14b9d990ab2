//! The parts of the example that any LDK node has: its types, and a log, fees, a way to the Bitcoin network and a disk.

use std::sync::{Arc, RwLock};

use bitcoin::Transaction;
use claviger_ldk::{ClavigerKeys, ClavigerSigner, Wallet};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{self, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{ChannelMonitorUpdateStatus, Filter};
use lightning::events::bump_transaction::sync::{BumpTransactionEventHandlerSync, WalletSync};
use lightning::ln::channelmanager;
use lightning::onion_message::messenger::DefaultMessageRouter;
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;

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
