//! What cannot be handled is refused in every message that can say it, and in no other.

mod parts;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Transaction, TxIn, Txid};
use vls_protocol::model::{CloseInfo, Sha256, Signature};
use vls_protocol::msgs;
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::{Octets, WireString, WithSize};

use self::parts::Parts;
use super::*;

fn refused(message: Message) -> String {
    let refusal = check(&message).expect_err("refused");
    assert_eq!(refusal.reason, Reason::Malformed);
    assert!(!refusal.facts.is_empty(), "{refusal:?}");
    refusal.detail
}

fn ecdh(byte: u8) -> Message {
    let mut point = [byte; 33];
    point[0] = 2;
    Message::Ecdh(msgs::Ecdh { point: PubKey(point) })
}

#[test]
fn points_are_points() {
    assert_eq!(refused(ecdh(0xff)), "point is not a point");
    assert_eq!(check(&ecdh(0x02)), Ok(()));
}

#[test]
fn points_of_closed_channels_are_points() {
    let withdrawal = |commitment_point| {
        let close_info =
            CloseInfo { channel_id: 1, peer_id: PubKey([2; 33]), commitment_point, is_anchors: true, csv: 144 };
        let utxo = Utxo {
            txid: Txid::from_byte_array([1; 32]),
            outnum: 0,
            amount: 1_000,
            keyindex: 0,
            is_p2sh: false,
            script: Octets::EMPTY,
            close_info: Some(close_info),
            is_in_coinbase: false,
        };
        let tx =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() };
        let psbt = StreamedPSBT::new(Psbt::from_unsigned_tx(tx).expect("unsigned"));
        Message::SignWithdrawal(msgs::SignWithdrawal { utxos: vec![utxo].into(), psbt: WithSize(psbt) })
    };
    assert_eq!(check(&withdrawal(None)), Ok(()));
    assert_eq!(check(&withdrawal(Some(PubKey([2; 33])))), Ok(()));
    assert_eq!(refused(withdrawal(Some(PubKey([5; 33])))), "commitment_point is not a point");
}

#[test]
fn amounts_are_amounts_of_bitcoin() {
    let keysend = |amount_msat| {
        let destination = PubKey([2; 33]);
        Message::PreapproveKeysend(msgs::PreapproveKeysend { destination, payment_hash: Sha256([1; 32]), amount_msat })
    };
    assert!(check(&keysend(MAX_MONEY_MSAT)).is_ok());
    assert!(refused(keysend(u64::MAX)).contains("amount"));
}

#[test]
fn signatures_match_their_commitment() {
    let one = |sighash| BitcoinSignature { signature: Signature([1; 64]), sighash };
    let validate = |signature, htlc_signatures: Vec<_>, htlcs: Vec<Htlc>, to_local_value_sat| {
        Message::ValidateCommitmentTx2(msgs::ValidateCommitmentTx2 {
            commitment_number: 1,
            feerate: 253,
            to_local_value_sat,
            to_remote_value_sat: 0,
            htlcs: htlcs.into(),
            signature,
            htlc_signatures: htlc_signatures.into(),
        })
    };
    let htlc = |side| Htlc { side, amount: 1_000_000, payment_hash: Sha256([1; 32]), ctlv_expiry: 100 };
    assert!(check(&validate(one(0x01), vec![one(0x83)], vec![htlc(1)], 1_000)).is_ok());
    assert!(refused(validate(one(0x83), vec![], vec![], 0)).contains("not ALL"));
    assert!(refused(validate(one(0x01), vec![one(0x02)], vec![htlc(1)], 0)).contains("sighash"));
    for (signed, htlcs) in [(1, 0), (0, 1), (1, 2)] {
        let refused = refused(validate(one(0x01), vec![one(0x01); signed], vec![htlc(1); htlcs], 0));
        assert_eq!(refused, format!("htlc_signatures: {signed}, not {htlcs}"));
    }
    assert!(refused(validate(one(0x01), vec![], vec![htlc(2)], 0)).contains("neither local nor remote"));
    assert!(refused(validate(one(0x01), vec![], vec![], u64::MAX)).contains("amount"));
}

#[test]
fn commitment_numbers_have_48_bits() {
    let revoke = |commitment_number| Message::RevokeCommitmentTx(msgs::RevokeCommitmentTx { commitment_number });
    assert_eq!(check(&revoke((1 << 48) - 1)), Ok(()));
    for number in [1 << 48, u64::MAX - 1, u64::MAX] {
        assert_eq!(refused(revoke(number)), "a commitment number has 48 bits");
    }
}

#[test]
fn anchors_come_with_static_remotekey() {
    for honest in [&[][..], &[0x10, 0x00], &[0x40, 0x10, 0x00], &[0x10, 0x10, 0x00], &[0x20, 0x20, 0x00]] {
        assert_eq!(channel_type(honest), Ok(()), "{honest:?}");
    }
    for hostile in [&[0x40, 0x00, 0x00][..], &[0x10, 0x00, 0x00], &[0x40, 0x20, 0x00]] {
        assert!(channel_type(hostile).is_err(), "{hostile:?}");
    }
}

