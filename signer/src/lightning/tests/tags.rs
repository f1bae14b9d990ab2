//! What the node signs under a tag, the invoices it issues, and the secrets it is told: each for its purpose only.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning::blinded_path::BlindedHop;
use lightning::blinded_path::payment::{BlindedPayInfo, BlindedPaymentPath};
use lightning::offers::refund::RefundBuilder;
use lightning::types::features::BlindedHopFeatures;
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning::util::ser::Writeable;
use lightning_invoice::{Currency, InvoiceBuilder, RawBolt11Invoice, RawTaggedField, TaggedField};
use vls_protocol::model::{DisclosedSecret, PubKey, Sha256};
use vls_protocol::msgs::{self, DeBolt, SerBolt};
use vls_protocol::serde_bolt::WireString;

use super::*;
use crate::lightning::driver::invoice_to_sign;
use crate::lightning::guard::MAX_SIGNED_MESSAGE_BYTES;
use crate::reasons::Reason;

fn node(kind: NodeKind) -> (Signer, NodeName) {
    let signer = Signer::start();
    let alice = signer.add("alice", kind);
    (signer, alice)
}

fn reason(outcome: Outcome) -> Reason {
    refused(outcome).1.reason
}

#[test]
fn honest_and_hostile_texts_differ_in_length_only() {
    let (signer, alice) = node(NodeKind::Ldk);
    let sign = |len| signer.ask(&alice, None, msgs::SignMessage { message: vec![0x4c; len].into() }.as_vec());
    for honest in [0, 1, 1_000, MAX_SIGNED_MESSAGE_BYTES] {
        replied(sign(honest));
    }
    for hostile in [MAX_SIGNED_MESSAGE_BYTES + 1, 65_535] {
        assert_eq!(reason(sign(hostile)), Reason::SignedMessageTooLong);
    }
}

#[test]
fn hostile_bolt12_names_are_refused_and_honest_ones_signed() {
    let (signer, alice) = node(NodeKind::Cln);
    let text = |text: &str| WireString(text.as_bytes().to_vec());
    let ask = |name: &str, field: &str, info: Option<&str>, tweak: &[u8]| {
        let (message_name, field_name, merkle_root) = (text(name), text(field), Sha256([7; 32]));
        let public_tweak = tweak.to_vec().into();
        let message = match info {
            None => msgs::SignBolt12 { message_name, field_name, merkle_root, public_tweak }.as_vec(),
            Some(info) => {
                let info = info.as_bytes().to_vec().into();
                msgs::SignBolt12V2 { message_name, field_name, merkle_root, info, public_tweak }.as_vec()
            }
        };
        signer.ask(&alice, None, message)
    };
    for (info, tweak) in [(None, &[][..]), (None, &[1]), (Some(""), &[]), (Some("node-alias-base"), &[1])] {
        for name in ["invoice", "invoice_request"] {
            replied(ask(name, "signature", info, tweak));
        }
        for (name, field) in [("", ""), ("invoice", "merkle"), ("offer", "signature"), ("TapSighash", "signature")] {
            assert_eq!(reason(ask(name, field, info, tweak)), Reason::Bolt12Tag, "{name} {field}");
        }
    }
    assert_eq!(reason(ask("invoice", "signature", Some("nodeid"), &[1])), Reason::Bolt12Tag);
}

/// The parts of an invoice as a node hands them in.
fn parts(invoice: &RawBolt11Invoice) -> (String, Vec<u8>) {
    let (hrp, data) = invoice.to_raw();
    (hrp, data.iter().map(|fe| fe.to_u8()).collect())
}

fn invoice(n: u8, currency: Currency) -> RawBolt11Invoice {
    InvoiceBuilder::new(currency)
        .description(String::new())
        .payment_hash(sha256::Hash::hash(&[n]))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
        .min_final_cltv_expiry_delta(144)
        .amount_milli_satoshis(250_000)
        .expiry_time(Duration::from_secs(3_600))
        .build_raw()
        .expect("the fields are complete")
}

fn sign_invoice(hrp: &str, u5bytes: Vec<u8>) -> Vec<u8> {
    msgs::SignInvoice { u5bytes: u5bytes.into(), hrp: hrp.as_bytes().to_vec().into() }.as_vec()
}

