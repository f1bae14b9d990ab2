//! vls's state machine for one node, embedded: built from journal entries, asked one message at a time.
//!
//! Its own negotiation never decides anything: it is started with protocol version 6, under which a commitment secret
//! leaves only through RevokeCommitmentTx, and later HsmdInit messages are answered without it.

mod negotiation;
mod operator;
mod restoring;

use std::sync::Arc;

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, OutPoint};
use lightning_signer::channel::ChannelId;
use lightning_signer::node::Node;
use lightning_signer::persist::Persist;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{self, Message, SerBolt};
use vls_protocol_signer::handler::{Handler, RootHandler};

use super::answers::{self, Answers};
use super::book::view::BookView;
use super::bookkeeper::Bookkeeper;
use super::clock::NodeClock;
use super::guard::{Admitted, Guard, Level, Row, channel_of};
use super::limits::Limits;
use super::orders::Orders;
use super::persist::NodePersister;
use super::standing::{self, Claim, Claims};
use super::validator::RefusedBy;
use super::{ldk, payments, preimages, refusals};
use crate::chain::Effect;
use crate::config::LimitsConfig;
use crate::journal::Put;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{ChannelRef, Request};
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
    /// How they come from it.
    pub derivation: Derivation,
}

/// What all nodes have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What each may spend.
    pub limits: LimitsConfig,
    /// The key with which our own chain view attests blocks. Nobody else's word about the chain counts.
    pub oracle: PublicKey,
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
    refused_by: RefusedBy,
    answers: Answers,
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
        self.refused_by.take();
        let question = row.is_random().then(|| answers::question(request));
        if let Some(reply) = question.and_then(|question| self.answers.get(&question)) {
            return Handled { reply: Ok(reply.to_vec()), puts: Vec::new(), distrust: false };
        }
        let mut claim = None;
        let reply = self.answer(row, request, &mut claim);
        let reply = self.note_claim(request.channel, claim, reply);
        let distrust = matches!(&reply, Err(refusal) if refusal.reason == Reason::Fault);
        let mut puts = match self.changes() {
            Ok(puts) => puts,
            Err(refusal) => return Handled { reply: Err(refusal), puts: Vec::new(), distrust: true },
        };
        if let Ok(reply) = &reply {
            puts.extend(self.guard.take_changes());
            puts.extend(self.limits.charge());
            puts.extend(self.bookkeeper.finish(&self.node));
            puts.extend(question.into_iter().flat_map(|question| self.answers.keep(question, reply)));
        }
        Handled { reply, puts, distrust }
    }

    /// What changed since the last call, for the journal.
    pub fn changes(&self) -> Result<Vec<Put>, Refusal> {
        self.persister
            .take_changes(&self.node.get_state())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's state cannot be encoded: {error:?}")))
    }

    /// What a block that was added or removed changed, for the journal.
    pub fn block_changes(&self, effect: &Effect) -> Result<Vec<Put>, Refusal> {
        self.persister.expect_block(&effect.touched);
        self.persister
            .update_tracker(&self.node.get_id(), &self.node.get_tracker())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's tracker cannot be encoded: {error:?}")))?;
        let mut puts = self.changes()?;
        puts.extend(self.bookkeeper.closed(self.spent(&effect.touched).into_iter()));
        Ok(puts)
    }

    /// Those of these outputs, which fund channels, that are spent.
    fn spent(&self, fundings: &[OutPoint]) -> Vec<OutPoint> {
        let tracker = self.node.get_tracker();
        let is_spent = |funding: &&OutPoint| {
            tracker.listeners.get(funding).is_some_and(|(monitor, _)| monitor.closing_depth() > 0)
        };
        fundings.iter().filter(is_spent).copied().collect()
    }

    /// Lets vls forget what is long over: expired invoices, ended forwards, closed and forgotten channels. Returns what
    /// changed. May panic, as `handle` may.
    pub fn prune(&self) -> Result<Vec<Put>, Refusal> {
        // vls prunes when it is asked for a heartbeat, and only then.
        self.node.get_heartbeat();
        let mut puts = self.changes()?;
        puts.extend(self.bookkeeper.prune(&self.node));
        Ok(puts)
    }

    /// The guard, the operator's orders, then vls. `claim` receives what the message claims of its channel.
    fn answer(&mut self, row: &Row, request: &Request, claim: &mut Option<Claim>) -> Result<Vec<u8>, Refusal> {
        match self.guard.admit(row, request, |message| *claim = standing::claim(message))? {
            Admitted::Answered(reply) => Ok(reply),
            Admitted::Learn(preimages) => {
                self.bookkeeper.note_preimages(preimages);
                Ok(preimages::reply())
            }
            Admitted::Ask { message, closing } => {
                self.require_thawed(request.channel, &message)?;
                let reply = self.ask(row, request, message)?;
                closing.into_iter().for_each(|closing| self.guard.signed(closing));
                Ok(reply)
            }
        }
    }

    fn ask(&self, row: &Row, request: &Request, message: Message) -> Result<Vec<u8>, Refusal> {
        match message {
            Message::HsmdInit(init) => return self.hsmd_init(&init),
            Message::HsmdInit2(init) => return self.hsmd_init2(&init),
            Message::CheckOutpoint(_) => return self.check_outpoint(channel_of(row, request)?),
            Message::SetupChannel(ref setup) => self.require_free_funding(channel_of(row, request)?, setup)?,
            _ => {}
        }
        let paid = payments::hash(&message)?;
        self.bookkeeper.note(&self.node, request.channel, &message, paid);
        if let Some(channel) = request.channel
            && let Some(reply) = ldk::answer(&self.node, &self.secp, channel, &message)
        {
            return Ok(reply);
        }
        self.begin_onchain(&message)?;
        self.persister.touch(paid.as_slice());
        let handled = match row.level {
            Level::Node | Level::Either => self.root.handle(message),
            Level::Channel => {
                let channel = channel_of(row, request)?;
                self.root.for_new_client(0, PubKey(channel.peer_id), channel.dbid).handle(message)
            }
        };
        match (handled, self.limits.take_denial()) {
            (_, Some(denial)) => Err(denial),
            (Err(error), None) => Err(refusals::from_handler(error, self.refused_by.take())),
            (Ok(reply), None) => Ok(reply.as_vec()),
        }
    }

    /// Whether our own chain view has buried the funding output; vls would say yes unseen.
    fn check_outpoint(&self, channel: ChannelRef) -> Result<Vec<u8>, Refusal> {
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        let depth = self.node.with_channel(&id, |channel| Ok(channel.monitor.as_chain_state().funding_depth));
        let depth = depth.map_err(|status| refusals::from_handler(status.into(), None))?;
        Ok(msgs::CheckOutpointReply { is_buried: depth > 0 }.as_vec())
    }

    /// A funding output belongs to one channel. What the chain does to a channel is filed under it, so a second one would
    /// take the place of the first, and the node could not be restored.
    fn require_free_funding(&self, channel: ChannelRef, setup: &msgs::SetupChannel) -> Result<(), Refusal> {
        let funding = OutPoint { txid: setup.funding_txid, vout: setup.funding_txout.into() };
        if !self.node.get_tracker().listeners.contains_key(&funding) {
            return Ok(());
        }
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        match self.node.with_channel(&id, |channel| Ok(channel.setup.funding_outpoint == funding)) {
            Ok(true) => Ok(()), // set up again
            _ => Err(Refusal::new(Reason::Validation, format!("another channel is funded by {funding}"))),
        }
    }

    fn begin_onchain(&self, message: &Message) -> Result<(), Refusal> {
        let (utxos, streamed) = match message {
            Message::SignWithdrawal(m) => (&m.utxos, &m.psbt.0),
            Message::SignHtlcTxMingle(m) => (&m.utxos, &m.psbt.0),
            Message::SignAnchorspend(m) => (&m.utxos, &m.psbt.0),
            _ => return Ok(()),
        };
        let psbt = streamed.psbt();
        let is_ours = |spent: &OutPoint| utxos.iter().any(|u| (u.txid, u.outnum) == (spent.txid, spent.vout));
        // A signature proves the amount of its own input only: with several, and a different lie about the others in each
        // of several requests, a partner's input could seem to pay for what our inputs do. So a partner counts only if
        // the amount of every input of ours is proven by the transaction that made it.
        let mut flags = psbt.unsigned_tx.input.iter().zip(&streamed.segwit_flags);
        let proven = flags.all(|(txin, proven)| *proven || !is_ours(&txin.previous_output));
        let inputs = psbt.unsigned_tx.input.iter().zip(&psbt.inputs);
        let inputs: Vec<_> = inputs
            .filter_map(|(txin, input)| Some((input.witness_utxo.clone()?, is_ours(&txin.previous_output) || !proven)))
            .collect();
        self.limits.begin_onchain(&psbt.unsigned_tx, &inputs)
    }
}
