//! An lnd node: its calls are understood here, class by class, and answered or refused.
//!
//! ```text
//! mod.rs           the node: restored from its entries, one call at a time
//! method.rs        lnd's calls                         sign_psbt.rs    SignPsbt
//! draft.rs         answers that nobody has permitted   signing.rs      signatures
//! messages.rs      SignMessage                         shared_key.rs   DeriveSharedKey
//! psbt.rs          PSBTs, read strictly                transactions.rs what a transaction is
//! scripts.rs       the scripts of BOLT 3
//! keys.rs          keys by family and purpose          windows.rs      which keys and outputs are ours
//! channel.rs       one channel                         channels.rs     all of a node
//! htlcs.rs         what is known of their HTLCs        view.rs         channels as the operator sees them
//! states.rs        which of their states are revoked   adopt.rs        channels from before lnd's keys were here
//! coins.rs         what coins were said to hold        wallet.rs       amounts, limits, fundings
//! asked.rs         what the spending policy is asked
//! ```
//!
//! lnd's calls are kinder than hsmd's messages: they do not tell when a commitment is revoked, nor what a peer has signed.
//! `docs/lnd.md` says what follows from that.

pub mod adopt;
mod asked;
pub mod channel;
pub mod channels;
mod coins;
mod draft;
mod htlcs;
pub mod keys;
mod lately;
mod messages;
mod method;
pub mod psbt;
pub mod scripts;
mod shared_key;
mod sign_psbt;
mod signing;
mod states;
pub mod transactions;
mod view;
mod wallet;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use claviger_proto::signrpc::{
    MuSig2SessionRequest, SharedKeyRequest, SharedKeyResponse, SignMessageReq, SignMessageResp,
};
use prost::Message;

use self::adopt::{Adopted, BackupError};
use self::channels::Channels;
use self::coins::Coins;
pub(super) use self::draft::{Draft, Drafter};
use self::keys::{Family, KeyPath, Keys};
use self::messages::Kind;
pub use self::method::Method;
use self::shared_key::Question;
use self::wallet::Wallet;
use self::windows::Windows;
use super::actor::ChainFacts;
use super::clock::NodeClock;
use super::counter::Counter;
use super::engine::{Handled, NodeSpec, RestoreError, Settings};
use super::guard::Row;
use super::identity;
use super::limits::{self, Limits};
use super::orders::{Given, Order, OrderError, Orders};
use super::standing::Claims;
use crate::config::LimitsConfig;
use crate::facts::Fact;
use crate::journal::Put;
use crate::pipeline::{ChannelName, Request};
use crate::reasons::{Reason, Refusal};

const TIDY_EVERY_MS: u64 = 600_000;

/// The entry that says whose the others are.
const IDENTITY: &str = "lnd/node";

/// One lnd node. After a panic inside, or a failed commit, it must be dropped (P6).
pub struct LndNode {
    keys: Arc<Keys>,
    network: Network,
    channels: Channels,
    windows: Windows,
    wallet: Wallet,
    coins: Coins,
    limits: Limits,
    config: LimitsConfig,
    orders: Orders,
    claims: Claims,
    counter: Counter,
    tidied_ms: u64,
    clock: Arc<NodeClock>,
    chain: Arc<dyn ChainFacts>,
}

/// What a request came to, before it is encoded.
struct Answer {
    reply: Vec<u8>,
    puts: Vec<Put>,
    facts: Vec<Fact>,
}

/// The node's public key.
pub fn node_id(spec: &NodeSpec) -> PublicKey {
    keys::node_id(&spec.seed, chain_code(spec), spec.network)
}

/// The entries of a node that has not run yet.
pub fn first_entries(spec: &NodeSpec) -> Vec<Put> {
    vec![identity::put(IDENTITY, node_id(spec), spec.network)]
}

fn chain_code(spec: &NodeSpec) -> &crate::keys::memory::Secret<32> {
    spec.chain_code.as_ref().expect("the registry gives every node of kind lnd its chain code")
}

