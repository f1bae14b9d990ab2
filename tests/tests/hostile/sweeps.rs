//! What is claimed on the chain belongs to a commitment that the signer knows, and comes to the node's own wallet.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use lightning::ln::chan_utils::build_htlc_transaction;
use vls_protocol::model::{Sha256, Utxo};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::WithSize;

use crate::channel::{CONTEST_DELAY, Channel, FEERATE, Offer, Terms, features};
use crate::thief::Scene;

pub(crate) fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())
}

fn out(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

/// A script of nobody here.
fn stranger() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&Hash::all_zeros())
}

/// SignWithdrawal of a wallet coin of 200,000 sat under key number 1: some to a stranger, some back.
pub(crate) fn withdrawal(key: &PublicKey, sent_sat: u64, change_sat: u64) -> Vec<u8> {
    let spent = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![out(sent_sat, stranger()), out(change_sat, p2wpkh(key))],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx).unwrap();
    psbt.inputs[0].witness_utxo = Some(out(200_000, p2wpkh(key)));
    let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).unwrap()].into();
    psbt.outputs[1].bip32_derivation.insert(*key, (Fingerprint::default(), path));
    let utxo = Utxo {
        txid: spent.txid,
        outnum: spent.vout,
        amount: 200_000,
        keyindex: 1,
        is_p2sh: false,
        script: Vec::new().into(),
        close_info: None,
        is_in_coinbase: false,
    };
    msgs::SignWithdrawal { utxos: vec![utxo].into(), psbt: WithSize(StreamedPSBT::new(psbt)) }.as_vec()
}

/// A channel with one payment to us on its commitments, and the transaction that takes it from ours.
fn received(scene: &Scene) -> (Channel<'_>, Offer, Transaction) {
    let mut channel = crate::value::shared(scene, 7, 400_000);
    let offer = Offer { ours: false, amount_sat: 50_000, hash: [0x77; 32], expiry: 500_000 };
    let terms = Terms::to_peer(350_000).with(offer);
    channel.advance(terms.clone()).expect("it comes in");
    let commitment = channel.commitment(channel.number, &terms);
    let trusted = commitment.trust();
    let (txid, keys) = (trusted.txid(), trusted.keys());
    let htlc = &commitment.nondust_htlcs()[0];
    let (delayed, revocation) = (&keys.broadcaster_delayed_payment_key, &keys.revocation_key);
    let tx = build_htlc_transaction(&txid, FEERATE, CONTEST_DELAY, htlc, &features(), delayed, revocation);
    (channel, offer, tx)
}

fn sign(tx: &Transaction, number: u64, offer: &Offer) -> msgs::SignLocalHtlcTx2 {
    msgs::SignLocalHtlcTx2 {
        tx: WithSize(tx.clone()),
        input: 0,
        per_commitment_number: number,
        offered: offer.ours,
        cltv_expiry: offer.expiry,
        htlc_amount_msat: offer.amount_sat * 1_000,
        payment_hash: Sha256(offer.hash),
    }
}

#[test]
fn honest_an_htlc_of_our_commitment_is_claimed() {
    let scene = crate::value::scene();
    let (channel, offer, tx) = received(&scene);
    channel.force_close(channel.number).expect("in force");
    channel.ask::<msgs::SignTxReply>(&sign(&tx, channel.number, &offer)).expect("it is ours");
}
