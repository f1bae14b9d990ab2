//! vls's state machine for one node, embedded: built from journal entries, asked one message at a time.
//!
//! Its own negotiation never decides anything: it is started with protocol version 6, under which a commitment secret
//! leaves only through RevokeCommitmentTx, and later HsmdInit messages are answered without it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bitcoin::blockdata::constants::genesis_block;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, OutPoint};
use lightning_signer::channel::ChannelId;
use lightning_signer::invoice::{Invoice, InvoiceAttributes};
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::lightning::sign::{NodeSigner, Recipient};
use lightning_signer::lightning::types::payment::PaymentHash;
use lightning_signer::lightning_invoice::{RawBolt11Invoice, TaggedField};
use lightning_signer::node::{Node, NodeServices};
use lightning_signer::persist::Persist;
use lightning_signer::signer::derive::KeyDerivationStyle;
use lightning_signer::signer::my_keys_manager::MyKeysManager;
use lightning_signer::wallet::Wallet;
use vls_protocol::model::{Bip32KeyVersion, ExtKey, PubKey, Secret as SecretBytes};
use vls_protocol::msgs::{self, Message, PROTOCOL_VERSION_NO_SECRET, SerBolt};
use vls_protocol_signer::handler::{Handler, InitHandler, RootHandler};

use super::answers::{self, Answers};
use super::clock::{NodeClock, RandomStart};
use super::limits::{self, Limits};
use super::messages::{self, Level, Row};
use super::persist::{ChainStart, NodePersister, genesis};
use super::validator::{HouseValidatorFactory, RefusedBy};
use super::{ldk, refusals, shapes};
use crate::chain::Effect;
use crate::config::LimitsConfig;
use crate::journal::Put;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{ChannelRef, Request};
use crate::reasons::{Reason, Refusal};

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

/// Why a node cannot be built from its entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// An entry is newer, damaged or missing.
    #[error("{0}")]
    Entries(String),
    /// The entries belong to another seed, network or way of derivation.
    #[error("the node's journal entries are of another node: {0}")]
    OtherNode(&'static str),
    /// vls refused them.
    #[error("the node's state cannot be restored: {0}")]
    Refused(String),
}

/// One node's state machine. After a panic inside, or a failed commit, it must be dropped (P6).
pub struct Engine {
    node: Arc<Node>,
    root: RootHandler,
    /// The answer to every HsmdInit.
    init_reply: Vec<u8>,
    persister: Arc<NodePersister>,
    limits: Arc<Limits>,
    refused_by: RefusedBy,
    answers: Answers,
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

/// The entries of a node that has not run yet, following the chain from `start`.
pub fn first_entries(spec: &NodeSpec, start: ChainStart) -> Result<Vec<Put>, RestoreError> {
    genesis(spec.network, spec.derivation.into(), node_id(spec), start)
        .map_err(|error| RestoreError::Entries(error.to_string()))
}

/// The node's public key, derived from its seed.
pub fn node_id(spec: &NodeSpec) -> PublicKey {
    let keys = spec.seed.expose(|seed| MyKeysManager::new(spec.derivation.into(), seed, spec.network, &RandomStart));
    keys.get_node_id(Recipient::Node).expect("a node has the key of its own id")
}

impl Engine {
    /// Builds the node from all live entries of its tenant.
    pub fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        mut entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Entries(error.to_string());
        let answers = Answers::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let clock = Arc::new(NodeClock::default());
        let spent = entries.remove(limits::KEY);
        let limits = Limits::restore(settings.limits.clone(), clock.clone(), spent.as_deref());
        let limits = Arc::new(limits.map_err(|e| unreadable(&e))?);
        let persister = Arc::new(NodePersister::load(entries).map_err(|e| unreadable(&e))?);

