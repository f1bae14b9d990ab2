//! Second-level transactions: of an HTLC in force, with the output that BOLT 3 prescribes, and of nothing else.

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use lightning::ln::chan_utils::{
    CommitmentTransaction, HTLCOutputInCommitment, build_htlc_transaction, get_htlc_redeemscript,
    get_revokeable_redeemscript,
};
use lightning::types::features::ChannelTypeFeatures;
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::psbt::PsbtWrapper;
use vls_protocol::serde_bolt::WithSize;

use super::onchain::stranger;
use super::*;
use crate::reasons::Reason;

/// As [`Driver`] sets its channels up.
const CONTEST_DELAY: u16 = 144;

fn features() -> ChannelTypeFeatures {
    ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
}

/// The second-level transaction of HTLC number `n` of a commitment.
fn second_level(commitment: &CommitmentTransaction, n: usize) -> (HTLCOutputInCommitment, Transaction) {
    let (trusted, htlc) = (commitment.trust(), commitment.nondust_htlcs()[n].clone());
    let keys = trusted.keys();
    let (delayed, revocation) = (&keys.broadcaster_delayed_payment_key, &keys.revocation_key);
    let tx = build_htlc_transaction(&trusted.txid(), 0, CONTEST_DELAY, &htlc, &features(), delayed, revocation);
    (htlc, tx)
}

/// Message 20 of an LDK node.
fn claim(number: u64, htlc: &HTLCOutputInCommitment, tx: Transaction, input: u32) -> msgs::SignLocalHtlcTx2 {
    msgs::SignLocalHtlcTx2 {
        tx: WithSize(tx),
        input,
        per_commitment_number: number,
        offered: htlc.offered,
        cltv_expiry: htlc.cltv_expiry,
        htlc_amount_msat: htlc.amount_msat,
        payment_hash: Sha256(htlc.payment_hash.0),
    }
}

fn psbt(tx: &Transaction, amount_sat: u64, script: &ScriptBuf, output: &ScriptBuf) -> WithSize<PsbtWrapper> {
    let mut psbt = Psbt::from_unsigned_tx(tx.clone()).expect("unsigned");
    psbt.inputs[0].witness_utxo = Some(TxOut { value: Amount::from_sat(amount_sat), script_pubkey: script.to_p2wsh() });
    psbt.outputs[0].witness_script = Some(output.clone());
    WithSize(PsbtWrapper::from(psbt))
}

/// What Core Lightning says beside the transaction: the HTLC's script and the output's.
fn scripts(commitment: &CommitmentTransaction, htlc: &HTLCOutputInCommitment) -> (ScriptBuf, ScriptBuf) {
    let trusted = commitment.trust();
    let keys = trusted.keys();
    let output =
        get_revokeable_redeemscript(&keys.revocation_key, CONTEST_DELAY, &keys.broadcaster_delayed_payment_key);
    (get_htlc_redeemscript(htlc, &features(), keys), output)
}

/// Message 146.
fn claim_any(
    channel: ChannelRef,
    number: u64,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    tx: Transaction,
) -> msgs::SignAnyLocalHtlcTx {
    let (script, output) = scripts(commitment, htlc);
    msgs::SignAnyLocalHtlcTx {
        commitment_number: number,
        psbt: psbt(&tx, htlc.amount_msat / 1_000, &script, &output),
        tx: WithSize(tx),
        wscript: script.into_bytes().into(),
        option_anchors: true,
        input: 0,
        peer_id: PubKey(channel.peer_id),
        dbid: channel.dbid,
    }
}

fn refusal(outcome: Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Reply(_) => None,
        Outcome::Refused { refusal, .. } => Some(refusal.reason),
    }
}

struct Scene {
    signer: Signer,
    alice: NodeName,
    driver: Driver,
    /// The commitment before the one in force, with other HTLCs.
    revoked: CommitmentTransaction,
}

