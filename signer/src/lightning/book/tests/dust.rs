//! What no commitment shows: bounded for an attacker, in nobody's way for a router.

use super::super::Approval;
use super::super::Direction::{In, Out};
use super::model::{DAY_MS, Node, WITH_PREIMAGES, htlc, secret, terms};
use crate::reasons::{Reason, Refusal};

/// Sends one payment too small for an output; it is settled.
fn pay(node: &mut Node, channel: usize, n: u64, amount_msat: u64) -> Result<(), Refusal> {
    let payment = node.add(channel, htlc(n, Out, amount_msat, 500));
    node.sync(channel)?;
    node.remove(channel, payment, true);
    node.sync(channel)
}

fn receive(node: &mut Node, channel: usize, n: u64, amount_msat: u64) -> Result<(), Refusal> {
    let payment = node.add(channel, htlc(n, In, amount_msat, 500));
    node.sync(channel)?;
    node.remove(channel, payment, true);
    node.sync(channel)
}

#[test]
fn hostile_drain_dust_by_dust_ends_at_the_allowance() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    let allowance_msat = node.view().dust.allowance_msat;
    assert_eq!(allowance_msat, 100_000_000);
    let mut lost_msat = 0;
    let refusal = loop {
        match pay(&mut node, a, 1, 500_000) {
            Ok(()) => lost_msat += 500_000,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.reason, lost_msat), (Reason::DustExceeded, allowance_msat));
    assert!(refusal.detail.contains("100500000 msat > 100000000 msat"), "{}", refusal.detail);
    node.restart();
    assert_eq!(node.sync(a).unwrap_err().reason, Reason::DustExceeded);
    // A hundredth of a day later the next ones fit.
    node.at.now_ms += DAY_MS / 100;
    node.sync(a).unwrap();
    assert_eq!(node.view().dust.lost_msat, allowance_msat - allowance_msat / 100 + 500_000);
}

#[test]
fn hostile_payment_to_us_does_not_widen_the_allowance() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for n in 0..300 {
        receive(&mut node, a, n, 500_000).unwrap();
    }
    let paid = (0..).take_while(|n| pay(&mut node, a, 1_000 + n, 500_000).is_ok()).count();
    assert_eq!(paid, 200);
}

#[test]
fn honest_storm_of_forwarded_dust_passes_for_ever() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    for n in 0..100 {
        // Ten at a time; every third fails.
        let comes: Vec<_> = (0..10).map(|k| node.add(a, htlc(n * 50 + k, In, 353_999 - k, 600))).collect();
        node.sync(a).unwrap();
        let leaves: Vec<_> = (0..10).map(|k| node.add(b, htlc(n * 50 + k, Out, 353_900 - k, 500))).collect();
        node.sync(b).unwrap();
        leaves.iter().for_each(|id| node.remove(b, *id, id % 3 != 0));
        node.sync(b).unwrap();
        comes.iter().zip(&leaves).for_each(|(id, left)| node.remove(a, *id, left % 3 != 0));
        node.sync(a).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 0);
}

#[test]
fn honest_small_payments_that_were_approved_pass_for_ever() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for n in 0..400 {
        node.approve(n, 300_000);
        // The first attempt fails.
        let attempt = node.add(a, htlc(n, Out, 301_000, 500));
        node.sync(a).unwrap();
        node.remove(a, attempt, false);
        node.sync(a).unwrap();
        pay(&mut node, a, n, 301_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 0);
}

#[test]
fn hostile_use_of_an_approval_as_dust_and_as_an_htlc_counts_once() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for n in 0..300 {
        node.approve(n, 600_000);
        let paid = node.add(a, htlc(n, Out, 600_000, 500));
        node.sync(a).unwrap();
        node.remove(a, paid, true);
        node.sync(a).unwrap();
    }
    let paid = (0..).take_while(|n| pay(&mut node, a, 1_000 + n, 500_000).is_ok()).count();
    assert_eq!(paid, 200, "the allowance and no more");
}

/// A small approval that left as dust is used up: what leaves by it as an HTLC after that was not approved.
#[test]
fn hostile_use_of_a_small_approval_twice_is_charged_and_an_honest_single_use_is_not() {
    for (as_dust, lost_msat) in [(true, 9_000_000), (false, 0)] {
        let mut node = Node::new(WITH_PREIMAGES);
        let a = node.balanced();
        node.approve(1, 9_000_000);
        if as_dust {
            for n in 100..118 {
                pay(&mut node, a, n, 500_000).unwrap();
            }
        }
        pay(&mut node, a, 1, 9_000_000).unwrap();
        assert_eq!(node.view().dust.lost_msat, lost_msat);
    }
}

/// Where HTLC transactions pay a fee, a high feerate makes dust of larger payments, and approved ones of them cost nothing.
#[test]
fn honest_payments_that_a_high_feerate_makes_dust_pass_for_ever() {
    let mut node = Node::new(WITH_PREIMAGES);
    let mut old = terms(0, 10_000_000, false, 5_000_000_000);
    (old.anchors, old.zero_fee_htlcs) = (false, false);
    let a = node.open(old);
    node.set_feerate(a, 25_000);
    node.sync(a).unwrap();
    pay(&mut node, a, 100, 15_000_000).unwrap();
    assert_eq!(node.view().dust.lost_msat, 15_000_000, "not approved");
    for n in 0..40 {
        node.approve(n, 15_000_000);
        pay(&mut node, a, n, 15_000_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 15_000_000);
}

#[test]
fn honest_htlc_that_only_one_side_can_show_is_forwarded() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.channels[a].dust_limit_sat = [354, 546];
    for n in 0..400 {
        let comes = node.add(a, htlc(n, In, 500_000, 600));
        node.sync(a).unwrap();
        let leaves = node.add(b, htlc(n, Out, 499_000, 500));
        node.sync(b).unwrap();
        node.remove(b, leaves, true);
        node.sync(b).unwrap();
        node.remove(a, comes, true);
        node.sync(a).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 0);
}