        let refused_by = RefusedBy::default();
        let validators = HouseValidatorFactory::new(spec.network, &settings.limits, refused_by.clone());
        let services = NodeServices {
            validator_factory: Arc::new(validators),
            starting_time_factory: Arc::new(RandomStart),
            persister: persister.clone(),
            clock,
            trusted_oracle_pubkeys: vec![settings.oracle],
        };
        let node = restore_node(spec, &persister, services)?;
        persister.after_restore(&node);
        let (root, init_reply) = negotiate(&node, limits.clone())?;
        Ok(Self { node, root, init_reply, persister, limits, refused_by, answers, secp: Secp256k1::new() })
    }

    /// The node, for the chain view and for status.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its persister.
    pub fn persister(&self) -> &NodePersister {
        &self.persister
    }

    /// Answers one message. May panic: vls does on some inputs that only it can tell from good ones.
    pub fn handle(&mut self, row: &Row, request: &Request) -> Handled {
        self.limits.begin();
        self.refused_by.take();
        let question = is_random(row).then(|| answers::question(request));
        if let Some(reply) = question.and_then(|question| self.answers.get(&question)) {
            return Handled { reply: Ok(reply.to_vec()), puts: Vec::new(), distrust: false };
        }
        let reply = self.answer(row, request);
        let distrust = matches!(&reply, Err(refusal) if refusal.reason == Reason::Fault);
        let mut puts = match self.changes() {
            Ok(puts) => puts,
            Err(refusal) => return Handled { reply: Err(refusal), puts: Vec::new(), distrust: true },
        };
        if let Ok(reply) = &reply {
            puts.extend(self.limits.charge());
            puts.extend(question.map(|question| self.answers.keep(question, reply)));
        }
        Handled { reply, puts, distrust }
    }

    /// What changed since the last call, for the journal.
    pub fn changes(&self) -> Result<Vec<Put>, Refusal> {
        self.persister
            .take_changes(&self.node.get_state())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's state cannot be encoded: {error:?}")))
    }

    /// Hands the tracker, a block further or back, to the persister. Call it after each block.
    pub fn record_block(&self, effect: &Effect) -> Result<(), Refusal> {
        self.persister.expect_block(&effect.touched);
        self.persister
            .update_tracker(&self.node.get_id(), &self.node.get_tracker())
            .map_err(|error| Refusal::new(Reason::Fault, format!("the node's tracker cannot be encoded: {error:?}")))
    }

    /// Lets vls forget what is long over: expired invoices, ended forwards, closed and forgotten channels.
    pub fn prune(&self) {
        // vls prunes when it is asked for a heartbeat, and only then.
        self.node.get_heartbeat();
    }