/// A channel with two HTLCs in force, at commitment 2.
fn scene() -> Scene {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    driver.advance(&mut signer.asking(&alice), 2).expect("advances");
    let revoked = driver.our_commitment();
    driver.advance(&mut signer.asking(&alice), 2).expect("advances");
    Scene { signer, alice, driver, revoked }
}

impl Scene {
    fn ask(&self, message: &dyn SerBolt) -> Option<Reason> {
        refusal(self.signer.ask(&self.alice, Some(self.driver.channel()), message.as_vec()))
    }

    /// The same for a message that is the node's and names its channel itself.
    fn ask_any(&self, message: &dyn SerBolt) -> Option<Reason> {
        refusal(self.signer.ask(&self.alice, None, message.as_vec()))
    }
}

#[test]
fn an_honest_claim_of_an_htlc_in_force_is_signed_alone_and_with_a_coin_that_pays_its_fee() {
    let scene = scene();
    let ours = scene.driver.our_commitment();
    for n in 0..2 {
        let (htlc, tx) = second_level(&ours, n);
        assert_eq!(scene.ask(&claim(2, &htlc, tx.clone(), 0)), None);
        let mut bumped = tx;
        bumped.input.push(TxIn { previous_output: OutPoint { vout: 9, ..OutPoint::null() }, ..TxIn::default() });
        bumped.output.push(TxOut { value: Amount::from_sat(5_000), script_pubkey: stranger() });
        assert_eq!(scene.ask(&claim(2, &htlc, bumped.clone(), 0)), None, "the coin's part is signed by the wallet");
        assert_eq!(scene.ask_any(&claim_any(scene.driver.channel(), 2, &ours, &htlc, bumped)), None);
    }
    // Two at once, as LDK does where their expiries allow it.
    let ((first, mut tx), (second, other)) = (second_level(&ours, 0), second_level(&ours, 1));
    tx.input.extend(other.input);
    tx.output.extend(other.output);
    assert_eq!(scene.ask(&claim(2, &first, tx.clone(), 0)), None);
    assert_eq!(scene.ask(&claim(2, &second, tx, 1)), None);
}

#[test]
fn a_hostile_claim_that_is_not_of_an_htlc_in_force_is_refused() {
    let scene = scene();
    let ours = scene.driver.our_commitment();
    let (htlc, tx) = second_level(&ours, 0);
    let message = || claim(2, &htlc, tx.clone(), 0);
    let with = |change: fn(&mut msgs::SignLocalHtlcTx2)| {
        let mut message = message();
        change(&mut message);
        message
    };
    let cases: [(&str, msgs::SignLocalHtlcTx2); 7] = [
        ("a revoked commitment", {
            let (htlc, tx) = second_level(&scene.revoked, 0);
            claim(1, &htlc, tx, 0)
        }),
        ("a commitment to come", with(|m| m.per_commitment_number = 3)),
        ("another amount", with(|m| m.htlc_amount_msat -= 1_000)),
        ("another hash", with(|m| m.payment_hash.0[5] ^= 1)),
        ("another expiry", with(|m| m.cltv_expiry -= 1)),
        ("the other direction", with(|m| m.offered = true)),
        (
            "no output of the commitment",
            with(|m| {
                m.tx.0.input[0].previous_output.txid =
                    Txid::from_raw_hash(bitcoin::hashes::Hash::from_byte_array([1; 32]))
            }),
        ),
    ];
    for (what, message) in cases {
        assert_eq!(scene.ask(&message), Some(Reason::HtlcUnknown), "{what}");
    }
    let main_output =
        (0..).find(|vout| ours.nondust_htlcs().iter().all(|htlc| htlc.transaction_output_index != Some(*vout)));
    let mut message = message();
    message.tx.0.input[0].previous_output.vout = main_output.expect("there is one");
    assert_eq!(scene.ask(&message), Some(Reason::HtlcUnknown), "our balance");
    message.input = 7;
    assert_eq!(scene.ask(&message), Some(Reason::Malformed));
}