#[test]
fn honest_invoices_are_signed_for_this_node_and_chain() {
    let (signer, alice) = node(NodeKind::Ldk);
    let raw = invoice(1, Currency::Regtest);
    let (hrp, data) = parts(&raw);
    let reply = replied(signer.ask(&alice, None, sign_invoice(&hrp, data)));
    let reply = msgs::SignInvoiceReply::from_vec(reply).expect("reads").signature.0;
    let recovery_id = RecoveryId::from_i32(reply[64].into()).expect("an id");
    let signature = RecoverableSignature::from_compact(&reply[..64], recovery_id);
    let signed = raw.sign::<_, Infallible>(|_| Ok(signature.expect("a signature"))).expect("infallible");
    let info = replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
    let node_id = msgs::NodeInfoReply::from_vec(info).expect("reads").node_id;
    assert_eq!(signed.recover_payee_pub_key().expect("recovers").0.serialize(), node_id.0);

    // The payee may be named.
    let mut named = invoice(2, Currency::Regtest);
    let payee = lightning_invoice::PayeePubKey(PublicKey::from_slice(&node_id.0).expect("a key"));
    named.data.tagged_fields.push(RawTaggedField::KnownSemantics(TaggedField::PayeePubKey(payee)));
    let (hrp, data) = parts(&named);
    replied(signer.ask(&alice, None, sign_invoice(&hrp, data)));
    replied(signer.ask(&alice, None, invoice_to_sign(3, 10_000)));
}

#[test]
fn hostile_invoices_are_refused() {
    let (signer, alice) = node(NodeKind::Ldk);
    let ask = |hrp: &str, data: Vec<u8>| reason(signer.ask(&alice, None, sign_invoice(hrp, data)));
    for currency in [Currency::Bitcoin, Currency::BitcoinTestnet, Currency::Signet, Currency::Simnet] {
        let (hrp, data) = parts(&invoice(1, currency));
        assert_eq!(ask(&hrp, data), Reason::InvoiceForeign, "{hrp}");
    }
    let mut foreign = invoice(2, Currency::Regtest);
    let other = SecretKey::from_slice(&[0x21; 32]).expect("a key").public_key(&Secp256k1::new());
    let payee = RawTaggedField::KnownSemantics(TaggedField::PayeePubKey(lightning_invoice::PayeePubKey(other)));
    foreign.data.tagged_fields.push(payee);
    let (hrp, data) = parts(&foreign);
    assert_eq!(ask(&hrp, data), Reason::InvoiceForeign);

    let (hrp, data) = parts(&invoice(3, Currency::Regtest));
    // More than all bitcoin; a tenth of a millisatoshi; more than fits; not as BOLT 11 writes it; no invoice.
    for hostile in ["lnbcrt21000001", "lnbcrt1p", "lnbcrt18446744073709551615m", "LNBCRT2500n", "lnxx1", "\u{fffd}", ""]
    {
        assert_eq!(ask(hostile, data.clone()), Reason::InvoiceUnreadable, "{hostile}");
    }
    assert_eq!(ask(&hrp, vec![32; 200]), Reason::InvoiceUnreadable, "no base 32");
    assert_eq!(ask(&hrp, data[..7].to_vec()), Reason::InvoiceUnreadable, "a time stamp only");
    assert_eq!(ask(&hrp, [data.clone(), vec![0]].concat()), Reason::InvoiceUnreadable, "something trails");
    assert_eq!(signer.nodes().status()[0].faults, 0);
}

/// An answer to a refund on `network`, to be signed by `signing_pubkey`.
fn bolt12_invoice(network: Network, amount_msat: u64, signing_pubkey: PublicKey) -> Vec<u8> {
    let refund = RefundBuilder::new(vec![7; 32], signing_pubkey, amount_msat).expect("an amount").chain(network);
    let hop = BlindedHop { blinded_node_id: signing_pubkey, encrypted_payload: vec![0; 40] };
    let payinfo = BlindedPayInfo {
        fee_base_msat: 0,
        fee_proportional_millionths: 0,
        cltv_expiry_delta: 144,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: u64::MAX,
        features: BlindedHopFeatures::empty(),
    };
    let path = BlindedPaymentPath::from_blinded_path_and_payinfo(signing_pubkey, signing_pubkey, vec![hop], payinfo);
    let refund = refund.build().expect("complete");
    let invoice = refund.respond_with(vec![path], PaymentHash([network as u8; 32]), signing_pubkey);
    invoice.expect("answers").build().expect("complete").encode()
}

