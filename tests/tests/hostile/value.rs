//! What we can claim falls only by what was approved, forwarded, or paid to miners within bounds (P9).

use bitcoin::hashes::{Hash, sha256};
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs;

use crate::channel::{Channel, Offer, Terms};
use crate::reasons::{EXCEEDED, GIVEN_AWAY, NO_PREIMAGE, NOT_APPROVED, NOT_CONSERVED, NOT_COVERED, TOO_LATE};
use crate::thief::Scene;

const PREIMAGE: [u8; 32] = [0x66; 32];
const EXPIRY: u32 = 500_000;

fn hash(preimage: [u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(&preimage).to_byte_array()
}

/// Ours, to be settled with `preimage`.
fn ours(amount_sat: u64, preimage: [u8; 32]) -> Offer {
    Offer { ours: true, amount_sat, hash: hash(preimage), expiry: EXPIRY }
}

/// The peer's.
fn theirs(amount_sat: u64, preimage: [u8; 32]) -> Offer {
    Offer { ours: false, amount_sat, hash: hash(preimage), expiry: EXPIRY + 144 }
}

/// The operator's limits do not matter here.
pub(crate) fn scene() -> Scene {
    Scene::with("ldk", |config| config["limits"]["max_payment_msat"] = 1_000_000_000.into())
}

fn approve(scene: &Scene, preimage: [u8; 32], amount_sat: u64) {
    let destination = PubKey(scene.thief.wallet_key(9).serialize());
    let message =
        msgs::PreapproveKeysend { destination, payment_hash: Sha256(hash(preimage)), amount_msat: amount_sat * 1_000 };
    let reply: msgs::PreapproveKeysendReply = scene.thief.answered(None, &message);
    assert!(reply.result);
}

/// A channel of which the peer has `to_peer_sat`, which we paid.
pub(crate) fn shared(scene: &Scene, dbid: u64, to_peer_sat: u64) -> Channel<'_> {
    let mut channel = Channel::open(scene, dbid);
    let preimage = [dbid as u8; 32];
    approve(scene, preimage, to_peer_sat);
    channel.advance(Terms::to_peer(0).with(ours(to_peer_sat, preimage))).expect("approved");
    channel.learn(preimage);
    channel.advance(Terms::to_peer(to_peer_sat)).expect("settled");
    channel
}

/// Asks for next commitments that leave nearly nothing to us.
pub(crate) fn does_not_shift(channel: &Channel<'_>) {
    let (next, shifted) = (channel.number + 1, Terms::to_peer(900_000));
    assert_eq!(channel.sign_remote(next, &shifted).expect_err("on the peer's commitment").0, NOT_CONSERVED);
    assert_eq!(channel.validate(next, &shifted).expect_err("on ours").0, NOT_CONSERVED);
}

#[test]
fn hostile_value_does_not_shift_to_the_peer_without_a_payment() {
    does_not_shift(&Channel::open(&scene(), 7));
}

#[test]
fn hostile_value_does_not_shift_in_small_steps() {
    let scene = scene();
    let mut channel = Channel::open(&scene, 7);
    let stolen = (1..200).take_while(|step| channel.advance(Terms::to_peer(step * 1_000)).is_ok()).count();
    assert!(stolen * 1_000 < 5_000, "{stolen} steps of 1,000 sat");
}

#[test]
fn honest_an_approved_payment_is_sent_and_settled() {
    let scene = scene();
    let mut channel = shared(&scene, 7, 600_000);
    approve(&scene, PREIMAGE, 50_000);
    channel.advance(Terms::to_peer(600_000).with(ours(50_000, PREIMAGE))).expect("approved");
    channel.learn(PREIMAGE);
    channel.advance(Terms::to_peer(650_000)).expect("settled");
}

#[test]
fn honest_a_payment_that_failed_comes_back_and_is_sent_again() {
    let scene = scene();
    let mut channel = Channel::open(&scene, 7);
    approve(&scene, PREIMAGE, 50_000);
    for _ in 0..3 {
        channel.advance(Terms::to_peer(0).with(ours(50_000, PREIMAGE))).expect("approved");
        channel.advance(Terms::to_peer(0)).expect("it failed");
    }
    channel.advance(Terms::to_peer(0).with(ours(50_000, PREIMAGE))).expect("approved");
    channel.learn(PREIMAGE);
    channel.advance(Terms::to_peer(50_000)).expect("settled");
}

