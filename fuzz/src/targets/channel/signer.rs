//! One node's state machine as its actor runs it: what it says to be recorded is recorded, and all it is made of.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, Network, ScriptBuf};
use claviger::chain::{Attestor, ChainBlock, apply_block, revert_block};
use claviger::config::LimitsConfig;
use claviger::journal::{COLD, Put};
use claviger::keys::import::Derivation;
use claviger::keys::memory::Secret;
use claviger::lightning::actor::ChainFacts;
use claviger::lightning::book::view::BookView;
use claviger::lightning::driver::MiniChain;
use claviger::lightning::engine::{Engine, NodeSpec, Settings, first_entries};
use claviger::lightning::guard;
use claviger::lightning::issued::Archive;
use claviger::names::{NodeKind, NodeName};
use claviger::pipeline::{ChannelRef, Request};
use claviger::reasons::Refusal;

/// More than any world leaves in the journal.
const MAX_STATE_BYTES: usize = 4 << 20;
/// An address that the operator allows closes to.
const ALLOWED: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

type Entries = BTreeMap<String, Vec<u8>>;

/// One node.
pub(super) struct Signer {
    kind: NodeKind,
    engine: Engine,
    entries: Entries,
    cold: Arc<Cold>,
    bytes: usize,
}

/// What a message came to.
pub(super) struct Answer {
    /// The reply, or why there is none.
    pub(super) reply: Result<Vec<u8>, Refusal>,
    /// Whether any entry is another now.
    pub(super) changed: bool,
}

/// Entries that the state machine looks up one by one.
#[derive(Default)]
struct Cold(Mutex<Entries>);

impl Archive for Cold {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }
}

impl Signer {
    /// A new node.
    pub(super) fn new(kind: NodeKind) -> Self {
        let start = MiniChain::default().start().expect("a chain that can be followed");
        let puts = first_entries(&spec(kind), start).expect("a new node");
        Self::restore(kind, puts.into_iter().filter_map(|put| Some((put.key, put.value?))).collect())
    }

    /// A node with these entries.
    pub(super) fn restore(kind: NodeKind, entries: Entries) -> Self {
        let cold: Arc<Cold> = Arc::default();
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        Self { kind, engine: build(kind, &entries, cold.clone()), entries, cold, bytes }
    }

    /// All that it recorded.
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Asks one message. Panics if a refusal leaves a trace, or if there is a panic inside.
    pub(super) fn ask(&mut self, channel: Option<ChannelRef>, message: Vec<u8>) -> Answer {
        let row = match guard::row(self.kind, &message) {
            Ok(row) => row,
            Err(refusal) => return Answer { reply: Err(refusal), changed: false },
        };
        let request = Request { request_id: 0, channel, message };
        let engine = &mut self.engine;
        let Ok(handled) = catch_unwind(AssertUnwindSafe(|| engine.handle(row, &request))) else {
            panic!("{} panics: {}: {}", row.name, crate::last_panic(), hex::encode(&request.message));
        };
        let is_refused = handled.reply.is_err();
        assert!(!handled.distrust, "{} ends halfway: {:?}", row.name, handled.reply);
        let changed = self.record(handled.puts);
        assert!(!(is_refused && changed), "{} was refused and changed entries", row.name);
        Answer { reply: handled.reply, changed }
    }

    /// Adds a block, or takes the last one back.
    pub(super) fn move_tip(&mut self, block: &ChainBlock, forwards: bool) {
        let concerned = self.engine.concerned(block);
        let engine = &mut self.engine;
        let effect = if forwards {
            let effect = apply_block(engine.node(), block, &attestor(), &concerned).expect("the block fits");
            engine.note_block(block, &effect);
            effect
        } else {
            let effect = revert_block(engine.node(), block, &attestor(), &concerned).expect("it is the last one");
            engine.revert_block(block);
            effect
        };
        let puts = engine.block_changes(&effect).expect("the state can be encoded");
        self.record(puts);
    }

    /// Builds the node anew from what it recorded: it must be the same.
    pub(super) fn restart(&mut self) {
        let before = self.book();
        self.engine = build(self.kind, &self.entries, self.cold.clone());
        let after = self.book();
        assert!(before.channels == after.channels, "{:?} became {:?}", before.channels, after.channels);
        assert!(before.payments == after.payments, "{:?} became {:?}", before.payments, after.payments);
        // Dust is forgotten with time, so it may be a little less.
        assert!(before.dust.allowance_msat == after.dust.allowance_msat, "the allowance of dust is another");
    }

    fn book(&self) -> BookView {
        let mut book = self.engine.book();
        book.payments.iter_mut().for_each(|payment| payment.channels.sort()); // their order means nothing
        book
    }

    fn record(&mut self, puts: Vec<Put>) -> bool {
        let mut cold = self.cold.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for Put { key, value } in puts {
            let entries = if key.starts_with(COLD) { &mut *cold } else { &mut self.entries };
            let (length, new) = (key.len(), value.as_ref().map_or(0, |value| key.len() + value.len()));
            let old = match value.clone() {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
            changed |= old != value;
            self.bytes = self.bytes + new - old.map_or(0, |old| length + old.len());
        }
        assert!(self.bytes <= MAX_STATE_BYTES, "the state has {} bytes", self.bytes);
        changed
    }
}

fn build(kind: NodeKind, entries: &Entries, cold: Arc<Cold>) -> Engine {
    let limits = LimitsConfig {
        max_payment_msat: 1_000_000_000_000,
        max_payment_msat_per_hour: 1_000_000_000_000_000,
        allow: vec![ALLOWED.to_owned()],
        ..LimitsConfig::default()
    };
    let settings = Settings { limits, funding_depth: 1, oracle: attestor().public_key(), desk: Arc::default() };
    let chain = Arc::new(MiniChain::default());
    let restored = Engine::restore(&spec(kind), &settings, chain, Arc::default(), cold, entries.clone());
    restored.expect("what was recorded can be restored")
}

fn attestor() -> Attestor {
    Attestor::new(&SecretKey::from_slice(&[9; 32]).expect("a scalar"))
}

fn spec(kind: NodeKind) -> NodeSpec {
    NodeSpec {
        name: NodeName::new("fuzzed").expect("a name"),
        kind,
        network: Network::Regtest,
        seed: Secret::init(|seed| seed.fill(3)),
        derivation: Derivation::Native,
        chain_code: None,
        operations_key: None,
    }
}

/// Where closes may pay us.
pub(super) fn allowed() -> ScriptBuf {
    let address: Address<NetworkUnchecked> = ALLOWED.parse().expect("an address");
    address.assume_checked().script_pubkey()
}