#[test]
fn a_hostile_second_level_transaction_that_pays_otherwise_is_refused() {
    let scene = scene();
    let ours = scene.driver.our_commitment();
    let (htlc, tx) = second_level(&ours, 0);
    type Change = (&'static str, fn(&mut Transaction));
    let changes: [Change; 5] = [
        ("less", |tx| tx.output[0].value -= Amount::from_sat(1)),
        ("somebody else", |tx| tx.output[0].script_pubkey = stranger()),
        ("nobody", |tx| tx.output.clear()),
        ("with another sequence", |tx| tx.input[0].sequence = bitcoin::Sequence::MAX),
        ("with another version", |tx| tx.version = bitcoin::transaction::Version::ONE),
    ];
    for (what, change) in changes {
        let mut tx = tx.clone();
        change(&mut tx);
        assert_eq!(scene.ask(&claim(2, &htlc, tx.clone(), 0)), Some(Reason::HtlcTransaction), "it pays {what}");
        if !tx.output.is_empty() {
            let any = claim_any(scene.driver.channel(), 2, &ours, &htlc, tx);
            assert_eq!(scene.ask_any(&any), Some(Reason::HtlcTransaction), "it pays {what}");
        }
    }
    // An honest node may be a few blocks ahead, but not a year.
    let locked = |blocks| Transaction { lock_time: LockTime::from_consensus(htlc.cltv_expiry + blocks), ..tx.clone() };
    assert_eq!(scene.ask(&claim(2, &htlc, locked(1), 0)), None);
    assert_eq!(scene.ask(&claim(2, &htlc, locked(3), 0)), Some(Reason::ChainPending));
    assert_eq!(scene.ask(&claim(2, &htlc, locked(52_560), 0)), Some(Reason::Validation));
}

#[test]
fn the_script_of_the_htlc_is_the_commitments_and_not_a_hostile_nodes() {
    let scene = scene();
    let ours = scene.driver.our_commitment();
    let (htlc, tx) = second_level(&ours, 0);
    let honest = claim_any(scene.driver.channel(), 2, &ours, &htlc, tx.clone());
    assert_eq!(scene.ask_any(&honest), None);
    let (other, _) = second_level(&scene.revoked, 0);
    let foreign = claim_any(scene.driver.channel(), 2, &scene.revoked, &other, tx);
    assert_eq!(scene.ask_any(&foreign), Some(Reason::HtlcUnknown));
    assert_eq!(scene.ask_any(&msgs::SignAnyLocalHtlcTx { input: 1, ..honest }), Some(Reason::Malformed));
}

/// Core Lightning has the peer's second-level transactions signed one by one.
#[test]
fn the_peers_second_level_is_signed_for_its_commitments_in_force_and_no_hostile_other() {
    let mut scene = scene();
    let (theirs, point) = scene.driver.peer_commitment().expect("known");
    let (htlc, tx) = second_level(&theirs, 0);
    let (script, output) = scripts(&theirs, &htlc);
    let message = |tx: &Transaction, point: [u8; 33]| msgs::SignRemoteHtlcTx {
        psbt: psbt(tx, htlc.amount_msat / 1_000, &script, &output),
        tx: WithSize(tx.clone()),
        wscript: script.to_bytes().into(),
        remote_per_commitment_point: PubKey(point),
        option_anchors: true,
    };
    scene.signer.restart();
    scene.signer.add("alice", NodeKind::Cln);
    assert_eq!(scene.ask(&message(&tx, point.serialize())), None);
    let foreign = scene.driver.channel().peer_id;
    assert_eq!(scene.ask(&message(&tx, foreign)), Some(Reason::HtlcUnknown), "a point of no commitment");
    let mut changed = tx.clone();
    changed.output[0].value += Amount::from_sat(1);
    assert_eq!(scene.ask(&message(&changed, point.serialize())), Some(Reason::HtlcTransaction));
    changed.input[0].previous_output.txid = scene.driver.our_commitment().trust().txid();
    assert_eq!(scene.ask(&message(&changed, point.serialize())), Some(Reason::HtlcUnknown));
}
