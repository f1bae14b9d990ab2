//! A Lightspark account with remote signing: its webhooks are understood here, one by one, and answered or refused.
//!
//! ```text
//! mod.rs       the account: restored from its entries, one event at a time
//! json.rs      strict JSON                    fields.rs        its fields
//! event.rs     events as typed fields         transactions.rs  what a job would sign
//! paths.rs     derivation paths by purpose    keys.rs          keys
//! seen.rs      events that were answered      letter.rs        what Lightspark is told of them
//! channel.rs   what is known of each channel
//! jobs.rs      a batch of signing jobs        claims.rs        those that claim from a commitment
//! operations/  what the account's own services call Lightspark for
//! payments.rs  the payments among it, and the HTLCs in which they leave
//! view.rs      its channels, as the operator sees them
//! secrets.rs   per-commitment points and secrets of both sides
//! recovery/    what collects the money without Lightspark
//! asked.rs     what all of it asks of the spending policy
//! ```
//!
//! Lightspark shows neither our own commitments nor what a peer has signed of them, before it asks to close with one.
//! `docs/lightspark.md` says what follows from that.

mod asked;
mod channel;
mod claims;
mod event;
mod fields;
mod jobs;
mod json;
mod keys;
mod letter;
mod operations;
mod paths;
mod payments;
mod recovery;
mod secrets;
mod seen;
mod transactions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network, ScriptBuf, Txid};
use lightning::ln::chan_utils::CounterpartyCommitmentSecrets;
use lightning::util::ser::Readable;
use serde_json::json;

pub use self::event::{Ask, Event, EventError, Job, Method, SubEvent};
pub use self::json::{JsonError, MAX_BYTES};
pub use self::letter::{Letter, gone as letter_gone, letters};
pub use self::operations::{MAX_CLEARANCE_BYTES, MAX_OPERATION_BYTES, SIGN_OPERATION, operation_request};
pub use self::paths::{ChannelKey, KeyPath, PathError};
pub use self::recovery::{RECOVER, Recovered, Signed};

use self::channel::Channel;
use self::keys::Keys;
use self::payments::Payments;
use self::seen::{Kind, Seen};
use super::clock::NodeClock;
use super::counter::Counter;
use super::engine::{Handled, NodeSpec, RestoreError, Settings};
use super::guard::Row;
use super::identity;
use super::limits::{self, Limits};
use super::orders::{Given, Order, OrderError, Orders};
use super::standing::{Claim, Claims, Step};
use crate::config::LimitsConfig;
use crate::facts::Fact;
use crate::journal::Put;
use crate::keys::rsa::RsaKey;
use crate::pipeline::{ChannelName, Request};
use crate::reasons::{Reason, Refusal};

/// The entry that says whose the others are.
const IDENTITY: &str = "lightspark/node";
/// The entry that names L1 transactions whose outputs are charged already.
const WALLET: &str = "lightspark/wallet";
/// The entry that holds withdrawals that were requested and are not paid out yet.
const WITHDRAWALS: &str = "lightspark/withdrawals";
/// In front of a channel's number.
const CHANNEL: &str = "lightspark/channel/";
/// In front of a channel's number: the secrets that its counterparty revealed, as BOLT 3 keeps them.
const REVEALED: &str = "lightspark/revealed/";
/// So many L1 transactions are remembered, and so many withdrawals.
const REMEMBERED: usize = 64;

/// One account. After a panic inside, or a failed commit, it must be dropped (P6).
pub struct LightsparkNode {
    keys: Keys,
    /// In place of the key at m/5, of an account without remote signing.
    operations_key: Option<Arc<RsaKey>>,
    network: Network,
    channels: BTreeMap<u32, Channel>,
    /// Lightspark's ids of the channels.
    entities: BTreeMap<String, u32>,
    revealed: BTreeMap<u32, CounterpartyCommitmentSecrets>,
    /// L1 transactions whose outputs are charged, oldest first.
    charged: Vec<Txid>,
    /// Withdrawals that the policy permitted and no transaction has paid out yet: where to, and how much in sat. Oldest first.
    withdrawals: Vec<(ScriptBuf, u64)>,
    payments: Payments,
    /// What was last asked about channels, and what is being asked: the channel's number, and the commitment's.
    claims: Claims,
    claimed: Option<(u32, Step, u64)>,
    allow: BTreeSet<ScriptBuf>,
    seen: Seen,
    operations: Seen,
    /// Signatures that are not the same when they are made again.
    signed: Seen,
    limits: Limits,
    config: LimitsConfig,
    orders: Orders,
    counter: Counter,
    clock: Arc<NodeClock>,
}