/// Asserts that these messages are refused after `change`, and no other.
fn refuses(what: &str, change: impl FnOnce(&mut Parts), names: &[&str]) {
    let mut parts = Parts::honest();
    change(&mut parts);
    let messages = parts.messages().into_iter();
    let refused: Vec<String> = messages.filter(|(_, message)| check(message).is_err()).map(|(name, _)| name).collect();
    assert_eq!(refused, names, "{what}");
}

const SWEEPS_ONE: [&str; 3] = ["SignPenaltyToUs", "SignDelayedPaymentToUs", "SignRemoteHtlcToUs"];
const SWEEPS_ANY: [&str; 3] = ["SignAnyPenaltyToUs", "SignAnyDelayedPaymentToUs", "SignAnyRemoteHtlcToUs"];

#[test]
fn honest_messages_pass_and_each_hostile_part_is_refused_wherever_it_is_said() {
    refuses("nothing", |_| {}, &[]);
    refuses(
        "a number of 49 bits",
        |parts| parts.number += 1,
        &[
            "GetPerCommitmentPoint",
            "GetPerCommitmentPoint2",
            "RevokeCommitmentTx",
            "CheckFutureSecret",
            "SignLocalCommitmentTx2",
            "SignCommitmentTx",
            "SignRemoteCommitmentTx2",
            "ValidateCommitmentTx2",
            "SignRemoteCommitmentTx",
            "ValidateCommitmentTx",
            "ValidateRevocation",
            "SignDelayedPaymentToUs",
            "SignAnyDelayedPaymentToUs",
            "SignLocalHtlcTx",
            "SignAnyLocalHtlcTx",
            "SignLocalHtlcTx2",
        ],
    );
    refuses(
        "no point",
        |parts| parts.point = PubKey([5; 33]),
        &[
            "Ecdh",
            "SetupChannel",
            "SignRemoteCommitmentTx2",
            "SignRemoteCommitmentTx",
            "SignRemoteHtlcTx",
            "SignRemoteHtlcToUs",
            "SignAnyRemoteHtlcToUs",
        ],
    );
    let secret = ["ValidateRevocation", "SignPenaltyToUs", "SignAnyPenaltyToUs"];
    refuses("no secret key", |parts| parts.secret = [0xff; 32], &secret);
    let amounts = ["PreapproveKeysend", "SetupChannel", "SignLocalHtlcTx2"];
    refuses("more than all msat", |parts| parts.amount_msat = MAX_MONEY_MSAT + 1, &amounts);
    refuses("more pushed than there is", |parts| parts.amount_msat = 1_000_001, &["SetupChannel"]);
    refuses("as much pushed as there is", |parts| parts.amount_msat = 1_000_000, &[]);
    refuses(
        "more than all bitcoin",
        |parts| parts.value_sat = MAX_MONEY_SAT + 1,
        &["SetupChannel", "SignRemoteCommitmentTx2", "ValidateCommitmentTx2", "SignMutualCloseTx2"],
    );
    refuses("all bitcoin", |parts| (parts.value_sat, parts.htlcs[0].amount) = (MAX_MONEY_SAT - 1, 1_000), &[]);
    let commitments = ["SignRemoteCommitmentTx2", "ValidateCommitmentTx2"];
    refuses(
        "HTLCs that exceed it",
        |parts| (parts.value_sat, parts.htlcs[0].amount) = (MAX_MONEY_SAT, 1_000),
        &commitments,
    );
    let with_htlcs = [&commitments[..], &["SignRemoteCommitmentTx", "ValidateCommitmentTx"]].concat();
    refuses("a third side", |parts| parts.htlcs[0].side = 2, &with_htlcs);
    let many = |n: usize| {
        move |parts: &mut Parts| {
            (parts.htlcs, parts.htlc_signatures) = (vec![parts.htlcs[0].clone(); n], n);
        }
    };
    refuses("967 HTLCs", many(967), &with_htlcs);
    refuses("966 HTLCs", many(966), &[]);
    let validated = ["ValidateCommitmentTx2", "ValidateCommitmentTx"];
    refuses("a signature too few", |parts| parts.htlc_signatures = 0, &validated);
    refuses("a signature too many", |parts| parts.htlc_signatures = 2, &validated);
}

