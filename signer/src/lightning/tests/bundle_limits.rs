//! `[limits]` of a bundle: stricter numbers for the rules beneath the policy, from its apply on.

use super::book::{OURS_SAT, Stage, incoming, out};
use super::policy::apply;
use crate::reasons::Reason;

const ALL: (&str, &str) = ("rules.cedar", "@id(\"all\") permit (principal, action, resource);");

#[test]
fn the_bundles_limits_bind_the_channel_rules_from_its_apply_on_and_never_loosen_them() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600), incoming(2, 20_000, 600)]).expect("no bundle");
    stage.advance(0, OURS_SAT, &[]).expect("failed");
    apply(&stage.signer, &[("policy.toml", "version = 1\n[limits]\nmax_htlcs = 1\n"), ALL]);
    assert_eq!(stage.refused(0, OURS_SAT, &[incoming(1, 20_000, 600), incoming(2, 20_000, 600)]), Reason::Validation);
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600)]).expect("the honest twin");
    stage.advance(0, OURS_SAT, &[]).expect("failed");
    // The lowest delay that can be written is below what the signer asks for anyway.
    apply(&stage.signer, &[("policy.toml", "version = 2\n[limits]\nmin_delay_blocks = 1\nmax_htlcs = 966\n"), ALL]);
    stage.advance(0, OURS_SAT, &[incoming(3, 20_000, 600), incoming(4, 20_000, 600)]).expect("again");
}

#[test]
fn an_honest_payment_may_cost_what_the_bundle_says_and_a_hostile_one_no_more() {
    let mut stage = Stage::new();
    let left_sat = |cost_sat: u64| OURS_SAT - 100_000 - cost_sat;
    stage.approve(1, 100_000);
    apply(&stage.signer, &[("policy.toml", "version = 1\n[limits]\nmax_routing_fee_percent = 1\n"), ALL]);
    stage.approve(2, 100_000);
    let pay = |n, cost_sat: u64| [out(n, 100_000 + cost_sat, 600)];
    assert_eq!(stage.refused(0, left_sat(1_001), &pay(2, 1_001)), Reason::PaymentExceeded);
    stage.restart();
    assert_eq!(stage.refused(0, left_sat(1_001), &pay(2, 1_001)), Reason::PaymentExceeded);
    stage.advance(0, left_sat(1_000), &pay(2, 1_000)).expect("one percent");
    stage.advance(0, OURS_SAT, &[]).expect("failed");
    stage.advance(0, left_sat(10_000), &pay(1, 10_000)).expect("approved before the bundle was in force");
}