impl LndNode {
    /// Builds the node from all live entries of its tenant.
    pub fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        chain: Arc<dyn ChainFacts>,
        clock: Arc<NodeClock>,
        mut entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Entries(error.to_string());
        let keys = Arc::new(Keys::new(&spec.seed, chain_code(spec), spec.network));
        identity::take(&mut entries, IDENTITY, keys.node_id(), spec.network)?;
        settings.desk.load(&spec.name, &mut entries, clock.now_ms()).map_err(|e| unreadable(&e))?;
        let orders = Orders::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let channels = Channels::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let coins = Coins::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let spent = entries.remove(limits::KEY);
        let limits = Limits::restore(settings.limits.clone(), clock.clone(), spent.as_deref());
        let limits = limits.map_err(|e| unreadable(&e))?;
        let unproven = entries.remove(wallet::ENTRY);
        let wallet =
            Wallet::restore(&settings.limits, spec.network, unproven.as_deref()).map_err(|e| unreadable(&e))?;
        let seen = entries.remove(Windows::entry());
        let windows = Windows::restore(&keys, seen.as_deref()).ok_or_else(|| unreadable(&Windows::entry()))?;
        if let Some(key) = entries.into_keys().next() {
            return Err(unreadable(&format!("the entry {key} is not known")));
        }
        let (network, config) = (spec.network, settings.limits.clone());
        let counter = Counter::new(settings.desk.clone(), spec.name.clone(), network, clock.clone());
        Ok(Self {
            keys,
            network,
            channels,
            windows,
            wallet,
            coins,
            limits,
            config,
            orders,
            claims: Claims::default(),
            counter,
            tidied_ms: 0,
            clock,
            chain,
        })
    }

    /// How many channels the node has.
    pub fn channels(&self) -> usize {
        self.channels.count()
    }

    /// States of its channels that were replaced and are not proven to be revoked; `None` if lnd has no watchtower.
    pub fn unproven_states(&self) -> Option<u64> {
        self.channels.unproven_states()
    }

    /// What is ordered about the node.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The node's clock.
    pub fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Carries out an operator's order. Returns what must be durable before it counts.
    pub fn order(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        if let Order::Freeze(Some(channel)) | Order::Exempt { channel, .. } = order
            && !matches!(channel, ChannelName::Funded(funding) if self.channels.get(funding).is_some())
        {
            return Err(OrderError::NoChannel(*channel));
        }
        self.orders.carry_out(order, given)
    }

    /// Takes over the channels in lnd's static channel backup that were opened before its keys came here. Returns what came
    /// of each, and what must be durable before that counts.
    pub fn adopt(&mut self, backup: &[u8]) -> Result<(Adopted, Vec<Put>), BackupError> {
        let (mut all, mut puts) = (Adopted::default(), Vec::new());
        for entry in adopt::read(&self.keys, self.network, backup)? {
            let (funding, channel) = match entry {
                Ok(entry) => entry,
                Err(refused) => {
                    all.refused.push(refused);
                    continue;
                }
            };
            let (our_index, payment_index) = channel.indices();
            match self.channels.adopt(funding, channel) {
                Ok(Some(changed)) => {
                    self.windows.saw_channel(&self.keys, our_index, payment_index);
                    puts.extend(changed);
                    all.adopted.push(funding);
                }
                Ok(None) => all.known.push(funding),
                Err(error) => all.refused.push((funding, error)),
            }
        }
        puts.extend(self.windows.take_put());
        Ok((all, puts))
    }

    /// Drafts answers meanwhile, on other threads.
    pub(super) fn drafter(&self) -> Drafter {
        Drafter::new(self.keys.clone())
    }

    /// Answers one call, of which there may be a `draft`.
    pub(super) fn handle(&mut self, row: &Row, request: &Request, draft: Option<Draft>) -> Handled {
        self.limits.begin();
        self.counter.begin(None);
        let body = request.message.get(2..).unwrap_or_default();
        let answer = self.answer(row, body, draft);
        let settled = self.counter.finish(answer.is_ok());
        let (mut puts, policy) = (settled.puts, settled.records);
        match answer {
            Ok(answer) => {
                puts.extend(answer.puts);
                puts.extend(self.limits.charge());
                puts.extend(self.windows.take_put());
                puts.extend(self.tidy());
                Handled { puts, policy, facts: answer.facts, ..Handled::plain(Ok(answer.reply)) }
            }
            Err(refusal) => Handled { puts, policy, ..Handled::plain(Err(refusal)) },
        }
    }

    /// What changed of the node's part of the desk by itself: looked at now and then, with an answer.
    fn tidy(&mut self) -> Vec<Put> {
        let now_ms = self.clock.now_ms();
        if now_ms < self.tidied_ms.saturating_add(TIDY_EVERY_MS) {
            return Vec::new();
        }
        self.tidied_ms = now_ms;
        self.counter.tidy()
    }

    fn answer(&mut self, row: &Row, body: &[u8], draft: Option<Draft>) -> Result<Answer, Refusal> {
        let Some(method) = Method::ALL.iter().find(|method| **method as u16 == row.number) else {
            return Err(Refusal::new(Reason::MessageUnknown, row.name));
        };
        match method {
            Method::SignPsbt => {
                let Self { keys, windows, .. } = self;
                let draft = match draft {
                    Some(draft) => draft,
                    None => Draft::of(&decode(body)?, keys, |out| windows.payment(keys, out))?,
                };
                self.sign_psbt(draft)
            }
            Method::DeriveSharedKey => self.derive_shared_key(&decode(body)?),
            Method::SignMessage => self.sign_message(&decode(body)?),
            Method::MuSig2CreateSession => {
                let request: MuSig2SessionRequest = decode(body)?;
                if !request.pregenerated_local_nonce.is_empty() {
                    return Err(Refusal::new(Reason::NonceForeign, "the session comes with its secret nonce"));
                }
                Err(Refusal::new(Reason::BlindDigest, "MuSig2 sessions sign digests"))
            }
            // Without a session there is nothing to go on with.
            _ => Err(Refusal::new(Reason::BlindDigest, "there is no such MuSig2 session")),
        }
    }

    fn derive_shared_key(&mut self, request: &SharedKeyRequest) -> Result<Answer, Refusal> {
        let question = Question::parse(request, &self.keys)?;
        let mut puts = Vec::new();
        if question.family == Family::RevocationRoot {
            let Some(our_index) = self.windows.funding(&self.keys, &question.point) else {
                let detail = "a revocation root is shared with a funding key of this node only";
                return Err(Refusal::new(Reason::SecretPurpose, detail));
            };
            puts = self.channels.reserve(our_index, question.index)?;
        } else {
            let purpose = question.family.is_for_towers().then_some("tower");
            self.counter.ecdh(&question.point.serialize(), purpose)?;
            if question.family == Family::TowerSession {
                puts.extend(self.channels.watch());
            }
        }
        let shared_key = question.answer(&self.keys).to_vec();
        let facts = vec![Fact::text("key", KeyPath::Channel(question.family, question.index).to_string())];
        Ok(Answer { reply: SharedKeyResponse { shared_key }.encode_to_vec(), puts, facts })
    }

    fn sign_message(&mut self, request: &SignMessageReq) -> Result<Answer, Refusal> {
        let (kind, signature) = messages::sign(request, &self.keys, &mut self.windows, self.network)?;
        asked::message(&self.counter, &kind, &request.msg)?;
        let puts = match &kind {
            Kind::ChannelAnnouncement(announced) => self.channels.announce(announced)?.into_iter().collect(),
            _ => Vec::new(),
        };
        let facts = vec![Fact::text("message", kind.name())];
        Ok(Answer { reply: SignMessageResp { signature }.encode_to_vec(), puts, facts })
    }
}

fn decode<T: Message + Default>(body: &[u8]) -> Result<T, Refusal> {
    T::decode(body).map_err(|error| Refusal::new(Reason::Malformed, format!("the call cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