/// What an event came to.
struct Answer {
    /// The GraphQL variables, or nothing.
    reply: Vec<u8>,
    puts: Vec<Put>,
    facts: Vec<Fact>,
}

impl Answer {
    fn new(reply: &serde_json::Value) -> Self {
        Self { reply: reply.to_string().into_bytes(), puts: Vec::new(), facts: Vec::new() }
    }

    fn nothing() -> Self {
        Self { reply: Vec::new(), puts: Vec::new(), facts: Vec::new() }
    }
}

/// The request that stands for a webhook: the number of its kind, whether the answer is called back, its body.
pub fn request(method: Method, calls_back: bool, body: &[u8]) -> Vec<u8> {
    [&(method as u16).to_be_bytes()[..], &[u8::from(calls_back)], body].concat()
}

/// The largest such request, in bytes.
pub const MAX_REQUEST: usize = 3 + MAX_BYTES;

/// The node's public key.
pub fn node_id(spec: &NodeSpec) -> PublicKey {
    keys(spec).node_id()
}

/// The entries of an account that has not run yet.
pub fn first_entries(spec: &NodeSpec) -> Vec<Put> {
    vec![identity::put(IDENTITY, node_id(spec), spec.network)]
}

/// What refuses an event that is not understood.
pub fn refusal(error: &EventError) -> Refusal {
    let reason = match error {
        EventError::Path(PathError::NotCanonical) => Reason::PathNotCanonical,
        EventError::Path(PathError::NoPurpose) => Reason::KeyPurpose,
        EventError::UnknownType | EventError::UnknownSubEvent => Reason::MessageUnknown,
        EventError::Json(_) | EventError::Field(_) => Reason::Malformed,
    };
    Refusal::new(reason, error.to_string())
}

fn keys(spec: &NodeSpec) -> Keys {
    let chain_code = spec.chain_code.as_ref().expect("the registry gives every account its chain code");
    Keys::new(&spec.seed, chain_code, spec.network)
}

impl LightsparkNode {
    /// Builds the account from all live entries of its tenant.
    pub fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        clock: Arc<NodeClock>,
        mut entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Entries(error.to_string());
        let keys = keys(spec);
        identity::take(&mut entries, IDENTITY, keys.node_id(), spec.network)?;
        settings.desk.load(&spec.name, &mut entries, clock.now_ms()).map_err(|error| unreadable(&error))?;
        let orders = Orders::restore(&mut entries).map_err(|error| unreadable(&error))?;
        let spent = entries.remove(limits::KEY);
        let limits = Limits::restore(settings.limits.clone(), clock.clone(), spent.as_deref());
        let limits = limits.map_err(|error| unreadable(&error))?;
        let charged = entries.remove(WALLET).map_or(Ok(Vec::new()), |entry| serde_json::from_slice(&entry));
        let charged = charged.map_err(|_| unreadable(&WALLET))?;
        let withdrawals = entries.remove(WITHDRAWALS).map_or(Ok(Vec::new()), |entry| serde_json::from_slice(&entry));
        let withdrawals = withdrawals.map_err(|_| unreadable(&WITHDRAWALS))?;
        let payments = Payments::restore(&mut entries).ok_or_else(|| unreadable(&"a payment"))?;
        let mut seen = |kind| Seen::restore(kind, &mut entries, &clock).ok_or_else(|| unreadable(&"what was answered"));
        let (seen, operations, signed) = (seen(Kind::Event)?, seen(Kind::Operation)?, seen(Kind::Signature)?);
        if !letter::take(&mut entries) {
            return Err(unreadable(&"a letter"));
        }
        let (mut channels, mut entities, mut revealed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (key, entry) in entries {
            let numbered = |prefix| key.strip_prefix(prefix).and_then(|number: &str| number.parse::<u32>().ok());
            if let (Some(number), Some(channel)) = (numbered(CHANNEL), Channel::read(&entry)) {
                entities.insert(channel.entity.clone(), number);
                channels.insert(number, channel);
            } else if let Some(number) = numbered(REVEALED) {
                let secrets = CounterpartyCommitmentSecrets::read(&mut &entry[..]).map_err(|_| unreadable(&key))?;
                revealed.insert(number, secrets);
            } else {
                return Err(unreadable(&format!("the entry {key}")));
            }
        }
        let config = settings.limits.clone();
        let script =
            |text: &String| Some(text.parse::<Address<_>>().ok()?.require_network(spec.network).ok()?.script_pubkey());
        let allow = config.allow.iter().filter_map(script).collect();
        let network = spec.network;
        let counter = Counter::new(settings.desk.clone(), spec.name.clone(), network, clock.clone());
        Ok(Self {
            keys,
            operations_key: spec.operations_key.clone(),
            network,
            channels,
            entities,
            revealed,
            charged,
            withdrawals,
            payments,
            claims: Claims::default(),
            claimed: None,
            allow,
            seen,
            operations,
            signed,
            limits,
            config,
            orders,
            counter,
            clock,
        })
    }

