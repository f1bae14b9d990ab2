//! vls's state machine for one node, embedded: built from journal entries, asked one message at a time.
//!
//! Its own negotiation never decides anything: it is started with protocol version 6, under which a commitment secret
//! leaves only through RevokeCommitmentTx, and later HsmdInit messages are answered without it.

mod coins;
mod funding;
mod negotiation;
mod operator;
mod restoring;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, OutPoint};
use claviger_policy::tooling::{Event, Record};
use lightning_signer::node::Node;
use lightning_signer::persist::Persist;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::Message;
use vls_protocol_signer::handler::{Handler, RootHandler};

use super::actor::ChainFacts;
use super::answers::{self, Answers};
use super::book::view::BookView;
use super::bookkeeper::Bookkeeper;
use super::clock::NodeClock;
use super::counter::Counter;
use super::guard::{Admitted, Guard, Level, Row, channel_of};
use super::issued::{self, Issued};
use super::limits::Limits;
use super::orders::Orders;
use super::persist::NodePersister;
use super::standing::{self, Claim, Claims};
use super::validator::outputs::Outputs;
use super::validator::{RefusedBy, capacity, second_level};
use super::{ldk, payments, preimages, refusals};
use crate::chain::{ChainBlock, Effect};
use crate::config::LimitsConfig;
use crate::facts::Fact;
use crate::journal::Put;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::keys::rsa::RsaKey;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::Request;
use crate::policy::Desk;
use crate::reasons::{Reason, Refusal};

pub(crate) use self::negotiation::own_init;
pub use self::restoring::{RestoreError, first_entries, node_id};

/// Who a node is.
#[derive(Debug)]
pub struct NodeSpec {
    /// Its name, which is also its tenant in the journal.
    pub name: NodeName,
    /// The dialect it speaks.
    pub kind: NodeKind,
    /// Its network.
    pub network: Network,
    /// Where all its keys come from.
    pub seed: Secret<32>,
    /// How they come from it; an lnd node's come by BIP 32 whatever this says.
    pub derivation: Derivation,
    /// BIP 32's, for lnd and Lightspark: the seed is its master key.
    pub chain_code: Option<Secret<32>>,
    /// Of a Lightspark account without remote signing: what its operations are signed with.
    pub operations_key: Option<Arc<RsaKey>>,
}

/// What all nodes have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What each may spend.
    pub limits: LimitsConfig,
    /// Confirmations that a channel's funding needs before it is used.
    pub funding_depth: u32,
    /// The key with which our own chain view attests blocks. Nobody else's word about the chain counts.
    pub oracle: PublicKey,
    /// Where the spending policy in force is asked.
    pub desk: Arc<Desk>,
}

/// One node's state machine. After a panic inside, or a failed commit, it must be dropped (P6).
pub struct Engine {
    node: Arc<Node>,
    root: RootHandler,
    guard: Guard,
    /// The answer to every HsmdInit.
    init_reply: Vec<u8>,
    persister: Arc<NodePersister>,
    limits: Arc<Limits>,
    bookkeeper: Arc<Bookkeeper>,
    counter: Arc<Counter>,
    /// What payments came to that no decision has told yet.
    untold: Vec<Event>,
    refused_by: RefusedBy,
    answers: Answers,
    issued: Issued,
    outputs: Arc<Outputs>,
    chain: Arc<dyn ChainFacts>,
    name: NodeName,
    funding_depth: u32,
    shutdown_index: Arc<Mutex<Option<u32>>>,
    clock: Arc<NodeClock>,
    orders: Orders,
    claims: Claims,
    secp: Secp256k1<All>,
}

/// What came of one message.
pub struct Handled {
    /// The encoded reply, or why there is none.
    pub reply: Result<Vec<u8>, Refusal>,
    /// What must be durable before the reply leaves.
    pub puts: Vec<Put>,
    /// The state machine failed halfway: its memory may not be what `puts` say.
    pub distrust: bool,
    /// What a permit looked at, for the journal.
    pub facts: Vec<Fact>,
    /// What the spending policy decided, for the journal; ids are still to be named.
    pub policy: Vec<Record>,
    /// What payments it had permitted came to.
    pub came_to: Vec<Event>,
}

