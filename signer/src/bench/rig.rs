//! A signer without doors: nodes over a journal, asked in process.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bitcoin::Network;
use bitcoin::secp256k1::SecretKey;

use crate::chain::Attestor;
use crate::config::{LimitsConfig, SignerConfig};
use crate::journal::store::Store;
use crate::journal::{Journal, JournalError, Options};
use crate::keys::cipher::RecordCipher;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::lightning::actor::House;
use crate::lightning::driver::{DriverError, MiniChain};
use crate::lightning::engine::{NodeSpec, Settings};
use crate::lightning::nodes::{AlreadyRunning, Nodes};
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{ChannelRef, Outcome, Request};
use crate::reasons::{Reason, Refusal};

/// The measurement could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// The channel's driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A node could not be added.
    #[error(transparent)]
    Node(#[from] AlreadyRunning),
    /// A request was refused that should not be.
    #[error("a request was refused: {0}")]
    Refused(String),
    /// The machine would not give what was asked for.
    #[error("{0}")]
    System(String),
}

impl BenchError {
    pub(super) fn system(error: impl std::fmt::Display) -> Self {
        Self::System(error.to_string())
    }
}

/// Nodes over a journal.
pub(super) struct Rig {
    pub(super) nodes: Nodes,
}

/// The key that attests blocks here.
pub(super) fn attestor() -> Attestor {
    Attestor::new(&SecretKey::from_slice(&[9; 32]).expect("a scalar"))
}

/// Limits that never limit.
pub(super) fn unlimited() -> LimitsConfig {
    LimitsConfig { max_payment_msat: u64::MAX / 4, max_payment_msat_per_hour: u64::MAX / 2, ..LimitsConfig::default() }
}

impl Rig {
    pub(super) fn new(store: Arc<dyn Store>, options: Options) -> Result<Self, BenchError> {
        let journal = Arc::new(Journal::open(store, RecordCipher::new(Secret::init(|key| key.fill(7))), options)?);
        let attestor = Arc::new(attestor());
        let settings =
            Settings { limits: unlimited(), funding_depth: 1, oracle: attestor.public_key(), desk: Arc::default() };
        let chain = Arc::new(MiniChain::default());
        let house = House { journal, chain, attestor, settings };
        let config = SignerConfig::default();
        Ok(Self { nodes: Nodes::start(house, &config).map_err(BenchError::system)? })
    }

    /// Adds a node. All have the same keys, so that one recorded session fits all.
    pub(super) fn add(&self, name: &str) -> Result<NodeName, BenchError> {
        let name = NodeName::new(name).map_err(BenchError::system)?;
        self.nodes.add(NodeSpec {
            name: name.clone(),
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::init(|seed| seed.fill(3)),
            derivation: Derivation::Native,
            chain_code: None,
            operations_key: None,
        })?;
        Ok(name)
    }

    /// One request and its outcome.
    pub(super) fn ask(&self, node: &NodeName, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        let (reply, outcome) = sync_channel(1);
        let respond = Box::new(move |outcome| drop(reply.send(outcome)));
        self.nodes.submit(node, Request { request_id: 0, channel, message }, respond);
        outcome.recv().unwrap_or_else(|_| Outcome::Refused {
            request: String::new(),
            refusal: Refusal::new(Reason::Fault, "the answer was lost"),
        })
    }

    /// One request that must be granted.
    pub(super) fn must(
        &self,
        node: &NodeName,
        channel: Option<ChannelRef>,
        message: Vec<u8>,
    ) -> Result<(), BenchError> {
        match self.ask(node, channel, message) {
            Outcome::Reply(_) => Ok(()),
            Outcome::Refused { refusal, .. } => Err(BenchError::Refused(format!("{refusal:?}"))),
        }
    }
}
