//! Opening, paying in every way, closing together.

use bitcoin::Amount;

use crate::stage::{Stage, close, connect, paid, pay, pay_held, raise_feerate, wait};

#[test]
fn a_channel_opened_by_the_signed_node_carries_payments_both_ways_and_closes() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 200_000_000);
    for _ in 0..5 {
        pay(&signed, &plain, 1_000_000);
        pay(&plain, &signed, 2_000_000);
    }
    let before = signed.balance();
    close(&signed, &plain);
    stage.broadcast("the closing transaction", &[&signed, &plain]);
    stage.mine(6, &[&signed, &plain]);
    // 1,000,000 sat - 200,000 + 5,000, minus the closing fee.
    let gained = signed.balance() - before;
    assert!(gained <= Amount::from_sat(805_000) && gained > Amount::from_sat(795_000), "{gained}");
    stage.end_settled(&[&signed, &plain]);
}

#[test]
fn a_channel_opened_by_the_peer_carries_payments_both_ways_and_closes() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&plain, &signed);
    pay(&plain, &signed, 200_000_000);
    for _ in 0..5 {
        pay(&signed, &plain, 1_000_000);
        pay(&plain, &signed, 2_000_000);
    }
    raise_feerate(&plain, &signed, 2000);
    let before = signed.balance();
    close(&plain, &signed);
    stage.broadcast("the closing transaction", &[&signed, &plain]);
    stage.mine(6, &[&signed, &plain]);
    assert_eq!(signed.balance() - before, Amount::from_sat(205_000));
    stage.end_settled(&[&signed, &plain]);
}

#[test]
fn dust_trimmed_payments_keysend_and_a_new_feerate() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    let hash = signed.keysend(plain.id(), 100_000_000).unwrap();
    paid(&signed, &plain, hash);
    // Below every dust limit: on no commitment transaction.
    pay(&signed, &plain, 100_000);
    pay(&plain, &signed, 50_000);
    raise_feerate(&signed, &plain, 3000);
    pay(&signed, &plain, 5_000_000);
    pay(&plain, &signed, 5_000_000);
    stage.end();
}

#[test]
fn the_signed_node_forwards() {
    let mut stage = Stage::new();
    let (carol, mut signed, bob) = (stage.plain("carol"), stage.signed(), stage.plain("bob"));
    stage.channel(&carol, &signed);
    stage.channel(&signed, &bob);
    connect(&carol, &signed);
    // Announcements want six confirmations.
    stage.mine(6, &[&carol, &signed, &bob]);
    pay(&carol, &bob, 40_000_000);
    wait("a forwarded payment", &[&carol, &signed, &bob], || signed.history().forwarded > 0);

    // A payment that waits at its end outlasts both the node between and its signer.
    let held = pay_held(&carol, &bob, 30_000_000);
    signed = stage.restart_both(signed);
    connect(&carol, &signed);
    connect(&signed, &bob);
    bob.claim(&held);
    paid(&carol, &bob, held);
    wait("another forwarded payment", &[&carol, &signed, &bob], || signed.history().forwarded > 1);
    stage.end();
}
