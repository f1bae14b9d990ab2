//! A peer that broadcasts what it revoked loses the channel.

use bitcoin::Amount;
use claviger_demo::node::LdkNode;

use crate::world::{CHANNEL, World, disconnect, pay, pay_held, wait};

/// Broadcasts an old commitment of the peer and returns what the signed node gained.
fn cheat(world: &World, signed: &LdkNode, plain: &LdkNode, old: Vec<bitcoin::Transaction>, before: Amount) -> i64 {
    let nodes = [signed, plain];
    // A channel that is over on the chain does not go on: nothing may be under way in it.
    disconnect(plain, signed);
    world.chain.broadcast(&old[0]).unwrap();
    world.mine(1, &nodes);
    wait("a penalty", &nodes, || !world.chain.mempool().is_empty());
    world.mine_until("the penalties", &nodes, || signed.claimable().is_empty() && world.chain.mempool().is_empty());
    world.mine(6, &nodes);
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
    signed.balance().to_sat() as i64 - before.to_sat() as i64
}

#[test]
fn a_revoked_output_is_taken() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("mallory"));
    let channel = world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 600_000_000);
    let old = plain.keep_commitment(&channel.channel_id).unwrap();
    pay(&plain, &signed, 500_000_000);
    let before = signed.balance();
    let gained = cheat(&world, &signed, &plain, old, before);
    assert!(gained > CHANNEL.to_sat() as i64 - 20_000, "gained only {gained}");
}

#[test]
fn revoked_payments_are_taken_in_both_directions() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("mallory"));
    let channel = world.channel(&signed, &plain, 0);
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
    let before = signed.balance();
    let gained = cheat(&world, &signed, &plain, old, before);
    assert!(gained > CHANNEL.to_sat() as i64 - 20_000, "gained only {gained}");
}
