//! Secrets and questions about secrets are answered as far as an honest node needs it, and no further.

use claviger::reasons::Reason;
use vls_protocol::model::{DisclosedSecret, Sha256};
use vls_protocol::msgs;
use vls_protocol::serde_bolt::WireString;

use crate::channel::{Channel, Terms};
use crate::reasons::{NO_BOLT12, NO_PURPOSE};
use crate::thief::Scene;

#[test]
fn hostile_the_state_of_a_channel_is_not_told() {
    for kind in ["ldk", "cln"] {
        let scene = Scene::new(kind);
        let channel = Channel::set_up(&scene, 7);
        let message = msgs::CheckChannelStateSync { node_channel_entry_json: WireString(b"{}".to_vec()) };
        scene.thief.refused(Reason::MessageUnknown, Some(channel.reference), &message);
    }
}

#[test]
fn hostile_points_far_ahead_are_not_told() {
    let scene = Scene::new("ldk");
    let channel = Channel::open(&scene, 7);
    for number in [4, 1_000, (1 << 48) - 1] {
        assert_eq!(channel.point(number).expect_err("far ahead").0, Reason::Validation, "number {number}");
    }
    assert_eq!(channel.point(u64::MAX).expect_err("no number").0, Reason::Malformed);
}

#[test]
fn honest_points_are_told_as_far_as_the_next_commitments_need_them() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    for _ in 0..3 {
        for number in 0..=channel.number + 3 {
            channel.point(number).expect("up to the one after the next");
        }
        channel.advance(Terms::to_peer(0)).expect("a state like the one before");
    }
}

#[test]
fn hostile_a_point_brings_no_secret_along() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    for _ in 0..3 {
        channel.advance(Terms::to_peer(0)).expect("a state like the one before");
    }
    for commitment_number in 0..5 {
        let message = msgs::GetPerCommitmentPoint { commitment_number };
        if let Ok(reply) = channel.ask::<msgs::GetPerCommitmentPointReply>(&message) {
            assert!(reply.secret.is_none(), "a secret leaves through RevokeCommitmentTx only");
        }
    }
}

#[test]
fn hostile_secrets_of_other_purposes_are_not_derived() {
    let scene = Scene::new("cln");
    for info in [&b""[..], b"node seed", b"bip32 seed", b"peer seed", &[0xff; 200]] {
        scene.thief.refused(NO_PURPOSE, None, &msgs::DeriveSecret { info: info.to_vec().into() });
    }
}

#[test]
fn honest_secrets_that_core_lightning_uses_are_derived() {
    let scene = Scene::new("cln");
    for info in [&b"commando"[..], b"scb secret", b"bolt12-invoice-base"] {
        let message = msgs::DeriveSecret { info: info.to_vec().into() };
        let reply: msgs::DeriveSecretReply = scene.thief.answered(None, &message);
        let again: msgs::DeriveSecretReply = scene.thief.answered(None, &message);
        assert_eq!(reply.secret.0, again.secret.0);
    }
}

fn guess(channel: &Channel<'_>, commitment_number: u64) -> Result<bool, Reason> {
    let message = msgs::CheckFutureSecret { commitment_number, secret: DisclosedSecret([7; 32]) };
    let reply = channel.ask::<msgs::CheckFutureSecretReply>(&message);
    reply.map(|reply| reply.result).map_err(|(reason, _)| reason)
}

#[test]
fn hostile_guesses_at_secrets_of_the_past_are_not_answered() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    for _ in 0..3 {
        channel.advance(Terms::to_peer(0)).expect("a state like the one before");
    }
    for number in 0..channel.number {
        assert_eq!(guess(&channel, number), Err(NO_PURPOSE), "number {number} was revoked");
    }
    assert_eq!(guess(&channel, u64::MAX), Err(Reason::Malformed));
}

#[test]
fn honest_a_node_that_may_have_lost_its_state_asks_whether_a_secret_is_of_the_future() {
    for kind in ["ldk", "cln"] {
        let scene = Scene::new(kind);
        let channel = Channel::set_up(&scene, 7);
        for number in [0, 1, 1_000] {
            assert_eq!(guess(&channel, number), Ok(false), "this is none of ours");
        }
    }
}

#[test]
fn hostile_a_merkle_root_is_signed_under_the_tags_of_bolt_12_only() {
    let scene = Scene::new("cln");
    let sign = |message: &str, field: &str| msgs::SignBolt12 {
        message_name: WireString(message.as_bytes().to_vec()),
        field_name: WireString(field.as_bytes().to_vec()),
        merkle_root: Sha256([5; 32]),
        public_tweak: Vec::new().into(),
    };
    for (message, field) in [("", ""), ("TapSighash", ""), ("lightning", "channel"), ("invoice", "node_id")] {
        scene.thief.refused(NO_BOLT12, None, &sign(message, field));
    }
}
