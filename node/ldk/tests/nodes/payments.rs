//! Opening, paying in every way, closing together.

use bitcoin::Amount;

use crate::world::{World, close, connect, pay, wait, wait_paid};

#[test]
fn a_channel_opened_by_the_signed_node_carries_payments_both_ways_and_closes() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 200_000_000);
    for _ in 0..10 {
        pay(&signed, &plain, 1_000_000);
        pay(&plain, &signed, 2_000_000);
    }
    let before = signed.balance();
    close(&signed, &plain);
    wait("the closing transaction", &[&signed, &plain], || !world.chain.mempool().is_empty());
    world.mine(6, &[&signed, &plain]);
    // 1,000,000 sat - 200,000 + 10,000, minus the closing fee.
    let gained = signed.balance() - before;
    assert!(gained <= Amount::from_sat(810_000) && gained > Amount::from_sat(800_000), "{gained}");
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_channel_opened_by_the_peer_carries_payments_both_ways_and_closes() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&plain, &signed, 0);
    pay(&plain, &signed, 200_000_000);
    for _ in 0..10 {
        pay(&signed, &plain, 1_000_000);
        pay(&plain, &signed, 2_000_000);
    }
    let before = signed.balance();
    close(&plain, &signed);
    wait("the closing transaction", &[&signed, &plain], || !world.chain.mempool().is_empty());
    world.mine(6, &[&signed, &plain]);
    assert_eq!(signed.balance() - before, Amount::from_sat(210_000));
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn what_the_peer_pushed_while_opening_is_ours() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&plain, &signed, 300_000_000);
    pay(&signed, &plain, 250_000_000);
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn keysend_dust_and_a_new_feerate() {
    let world = World::new();
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&signed, &plain, 0);
    let hash = signed.keysend(plain.id(), 100_000_000).unwrap();
    wait_paid(&signed, &plain, hash);
    // Below every dust limit: on no commitment transaction.
    pay(&signed, &plain, 100_000);
    pay(&plain, &signed, 50_000);
    signed.set_feerate(3000);
    let raised = || signed.channel_with(&plain.id()).is_some_and(|c| c.feerate_sat_per_1000_weight == Some(3000));
    wait("the new feerate", &[&signed, &plain], raised);
    pay(&signed, &plain, 5_000_000);
    pay(&plain, &signed, 5_000_000);
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

#[test]
fn the_signed_node_forwards() {
    let world = World::new();
    let (alice, signed, bob) = (world.plain("alice"), world.signed(), world.plain("bob"));
    world.channel(&alice, &signed, 0);
    world.channel(&signed, &bob, 0);
    connect(&alice, &signed);
    let nodes = [&alice, &signed, &bob];
    world.mine(6, &nodes);
    let invoice = || bob.invoice(40_000_000, "over two channels").unwrap();
    // The route is known once the announcements have arrived.
    wait("a route", &nodes, || alice.pay(&invoice()).is_ok());
    wait("a forwarded payment", &nodes, || signed.history().forwarded > 0 && !bob.history().received.is_empty());
    assert_eq!(*world.signer.refusals.lock().unwrap(), Vec::<String>::new());
}