#[test]
fn honest_feerate_that_makes_an_htlc_dust_and_back_passes() {
    let mut node = Node::new(WITH_PREIMAGES);
    for we_fund in [false, true] {
        let mut old = terms(u64::from(we_fund), 10_000_000, we_fund, 5_000_000_000);
        (old.anchors, old.zero_fee_htlcs) = (false, false);
        let a = node.open(old);
        node.approve(1, 3_000_000);
        let leaves = node.add(a, htlc(1, Out, 3_000_000, 500));
        let comes = node.add(a, htlc(2, In, 3_000_000, 500));
        for feerate_per_kw in [1_000, 9_000, 3_600, 1_000] {
            node.set_feerate(a, feerate_per_kw);
            node.sync(a).unwrap();
        }
        node.remove(a, leaves, false);
        node.remove(a, comes, true);
        node.sync(a).unwrap();
        node.book.prune(|_| false, node.at);
        assert_eq!(node.view().dust.lost_msat, 0);
    }
}

/// A feerate makes dust of what covers forwards: nobody sees what becomes of it then.
#[test]
fn hostile_feerate_that_makes_dust_of_what_covers_forwards_is_bounded_and_an_honest_one_passes() {
    for (forwards, settled) in [(10, true), (3, true), (3, false)] {
        let mut node = Node::new(WITH_PREIMAGES);
        let mut old = terms(0, 10_000_000, false, 5_000_000_000);
        (old.anchors, old.zero_fee_htlcs) = (false, false);
        let (a, b) = (node.open(old), node.open(terms(1, 10_000_000, false, 5_000_000_000)));
        let comes: Vec<_> = (0..forwards).map(|n| node.add(a, htlc(n, In, 30_000_000, 600))).collect();
        node.sync(a).unwrap();
        let leaves: Vec<_> = (0..forwards).map(|n| node.add(b, htlc(n, Out, 29_000_000, 500))).collect();
        node.sync(b).unwrap();
        node.set_feerate(a, 50_000);
        if forwards == 10 {
            assert_eq!(node.sync(a).unwrap_err().reason, Reason::DustExceeded);
            continue;
        }
        node.sync(a).unwrap();
        assert_eq!(node.view().dust.lost_msat, forwards * 29_000_000);
        leaves.iter().for_each(|id| node.remove(b, *id, settled));
        node.sync(b).unwrap();
        comes.iter().for_each(|id| node.remove(a, *id, settled));
        node.sync(a).unwrap();
        assert_eq!(node.view().dust.lost_msat, 0);
        assert!(node.view().payments.is_empty());
    }
}

/// What was approved and left as dust comes back as approved, and no more than came back.
#[test]
fn dust_that_comes_back_is_taken_off_what_was_lost_and_then_off_what_was_approved() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(1, 4_000_000); // and 400,000 of fee
    for n in 100..116 {
        pay(&mut node, a, n, 400_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 2_000_000);
    for n in 200..206 {
        receive(&mut node, a, n, 500_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 0);
    for n in 300..310 {
        pay(&mut node, a, n, 500_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 4_000_000, "1,000,000 came back beyond what was lost");
}

/// Approved again, a payment is still one.
#[test]
fn hostile_second_approval_of_a_payment_adds_no_dust() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(1, 5_000_000);
    let later = Approval::new(5_000_000, node.at.now_ms + 2 * DAY_MS);
    node.book.approve(secret(1).1, later, node.at);
    for n in 100..120 {
        pay(&mut node, a, n, 500_000).unwrap();
    }
    assert_eq!(node.view().dust.lost_msat, 4_500_000);
}

/// One small payment left as dust and another one as an HTLC: each used its own approval.
#[test]
fn honest_small_payments_of_which_one_is_dust_cost_nothing() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    (1..=2).for_each(|n| node.approve(n, 5_000_000));
    for n in 100..110 {
        pay(&mut node, a, n, 500_000).unwrap();
    }
    pay(&mut node, a, 2, 5_000_000).unwrap();
    assert_eq!(node.view().dust.lost_msat, 0);
}

/// A part that comes in as dust is lent to a forward, and to nothing else.
#[test]
fn hostile_shortfall_of_dust_in_a_payment_is_refused_and_in_an_honest_forward_it_is_lent() {
    let leaves = |approved_msat: Option<u64>, issued: bool| {
        let mut node = Node::new(WITH_PREIMAGES);
        let (a, b) = (node.balanced(), node.balanced());
        if issued {
            node.issued.push(secret(1).1);
        }
        if let Some(msat) = approved_msat {
            node.approve(1, msat);
        }
        for msat in [1_000_000, 400_000] {
            node.add(a, htlc(1, In, msat, 600));
        }
        node.sync(a).unwrap();
        node.add(b, htlc(1, Out, 700_000, 500));
        let first = node.sync(b).err().map(|refusal| refusal.reason);
        node.add(b, htlc(1, Out, 600_000, 500));
        first.or(node.sync(b).err().map(|refusal| refusal.reason)).ok_or(node.view().dust.lost_msat)
    };
    assert_eq!(leaves(None, false), Err(600_000), "what is added beyond what comes in as an HTLC");
    assert_eq!(leaves(Some(1_000), false), Ok(Reason::PaymentExceeded));
    assert_eq!(leaves(None, true), Ok(Reason::PaymentNotApproved));
}
