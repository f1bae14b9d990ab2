//! Calls of lnd: each rule attacked, and its honest twin.

mod adopt;
mod channels;
mod drafts;
mod enforced;
mod hostile;
mod messages;
mod peers;
mod policy;
mod property;
mod states;
mod view;
mod wallet;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::psbt::{Psbt, raw};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{Message as Digest, PublicKey, Scalar, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use claviger_policy::tooling::Record;
use claviger_proto::signrpc::{KeyDescriptor, KeyLocator, MuSig2SignRequest};
use claviger_proto::walletrpc::{SignPsbtRequest, SignPsbtResponse};
use lightning::ln::chan_utils::make_funding_redeemscript;

use super::channel::tweak;
use super::keys::{Chain, Purpose};
use super::scripts::to_remote;
use super::windows::addresses;
use super::*;
use crate::keys::memory::Secret;
use crate::lightning::guard;
use crate::names::{NodeKind, NodeName};
use crate::policy::Desk;

const CAPACITY_SAT: u64 = 1_000_000;
const MASK: u64 = 0x1234_5678_9abc;
const FEE_SAT: u64 = 1_000;

struct Lnd {
    node: LndNode,
    entries: BTreeMap<String, Vec<u8>>,
    desk: Arc<Desk>,
    /// What the policy decided on the last question.
    asked: Vec<Record>,
    /// How many answers were drafted ahead.
    drafts: usize,
}

/// A view of the chain that knows its height.
struct Tip;

const HEIGHT: u32 = 800_000;

impl ChainFacts for Tip {
    fn require_fresh(&self, _: &NodeName) -> Result<(), Refusal> {
        Ok(())
    }

    fn start(&self) -> Option<crate::lightning::persist::ChainStart> {
        None
    }

    fn height(&self) -> Option<u32> {
        Some(HEIGHT)
    }
}

fn spec() -> NodeSpec {
    NodeSpec {
        name: NodeName::new("alice").expect("a name"),
        kind: NodeKind::Lnd,
        network: Network::Regtest,
        seed: Secret::init(|seed| seed.fill(1)),
        derivation: crate::keys::import::Derivation::Native,
        chain_code: Some(Secret::init(|code| code.fill(2))),
        operations_key: None,
    }
}

fn settings() -> Settings {
    let limits = LimitsConfig {
        max_onchain_sat: 50_000,
        max_onchain_sat_per_day: 60_000,
        allow: vec![address(&allowed()).to_string()],
        ..LimitsConfig::default()
    };
    Settings { limits, funding_depth: 1, oracle: peer_key(9), desk: Arc::default() }
}

/// Keys of others.
fn peer_key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).expect("a key").public_key(&Secp256k1::new())
}

impl Lnd {
    fn new() -> Self {
        Self::under(Arc::default())
    }

    /// A new node under the policy in force.
    fn under(desk: Arc<Desk>) -> Self {
        let entries = first_entries(&spec()).into_iter().filter_map(|put| Some((put.key, put.value?)));
        Self::with(entries.collect(), desk)
    }

    fn with(entries: BTreeMap<String, Vec<u8>>, desk: Arc<Desk>) -> Self {
        let settings = Settings { desk: desk.clone(), ..settings() };
        let node = LndNode::restore(&spec(), &settings, Arc::new(Tip), Arc::default(), entries.clone());
        let node = node.expect("restores");
        Self { node, entries, desk, asked: Vec::new(), drafts: 0 }
    }

    /// The node as it is after a restart.
    fn restarted(self) -> Self {
        Self::with(self.entries, self.desk)
    }