#[test]
fn hostile_bolt12_invoices_are_refused_and_honest_ones_signed() {
    let (signer, alice) = node(NodeKind::Ldk);
    let hello = msgs::HsmdInit2 {
        derivation_style: 1,
        network_name: WireString(b"regtest".to_vec()),
        dev_seed: None,
        dev_allowlist: Vec::new().into(),
    };
    let hello = msgs::HsmdInit2Reply::from_vec(replied(signer.ask(&alice, None, hello.as_vec()))).expect("reads");
    let ours = PublicKey::from_slice(&hello.bolt12.0).expect("a key");
    let sign =
        |invoice: Vec<u8>| signer.ask(&alice, None, msgs::SignBolt12Invoice { invoice_bytes: invoice.into() }.as_vec());
    let honest = bolt12_invoice(Network::Regtest, 10_000, ours);
    replied(sign(honest.clone()));
    assert_eq!(reason(sign(bolt12_invoice(Network::Bitcoin, 10_000, ours))), Reason::InvoiceForeign);
    for hostile in [vec![1, 2, 3], Vec::new(), [honest, vec![0]].concat()] {
        assert_eq!(reason(sign(hostile)), Reason::InvoiceUnreadable);
    }
}

#[test]
fn hostile_secrets_without_a_purpose_are_refused_and_honest_ones_told() {
    let (signer, alice) = node(NodeKind::Cln);
    let derive = |info: &[u8]| signer.ask(&alice, None, msgs::DeriveSecret { info: info.to_vec().into() }.as_vec());
    let honest: [&[u8]; 5] =
        [b"bolt12-invoice-base", b"offer-blinded-path", b"node-alias-base", b"scb secret", b"commando"];
    for info in honest {
        assert_eq!(replied(derive(info)), replied(derive(info)));
    }
    let hostile: [&[u8]; 6] = [b"", b"nodeid", b"bip32 seed", b"peer seed", b"commando ", &[0xff; 5_000]];
    for info in hostile {
        assert_eq!(reason(derive(info)), Reason::SecretPurpose);
    }
    let check = |index: u32| signer.ask(&alice, None, msgs::CheckPubKey { index, pubkey: PubKey([2; 33]) }.as_vec());
    let reply = msgs::CheckPubKeyReply::from_vec(replied(check((1 << 31) - 1))).expect("reads");
    assert!(!reply.ok, "that is another key");
    assert_eq!(reason(check(1 << 31)), Reason::Malformed);
}

#[test]
fn honest_node_that_lost_its_state_learns_that_it_did_and_a_hostile_one_nothing_of_the_past() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    for _ in 0..3 {
        driver.advance(&mut signer.asking(&alice), 0).expect("advances");
    }
    let channel = Some(driver.channel());
    for kind in [NodeKind::Ldk, NodeKind::Cln] {
        signer.restart();
        signer.add("alice", kind);
        let ask = |commitment_number| {
            let secret = DisclosedSecret([1; 32]);
            signer.ask(&alice, channel, msgs::CheckFutureSecret { commitment_number, secret }.as_vec())
        };
        for honest in [3, 4, 1_000] {
            let reply = msgs::CheckFutureSecretReply::from_vec(replied(ask(honest))).expect("reads");
            assert!(!reply.result);
        }
        for hostile in 0..3 {
            assert_eq!(reason(ask(hostile)), Reason::SecretPurpose);
        }
        assert_eq!(reason(ask(1 << 48)), Reason::Malformed);
    }
}

#[test]
fn hostile_clients_cannot_speak_beyond_what_they_were_given() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = signer.channel(&alice, 1);
    let channel = Some(driver.channel());
    let of_node: [Vec<u8>; 3] = [
        msgs::SignMessage { message: vec![1].into() }.as_vec(),
        msgs::NewChannel { peer_id: PubKey([2; 33]), dbid: 9 }.as_vec(),
        invoice_to_sign(1, 1_000),
    ];
    for message in of_node {
        assert_eq!(reason(signer.ask(&alice, channel, message.clone())), Reason::MessageScope);
        replied(signer.ask(&alice, None, message));
    }
    let of_channel = msgs::GetPerCommitmentPoint2 { commitment_number: 0 }.as_vec();
    assert_eq!(reason(signer.ask(&alice, None, of_channel.clone())), Reason::MessageScope);
    replied(signer.ask(&alice, channel, of_channel));
    // Shared secrets are asked for by both.
    let ecdh = msgs::Ecdh { point: PubKey(driver.channel().peer_id) }.as_vec();
    assert_eq!(replied(signer.ask(&alice, channel, ecdh.clone())), replied(signer.ask(&alice, None, ecdh)));
}