#[test]
fn hostile_transactions_are_refused_wherever_they_are_handed_in() {
    let all = |names: &[&[&'static str]]| {
        let messages = Parts::honest().messages().into_iter().map(|(name, _)| name);
        let of = |name: &String| names.concat().contains(&name.as_str());
        messages.filter(of).collect::<Vec<String>>()
    };
    let refused = |what: &str, change: fn(&mut Parts), names: &[&[&'static str]]| {
        let names = all(names);
        refuses(what, change, &names.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let second_level = ["SignLocalHtlcTx", "SignAnyLocalHtlcTx", "SignRemoteHtlcTx"];
    let wallet = ["SignWithdrawal", "SignHtlcTxMingle", "SignAnchorspend"];
    let closes = ["SignCommitmentTx", "SignMutualCloseTx"];
    let compared = ["SignRemoteCommitmentTx", "ValidateCommitmentTx"];
    refused(
        "no output",
        |parts| {
            parts.psbt.outputs.clear();
            parts.psbt.unsigned_tx.output.clear();
            parts.tx.output.clear();
        },
        &[&SWEEPS_ONE, &SWEEPS_ANY, &second_level],
    );
    refused("outputs that differ", |parts| parts.tx.output.clear(), &[&compared, &["SignRemoteHtlcTx"]]);
    refused("inputs that differ", |parts| parts.tx.input.clear(), &[&["SignRemoteHtlcTx", "SignLocalHtlcTx2"]]);
    refused("two inputs", |parts| parts.tx.input.push(TxIn::default()), &[&["SignRemoteHtlcTx"]]);
    refused(
        "two in the psbt",
        |parts| {
            parts.psbt.inputs.push(parts.psbt.inputs[0].clone());
            parts.psbt.unsigned_tx.input.push(TxIn::default());
        },
        &[&["SignRemoteHtlcTx"]],
    );
    refused(
        "two outputs",
        |parts| {
            parts.psbt.outputs.push(parts.psbt.outputs[0].clone());
            parts.psbt.unsigned_tx.output.push(parts.tx.output[0].clone());
            parts.tx.output.push(parts.tx.output[0].clone());
        },
        &[&["SignRemoteHtlcTx"]],
    );
    let any = ["SignAnyLocalHtlcTx", "SignLocalHtlcTx2"];
    refused("an input that is not there", |parts| parts.input = 1, &[&SWEEPS_ANY, &any]);
    refused(
        "an untold amount",
        |parts| {
            parts.psbt.inputs[0].witness_utxo = None;
        },
        &[&SWEEPS_ONE, &SWEEPS_ANY, &second_level, &wallet],
    );
    refused("no script", |parts| parts.psbt.outputs[0].witness_script = None, &[&second_level]);
    refused(
        "two paths",
        |parts| {
            let key = another_point(9);
            let path = (Fingerprint::default(), DerivationPath::master());
            parts.psbt.outputs[0].bip32_derivation.insert(key, path);
        },
        &[&closes, &SWEEPS_ONE, &SWEEPS_ANY, &wallet],
    );
    let x_only = |n: u8| another_point(n).x_only_public_key().0;
    let taproot = |keys: &[u8], leaves: usize| {
        let mut parts = Parts::honest();
        for key in keys {
            let leaf = bitcoin::TapLeafHash::from_byte_array([7; 32]);
            let source = (Fingerprint::default(), DerivationPath::master());
            parts.psbt.outputs[0].tap_key_origins.insert(x_only(*key), (vec![leaf; leaves], source));
        }
        paths(&parts.psbt).is_ok()
    };
    assert!(taproot(&[2], 0));
    assert!(!taproot(&[2, 3], 0));
    assert!(!taproot(&[2], 1));
    refused(
        "a signed input",
        |parts| {
            parts.psbt.inputs[0].redeem_script = Some(ScriptBuf::new());
            parts.psbt.inputs[0].final_script_sig = Some(ScriptBuf::new());
        },
        &[&wallet],
    );
    refused("a script and no signature", |parts| parts.psbt.inputs[0].redeem_script = Some(ScriptBuf::new()), &[]);
}

fn another_point(n: u8) -> PublicKey {
    SecretKey::from_slice(&[n; 32]).expect("a key").public_key(&Secp256k1::new())
}

#[test]
fn a_ping_is_text() {
    let ping = |text: &[u8]| Message::Ping(msgs::Ping { id: 1, message: WireString(text.to_vec()) });
    assert_eq!(check(&ping(b"hello")), Ok(()));
    assert_eq!(refused(ping(&[0xff])), "message is not text");
}

#[test]
fn an_unreadable_signature_is_refused() {
    let one = |byte, sighash| BitcoinSignature { signature: Signature([byte; 64]), sighash };
    let htlc = Htlc { side: 1, amount: 1_000_000, payment_hash: Sha256([1; 32]), ctlv_expiry: 100 };
    assert_eq!(signatures(&one(1, 1), &[one(1, 0x01)], std::slice::from_ref(&htlc)), Ok(()));
    assert!(signatures(&one(0xff, 1), &[one(1, 0x01)], std::slice::from_ref(&htlc)).is_err());
    assert!(signatures(&one(1, 1), &[one(0xff, 0x01)], &[htlc]).is_err());
}

#[test]
fn numbers_are_those_of_the_protocol() {
    assert_eq!(MAX_COMMITMENT_NUMBER, 0xffff_ffff_ffff);
    assert_eq!(MAX_MONEY_MSAT, 2_100_000_000_000_000_000);
}
