//! On-chain signing: sends within the limits, fees bounded whatever the destination, one answer per question.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use vls_protocol::model::Utxo;
use vls_protocol::msgs::{self, DeBolt, SerBolt};
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::WithSize;

use super::*;
use crate::reasons::Reason;

fn limits() -> LimitsConfig {
    LimitsConfig {
        max_onchain_sat: 60_000,
        max_onchain_sat_per_day: 100_000,
        max_onchain_fee_sat: 5_000,
        ..LimitsConfig::default()
    }
}

/// The node's wallet key number `index`.
pub(super) fn wallet_key(signer: &Signer, node: &NodeName, index: u32) -> PublicKey {
    let info = replied(signer.ask(node, None, msgs::NodeInfo {}.as_vec()));
    let info = msgs::NodeInfoReply::from_vec(info).expect("a reply");
    let account = Xpub::decode(&info.bip32.0).expect("an extended key");
    let child = ChildNumber::from_normal_idx(index).expect("an index");
    account.derive_pub(&Secp256k1::new(), &[child]).expect("not hardened").public_key
}

pub(super) fn taproot(key: PublicKey) -> ScriptBuf {
    Address::p2tr(&Secp256k1::new(), key.into(), None, Network::Regtest).script_pubkey()
}

pub(super) fn stranger() -> ScriptBuf {
    let address = Address::from_str("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").expect("an address");
    address.assume_checked().script_pubkey()
}

/// The wallet's coin of 200,000 sat at `outpoint`.
pub(super) fn wallet_coin(outpoint: OutPoint) -> Utxo {
    Utxo {
        txid: outpoint.txid,
        outnum: outpoint.vout,
        amount: 200_000,
        keyindex: 1,
        is_p2sh: false,
        script: Vec::new().into(),
        close_info: None,
        is_in_coinbase: false,
    }
}

/// SignWithdrawal of a wallet output of `coin` and 200,000 sat: `sent_sat` to a stranger, `change_sat` back.
pub(super) fn withdrawal(key: PublicKey, coin: u8, sent_sat: u64, change_sat: u64) -> Vec<u8> {
    let spent = OutPoint { txid: Txid::from_byte_array([coin; 32]), vout: 0 };
    let out = |sat, script_pubkey| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![out(sent_sat, stranger()), out(change_sat, taproot(key))],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
    psbt.inputs[0].witness_utxo = Some(out(200_000, taproot(key)));
    let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).expect("an index")].into();
    psbt.outputs[1].bip32_derivation.insert(key, (Fingerprint::default(), path));
    msgs::SignWithdrawal { utxos: vec![wallet_coin(spent)].into(), psbt: WithSize(StreamedPSBT::new(psbt)) }.as_vec()
}

#[test]
fn a_repeated_send_gets_the_same_signature_and_is_counted_once() {
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
    let alice = signer.add("alice", NodeKind::Cln);
    let key = wallet_key(&signer, &alice, 1);
    let send = withdrawal(key, 1, 50_000, 149_000);
    let first = replied(signer.ask(&alice, None, send.clone()));
    for _ in 0..3 {
        assert_eq!(replied(signer.ask(&alice, None, send.clone())), first, "the nonce is not drawn again");
    }
    signer.restart();
    signer.add("alice", NodeKind::Cln);
    assert_eq!(replied(signer.ask(&alice, None, send)), first, "nor after a restart");
    let (_, refusal) = refused(signer.ask(&alice, None, withdrawal(key, 2, 50_001, 149_000)));
    assert!(refusal.detail.contains("max_onchain_sat_per_day"), "{}", refusal.detail);
    replied(signer.ask(&alice, None, withdrawal(key, 3, 50_000, 149_000)));
}

#[test]
fn sends_above_the_limit_are_refused() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
    let alice = signer.add("alice", NodeKind::Cln);
    let key = wallet_key(&signer, &alice, 1);
    let (_, refusal) = refused(signer.ask(&alice, None, withdrawal(key, 1, 60_001, 139_000)));
    assert_eq!(refusal.reason, Reason::Limit);
    assert!(refusal.detail.contains("60001 sat > limits.max_onchain_sat = 60000"), "{}", refusal.detail);
    replied(signer.ask(&alice, None, withdrawal(key, 1, 60_000, 139_000)));
}

#[test]
fn fees_are_bounded_to_strangers_and_to_the_own_wallet() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
    let alice = signer.add("alice", NodeKind::Cln);
    let key = wallet_key(&signer, &alice, 1);
    for sent_sat in [50_000, 0] {
        let (_, refusal) = refused(signer.ask(&alice, None, withdrawal(key, 1, sent_sat, 194_999 - sent_sat)));
        assert_eq!(refusal.reason, Reason::Limit);
        assert!(refusal.detail.contains("5001 sat > limits.max_onchain_fee_sat"), "{}", refusal.detail);
    }
    replied(signer.ask(&alice, None, withdrawal(key, 1, 50_000, 145_000)));
}