    /// How many channels the account has.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// What is ordered about the account.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The account's clock.
    pub fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Carries out an operator's order. Returns what must be durable before it counts.
    pub fn order(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        if let Order::Freeze(Some(name)) | Order::Exempt { channel: name, .. } = order
            && !self.channels.values().any(|channel| channel.outpoint().map(ChannelName::from) == Some(*name))
        {
            return Err(OrderError::NoChannel(*name));
        }
        self.orders.carry_out(order, given)
    }

    /// Answers one webhook, as [`request`] hands it in, one operation, as [`operation_request`] does, or one channel of a recovery
    /// kit, which follows the number [`RECOVER`]. The reply is empty if there is nothing to say.
    pub fn handle(&mut self, row: &Row, request: &Request) -> Handled {
        self.limits.begin();
        self.counter.begin(None);
        self.claimed = None;
        let (answer, letter) = match request.message.get(2..).unwrap_or_default() {
            body if row.number == SIGN_OPERATION => (self.sign_operation(body), None),
            body if row.number == RECOVER => (self.recover(body), None),
            [calls_back, body @ ..] => self.answer(row, *calls_back != 0, body),
            [] => (Err(refusal(&JsonError::Syntax.into())), None),
        };
        self.note_claim(answer.as_ref().err());
        let settled = self.counter.finish(answer.is_ok());
        let (mut puts, policy) = (settled.puts, settled.records);
        puts.extend(letter);
        match answer {
            Ok(answer) => {
                puts.extend(answer.puts);
                // The money of an operation is charged when a job moves it; without remote signing no job ever does.
                let moves_now = row.number != SIGN_OPERATION || self.operations_key.is_some();
                puts.extend(moves_now.then(|| self.limits.charge()).flatten());
                puts.extend(self.counter.tidy());
                Handled { puts, policy, facts: answer.facts, ..Handled::plain(Ok(answer.reply)) }
            }
            Err(refusal) => Handled { puts, policy, ..Handled::plain(Err(refusal)) },
        }
    }

    /// The answer, and the entry of what Lightspark is told if it is called back.
    fn answer(&mut self, row: &Row, calls_back: bool, body: &[u8]) -> (Result<Answer, Refusal>, Option<Put>) {
        let event = match Event::parse(body, self.network) {
            Ok(event) => event,
            Err(error) => return (Err(refusal(&error)), None),
        };
        let Ask::Remote(network, sub_event) = &event.ask else {
            return (Err(Refusal::new(Reason::Malformed, "the event asks for nothing")), None);
        };
        if sub_event.method() as u16 != row.number {
            return (Err(Refusal::new(Reason::Malformed, "the event is not what it was handed in as")), None);
        }
        let answer = self.answer_once(&event, *network, sub_event, body);
        let reply = answer.as_ref().map(|answer| &answer.reply[..]);
        let letter = calls_back.then(|| Letter::of(sub_event, reply, self.clock.now_ms())).flatten();
        (answer, letter.map(|letter| letter.put(&event.id)))
    }

    fn answer_once(
        &mut self,
        event: &Event,
        network: Network,
        sub_event: &SubEvent,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        if self.operations_key.is_some() {
            return Err(Refusal::new(
                Reason::NotAllowed,
                "the account has an operation signing key, and no remote signing",
            ));
        }
        // Keys are the same on all networks: what is signed for one is good on the other.
        if network != self.network {
            let detail = format!("the event is for {network}; the account is on {}", self.network);
            return Err(Refusal::new(Reason::NetworkForeign, detail));
        }
        let (now_ms, body_sha256) = (self.clock.now_ms(), sha256::Hash::hash(body));
        seen::require_fresh(event.at_ms, now_ms)?;
        let told = Fact::text("event", event.id.as_str());
        if let Some(reply) = self.seen.answer(&event.id, &body_sha256)? {
            return Ok(Answer { reply, puts: Vec::new(), facts: vec![told] });
        }
        let mut answer = self.answer_new(&event.entity, sub_event)?;
        answer.puts.extend(self.seen.put(&event.id, event.at_ms, body_sha256, &answer.reply, now_ms));
        answer.facts.push(told);
        Ok(answer)
    }