    fn ask(&mut self, method: Method, call: &impl Message) -> Result<(Vec<u8>, Vec<Fact>), Refusal> {
        let message = method.request(call);
        let row = guard::row(NodeKind::Lnd, &message).expect("known");
        let draft = self.drafted(&message);
        let handled = self.node.handle(row, &Request { request_id: 0, channel: None, message }, draft);
        for Put { key, value } in handled.puts {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        self.asked = handled.policy;
        handled.reply.map(|reply| (reply, handled.facts))
    }

    /// What another thread would draft for it: the same as the node itself.
    fn drafted(&mut self, message: &[u8]) -> Option<Draft> {
        let draft = self.node.drafter().draft(message)?;
        let LndNode { keys, windows, .. } = &mut self.node;
        let call = decode(&message[2..]).expect("a call");
        let own = Draft::of(&call, keys, |out| windows.payment(keys, out)).expect("the same question");
        assert!((&draft.inputs, &draft.reply) == (&own.inputs, &own.reply));
        self.drafts += 1;
        Some(draft)
    }

    /// The operator orders something.
    fn order(&mut self, order: &Order) -> Result<(), OrderError> {
        let given = Given { at_ms: self.node.clock.now_ms(), by: "uid 0".to_owned(), why: String::new() };
        for Put { key, value } in self.node.order(order, given)? {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        Ok(())
    }

    fn key(&self, family: Family, index: u32) -> PublicKey {
        self.node.keys.public(KeyPath::Channel(family, index))
    }

    fn address(&self, index: u32) -> ScriptBuf {
        let path = KeyPath::Wallet(Purpose::Witness, Chain::External, index);
        addresses(self.node.keys.secp(), Purpose::Witness, self.node.keys.public(path)).remove(0)
    }

    /// A channel's secrets are made, as at each opening.
    fn reserve(&mut self, our_index: u32, root_index: u32) -> Result<(), Refusal> {
        let point = self.key(Family::Multisig, our_index);
        self.share(Family::RevocationRoot as i32, root_index as i32, &point).map(drop)
    }

    fn share(&mut self, key_family: i32, key_index: i32, point: &PublicKey) -> Result<Vec<u8>, Refusal> {
        let key_loc = Some(KeyLocator { key_family, key_index });
        let key_desc = Some(KeyDescriptor { raw_key_bytes: vec![], key_loc });
        let call = SharedKeyRequest { ephemeral_pubkey: point.serialize().to_vec(), key_loc: None, key_desc };
        let (reply, _) = self.ask(Method::DeriveSharedKey, &call)?;
        Ok(SharedKeyResponse::decode(&reply[..]).expect("a reply").shared_key)
    }

    fn sign(&mut self, psbt: &Psbt) -> Result<(Psbt, String), Refusal> {
        let call = SignPsbtRequest { funded_psbt: psbt.serialize() };
        let (reply, facts) = self.ask(Method::SignPsbt, &call)?;
        let reply = SignPsbtResponse::decode(&reply[..]).expect("a reply");
        let class = facts.iter().find(|fact| fact.name == "class").expect("a class").value.to_string();
        Ok((Psbt::deserialize(&reply.signed_psbt).expect("a PSBT"), class))
    }

    fn class(&mut self, psbt: &Psbt) -> Result<String, Reason> {
        self.sign(psbt).map(|(_, class)| class).map_err(|refusal| refusal.reason)
    }

    fn funding_script(&self, our_index: u32) -> ScriptBuf {
        make_funding_redeemscript(&self.key(Family::Multisig, our_index), &peer_key(3))
    }

    /// A spend of the funding output of channel `our_index`.
    fn funding_spend(&self, our_index: u32, sequence: u32, lock_time: u32, outputs: Vec<TxOut>) -> Psbt {
        let script = self.funding_script(our_index);
        let tx = tx(vec![(funding(our_index), sequence)], lock_time, outputs);
        let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
        let key = self.key(Family::Multisig, our_index);
        channel_input(&mut psbt, 0, CAPACITY_SAT, &script, (Family::Multisig, our_index, key), EcdsaSighashType::All);
        psbt
    }

    /// A commitment with this number; `ours_sat` stands in an output that only the counterparty's has.
    fn commitment(&self, our_index: u32, number: u64, ours_sat: Option<u64>) -> Psbt {
        let obscured = number ^ MASK;
        let (sequence, lock_time) = (0x80 << 24 | (obscured >> 24) as u32, 0x20 << 24 | (obscured & 0xff_ffff) as u32);
        let theirs_sat = CAPACITY_SAT - FEE_SAT - ours_sat.unwrap_or(0) - number % 100;
        let mut outputs = vec![out(theirs_sat, peer_script())];
        let to_us = to_remote(&self.key(Family::PaymentBase, our_index)).to_p2wsh();
        outputs.extend(ours_sat.map(|sat| out(sat, to_us)));
        self.funding_spend(our_index, sequence, lock_time, outputs)
    }

    /// A channel that opened and took `number` updates.
    fn with_channel(our_index: u32, number: u64) -> Self {
        let mut lnd = Self::new();
        lnd.open(our_index, number);
        lnd
    }

    /// A channel opens and takes `number` updates.
    fn open(&mut self, our_index: u32, number: u64) {
        self.reserve(our_index, our_index + 1).expect("ours");
        for number in 0..=number {
            let commitment = self.commitment(our_index, number, Some(600_000));
            assert_eq!(self.class(&commitment), Ok("counterparty-commitment".to_owned()));
        }
    }

    /// A sweep of a delayed output of our commitment with this number.
    fn delayed_sweep(&mut self, number: u64) -> Result<String, Reason> {
        let root = self.share(Family::RevocationRoot as i32, 1, &self.key(Family::Multisig, 0)).expect("the channel's");
        let root: [u8; 32] = root.try_into().expect("32 bytes");
        let secret = lightning::ln::chan_utils::build_commitment_secret(&root, (1 << 48) - 1 - number);
        let point = SecretKey::from_slice(&secret).expect("a key").public_key(&Secp256k1::new());
        let basepoint = self.key(Family::DelayBase, 7);
        let tweak = tweak(&point, &basepoint);
        let scalar = Scalar::from_be_bytes(tweak).expect("a scalar");
        let delayed = basepoint.add_exp_tweak(&Secp256k1::new(), &scalar).expect("a key");
        let script = lightning::ln::chan_utils::get_revokeable_redeemscript(
            &lightning::ln::channel_keys::RevocationKey(peer_key(5)),
            144,
            &lightning::ln::channel_keys::DelayedPaymentKey(delayed),
        );
        let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
        let outputs = vec![out(99_000, self.address(1))];
        let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, 144)], 0, outputs)).expect("unsigned");
        channel_input(&mut psbt, 0, 100_000, &script, (Family::DelayBase, 7, basepoint), EcdsaSighashType::All);
        tweaked(&mut psbt, 0x51, tweak);
        self.class(&psbt)
    }

    /// A coin of the wallet with the transaction that made it.
    fn coin(&self, index: u32, sat: u64) -> (OutPoint, Transaction) {
        let made = tx(
            vec![(OutPoint { txid: Txid::from_byte_array([index as u8; 32]), vout: 0 }, 0)],
            0,
            vec![out(sat, self.address(index))],
        );
        (OutPoint { txid: made.compute_txid(), vout: 0 }, made)
    }

    /// What lnd asks for input `at` of a spend of these coins: `said` is what it says that they hold.
    fn spend(&self, coins: &[(u32, u64)], said: &[u64], at: usize, outputs: Vec<TxOut>) -> Psbt {
        let made: Vec<_> = coins.iter().map(|(index, sat)| self.coin(*index, *sat)).collect();
        let inputs = made.iter().map(|(point, _)| (*point, 0xffff_ffff)).collect();
        let mut psbt = Psbt::from_unsigned_tx(tx(inputs, 0, outputs)).expect("unsigned");
        for (n, ((index, _), (_, made))) in coins.iter().zip(made).enumerate() {
            let input = &mut psbt.inputs[n];
            input.witness_utxo = Some(out(said[n], self.address(*index)));
            if n == at {
                let key = self.node.keys.public(KeyPath::Wallet(Purpose::Witness, Chain::External, *index));
                let path: DerivationPath = format!("m/84'/0'/0'/0/{index}").parse().expect("a path");
                input.bip32_derivation.insert(key, (Fingerprint::default(), path));
                input.non_witness_utxo = Some(made);
                input.sighash_type = Some(EcdsaSighashType::All.into());
                input.redeem_script = Some(self.address(*index));
                input.witness_script = Some(self.address(*index));
            }
        }
        psbt
    }
}