/// SignWithdrawal of two wallet coins and a stranger's output that claims to hold `claimed_sat`, all of which goes on to
/// a stranger. With `proven`, the transactions that made the wallet's coins come along.
fn mingled(key: PublicKey, claimed_sat: u64, proven: bool) -> Vec<u8> {
    let out = |sat, script_pubkey| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let made = |coin: u8| Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(u32::from(coin)),
        input: vec![TxIn::default()],
        output: vec![out(200_000, taproot(key))],
    };
    let coins = [made(1), made(2)];
    let foreign = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 };
    let spent = coins.iter().map(|coin| OutPoint { txid: coin.compute_txid(), vout: 0 });
    let spent: Vec<_> = std::iter::once(foreign).chain(spent).collect();
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: spent.iter().map(|spent| TxIn { previous_output: *spent, ..TxIn::default() }).collect(),
        output: vec![out(claimed_sat, stranger()), out(399_000, taproot(key))],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
    psbt.inputs[0].witness_utxo = Some(out(claimed_sat, stranger().to_p2wsh()));
    let mut utxos = Vec::new();
    for (index, coin) in coins.into_iter().enumerate() {
        utxos.push(wallet_coin(OutPoint { txid: coin.compute_txid(), vout: 0 }));
        psbt.inputs[index + 1].witness_utxo = Some(coin.output[0].clone());
        psbt.inputs[index + 1].non_witness_utxo = proven.then_some(coin);
    }
    let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).expect("an index")].into();
    psbt.outputs[1].bip32_derivation.insert(key, (Fingerprint::default(), path));
    msgs::SignWithdrawal { utxos: utxos.into(), psbt: WithSize(StreamedPSBT::new(psbt)) }.as_vec()
}

#[test]
fn a_partners_input_counts_only_beside_proven_coins() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
    let alice = signer.add("alice", NodeKind::Ldk);
    let key = wallet_key(&signer, &alice, 1);
    let (_, refusal) = refused(signer.ask(&alice, None, mingled(key, 150_000, false)));
    assert!(refusal.detail.contains("on-chain send: 150000 sat"), "{}", refusal.detail);
    replied(signer.ask(&alice, None, mingled(key, 150_000, true)));
}

/// SignWithdrawal of two P2WPKH coins of 200,000 sat, of which the node says that they hold `told_sat`.
fn two_coins(key: PublicKey, told_sat: [u64; 2], back_sat: u64, proven: bool) -> Vec<u8> {
    let out = |sat, script_pubkey| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let coin = ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(key).wpubkey_hash());
    let made = [1, 2].map(|n: u32| Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(n),
        input: vec![TxIn::default()],
        output: vec![out(200_000, coin.clone())],
    });
    let spent = made.each_ref().map(|coin| OutPoint { txid: coin.compute_txid(), vout: 0 });
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: spent.iter().map(|spent| TxIn { previous_output: *spent, ..TxIn::default() }).collect(),
        output: vec![out(back_sat, taproot(key))],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx).expect("unsigned");
    let mut utxos = Vec::new();
    for (index, told_sat) in told_sat.into_iter().enumerate() {
        utxos.push(Utxo {
            txid: spent[index].txid,
            outnum: 0,
            amount: told_sat,
            keyindex: 1,
            is_p2sh: false,
            script: Vec::new().into(),
            close_info: None,
            is_in_coinbase: false,
        });
        psbt.inputs[index].witness_utxo = Some(out(told_sat, coin.clone()));
        psbt.inputs[index].non_witness_utxo = proven.then(|| made[index].clone());
    }
    let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).expect("an index")].into();
    psbt.outputs[0].bip32_derivation.insert(key, (Fingerprint::default(), path));
    msgs::SignWithdrawal { utxos: utxos.into(), psbt: WithSize(StreamedPSBT::new(psbt)) }.as_vec()
}

/// Two requests, each with a lie about the other coin, would yield the two signatures of a transaction that burns one.
#[test]
fn hostile_lies_about_coins_get_no_signature_and_honest_proofs_do() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
    let alice = signer.add("alice", NodeKind::Cln);
    let key = wallet_key(&signer, &alice, 1);
    for told_sat in [[200_000, 1_000], [1_000, 200_000], [200_000, 200_000]] {
        let sum_sat: u64 = told_sat.iter().sum();
        let (_, refusal) = refused(signer.ask(&alice, None, two_coins(key, told_sat, sum_sat - 1_000, false)));
        assert_eq!(refusal.reason, Reason::CoinUnproven, "{}", refusal.detail);
    }
    let (_, refusal) = refused(signer.ask(&alice, None, two_coins(key, [200_000, 1_000], 200_000, true)));
    assert_eq!(refusal.reason, Reason::Malformed, "the proof says otherwise: {}", refusal.detail);
    replied(signer.ask(&alice, None, two_coins(key, [200_000; 2], 399_000, true)));
}

#[test]
fn an_honest_send_to_an_allowed_address_needs_no_limit_but_a_hostile_fee_has_one_there_too() {
    let allow = vec!["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned()];
    let limits = LimitsConfig { max_onchain_fee_sat: 5_000, allow, ..LimitsConfig::default() };
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
    let alice = signer.add("alice", NodeKind::Cln);
    let key = wallet_key(&signer, &alice, 1);
    replied(signer.ask(&alice, None, withdrawal(key, 1, 150_000, 49_000)));
    let (_, refusal) = refused(signer.ask(&alice, None, withdrawal(key, 2, 150_000, 44_999)));
    assert!(refusal.detail.contains("limits.max_onchain_fee_sat"), "{}", refusal.detail);

    signer.limits.allow.clear();
    signer.restart();
    signer.add("alice", NodeKind::Cln);
    let (_, refusal) = refused(signer.ask(&alice, None, withdrawal(key, 3, 150_000, 49_000)));
    assert!(refusal.detail.contains("limits.max_onchain_sat"), "the file counts, not what it was: {}", refusal.detail);
}