    fn answer_new(&mut self, entity: &str, sub_event: &SubEvent) -> Result<Answer, Refusal> {
        match sub_event {
            SubEvent::Ecdh => Err(Refusal::new(Reason::SecretPurpose, "a shared secret with the node's identity")),
            SubEvent::SignInvoice => Err(Refusal::new(Reason::BlindDigest, "an invoice is shown as its digest only")),
            SubEvent::GetPoint { channel, index } => self.tell_point(entity, *channel, *index),
            SubEvent::ReleaseSecret { channel, index } => self.release_secret(entity, *channel, *index),
            SubEvent::RevealSecret { index, secret } => self.reveal(entity, *index, *secret),
            SubEvent::InvoiceHash { invoice } => {
                let nonce = self.keys.invoice_nonce(invoice);
                let hash = self.keys.payment_hash(&nonce);
                let variables = json!({
                    "invoice_id": invoice, "payment_hash": hex::encode(hash), "preimage_nonce": hex::encode(nonce),
                });
                Ok(Answer::new(&variables))
            }
            SubEvent::ReleasePreimage { invoice, nonce } => {
                if *nonce != Some(self.keys.invoice_nonce(invoice)) {
                    let detail =
                        format!("the nonce of invoice {invoice} is not the one that its payment hash came with");
                    return Err(Refusal::new(Reason::PreimageNonce, detail));
                }
                let preimage = self.keys.preimage(&self.keys.invoice_nonce(invoice));
                Ok(Answer::new(&json!({ "invoice_id": invoice, "payment_preimage": hex::encode(&preimage[..]) })))
            }
            SubEvent::Sign(jobs) => self.sign(entity, jobs),
        }
    }

    /// The channel with this number, which must be the one that the event is about.
    fn channel(&self, entity: &str, number: u32) -> Result<&Channel, Refusal> {
        let channel = self.channels.get(&number).filter(|channel| channel.entity == entity);
        channel.ok_or_else(|| Refusal::new(Reason::ChannelUnknown, format!("m/3/{number} is not the path of {entity}")))
    }

    /// Keeps a changed channel. Returns its entry.
    fn keep(&mut self, number: u32, channel: Channel) -> Vec<Put> {
        if self.channels.get(&number) == Some(&channel) {
            return Vec::new();
        }
        let entry = put(format!("{CHANNEL}{number}"), channel.entry());
        self.entities.insert(channel.entity.clone(), number);
        self.channels.insert(number, channel);
        vec![entry]
    }

    /// Keeps the withdrawals that are not paid out yet. Returns their entry.
    fn keep_withdrawals(&mut self, mut withdrawals: Vec<(ScriptBuf, u64)>) -> Put {
        // The policy is asked again about one that is forgotten.
        let too_many = withdrawals.len().saturating_sub(REMEMBERED);
        withdrawals.drain(..too_many);
        self.withdrawals = withdrawals;
        put(WITHDRAWALS.to_owned(), serde_json::to_vec(&self.withdrawals).expect("text and numbers always encode"))
    }

    fn frozen(&self) -> Option<Refusal> {
        self.orders.node_stopped("account")
    }

    /// Why a channel takes no new state.
    fn stopped(&self, channel: &Channel) -> Option<Refusal> {
        match channel.outpoint() {
            Some(funding) => self.orders.channel_stopped(&funding.into(), self.clock.now_ms()),
            None => self.frozen(),
        }
    }

    /// Keeps what was asked about a channel, with what came of it.
    fn note_claim(&mut self, refusal: Option<&Refusal>) {
        let Some((number, step, commitment)) = self.claimed.take() else { return };
        let Some(funding) = self.channels.get(&number).and_then(Channel::outpoint) else { return };
        let (at_ms, refused) = (self.clock.now_ms(), refusal.map(|refusal| refusal.reason));
        self.claims.keep(funding, Claim { step, number: commitment, balance: None, at_ms, refused });
    }
}

fn put(key: String, value: Vec<u8>) -> Put {
    Put { key, value: Some(value) }
}

#[cfg(test)]
mod tests;