fn funding(our_index: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([0xf0; 32]), vout: our_index }
}

/// What any amount may go to, by `limits.allow`.
fn allowed() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([9; 20]))
}

fn address(script: &ScriptBuf) -> bitcoin::Address {
    bitcoin::Address::from_script(script, Network::Regtest).expect("an address")
}

fn peer_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn out(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

fn tx(inputs: Vec<(OutPoint, u32)>, lock_time: u32, output: Vec<TxOut>) -> Transaction {
    let input = inputs.into_iter().map(|(previous_output, sequence)| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence(sequence),
        witness: Witness::new(),
    });
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: input.collect(),
        output,
    }
}

fn channel_input(
    psbt: &mut Psbt,
    at: usize,
    sat: u64,
    script: &ScriptBuf,
    (family, index, key): (Family, u32, PublicKey),
    sighash: EcdsaSighashType,
) {
    let path: DerivationPath = format!("m/1017'/1'/{}'/0/{index}", family as u32).parse().expect("a path");
    let input = &mut psbt.inputs[at];
    input.witness_utxo = Some(out(sat, script.to_p2wsh()));
    input.witness_script = Some(script.clone());
    input.bip32_derivation.insert(key, (Fingerprint::default(), path));
    input.sighash_type = Some(sighash.into());
}

