//! Closing and revoking exclude each other: a commitment is either to be broadcast or revoked, and who has both from the
//! signer gives the channel to the peer.

use crate::channel::{Channel, Terms};
use crate::reasons::{REVOKE_AFTER_CLOSE, REVOKED, UPDATE_AFTER_CLOSE};
use crate::sweeps::p2wpkh;
use crate::thief::Scene;

/// A channel at commitment 1, of which number 2 is valid and not yet in force.
pub(crate) fn about_to_revoke(scene: &Scene) -> Channel<'_> {
    let mut channel = Channel::open(scene, 7);
    channel.advance(Terms::to_peer(0)).expect("a state like the one before");
    channel.sign_remote(2, &Terms::to_peer(0)).expect("the peer's next commitment");
    channel.validate(2, &Terms::to_peer(0)).expect("our next commitment");
    channel
}

/// Signs to close and then asks for the secret: the peer could punish what was signed.
pub(crate) fn closes_or_revokes(channel: &Channel<'_>) {
    channel.force_close(1).expect("to close is allowed");
    assert_eq!(channel.revoke(1).expect_err("it was signed").0, REVOKE_AFTER_CLOSE);
    assert_eq!(channel.validate(3, &Terms::to_peer(0)).expect_err("nothing comes after it").0, UPDATE_AFTER_CLOSE);
}

#[test]
fn hostile_the_secret_of_a_commitment_signed_to_close_stays_inside() {
    closes_or_revokes(&about_to_revoke(&Scene::new("ldk")));
}

#[test]
fn hostile_a_restart_does_not_make_the_signer_forget_that_it_signed_to_close() {
    let mut scene = Scene::new("ldk");
    let channel = about_to_revoke(&scene);
    channel.force_close(1).expect("to close is allowed");
    let (reference, revoke) = (channel.reference, vls_protocol::msgs::RevokeCommitmentTx { commitment_number: 1 });
    scene.restart();
    for _ in 0..2 {
        scene.thief.refused(REVOKE_AFTER_CLOSE, Some(reference), &revoke);
    }
}

#[test]
fn hostile_no_secret_is_released_once_the_channel_was_closed_together() {
    let scene = Scene::new("ldk");
    let channel = about_to_revoke(&scene);
    channel.mutual_close(998_000, 0, Default::default()).expect("to close is allowed");
    assert_eq!(channel.revoke(1).expect_err("the channel is closed").0, REVOKE_AFTER_CLOSE);
}

#[test]
fn hostile_a_revoked_commitment_is_not_signed() {
    let mut scene = Scene::new("ldk");
    let channel = about_to_revoke(&scene);
    channel.revoke(1).expect("number 2 is valid");
    assert_eq!(channel.force_close(1).expect_err("it is revoked").0, REVOKED);
    let reference = channel.reference;
    scene.restart();
    let close = vls_protocol::msgs::SignLocalCommitmentTx2 { commitment_number: 1 };
    scene.thief.refused(REVOKED, Some(reference), &close);
}

#[test]
fn honest_a_channel_advances_and_then_closes_by_force() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    for _ in 0..3 {
        channel.advance(Terms::to_peer(0)).expect("nothing was closed");
    }
    channel.force_close(3).expect("it is in force");
    channel.force_close(3).expect("asked again");
}

#[test]
fn honest_a_channel_advances_and_then_closes_together() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    channel.advance(Terms::to_peer(0)).expect("nothing was closed");
    channel.mutual_close(998_000, 0, p2wpkh(&scene.thief.wallet_key(2))).expect("all of it is ours");
    channel.force_close(1).expect("the peer went away before it had signed");
}
