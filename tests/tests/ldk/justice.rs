//! A peer that broadcasts what it revoked loses the channel.

use bitcoin::Transaction;
use claviger_demo::node::LdkNode;

use crate::busy::Busy;
use crate::stage::{CHANNEL, Stage, disconnect, paid, pay};

/// Broadcasts an old commitment of the peer; the signed node takes all of it but fees.
fn cheat(stage: &Stage, signed: &LdkNode, plain: &LdkNode, old: &[Transaction]) {
    disconnect(signed, plain);
    stage.world.chain.broadcast(&old[0]).unwrap();
    stage.mine(1, &[signed, plain]);
    punish(stage, signed, plain);
}

/// Mines until the signed node, which had nothing in its wallet from this channel, has all of it but fees.
fn punish(stage: &Stage, signed: &LdkNode, plain: &LdkNode) {
    let (nodes, before) = ([signed, plain], signed.balance());
    stage.broadcast("a penalty", &nodes);
    let done = || signed.claimable().is_empty() && stage.world.chain.mempool().is_empty();
    stage.mine_until("the penalties", &nodes, done);
    stage.mine(6, &nodes);
    let gained = signed.balance() - before;
    assert!(gained.to_sat() > CHANNEL.to_sat() - 20_000, "gained only {gained}");
    stage.end_settled(&nodes);
}

/// The peer's commitment as it is now.
fn keep(plain: &LdkNode, signed: &LdkNode) -> Vec<Transaction> {
    plain.keep_commitment(&plain.channel_with(&signed.id()).unwrap().channel_id).unwrap()
}

/// Ends the payments of a busy channel, and makes one more.
fn go_on(busy: &Busy) {
    let (signed, plain) = (&busy.signed, &busy.plain);
    plain.claim(&busy.outgoing);
    signed.claim(&busy.incoming);
    paid(signed, plain, busy.outgoing);
    paid(plain, signed, busy.incoming);
    plain.hold_payments(false);
    pay(signed, plain, 1_000_000);
}

#[test]
fn a_revoked_output_is_taken() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("mallory"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 600_000_000);
    let old = keep(&plain, &signed);
    pay(&plain, &signed, 500_000_000);
    cheat(&stage, &signed, &plain, &old);
}

#[test]
fn the_first_state_of_a_channel_that_the_cheat_funded_is_taken() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("mallory"));
    stage.channel(&plain, &signed);
    let old = keep(&plain, &signed);
    pay(&plain, &signed, 500_000_000);
    cheat(&stage, &signed, &plain, &old);
}

#[test]
fn revoked_payments_are_taken_in_both_directions() {
    let stage = Stage::new();
    let busy = Busy::channel(&stage);
    let old = keep(&busy.plain, &busy.signed);
    go_on(&busy);
    cheat(&stage, &busy.signed, &busy.plain, &old);
}

#[test]
fn a_cheat_who_waits_for_node_and_signer_to_be_away_is_punished_when_they_are_back() {
    let mut stage = Stage::new();
    let busy = Busy::channel(&stage);
    let old = keep(&busy.plain, &busy.signed);
    go_on(&busy);
    disconnect(&busy.signed, &busy.plain);
    let busy = busy.restart_signed(&mut stage, |world, plain| {
        world.signer.kill().unwrap();
        world.chain.broadcast(&old[0]).unwrap();
        world.mine(10, &[plain]).unwrap();
        world.signer.start().unwrap();
    });
    punish(&stage, &busy.signed, &busy.plain);
}