#[test]
fn hostile_an_htlc_that_nobody_approved_is_not_sent() {
    let scene = scene();
    let channel = Channel::open(&scene, 7);
    let terms = Terms::to_peer(0).with(ours(50_000, PREIMAGE));
    assert_eq!(channel.sign_remote(1, &terms).expect_err("not approved").0, NOT_APPROVED);
}

#[test]
fn hostile_one_approval_pays_once() {
    let scene = scene();
    let mut channel = Channel::open(&scene, 7);
    approve(&scene, PREIMAGE, 50_000);
    let twice = Terms::to_peer(0).with(ours(50_000, PREIMAGE)).with(ours(50_000, PREIMAGE));
    assert_eq!(channel.sign_remote(1, &twice).expect_err("at once").0, EXCEEDED);
    channel.advance(Terms::to_peer(0).with(ours(50_000, PREIMAGE))).expect("approved");
    channel.learn(PREIMAGE);
    channel.advance(Terms::to_peer(50_000)).expect("settled");
    let again = Terms::to_peer(50_000).with(ours(50_000, PREIMAGE));
    assert_eq!(channel.sign_remote(3, &again).expect_err("one after the other").0, EXCEEDED);
}

#[test]
fn hostile_a_forward_is_covered_by_what_comes_in() {
    let scene = scene();
    let (mut from, to) = (shared(&scene, 7, 400_000), Channel::open(&scene, 8));
    from.advance(Terms::to_peer(398_500).with(theirs(1_500, PREIMAGE))).expect("it comes in");
    let terms = Terms::to_peer(0).with(ours(300_000, PREIMAGE));
    assert_eq!(to.sign_remote(1, &terms).expect_err("more goes out than comes in").0, NOT_COVERED);
}

#[test]
fn hostile_a_forward_has_time_to_take_its_money() {
    let scene = scene();
    let (mut from, to) = (shared(&scene, 7, 400_000), Channel::open(&scene, 8));
    from.advance(Terms::to_peer(99_000).with(theirs(301_000, PREIMAGE))).expect("it comes in");
    let late = Offer { expiry: EXPIRY + 143, ..ours(300_000, PREIMAGE) };
    assert_eq!(to.sign_remote(1, &Terms::to_peer(0).with(late)).expect_err("too late").0, TOO_LATE);
}

#[test]
fn honest_a_forward_goes_out_and_brings_its_fee() {
    let scene = scene();
    let (mut from, mut to) = (shared(&scene, 7, 400_000), Channel::open(&scene, 8));
    from.advance(Terms::to_peer(99_000).with(theirs(301_000, PREIMAGE))).expect("it comes in");
    to.advance(Terms::to_peer(0).with(ours(300_000, PREIMAGE))).expect("it goes out");
    to.learn(PREIMAGE);
    to.advance(Terms::to_peer(300_000)).expect("settled downstream");
    from.advance(Terms::to_peer(99_000)).expect("settled upstream");
}

#[test]
fn hostile_a_payment_is_taken_with_its_preimage_only() {
    let scene = scene();
    let mut channel = Channel::open(&scene, 7);
    approve(&scene, PREIMAGE, 50_000);
    channel.advance(Terms::to_peer(0).with(ours(50_000, PREIMAGE))).expect("approved");
    channel.learn([0x67; 32]);
    let taken = Terms::to_peer(50_000);
    assert_eq!(channel.sign_remote(2, &taken).expect_err("nobody was paid").0, NO_PREIMAGE);
    channel.learn(PREIMAGE);
    channel.advance(taken).expect("the payee was paid");
}

#[test]
fn hostile_what_was_passed_on_is_not_given_back() {
    let scene = scene();
    let (mut from, mut to) = (shared(&scene, 7, 400_000), Channel::open(&scene, 8));
    from.advance(Terms::to_peer(99_000).with(theirs(301_000, PREIMAGE))).expect("it comes in");
    to.advance(Terms::to_peer(0).with(ours(300_000, PREIMAGE))).expect("it goes out");
    let given_back = Terms::to_peer(400_000);
    assert_eq!(from.sign_remote(from.number + 1, &given_back).expect_err("it is on its way").0, GIVEN_AWAY);
    to.advance(Terms::to_peer(0)).expect("it failed downstream");
    from.advance(given_back).expect("it fails upstream");
}
