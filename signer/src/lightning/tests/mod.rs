//! Nodes over a journal in memory, driven by channels with real signatures.

mod book;
mod bundle_limits;
mod cln;
mod closes;
mod closing;
mod failures;
mod frozen;
mod funding;
mod gossip;
mod invoices;
mod isolation;
mod ldk;
mod limits;
mod onchain;
mod operator;
mod policy;
mod second_level;
mod sessions;
mod sweeps;
mod tags;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::SecretKey;
use zeroize::Zeroizing;

use super::actor::{ChainFacts, House};
use super::driver::{Driver, MiniChain};
use super::engine::{NodeSpec, Settings};
use super::nodes::Nodes;
use super::persist::ChainStart;
use crate::chain::{Attestor, ChainBlock, ChainSink};
use crate::config::{LimitsConfig, SignerConfig};
use crate::journal::store::{MemoryStore, Store};
use crate::journal::{HOUSE, Journal, Options};
use crate::keys::cipher::RecordCipher;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{ChannelRef, Outcome, Request};
use crate::policy::Desk;
use crate::reasons::{Reason, Refusal};

/// A signer that can be restarted: what rests on disk stays, the rest is made anew.
pub(super) struct Signer {
    store: Arc<dyn Store>,
    limits: LimitsConfig,
    funding_depth: u32,
    facts: Arc<dyn ChainFacts>,
    running: Option<(Nodes, Arc<Journal>)>,
    desk: Arc<Desk>,
    blocks: Vec<Arc<ChainBlock>>,
    chain: MiniChain,
}

impl Signer {
    pub(super) fn start() -> Self {
        Self::start_over(Arc::new(MemoryStore::new()), LimitsConfig::default())
    }

    fn start_over(store: Arc<dyn Store>, limits: LimitsConfig) -> Self {
        let mut signer = Self {
            store,
            limits,
            funding_depth: 1,
            facts: Arc::new(MiniChain::default()),
            running: None,
            desk: Arc::default(),
            blocks: Vec::new(),
            chain: MiniChain::default(),
        };
        signer.restart();
        signer
    }

    /// Ends everything and starts again from the store.
    fn restart(&mut self) {
        self.running = None;
        let key = Secret::new(Zeroizing::new([7; 32]));
        let journal = Journal::open(self.store.clone(), RecordCipher::new(key), quick()).expect("the journal opens");
        let journal = Arc::new(journal);
        let attestor = Arc::new(Attestor::new(&SecretKey::from_slice(&[9; 32]).expect("a key")));
        self.desk = Arc::new(Desk::new("appliance"));
        let house = journal.load(HOUSE).expect("readable");
        self.desk.open(&house, Network::Regtest, NOW_MS).expect("what was in force");
        let settings = Settings {
            limits: self.limits.clone(),
            funding_depth: self.funding_depth,
            oracle: attestor.public_key(),
            desk: self.desk.clone(),
        };
        let house = House { journal: journal.clone(), chain: self.facts.clone(), attestor, settings };
        let config = SignerConfig { threads: 2, ..SignerConfig::default() };
        self.running = Some((Nodes::start(house, &config).expect("threads"), journal));
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.running.as_ref().expect("running").0
    }

    fn journal(&self) -> &Journal {
        &self.running.as_ref().expect("running").1
    }

    fn add(&self, name: &str, kind: NodeKind) -> NodeName {
        let name = NodeName::new(name).expect("a name");
        self.nodes().add(spec(&name, kind)).expect("not running yet");
        name
    }

    pub(super) fn submit(
        &self,
        node: &NodeName,
        channel: Option<ChannelRef>,
        message: Vec<u8>,
    ) -> std::sync::mpsc::Receiver<Outcome> {
        let (respond, outcome) = channel_of_one();
        self.nodes().submit(node, Request { request_id: 0, channel, message }, respond);
        outcome
    }

    fn ask(&self, node: &NodeName, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        self.submit(node, channel, message).recv_timeout(Duration::from_secs(60)).expect("an answer")
    }

    /// A way to ask as `node`, for drivers.
    fn asking<'a>(&'a self, node: &'a NodeName) -> impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a {
        move |channel, message| self.ask(node, channel, message)
    }

    /// The same for a node that asks again while the reason says that it may help.
    fn asking_patiently<'a>(&'a self, node: &'a NodeName) -> impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a {
        move |channel, message| loop {
            match self.ask(node, channel, message.clone()) {
                Outcome::Refused { refusal, .. } if refusal.reason.retry() => std::thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    /// Mines a block with `txs` and shows it to `nodes`.
    fn confirm(&mut self, nodes: &[&NodeName], txs: Vec<bitcoin::Transaction>) {
        let block = self.chain.mine(txs);
        self.blocks.push(block.clone());
        for node in nodes {
            self.nodes().connect(node, block.clone()).expect("the block fits");
        }
    }

    /// A channel of `node`, open and confirmed.
    fn channel(&mut self, node: &NodeName, dbid: u64) -> Driver {
        let driver = Driver::open(&mut self.asking(node), dbid).expect("opens");
        self.confirm(&[node], vec![driver.funding().clone()]);
        driver
    }
}

/// A time before all others, for what needs one and does not depend on it.
const NOW_MS: u64 = 1;

fn quick() -> Options {
    Options { probe_every: Duration::from_millis(5), ..Options::default() }
}

fn spec(name: &NodeName, kind: NodeKind) -> NodeSpec {
    let mut seed = [3; 32];
    let text = name.as_str().as_bytes();
    seed[..text.len()].copy_from_slice(text);
    NodeSpec {
        name: name.clone(),
        kind,
        network: Network::Regtest,
        seed: Secret::new(Zeroizing::new(seed)),
        derivation: Derivation::Native,
        chain_code: None,
        operations_key: None,
    }
}

fn channel_of_one() -> (crate::pipeline::Responder, std::sync::mpsc::Receiver<Outcome>) {
    let (send, receive) = channel();
    (Box::new(move |outcome| drop(send.send(outcome))), receive)
}

/// Whoever refuses for these reasons has compared something, and says so as data (P11).
const SAYS_WHAT_IT_COMPARED: [Reason; 12] = [
    Reason::MessageUnknown,
    Reason::NotAllowed,
    Reason::MessageScope,
    Reason::GossipUnreadable,
    Reason::GossipForeign,
    Reason::InvoiceUnreadable,
    Reason::InvoiceForeign,
    Reason::SignedMessageTooLong,
    Reason::Bolt12Tag,
    Reason::SecretPurpose,
    Reason::ValueNotConserved,
    Reason::PreimageMissing,
];

fn refused(outcome: Outcome) -> (String, Refusal) {
    match outcome {
        Outcome::Refused { request, refusal } => {
            assert!(!refusal.facts.is_empty() || !SAYS_WHAT_IT_COMPARED.contains(&refusal.reason), "{refusal:?}");
            (request, refusal)
        }
        Outcome::Reply(reply) => panic!("answered: {}", hex::encode(reply)),
    }
}

fn replied(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Reply(reply) => reply,
        Outcome::Refused { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

/// A chain that is not known until somebody says so.
#[derive(Default)]
struct LateChain(Mutex<Option<ChainStart>>);

impl ChainFacts for LateChain {
    fn require_fresh(&self, _node: &NodeName) -> Result<(), Refusal> {
        match *self.0.lock().expect("not poisoned") {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Reason::ChainStale, "no answer yet")),
        }
    }

    fn start(&self) -> Option<ChainStart> {
        *self.0.lock().expect("not poisoned")
    }
}
