//! Many HTLCs at once: parts of one payment, and more than can be told apart one by one.

use super::super::Direction;
use super::model::{Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, terms};
use crate::facts::Fact;
use crate::reasons::Reason;
use Direction::{In, Out};

/// Each part alone could be spared; both together could not.
#[test]
fn hostile_refund_of_all_parts_of_a_forward_is_refused_and_of_one_to_spare_passes() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut node = Node::new(rules);
        let (a, b) = (node.balanced(), node.balanced());
        let parts = [0, 1].map(|_| node.add(a, htlc(1, In, 60_000_000, 600)));
        node.sync(a).unwrap();
        node.add(b, htlc(1, Out, 59_000_000, 500));
        node.sync(b).unwrap();
        let kept = node.channels.clone();
        node.remove(a, parts[0], false);
        node.remove(a, parts[1], false);
        let refusal = node.sync(a).unwrap_err();
        assert_eq!(refusal.reason, Reason::ForwardUnclaimed, "{}", refusal.detail);
        let fact = Fact::msat("depends_on_it", 59_000_000).at_most_msat(0);
        assert!(refusal.facts.contains(&fact), "{refusal:?}");
        node.channels = kept;
        node.remove(a, parts[0], false);
        node.sync(a).unwrap();
        node.remove(a, parts[1], false);
        assert_eq!(node.sync(a).unwrap_err().reason, Reason::ForwardUnclaimed, "the last one is not to spare");
    }
}

/// Of so many that end at once, those that failed are found by what is ours, nearest first, and may be tried again.
#[test]
fn honest_retries_pass_after_more_ended_at_once_than_can_be_told_apart() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let amount_msat = |n: u64| if n < 18 { 1_000_000 + n * 10_000 } else { (n - 17) * 40_000_000 };
    let payments: Vec<_> = (0..20)
        .map(|n| {
            node.approve(n, amount_msat(n));
            node.add(a, htlc(n, Out, amount_msat(n), 500))
        })
        .collect();
    node.sync(a).unwrap();
    for (n, payment) in payments.iter().enumerate() {
        node.remove(a, *payment, n < 18);
    }
    node.sync(a).unwrap();
    node.restart();
    let paid_msat: u64 = (0..18).map(amount_msat).sum();
    let ours = node.view().channels[a].settled_msat;
    assert_eq!(ours / 1_000, (5_000_000_000 - paid_msat) / 1_000);
    for n in [18, 19] {
        node.add(b, htlc(n, Out, amount_msat(n), 500));
        node.sync(b).unwrap();
    }
    // The twin: what was paid is not paid again.
    node.add(b, htlc(0, Out, 60_000_000, 500));
    assert_eq!(node.sync(b).unwrap_err().reason, Reason::PaymentExceeded);
}

/// However many end at once, the peer takes no more than all of them.
#[test]
fn hostile_shift_beside_many_that_ended_is_refused_and_an_honest_end_passes() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let a = node.open(terms(0, 10_000_000, false, 5_000_000_000));
    let payments: Vec<_> = (0..20)
        .map(|n| {
            node.approve(n, 10_000_000);
            node.add(a, htlc(n, Out, 10_000_000, 500))
        })
        .collect();
    node.sync(a).unwrap();
    payments.iter().for_each(|payment| node.remove(a, *payment, true));
    let honest = node.following(a, super::super::Side::Ours);
    let mut hostile = honest.clone();
    (hostile.to_us_sat, hostile.to_them_sat) = (honest.to_us_sat - 1, honest.to_them_sat + 1);
    let refusal = node.ask(a, super::super::Side::Ours, hostile).unwrap_err();
    assert_eq!(refusal.reason, Reason::ValueNotConserved, "{}", refusal.detail);
    node.ask(a, super::super::Side::Ours, honest).unwrap();
}