fn tweaked(psbt: &mut Psbt, record: u8, value: [u8; 32]) {
    psbt.inputs[0].unknown.insert(raw::Key { type_value: record, key: vec![] }, value.to_vec());
}

#[test]
fn a_frozen_node_takes_no_new_state_and_still_closes() {
    let mut lnd = Lnd::with_channel(0, 1);
    lnd.order(&Order::Freeze(None)).expect("ordered");
    lnd = lnd.restarted();
    let (last, next) = (lnd.commitment(0, 1, Some(600_000)), lnd.commitment(0, 2, Some(600_000)));
    assert_eq!(lnd.class(&next), Err(Reason::Frozen));
    assert!(lnd.class(&last).is_ok(), "asked again");
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(399_000, peer_script()), out(600_000, lnd.address(1))]);
    assert!(lnd.class(&close).is_ok());
}

#[test]
fn entries_of_another_node_or_unknown_ones_are_refused() {
    let entries = Lnd::with_channel(0, 1).entries;
    let restore = |spec: &NodeSpec, entries: &BTreeMap<String, Vec<u8>>| {
        LndNode::restore(spec, &settings(), Arc::new(Tip), Arc::default(), entries.clone()).err()
    };
    assert_eq!(restore(&spec(), &entries), None);
    let other = NodeSpec { seed: Secret::init(|seed| seed.fill(3)), ..spec() };
    assert_eq!(restore(&other, &entries), Some(RestoreError::OtherNode("the seed does not match")));
    let mut more = entries.clone();
    more.insert("channel/1".to_owned(), vec![]);
    assert!(matches!(restore(&spec(), &more), Some(RestoreError::Entries(_))));
    for key in entries.keys() {
        let mut damaged = entries.clone();
        damaged.insert(key.clone(), b"{}".to_vec());
        assert!(matches!(restore(&spec(), &damaged), Some(RestoreError::Entries(_))), "{key}");
    }
}

#[test]
fn methods_are_the_rows_of_the_table() {
    for method in Method::ALL {
        let row = guard::row(NodeKind::Lnd, &(*method as u16).to_be_bytes()).expect("a row");
        assert_eq!(row.name, method.name());
        assert!(row.is_recorded());
        for kind in [NodeKind::Ldk, NodeKind::Cln] {
            assert!(guard::row(kind, &(*method as u16).to_be_bytes()).is_err());
        }
    }
    assert!(guard::row(NodeKind::Lnd, &1u16.to_be_bytes()).is_err(), "and no hsmd message is lnd's");
}