impl Handled {
    /// An answer that changed nothing, or a refusal.
    pub fn plain(reply: Result<Vec<u8>, Refusal>) -> Self {
        let (puts, facts, policy, came_to) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { reply, puts, distrust: false, facts, policy, came_to }
    }
}

impl Engine {
    /// The node, for the chain view and for status.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The channel book, to be shown.
    pub fn book(&self) -> BookView {
        let height = self.node.get_tracker().height();
        self.bookkeeper.view(height)
    }

    /// Answers one message. May panic: vls does on some inputs that only it can tell from good ones.
    pub fn handle(&mut self, row: &Row, request: &Request) -> Handled {
        self.limits.begin();
        self.bookkeeper.begin();
        self.counter.begin(request.channel);
        self.refused_by.take();
        let question = row.is_random().then(|| answers::question(request));
        if let Some(reply) = question.and_then(|question| self.answers.get(&question)) {
            return Handled::plain(Ok(reply.to_vec()));
        }
        let mut claim = None;
        let reply = self.answer(row, request, &mut claim);
        let reply = self.note_claim(request.channel, claim, reply);
        let settled = self.counter.finish(reply.is_ok());
        let distrust = matches!(&reply, Err(refusal) if refusal.reason == Reason::Fault);
        let mut puts = match self.changes() {
            Ok(puts) => puts,
            Err(refusal) => {
                return Handled { distrust: true, policy: settled.records, ..Handled::plain(Err(refusal)) };
            }
        };
        if let Ok(reply) = &reply {
            puts.extend(self.guard.take_changes());
            puts.extend(self.limits.charge());
            puts.extend(self.issued.take_put());
            puts.extend(self.bookkeeper.finish(&self.node, || self.counter.max_fee_percent()));
            puts.extend(question.into_iter().flat_map(|question| self.answers.keep(question, reply)));
        }
        puts.extend(settled.puts);
        puts.extend(self.payments_ended());
        let came_to = if distrust || !row.is_recorded() { Vec::new() } else { std::mem::take(&mut self.untold) };
        Handled { puts, distrust, policy: settled.records, came_to, ..Handled::plain(reply) }
    }

    /// Tells the desk which approved payments have ended. Returns the changed entries.
    fn payments_ended(&mut self) -> Vec<Put> {
        let ended = self.bookkeeper.take_ended();
        let told = ended.into_iter().filter_map(|(hash, paid)| self.counter.paid(&hash.to_string(), paid));
        let (events, puts): (Vec<_>, Vec<_>) = told.unzip();
        self.untold.extend(events);
        puts.into_iter().flatten().collect()
    }

    /// What changed since the last call, for the journal.
    pub fn changes(&self) -> Result<Vec<Put>, Refusal> {
        self.persister
            .take_changes(&self.node.get_state())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's state cannot be encoded: {error:?}")))
    }

    /// The funding outpoints of the channels that a block, to be added or removed, may concern.
    pub fn concerned(&self, block: &ChainBlock) -> BTreeSet<OutPoint> {
        self.persister.concerned(block)
    }

    /// Remembers what a block that was added shows of the node's channels; before [`block_changes`](Self::block_changes).
    pub fn note_block(&self, block: &ChainBlock, effect: &Effect) {
        self.outputs.note_block(&self.node, block, &effect.touched);
        self.bookkeeper.note_block(block, &effect.touched);
    }

    /// The same for a block that was removed.
    pub fn revert_block(&self, block: &ChainBlock) {
        self.bookkeeper.revert_block(block.height());
    }

