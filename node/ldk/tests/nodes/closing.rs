//! Closing without the peer, with payments on the way in both directions.

use std::sync::atomic::Ordering;

use bitcoin::Amount;
use claviger_demo::node::LdkNode;
use lightning::types::payment::PaymentHash;

use crate::world::{World, disconnect, pay, pay_held, wait};

const OUT: u64 = 60_000_000;
const IN: u64 = 70_000_000;

/// A channel with 500,000 sat on each side, of which 60,000 are on their way out and 70,000 on their way in.
fn busy_channel(world: &World) -> (LdkNode, LdkNode, PaymentHash, PaymentHash) {
    let (signed, plain) = (world.signed(), world.plain("bob"));
    world.channel(&signed, &plain, 0);
    pay(&signed, &plain, 500_000_000);
    let outgoing = pay_held(&signed, &plain, OUT);
    let incoming = pay_held(&plain, &signed, IN);
    (signed, plain, outgoing, incoming)
}

/// Closes without a word, so that the other does not broadcast its own commitment.
fn force_close(closer: &LdkNode, other: &LdkNode) {
    disconnect(closer, other);
    closer.force_close(&closer.channel_with(&other.id()).unwrap()).unwrap();
}

fn nothing_left(node: &LdkNode) -> bool {
    node.channels().is_empty() && node.claimable().is_empty()
}

/// Mines until both have everything, and returns what the signed node got, fees aside.
fn settle(world: &World, signed: &LdkNode, plain: &LdkNode, before: Amount) -> i64 {
    let nodes = [signed, plain];
    world.mine_until("everything to be claimed", &nodes, || nothing_left(signed) && nothing_left(plain));
    world.mine(6, &nodes);
    world.mine_until("the sweeps", &nodes, || world.chain.mempool().is_empty());
    let refused = world.signer.refusals.lock().unwrap();
    assert_eq!(*refused, Vec::<String>::new());
    signed.balance().to_sat() as i64 - before.to_sat() as i64
}

fn assert_near(gained: i64, expected: i64) {
    assert!((expected - 30_000..=expected).contains(&gained), "gained {gained}, expected {expected} minus fees");
}

#[test]
fn channels_without_anchors_are_closed_and_claimed_as_well() {
    for ours in [true, false] {
        let world = World::without_anchors();
        let (signed, plain, _outgoing, incoming) = busy_channel(&world);
        let before = signed.balance();
        let (closer, other) = if ours { (&signed, &plain) } else { (&plain, &signed) };
        force_close(closer, other);
        wait("a commitment", &[&signed, &plain], || !world.chain.mempool().is_empty());
        world.mine(1, &[&signed, &plain]);
        signed.claim(&incoming);
        assert_near(settle(&world, &signed, &plain, before), 570_000);
    }
}

#[test]
fn a_claim_that_the_signer_has_not_seen_the_blocks_for_is_made_when_it_has() {
    let world = World::new();
    let (signed, plain, _outgoing, incoming) = busy_channel(&world);
    let (nodes, before) = ([&signed, &plain], signed.balance());
    force_close(&plain, &signed);
    wait("their commitment", &nodes, || !world.chain.mempool().is_empty());
    world.mine(1, &nodes);
    world.mine_past_signer(4, &nodes);
    signed.claim(&incoming);
    wait("the signer to ask for time", &nodes, || world.signer.deferrals.load(Ordering::SeqCst) > 0);
    assert_eq!(world.waiting(), []);
    world.signer.follow();
    wait("our claim, without another block", &nodes, || !world.waiting().is_empty());
    assert_near(settle(&world, &signed, &plain, before), 570_000);
}
