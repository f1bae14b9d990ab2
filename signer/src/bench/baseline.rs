//! What growth and state advances are compared with: the same state machine over vls-persist's own in-memory store, called directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use bitcoin::{Network, Transaction};
use lightning_signer::node::{Node, NodeServices};
use lightning_signer::policy::onchain_validator::OnchainValidatorFactory;
use lightning_signer::policy::simple_validator::SimpleValidatorFactory;
use vls_persist::kvv::memory::MemoryKVVStore;
use vls_persist::kvv::{JsonFormat, KVVPersister};
use vls_protocol::model::PubKey;
use vls_protocol::msgs;
use vls_protocol_signer::approver::PositiveApprover;
use vls_protocol_signer::handler::{Handler, HandlerBuilder, RootHandler};

use super::growth::timed_setup;
use super::rig::{BenchError, attestor, unlimited};
use crate::chain::Attestor;
use crate::lightning::clock::{NodeClock, RandomStart};
use crate::lightning::driver::{Driver, MiniChain};
use crate::lightning::engine::own_init;
use crate::lightning::validator::policy;
use crate::pipeline::{ChannelRef, Outcome};
use crate::reasons::{Reason, Refusal};

/// A node without Claviger around it.
pub(super) struct Baseline {
    root: RootHandler,
    attestor: Attestor,
    chain: MiniChain,
    filter_header: FilterHeader,
    channels: u64,
}

impl Baseline {
    pub(super) fn new() -> Result<Self, BenchError> {
        let failed = |error: &dyn std::fmt::Debug| BenchError::System(format!("the baseline: {error:?}"));
        let attestor = attestor();
        let rules = SimpleValidatorFactory::new_with_policy(policy(Network::Regtest, &unlimited()));
        let validators = OnchainValidatorFactory::new_with_simple_factory(rules);
        let services = NodeServices {
            validator_factory: Arc::new(validators),
            starting_time_factory: Arc::new(RandomStart),
            persister: Arc::new(KVVPersister(MemoryKVVStore::new([1; 16]), JsonFormat)),
            clock: Arc::new(NodeClock::default()),
            trusted_oracle_pubkeys: vec![attestor.public_key()],
        };
        let mut init = HandlerBuilder::new(Network::Regtest, 0, services, [3; 32])
            .approver(Arc::new(PositiveApprover()))
            .build()
            .map_err(|error| failed(&error))?;
        init.handle(own_init(Network::Regtest)).map_err(|error| failed(&error))?;
        let filter_header = FilterHeader::all_zeros();
        Ok(Self { root: init.into(), attestor, chain: MiniChain::default(), filter_header, channels: 0 })
    }

    pub(super) fn node(&self) -> &Node {
        self.root.node()
    }

    pub(super) fn grow_channels(&mut self, n: usize) -> Result<(), BenchError> {
        let mut fundings = Vec::new();
        while self.channels < n as u64 {
            self.channels += 1;
            let driver = Driver::open(&mut |channel, message| self.ask(channel, message), self.channels)?;
            fundings.push(driver.funding().clone());
        }
        self.confirm(fundings).map(drop)
    }

    pub(super) fn setup_channel(&mut self) -> Result<Duration, BenchError> {
        self.channels += 1;
        timed_setup(self.channels, |channel, message| self.ask(channel, message))
    }

    pub(super) fn add_block(&mut self) -> Result<Duration, BenchError> {
        self.confirm(Vec::new())
    }

    /// Adds a block as vls's handler does, with the proof made beforehand.
    fn confirm(&mut self, transactions: Vec<Transaction>) -> Result<Duration, BenchError> {
        let block = self.chain.mine(transactions);
        let proof = self.attestor.attest(&block, &self.filter_header);
        self.filter_header = block.filter().filter_header(&self.filter_header);
        let node: &Arc<Node> = self.root.node();
        let started = Instant::now();
        let mut tracker = node.get_tracker();
        let added = tracker.add_block(block.block().header, proof);
        added.map_err(|error| BenchError::System(format!("the baseline's block: {error:?}")))?;
        let written = node.get_persister().update_tracker(&node.get_id(), &tracker);
        written.map_err(|error| BenchError::System(format!("the baseline's store: {error:?}")))?;
        Ok(started.elapsed())
    }

    /// One message and what vls's own handler makes of it.
    pub(super) fn ask(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        let refused = |error: &dyn std::fmt::Debug| Outcome::Refused {
            request: String::new(),
            refusal: Refusal::new(Reason::Validation, format!("{error:?}")),
        };
        let message = match msgs::from_vec(message) {
            Ok(message) => message,
            Err(error) => return refused(&error),
        };
        let handled = match channel {
            Some(ChannelRef { peer_id, dbid }) => self.root.for_new_client(0, PubKey(peer_id), dbid).handle(message),
            None => self.root.handle(message),
        };
        match handled {
            Ok(reply) => Outcome::Reply(reply.as_vec()),
            Err(error) => refused(&error),
        }
    }
}
