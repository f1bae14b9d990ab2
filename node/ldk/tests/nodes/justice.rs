//! A peer that broadcasts what it revoked loses the channel, also what it moved on with.

use crate::world::{CHANNEL, World, connect, disconnect, pay, pay_held, wait, wait_paid};

#[test]
fn a_payment_that_the_cheat_took_from_a_revoked_commitment_is_taken_from_there() {
    // Without anchors, so that the cheat needs no coins of its own for the fee.
    let world = World::without_anchors();
    let (signed, plain) = (world.signed(), world.plain("mallory"));
    let nodes = [&signed, &plain];
    let channel = world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 500_000_000);
    let outgoing = pay_held(&signed, &plain, 60_000_000);
    disconnect(&signed, &plain);
    plain.claim(&outgoing);
    let old = plain.keep_commitment(&channel.channel_id).unwrap();
    assert_eq!(old.len(), 2, "the commitment, and the transaction that takes the payment with its preimage");
    plain.hold_payments(false);
    connect(&signed, &plain);
    wait_paid(&signed, &plain, outgoing);
    pay(&signed, &plain, 1_000_000);

    let before = signed.balance();
    disconnect(&signed, &plain);
    for tx in &old {
        world.chain.broadcast(tx).unwrap();
    }
    world.mine(1, &nodes);
    assert!(world.chain.confirmed_at(&old[1].compute_txid()).is_some());
    wait("a penalty", &nodes, || !world.chain.mempool().is_empty());
    world.mine_until("the penalties", &nodes, || signed.claimable().is_empty() && world.chain.mempool().is_empty());
    world.mine(6, &nodes);
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
    let gained = signed.balance() - before;
    assert!(gained.to_sat() > CHANNEL.to_sat() - 20_000, "gained only {gained}");
}
