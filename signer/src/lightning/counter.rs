//! A node's counter at the policy's desk: asks for the message being handled, and settles when the message has ended.
//!
//! Several things may be asked of one message; all must be permitted. What was asked, and what was answered, goes into the
//! journal with the message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::{Address, Network, ScriptBuf};
use claviger_policy::actions::Action;
use claviger_policy::bundle::Bundle;
use claviger_policy::facts::FactId;
use claviger_policy::limits::Limit;
use claviger_policy::request::Request;
use claviger_policy::tooling::{Event, Record};

use super::book::{MAX_FEE_PERCENT, Paid};
use super::clock::NodeClock;
use crate::journal::Put;
use crate::names::NodeName;
use crate::pipeline::ChannelRef;
use crate::policy::{Ask, Decided, Desk, Ends};
use crate::reasons::Refusal;

/// One node's place at the desk.
#[derive(Debug)]
pub struct Counter {
    desk: Arc<Desk>,
    node: NodeName,
    network: Network,
    clock: Arc<NodeClock>,
    turn: Mutex<Turn>,
}

/// The message being handled.
#[derive(Debug, Default)]
struct Turn {
    channel: Option<ChannelRef>,
    /// In force when it began.
    bundle: Option<Arc<Bundle>>,
    asked: Vec<Decided>,
}

/// What the policy had to do with a message.
#[derive(Debug, Default)]
pub struct Settled {
    /// What was decided, for the journal; the ids are still to be named.
    pub records: Vec<Record>,
    /// Changed entries.
    pub puts: Vec<Put>,
}

impl Counter {
    /// The counter of `node`.
    pub fn new(desk: Arc<Desk>, node: NodeName, network: Network, clock: Arc<NodeClock>) -> Self {
        Self { desk, node, network, clock, turn: Mutex::default() }
    }

    /// A message begins, of a channel if it names one.
    pub fn begin(&self, channel: Option<ChannelRef>) {
        *self.lock() = Turn { channel, bundle: self.desk.bundle(), asked: Vec::new() };
    }

    /// The channel that the message names.
    pub fn channel(&self) -> Option<ChannelRef> {
        self.lock().channel
    }

    /// The bundle that was in force when the message began.
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        self.lock().bundle.clone()
    }

    /// The routing fee that the bundle lets a payment cost on top, in percent.
    pub fn max_fee_percent(&self) -> u64 {
        let bundle = self.bundle();
        let limits = bundle.as_deref().map(|bundle| &bundle.policy().limits);
        limits.map_or(MAX_FEE_PERCENT, |limits| Limit::MaxRoutingFeePercent.stricter(MAX_FEE_PERCENT, limits))
    }

    /// Begins a request for `action`; `None` if no policy is in force, and nothing needs to be asked.
    pub fn request(&self, action: Action) -> Option<Request> {
        self.desk.is_open().then(|| Request::new(self.node.as_str(), action, self.clock.now_ms()))
    }

    /// Whether the policy in force looks at `fact` when it is asked about `action`.
    pub fn looks_at(&self, fact: FactId, action: Action) -> bool {
        self.desk.looks_at(fact, action, &self.node, self.clock.now_ms())
    }

    /// Asks the desk. `key` is what the request is known by if it comes again.
    pub fn ask(&self, request: Request, key: String, ends: Ends) -> Result<(), Refusal> {
        let now_ms = request.time_ms;
        let Some(decided) = self.desk.decide(Ask { request, key, ends }, now_ms) else { return Ok(()) };
        let refusal = decided.refusal.clone();
        self.lock().asked.push(decided);
        refusal.map_or(Ok(()), Err)
    }

    /// Whose requests they are.
    pub fn node(&self) -> &str {
        self.node.as_str()
    }

    /// The message has ended: it was answered, or refused by whomever.
    pub fn finish(&self, answered: bool) -> Settled {
        let asked = std::mem::take(&mut self.lock().asked);
        let mut settled = Settled::default();
        for decided in asked {
            let ended = self.desk.close(&decided, answered, self.clock.now_ms());
            settled.puts.extend(decided.puts.into_iter().chain(ended));
            settled.records.push(decided.record);
        }
        settled
    }

    /// An approved payment has ended: `paid` is how much left for it.
    pub fn paid(&self, payment_hash: &str, paid: Paid) -> Option<(Event, Vec<Put>)> {
        let key = payment_key(payment_hash);
        let amounts = match paid {
            Paid::All => Some(vec![]),
            Paid::Part(amount_msat) if amount_msat > 0 => Some(vec![(FactId::AmountMsat, amount_msat)]),
            Paid::Part(_) => None,
        };
        self.desk.ended(&self.node, &key, amounts.as_deref(), self.clock.now_ms())
    }

    /// What changed of the node's part of the desk by itself.
    pub fn tidy(&self) -> Vec<Put> {
        self.desk.tidy(&self.node, self.clock.now_ms())
    }

    /// Destinations as rules and lists write them, each once.
    pub fn destinations<'a>(&self, scripts: impl Iterator<Item = &'a ScriptBuf>) -> Vec<String> {
        let text = |script: &ScriptBuf| match Address::from_script(script, self.network) {
            Ok(address) => address.to_string(),
            Err(_) => format!("script:{}", script.to_hex_string()),
        };
        let mut all: Vec<_> = scripts.map(text).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether the policy in force has this output on a list of destinations.
    pub fn is_listed(&self, script: &ScriptBuf) -> bool {
        let now_ms = self.clock.now_ms();
        self.desk.bundle().is_some_and(|bundle| bundle.policy().lists.destination(script, now_ms).next().is_some())
    }

    // A panic while it is held stays with this node: the actor drops it.
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a payment is known by at the desk.
pub fn payment_key(payment_hash: &str) -> String {
    format!("payment:{payment_hash}")
}