    fn answer(&self, row: &Row, request: &Request) -> Result<Vec<u8>, Refusal> {
        let message = messages::decode(row, &request.message)?;
        shapes::check(&message)?;
        match message {
            Message::HsmdInit(init) => return self.hsmd_init(&init),
            Message::HsmdInit2(init) => return self.hsmd_init2(&init),
            Message::CheckOutpoint(_) => return self.check_outpoint(channel_of(row, request)?),
            _ => {}
        }
        if let Some(channel) = request.channel
            && let Some(reply) = ldk::answer(&self.node, &self.secp, channel, &message)
        {
            return Ok(reply);
        }
        self.begin_onchain(&message)?;
        self.persister.touch(&payment_hashes(&message));
        let handled = match row.level {
            Level::Node => self.root.handle(message),
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

    fn hsmd_init(&self, init: &msgs::HsmdInit) -> Result<Vec<u8>, Refusal> {
        let developer = init.dev_privkey.is_some()
            || init.dev_bip32_seed.is_some()
            || init.dev_channel_secrets.is_some()
            || init.dev_channel_secrets_shaseed.is_some();
        if developer {
            return Err(Refusal::new(Reason::NotAllowed, "HsmdInit with developer fields"));
        }
        let genesis = genesis_block(self.node.network()).block_hash();
        if init.chain_params != genesis {
            let detail = format!("the node's chain is {}, the signer's {genesis}", init.chain_params);
            return Err(Refusal::new(Reason::Validation, detail));
        }
        let (min, max) = (init.hsm_wire_min_version, init.hsm_wire_max_version);
        if !(min..=max).contains(&PROTOCOL_VERSION_NO_SECRET) {
            let detail =
                format!("the node speaks hsmd versions {min} to {max}, the signer {PROTOCOL_VERSION_NO_SECRET}");
            return Err(Refusal::new(Reason::Validation, detail));
        }
        Ok(self.init_reply.clone())
    }

    fn hsmd_init2(&self, init: &msgs::HsmdInit2) -> Result<Vec<u8>, Refusal> {
        if init.dev_seed.is_some() || !init.dev_allowlist.is_empty() {
            return Err(Refusal::new(Reason::NotAllowed, "HsmdInit2 with developer fields"));
        }
        let named = std::str::from_utf8(&init.network_name.0).ok().and_then(|name| Network::from_str(name).ok());
        if named != Some(self.node.network()) {
            let detail = format!("the node is not on the signer's network, {}", self.node.network());
            return Err(Refusal::new(Reason::Validation, detail));
        }
        let reply = msgs::HsmdInit2Reply {
            node_id: PubKey(self.node.get_id().serialize()),
            bip32: ExtKey(self.node.get_account_extended_pubkey().encode()),
            bolt12: PubKey(self.node.get_bolt12_pubkey().serialize()),
            peer_storage_key: SecretBytes(self.node.get_peer_storage_key_bytes()),
            inbound_payment_key: SecretBytes(self.node.get_inbound_payment_key_bytes()),
        };
        Ok(reply.as_vec())
    }

    /// Whether our own chain view has buried the funding output; vls would say yes unseen.
    fn check_outpoint(&self, channel: ChannelRef) -> Result<Vec<u8>, Refusal> {
        let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
        let depth = self.node.with_channel(&id, |channel| Ok(channel.monitor.as_chain_state().funding_depth));
        let depth = depth.map_err(|status| refusals::from_handler(status.into(), None))?;
        Ok(msgs::CheckOutpointReply { is_buried: depth > 0 }.as_vec())
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

fn restore_node(spec: &NodeSpec, persister: &NodePersister, services: NodeServices) -> Result<Arc<Node>, RestoreError> {
    let nodes = persister.get_nodes().map_err(|error| RestoreError::Entries(format!("{error:?}")))?;
    let Some((id, entry)) = nodes.into_iter().next() else {
        return Err(RestoreError::Entries("there is no node entry".to_owned()));
    };
    // vls compares these too, with a panic.
    if id != node_id(spec) {
        return Err(RestoreError::OtherNode("the seed does not match"));
    }
    if entry.network != spec.network.to_string() {
        return Err(RestoreError::OtherNode("the network does not match"));
    }
    if entry.key_derivation_style != KeyDerivationStyle::from(spec.derivation) as u8 {
        return Err(RestoreError::OtherNode("the way of derivation does not match"));
    }
    let restored = spec.seed.expose(|seed| Node::restore_node(&id, entry, seed, services));
    restored.map_err(|status| RestoreError::Refused(status.message().to_owned()))
}

/// The HsmdInit with which vls is started: protocol version 6 and nothing else.
pub(crate) fn own_init(network: Network) -> Message {
    Message::HsmdInit(msgs::HsmdInit {
        key_version: Bip32KeyVersion { pubkey_version: 0, privkey_version: 0 },
        chain_params: genesis_block(network).block_hash(),
        encryption_key: None,
        dev_privkey: None,
        dev_bip32_seed: None,
        dev_channel_secrets: None,
        dev_channel_secrets_shaseed: None,
        hsm_wire_min_version: PROTOCOL_VERSION_NO_SECRET,
        hsm_wire_max_version: PROTOCOL_VERSION_NO_SECRET,
    })
}

/// Takes vls through its negotiation with an HsmdInit of our own.
fn negotiate(node: &Arc<Node>, limits: Arc<Limits>) -> Result<(RootHandler, Vec<u8>), RestoreError> {
    let mut handler = InitHandler::new(0, node.clone(), limits, PROTOCOL_VERSION_NO_SECRET);
    match handler.handle(own_init(node.network())) {
        Ok((true, Some(reply))) => Ok((handler.into(), reply.as_vec())),
        Ok(_) => Err(RestoreError::Refused("the negotiation did not end".to_owned())),
        Err(error) => Err(RestoreError::Refused(refusals::from_handler(error, None).detail)),
    }
}

fn channel_of(row: &Row, request: &Request) -> Result<ChannelRef, Refusal> {
    request.channel.ok_or_else(|| Refusal::new(Reason::Malformed, format!("{} does not name its channel", row.name)))
}

/// Messages whose signatures take a fresh nonce.
fn is_random(row: &Row) -> bool {
    matches!(row.name, "SignWithdrawal" | "SignHtlcTxMingle" | "SignAnchorspend")
}

/// The payment hashes a message brings in; those of commitments are seen by the persister.
fn payment_hashes(message: &Message) -> Vec<PaymentHash> {
    let hash = match message {
        Message::PreapproveKeysend(m) => Some(PaymentHash(m.payment_hash.0)),
        Message::PreapproveInvoice(m) => std::str::from_utf8(&m.invstring.0)
            .ok()
            .and_then(|text| Invoice::from_str(text).ok())
            .map(|invoice| invoice.payment_hash()),
        Message::SignInvoice(m) => bolt11_hash(&m.hrp, &m.u5bytes),
        Message::SignBolt12Invoice(m) => {
            UnsignedBolt12Invoice::try_from(m.invoice_bytes.0.clone()).ok().map(|invoice| invoice.payment_hash())
        }
        _ => None,
    };
    hash.into_iter().collect()
}

fn bolt11_hash(hrp: &[u8], u5bytes: &[u8]) -> Option<PaymentHash> {
    let data: Vec<_> = u5bytes.iter().map(|u5| bitcoin::bech32::Fe32::try_from(*u5)).collect::<Result<_, _>>().ok()?;
    let invoice = RawBolt11Invoice::from_raw(std::str::from_utf8(hrp).ok()?, &data).ok()?;
    let mut fields = invoice.known_tagged_fields();
    fields.find_map(|field| match field {
        TaggedField::PaymentHash(hash) => Some(PaymentHash(bitcoin::hashes::Hash::to_byte_array(hash.0))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::actor::ChainFacts;
    use super::super::driver::MiniChain;
    use super::*;
    use zeroize::Zeroizing;

    fn spec(byte: u8) -> NodeSpec {
        NodeSpec {
            name: NodeName::new("alice").expect("a name"),
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::new(Zeroizing::new([byte; 32])),
            derivation: Derivation::Native,
        }
    }

    fn restore(spec: &NodeSpec) -> Result<Engine, RestoreError> {
        let start = MiniChain::default().start().expect("known");
        let puts = first_entries(&self::spec(1), start).expect("encodes");
        let entries = puts.into_iter().filter_map(|put| Some((put.key, put.value?))).collect();
        let settings = Settings { limits: LimitsConfig::default(), oracle: node_id(spec) };
        Engine::restore(spec, &settings, entries)
    }

    #[test]
    fn entries_of_another_seed_or_network_are_refused_by_name() {
        assert!(restore(&spec(1)).is_ok());
        assert_eq!(restore(&spec(2)).err(), Some(RestoreError::OtherNode("the seed does not match")));
        let other = NodeSpec { network: Network::Signet, ..spec(1) };
        assert_eq!(restore(&other).err(), Some(RestoreError::OtherNode("the network does not match")));
    }

    #[test]
    fn dropping_the_engine_drops_the_node_and_its_keys() {
        let engine = restore(&spec(1)).expect("restores");
        let node = Arc::downgrade(engine.node());
        drop(engine);
        assert_eq!(node.strong_count(), 0);
    }
}
