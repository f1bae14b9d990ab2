//! Ways to pay and to be paid beside invoices.

use crate::world::{World, pay, wait};

#[test]
fn what_the_peer_pushed_while_opening_is_ours() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&plain, &signed, 300_000_000);
    pay(&signed, &plain, 250_000_000);
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn an_offer_is_paid_both_ways() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 300_000_000);
    // Offers travel as onion messages over announced channels.
    world.mine(1, &[&signed, &plain]);
    signed.pay_offer(&plain.offer(7_000_000).unwrap()).unwrap();
    wait("our payment of an offer", &[&signed, &plain], || plain.history().received.values().any(|m| *m == 7_000_000));
    plain.pay_offer(&signed.offer(8_000_000).unwrap()).unwrap();
    wait("the payment of our offer", &[&signed, &plain], || {
        signed.history().received.values().any(|m| *m == 8_000_000)
    });
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}
