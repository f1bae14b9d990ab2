//! Nodes survive restarts unchanged, and what is written is exactly what changed.

mod listeners;
mod load;
mod random;
mod world;

use std::time::Duration;

use bitcoin::OutPoint;
use lightning_signer::channel::ChannelBase;
use lightning_signer::policy::simple_validator::SimpleValidatorFactory;
use lightning_signer::policy::validator::ValidatorFactory;
use lightning_signer::util::velocity::VelocityControl;

use self::world::{HTLC_SAT, START_HEIGHT, Side, hash, open, pay, preimage, settle, spend, stub};

fn kinds(side: &Side) -> Vec<&str> {
    side.written.iter().map(|key| key.split('/').next().unwrap()).collect()
}

#[test]
fn restarts_between_any_two_messages_change_nothing() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let (mut c, mut d) = (Side::new(1), Side::new(2));
    (a.checked, b.checked) = (true, true);
    (c.restless, d.restless) = (true, true);
    for (a, b) in [(&mut a, &mut b), (&mut c, &mut d)] {
        let mut link = open(a, b, 1);
        a.mine(vec![link.funding.clone()]);
        pay(a, b, &mut link, 1);
        pay(a, b, &mut link, 2);
        settle(a, b, &mut link);
        b.sign_invoice(3, 70_000);
        a.unmine();
    }
    assert_eq!(a.state(), c.state());
    assert_eq!(b.state(), d.state());
    assert_eq!(a.store, c.store);
    assert_eq!(b.store, d.store);
}

#[test]
fn a_fresh_node_starts_at_the_block_it_is_given() {
    let mut side = Side::new(1);
    assert_eq!(side.store.keys().collect::<Vec<_>>(), ["allowlist", "node", "tracker"]);
    assert_eq!(side.node.get_chain_height(), START_HEIGHT);
    assert!(side.node.get_channels().is_empty());
    side.mine(vec![]);
    side.mine(vec![]);
    assert_eq!(side.node.get_chain_height(), START_HEIGHT + 2);
    assert_eq!(side.store, side.full());
}

#[test]
fn each_message_writes_only_what_it_changes() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let mut link = open(&mut a, &mut b, 1);
    for n in 10..20 {
        a.keysend(hash(n), 1_000);
        b.sign_invoice(n, 1_000);
    }
    a.keysend(hash(20), 1_000);
    assert_eq!(a.written, ["invoice", "node", "payment"].map(|k| key(k, 20)));
    b.sign_invoice(21, 1_000);
    assert_eq!(b.written, [key("issued", 21)]);
    pay(&mut a, &mut b, &mut link, 22);
    assert_eq!(kinds(&a), ["channel"], "the last message is a validated revocation or a revocation");
    a.mine(vec![]);
    assert_eq!(kinds(&a), ["header", "tracker"]);
    stub(&mut a, 2);
    assert_eq!(kinds(&a), ["channel"]);
    a.channel(&link.a.clone(), |c| c.get_per_commitment_point(1));
    assert!(a.written.is_empty());
}

fn key(kind: &str, n: u64) -> String {
    if kind == "node" { kind.to_owned() } else { format!("{kind}/{}", hex::encode(hash(n).0)) }
}

#[test]
fn one_hash_has_one_invoice_also_after_a_restart() {
    let mut side = Side::new(1);
    assert!(side.sign_invoice(1, 50_000));
    side.restart();
    assert!(side.sign_invoice(1, 50_000), "the same invoice again");
    assert!(!side.sign_invoice(1, 60_000), "another invoice for the same hash");
}

#[test]
fn the_velocity_already_used_survives_a_restart() {
    let mut side = Side::new(1);
    side.keysend(hash(1), 5_000);
    side.restart();
    side.keysend(hash(2), 7_000);
    assert_eq!(buckets(&side.node.get_state().velocity_control), 12_000);
}

fn buckets(control: &VelocityControl) -> u64 {
    control.buckets.iter().sum()
}

#[test]
fn preimages_and_amounts_of_payments_survive_a_restart() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let mut link = open(&mut a, &mut b, 1);
    pay(&mut a, &mut b, &mut link, 1);
    let validator = SimpleValidatorFactory::new().make_validator(world::NETWORK, a.node.get_id(), None);
    a.touch(hash(1));
    assert!(a.node.get_state().htlc_fulfilled(&link.a, preimage(1), validator));
    a.flush();
    a.restart();
    let state = a.node.get_state();
    let payment = &state.payments[&hash(1)];
    assert_eq!(payment.preimage, Some(preimage(1)));
    assert_eq!(payment.outgoing.get(&link.a), Some(&HTLC_SAT));
}

#[test]
fn expired_payments_are_deleted() {
    let mut side = Side::new(1);
    for n in 0..20 {
        side.keysend(hash(n), 1_000);
        side.sign_invoice(100 + n, 1_000);
    }
    side.heartbeat(Duration::from_secs(100));
    assert_eq!(kinds(&side), [["invoice"; 20], ["payment"; 20]].concat(), "keysends expire after a minute");
    side.heartbeat(Duration::from_secs(30 * 3600));
    assert_eq!(kinds(&side), ["issued"; 20]);
    assert_eq!(side.store, side.full());
}

#[test]
fn a_forgotten_channel_is_deleted_when_its_close_is_buried() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    let link = open(&mut a, &mut b, 1);
    let outpoint = OutPoint { txid: link.funding.compute_txid(), vout: 0 };
    a.mine(vec![link.funding.clone()]);
    a.mine(vec![spend(outpoint, 77)]);
    a.node.forget_channel(&link.a).unwrap();
    a.flush();
    a.restart();
    for _ in 0..105 {
        a.mine(vec![]);
    }
    a.heartbeat(Duration::ZERO);
    assert_eq!(a.store.keys().filter(|key| key.starts_with("header/")).count(), 100);
    a.store.retain(|key, _| !key.starts_with("header/"));
    assert_eq!(a.store.keys().collect::<Vec<_>>(), ["allowlist", "node", "tracker"]);
}

#[test]
fn a_forgotten_stub_is_deleted_and_its_number_is_not_used_again() {
    let mut side = Side::new(1);
    let id = stub(&mut side, 5);
    side.node.forget_channel(&id).unwrap();
    side.flush();
    side.restart();
    assert!(side.node.get_channels().is_empty());
    assert!(side.node.new_channel(5, &[3; 33], &side.node).is_err());
}
