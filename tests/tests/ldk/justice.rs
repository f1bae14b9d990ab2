//! A peer that broadcasts what it revoked loses the channel.

use bitcoin::Transaction;
use claviger_demo::node::LdkNode;

use crate::stage::{CHANNEL, Stage, pay, pay_held, wait};

/// Broadcasts an old commitment of the peer; the signed node takes all of it but fees.
fn cheat(stage: Stage, signed: &LdkNode, plain: &LdkNode, old: &[Transaction]) {
    let (nodes, before) = ([signed, plain], signed.balance());
    // A cheat does not speak any more.
    signed.disconnect(&plain.id());
    plain.disconnect(&signed.id());
    wait("the connection to end", &nodes, || !signed.is_connected(&plain.id()));
    stage.world.chain.broadcast(&old[0]).unwrap();
    stage.mine(1, &nodes);
    stage.broadcast("a penalty", &nodes);
    let done = || signed.claimable().is_empty() && stage.world.chain.mempool().is_empty();
    stage.mine_until("the penalties", &nodes, done);
    stage.mine(6, &nodes);
    let gained = signed.balance() - before;
    assert!(gained.to_sat() > CHANNEL.to_sat() - 20_000, "gained only {gained}");
    stage.end_settled(&nodes);
}

#[test]
fn a_revoked_output_is_taken() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("mallory"));
    let channel = stage.channel(&signed, &plain);
    pay(&signed, &plain, 600_000_000);
    let old = plain.keep_commitment(&channel.channel_id).unwrap();
    pay(&plain, &signed, 500_000_000);
    cheat(stage, &signed, &plain, &old);
}

#[test]
fn revoked_payments_are_taken_in_both_directions() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("mallory"));
    let channel = stage.channel(&signed, &plain);
    pay(&signed, &plain, 500_000_000);
    let outgoing = pay_held(&signed, &plain, 60_000_000);
    let incoming = pay_held(&plain, &signed, 70_000_000);
    let old = plain.keep_commitment(&channel.channel_id).unwrap();
    plain.claim(&outgoing);
    signed.claim(&incoming);
    wait("the payments", &[&signed, &plain], || {
        signed.history().payments.contains_key(&outgoing) && plain.history().payments.contains_key(&incoming)
    });
    plain.hold_payments(false);
    pay(&signed, &plain, 1_000_000);
    cheat(stage, &signed, &plain, &old);
}