    /// What a block that was added or removed changed, for the journal.
    pub fn block_changes(&mut self, effect: &Effect) -> Result<Vec<Put>, Refusal> {
        self.persister.expect_block(&effect.touched);
        self.persister
            .update_tracker(&self.node.get_id(), &self.node.get_tracker())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's tracker cannot be encoded: {error:?}")))?;
        let mut puts = self.changes()?;
        puts.extend(self.outputs.take_puts());
        puts.extend(self.bookkeeper.block_changes());
        puts.extend(self.payments_ended());
        Ok(puts)
    }

    /// Lets vls forget what is long over: expired invoices, ended forwards, closed and forgotten channels. Returns what
    /// changed. May panic, as `handle` may.
    pub fn prune(&mut self) -> Result<Vec<Put>, Refusal> {
        // vls prunes when it is asked for a heartbeat, and only then.
        self.node.get_heartbeat();
        let mut puts = self.changes()?;
        puts.extend(self.bookkeeper.prune(&self.node));
        puts.extend(self.payments_ended());
        puts.extend(self.counter.tidy());
        let tracker = self.node.get_tracker();
        self.outputs.retain(|funding| tracker.listeners.contains_key(funding));
        puts.extend(self.outputs.take_puts());
        Ok(puts)
    }

    /// The guard, the operator's orders, then vls. `claim` receives what the message claims of its channel.
    fn answer(&mut self, row: &Row, request: &Request, claim: &mut Option<Claim>) -> Result<Vec<u8>, Refusal> {
        match self.guard.admit(row, request, |message| *claim = standing::claim(message))? {
            Admitted::Answered(reply) => Ok(reply),
            Admitted::Learn(preimages) => {
                self.orders.require_latest()?;
                self.bookkeeper.note_preimages(preimages);
                Ok(preimages::reply())
            }
            Admitted::Ask { message, closing } => {
                self.require_thawed(request.channel, &message)?;
                let reply = self.ask(row, request, message).map_err(|refusal| match request.channel {
                    Some(_) => self.orders.excuse(refusal),
                    None => refusal,
                })?;
                closing.into_iter().for_each(|closing| self.guard.signed(closing));
                Ok(reply)
            }
        }
    }

    fn ask(&mut self, row: &Row, request: &Request, message: Message) -> Result<Vec<u8>, Refusal> {
        match message {
            Message::HsmdInit(init) => return self.hsmd_init(&init),
            Message::HsmdInit2(init) => return self.hsmd_init2(&init),
            Message::CheckOutpoint(ref m) => return self.check_outpoint(channel_of(row, request)?, m),
            Message::SetupChannel(ref setup) => self.begin_setup(channel_of(row, request)?, setup)?,
            _ => {}
        }
        capacity::check(&self.node, request.channel, &message)?;
        let paid = payments::hash(&message)?;
        self.counter.message(&message)?;
        self.bookkeeper.note(&self.node, request.channel, &message, paid);
        if let Some(channel) = request.channel
            && let Some(reply) = ldk::answer(&self.node, &self.secp, channel, &message)
        {
            return Ok(reply);
        }
        self.begin_onchain(&message)?;
        second_level::check(&self.node, &self.secp, (&*self.chain, &self.name), request.channel, &message)?;
        let invoice = issued::asked(&message, paid);
        if let Some(invoice) = &invoice
            && let Some(reply) = self.issued.recall(invoice)?
        {
            return Ok(reply);
        }
        self.persister.touch(paid.as_slice());
        let handled = match row.level {
            Level::Node | Level::Either => self.root.handle(message),
            Level::Channel => {
                let channel = channel_of(row, request)?;
                self.root.for_new_client(0, PubKey(channel.peer_id), channel.dbid).handle(message)
            }
        };
        let reply = match (handled, self.limits.take_denial()) {
            (_, Some(denial)) => return Err(denial),
            (Err(error), None) => return Err(refusals::from_handler(error, self.refused_by.take())),
            (Ok(reply), None) => reply.as_vec(),
        };
        if let Some(invoice) = &invoice {
            self.issued.remember(invoice, &reply);
        }
        Ok(reply)
    }
}
