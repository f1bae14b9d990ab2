//! Spending limits over the wire, each with its honest twin.

use std::sync::Arc;

use super::*;
use crate::facts::{Fact, Unit};
use crate::journal::Verdict;
use crate::lightning::driver::{invoice_to_pay, keysend};
use crate::reasons::Reason;

fn small() -> LimitsConfig {
    LimitsConfig { max_payment_msat: 1_000_000, max_payment_msat_per_hour: 2_500_000, ..LimitsConfig::default() }
}

#[test]
fn payments_pass_up_to_the_limits() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), small());
    let alice = signer.add("alice", NodeKind::Ldk);
    for (n, message) in
        [invoice_to_pay(1, 1_000_000), keysend(2, 1_000_000), keysend(3, 500_000)].into_iter().enumerate()
    {
        replied(signer.ask(&alice, None, message));
        assert_eq!(signer.journal().stats().last_seq, n as u64 + 1);
    }
    let (request, refusal) = refused(signer.ask(&alice, None, invoice_to_pay(4, 1)));
    assert_eq!(refusal.reason, Reason::Limit);
    assert!(refusal.detail.contains("limits.max_payment_msat_per_hour = 2500000"), "{}", refusal.detail);
    let line = signer.journal().explain(&request).expect("readable").expect("recorded");
    assert_eq!(line.decision.verdict, Verdict::deny(Reason::Limit, refusal.detail));
    assert_eq!(line.decision.facts, refusal.facts);
    let fact = Fact::number("max_payment_msat_per_hour", 2_500_001, Unit::Msat).at_most(2_500_000);
    assert_eq!(refusal.facts, [fact]);
}

#[test]
fn a_payment_above_the_limit_is_refused_and_costs_nothing() {
    let signer = Signer::start_over(Arc::new(MemoryStore::new()), small());
    let alice = signer.add("alice", NodeKind::Ldk);
    for n in 0..5 {
        assert_eq!(refused(signer.ask(&alice, None, keysend(n, 1_000_001))).1.reason, Reason::Limit);
        assert_eq!(refused(signer.ask(&alice, None, invoice_to_pay(n, 1_000_001))).1.reason, Reason::Limit);
    }
    replied(signer.ask(&alice, None, keysend(9, 1_000_000)));
}

#[test]
fn a_repeated_payment_is_counted_once_and_a_restart_forgets_nothing() {
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), small());
    let alice = signer.add("alice", NodeKind::Ldk);
    let pay = invoice_to_pay(1, 1_000_000);
    for _ in 0..5 {
        replied(signer.ask(&alice, None, pay.clone()));
    }
    replied(signer.ask(&alice, None, keysend(2, 1_000_000)));
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    replied(signer.ask(&alice, None, pay));
    assert_eq!(refused(signer.ask(&alice, None, keysend(3, 500_001))).1.reason, Reason::Limit);
    replied(signer.ask(&alice, None, keysend(4, 500_000)));
}
