//! Whatever is sent, it gets an answer, the stream goes on and the node lives.

use claviger::lightning::driver::invoice_to_sign;
use claviger::reasons::Reason;
use fastrand::Rng;
use vls_protocol::model::{BitcoinSignature, PubKey, Signature};
use vls_protocol::msgs;

use crate::channel::{Channel, Terms};
use crate::reasons::{NO_GOSSIP, NO_INVOICE};
use crate::thief::Scene;

const TYPES: u16 = 3_100;

/// The node answers, and what it answers is its own key.
fn lives(scene: &Scene) {
    let _: msgs::NodeInfoReply = scene.thief.answered(None, &msgs::NodeInfo {});
    scene.thief.send(None, invoice_to_sign(1, 1_000)).expect("an honest invoice");
}

#[test]
fn hostile_blocks_of_the_node_are_not_taken_and_cost_no_memory() {
    for kind in ["ldk", "cln"] {
        let scene = Scene::new(kind);
        // AddBlock: an empty header, and 2^32 - 1 attestations to come.
        let mut block = 2005u16.to_be_bytes().to_vec();
        block.extend([0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        scene.thief.refused_bytes(Reason::NotAllowed, None, block);
        scene.thief.refused_bytes(Reason::NotAllowed, None, 2006u16.to_be_bytes().to_vec());
        lives(&scene);
    }
}

#[test]
fn hostile_malformed_messages_are_refused_and_the_node_lives() {
    let scene = Scene::new("ldk");
    let channel = Channel::open(&scene, 7);
    scene.thief.refused(Reason::Malformed, None, &msgs::Ecdh { point: PubKey([0xff; 33]) });
    scene.thief.refused(NO_GOSSIP, None, &msgs::SignNodeAnnouncement { announcement: vec![1; 10].into() });
    scene.thief.refused(NO_GOSSIP, None, &msgs::SignChannelUpdate { update: vec![1; 10].into() });
    let invoice = |u5, hrp: &[u8]| msgs::SignInvoice { u5bytes: vec![u5; 200].into(), hrp: hrp.to_vec().into() };
    scene.thief.refused(NO_INVOICE, None, &invoice(32, b"lnbcrt"));
    scene.thief.refused(NO_INVOICE, None, &invoice(1, &[0xff, 0xfe]));
    let zeros = BitcoinSignature { signature: Signature([0; 64]), sighash: 1 };
    let commitment = msgs::ValidateCommitmentTx2 {
        commitment_number: 1,
        feerate: 1_000,
        to_local_value_sat: u64::MAX,
        to_remote_value_sat: u64::MAX,
        htlcs: Vec::new().into(),
        signature: zeros,
        htlc_signatures: Vec::new().into(),
    };
    scene.thief.refused(Reason::Malformed, Some(channel.reference), &commitment);
    lives(&scene);
    channel.sign_remote(1, &Terms::to_peer(0)).expect("the channel works");
}

#[test]
fn hostile_noise_under_every_message_number_is_answered_and_the_node_lives() {
    let scene = Scene::new("ldk");
    let channel = Channel::open(&scene, 7);
    let mut random = Rng::with_seed(0x5eed);
    for number in 0..TYPES {
        let length = random.usize(..300);
        let body = (0..length).map(|_| random.u8(..));
        let message = number.to_be_bytes().into_iter().chain(body).collect();
        // A few happen to be well formed and harmless; the others are refused.
        let _ = scene.thief.send(Some(channel.reference), message);
    }
    assert!(*scene.thief.refusals.borrow() > usize::from(TYPES) - 20, "most of it is noise");
    lives(&scene);
    channel.sign_remote(1, &Terms::to_peer(0)).expect("the channel works");
}

#[test]
fn hostile_messages_of_another_kind_of_node_are_refused() {
    let ldk = Scene::new("ldk");
    ldk.thief.refused(Reason::NotAllowed, None, &msgs::DeriveSecret { info: b"commando".to_vec().into() });
    let cln = Scene::new("cln");
    cln.thief.refused(Reason::NotAllowed, None, &msgs::SignGossipMessage { message: vec![1; 200].into() });
}

#[test]
fn honest_a_refusal_is_an_answer_and_the_stream_goes_on() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    for _ in 0..100 {
        scene.thief.refused_bytes(Reason::MessageUnknown, None, vec![0x7f, 0xff]);
    }
    channel.advance(Terms::to_peer(0)).expect("the channel works");
}
