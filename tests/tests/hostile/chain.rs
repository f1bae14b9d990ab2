//! What the chain says, the signer knows for itself.

use claviger::reasons::Reason;
use vls_protocol::msgs;

use crate::channel::{Channel, Terms};
use crate::thief::Scene;

fn is_buried(scene: &Scene, channel: &Channel<'_>) -> bool {
    let (txid, vout) = (channel.funding.txid, channel.funding.vout as u16);
    let message = msgs::CheckOutpoint { funding_txid: txid, funding_txout: vout };
    let reply: msgs::CheckOutpointReply = scene.thief.answered(Some(channel.reference), &message);
    reply.is_buried
}

#[test]
fn hostile_a_funding_transaction_that_is_in_no_block_is_not_buried() {
    let scene = Scene::new("cln");
    let channel = Channel::set_up(&scene, 7);
    assert!(!is_buried(&scene, &channel));
}

#[test]
fn honest_a_funding_transaction_in_the_chain_is_buried() {
    let scene = Scene::new("cln");
    let channel = Channel::set_up(&scene, 7);
    scene.mine(6);
    assert!(is_buried(&scene, &channel));
}

#[test]
fn hostile_a_channel_that_is_in_no_block_does_not_advance() {
    let scene = Scene::new("ldk");
    let channel = Channel::open_unconfirmed(&scene, 7);
    let refused = scene.thief.once(Some(channel.reference), &channel.remote_commitment(1, &Terms::to_peer(0)));
    assert_eq!(refused.expect_err("not yet").0, Reason::ChainPending);
}

#[test]
fn honest_a_channel_advances_when_its_funding_transaction_is_in_a_block() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open_unconfirmed(&scene, 7);
    scene.mine(1);
    channel.advance(Terms::to_peer(0)).expect("confirmed");
}
