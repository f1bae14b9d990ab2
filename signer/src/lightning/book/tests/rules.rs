//! Each rule: the attack is refused with its reason, and the honest twin beside it passes.

use super::super::{Commitment, Direction, Side};
use super::model::{DELTA, Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, secret, terms};
use crate::facts::Fact;
use crate::reasons::Reason;
use Direction::{In, Out};

const BOTH: [Side; 2] = [Side::Ours, Side::Theirs];

/// Moves `sat` of our output to the peer.
fn shifted(commitment: Commitment, sat: u64) -> Commitment {
    Commitment { to_us_sat: commitment.to_us_sat - sat, to_them_sat: commitment.to_them_sat + sat, ..commitment }
}

#[test]
fn hostile_shift_of_the_balance_without_an_htlc_is_refused_to_the_satoshi() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        for we_fund in [false, true] {
            let mut node = Node::new(rules);
            let a = node.open(terms(0, 10_000_000, we_fund, 5_000_000_000));
            for side in BOTH {
                let honest = node.following(a, side);
                for sat in [1, 400, 4_000_000] {
                    let refusal = node.ask(a, side, shifted(honest.clone(), sat)).unwrap_err();
                    assert_eq!(refusal.reason, Reason::ValueNotConserved, "{sat}: {refusal:?}");
                    let ours_msat = 5_000_000_999 - i128::from(sat) * 1_000;
                    let fact = Fact::msat("ours", ours_msat).at_least(5_000_000_000);
                    assert!(refusal.facts.contains(&fact), "{refusal:?}");
                }
                node.ask(a, side, honest).unwrap();
            }
        }
    }
}

/// What HTLCs do not come to is no matter of their preimages.
#[test]
fn hostile_shift_beside_an_htlc_is_refused_for_what_it_is() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(1, 100_000_000);
    node.add(a, htlc(1, Out, 100_000_000, 500));
    node.sync(a).unwrap();
    let before = node.following(a, Side::Ours);
    for (sat, reason) in [(100_000, Reason::PreimageMissing), (100_001, Reason::ValueNotConserved)] {
        let ended = Commitment {
            to_us_sat: before.to_us_sat + 100_000,
            to_them_sat: before.to_them_sat + 172,
            htlcs: Vec::new(),
            ..before.clone()
        };
        assert_eq!(node.ask(a, Side::Ours, shifted(ended, sat)).unwrap_err().reason, reason, "{sat}");
    }
}

#[test]
fn hostile_shift_to_miners_is_refused_beyond_what_dust_may_be() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for side in BOTH {
        let honest = node.following(a, side);
        let burnt = |sat| Commitment { to_us_sat: honest.to_us_sat - sat, ..honest.clone() };
        assert_eq!(node.ask(a, side, burnt(100_001)).unwrap_err().reason, Reason::DustExceeded);
        node.ask(a, side, burnt(500)).unwrap();
    }
}

#[test]
fn hostile_fee_that_the_outputs_do_not_pay_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.open(terms(0, 10_000_000, true, 0));
    let payment = node.add(a, htlc(1, Out, 3_000_000_000, 500));
    node.approve(1, 3_000_000_000);
    node.sync(a).unwrap();
    node.remove(a, payment, true);
    node.sync(a).unwrap();
    for side in BOTH {
        let honest = node.following(a, side);
        // "The feerate doubled", but the difference goes to the peer.
        let mut hostile = shifted(honest.clone(), 1_124);
        hostile.feerate_per_kw = 2_000;
        assert_eq!(node.ask(a, side, hostile).unwrap_err().reason, Reason::ValueNotConserved);
        let mut doubled = honest;
        doubled.feerate_per_kw = 2_000;
        doubled.to_us_sat -= 1_124;
        node.ask(a, side, doubled.clone()).unwrap();
        doubled.to_us_sat -= 1_124 * 49;
        doubled.feerate_per_kw = 51_000;
        assert_eq!(node.ask(a, side, doubled).unwrap_err().reason, Reason::CommitmentFee);
    }
}

#[test]
fn hostile_payment_without_approval_is_refused_on_whichever_commitment_comes_first() {
    for side in BOTH {
        let mut node = Node::new(WITH_PREIMAGES);
        let a = node.balanced();
        let honest = node.following(a, side);
        let sent = Commitment {
            to_us_sat: honest.to_us_sat - 100_000,
            htlcs: vec![htlc(1, Out, 100_000_000, 500)],
            to_them_sat: honest.to_them_sat - 172,
            ..honest
        };
        assert_eq!(node.ask(a, side, sent.clone()).unwrap_err().reason, Reason::PaymentNotApproved);
        node.approve(1, 100_000_000);
        node.ask(a, side, sent).unwrap();
    }
}

#[test]
fn hostile_second_payment_of_a_hash_is_refused_and_an_honest_retry_passes() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut node = Node::new(rules);
        let (a, b) = (node.balanced(), node.balanced());
        node.approve(1, 100_000_000);
        // Fails twice, on two channels; then it is paid in two parts with a fee.
        for channel in [a, b] {
            let attempt = node.add(channel, htlc(1, Out, 101_000_000, 500));
            node.sync(channel).unwrap();
            node.remove(channel, attempt, false);
            node.sync(channel).unwrap();
        }
        let parts = [a, b].map(|channel| (channel, node.add(channel, htlc(1, Out, 51_000_000, 500))));
        for (channel, part) in parts {
            node.sync(channel).unwrap();
            node.remove(channel, part, true);
        }
        node.sync(a).unwrap();
        node.sync(b).unwrap();
        node.restart();
        node.approve(1, 100_000_000); // the same invoice again
        node.add(a, htlc(1, Out, 100_000_000, 500));
        let refusal = node.sync(a).unwrap_err();
        assert_eq!(refusal.reason, Reason::PaymentExceeded);
        assert!(refusal.detail.contains("202000000 msat out"), "{}", refusal.detail);
    }
}

#[test]
fn hostile_parts_beyond_the_approval_are_refused_while_all_are_in_flight() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.approve(1, 100_000_000);
    node.add(a, htlc(1, Out, 60_000_000, 500));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, 60_000_000, 500));
    assert_eq!(node.sync(b).unwrap_err().reason, Reason::PaymentExceeded);

    // A tenth for routing may come on top.
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.approve(1, 100_000_000);
    for (channel, amount_msat) in [(a, 60_000_000), (b, 50_000_000)] {
        node.add(channel, htlc(1, Out, amount_msat, 500));
        node.sync(channel).unwrap();
    }
}

#[test]
fn hostile_payment_of_an_invoice_without_amount_needs_its_amount_approved() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(1, 0);
    node.add(a, htlc(1, Out, 10_000_000, 500));
    let refusal = node.sync(a).unwrap_err();
    assert_eq!(refusal.reason, Reason::PaymentNotApproved);
    assert!(refusal.detail.contains("PreapproveKeysend"), "{}", refusal.detail);
    node.approve(1, 10_000_000);
    node.sync(a).unwrap();
}

#[test]
fn hostile_settlement_without_a_preimage_is_refused_where_the_wire_brings_them() {
    for side in BOTH {
        let mut node = Node::new(WITH_PREIMAGES);
        let a = node.balanced();
        node.approve(1, 100_000_000);
        let payment = node.add(a, htlc(1, Out, 100_000_000, 500));
        node.sync(a).unwrap();
        let before = node.following(a, side);
        let taken = Commitment { to_them_sat: before.to_them_sat + 100_000 + 172, htlcs: Vec::new(), ..before.clone() };
        assert_eq!(node.ask(a, side, taken.clone()).unwrap_err().reason, Reason::PreimageMissing);
        // Given back.
        let failed =
            Commitment { to_us_sat: before.to_us_sat + 100_000, to_them_sat: before.to_them_sat + 172, ..taken };
        node.ask(a, side, failed).unwrap();
        node.remove(a, payment, true);
        node.sync(a).unwrap();
        assert!(node.view().payments[0].preimage_known);
    }
}

#[test]
fn hostile_forward_of_more_than_comes_in_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.add(a, htlc(1, In, 1_500_000, 600));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, 5_000_000_000 / 2, 500));
    assert_eq!(node.sync(b).unwrap_err().reason, Reason::ForwardNotCovered);

    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.add(a, htlc(1, In, 1_500_000, 600));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, 1_500_000, 600 - DELTA));
    node.sync(b).unwrap(); // a router that asks for nothing
}

#[test]
fn hostile_forward_of_what_is_not_irrevocable_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.add(a, htlc(1, In, 2_000_000, 600));
    node.add(b, htlc(1, Out, 1_900_000, 500));
    let forward = node.following(b, Side::Theirs);
    let refused = |node: &mut Node| node.ask(b, Side::Theirs, forward.clone()).unwrap_err().reason;
    assert_eq!(refused(&mut node), Reason::PaymentNotApproved);
    node.sign(a, Side::Ours).unwrap();
    assert_eq!(refused(&mut node), Reason::PaymentNotApproved);
    node.revoke(a, Side::Ours);
    node.sign(a, Side::Theirs).unwrap();
    assert_eq!(refused(&mut node), Reason::PaymentNotApproved, "the peer's old commitment is valid");
    node.revoke(a, Side::Theirs);
    node.sync(b).unwrap();
}

#[test]
fn hostile_forward_that_may_outlast_what_comes_in_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.add(a, htlc(1, In, 2_000_000, 600));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, 1_900_000, 600 - DELTA + 1));
    assert_eq!(node.sync(b).unwrap_err().reason, Reason::ForwardCltv);
}

#[test]
fn honest_forward_in_parts_with_different_expiries_passes() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    for (amount_msat, expiry) in [(2_000_000, 600), (3_000_000, 640)] {
        node.add(a, htlc(1, In, amount_msat, expiry));
        node.sync(a).unwrap();
        node.add(b, htlc(1, Out, amount_msat - 1_000, expiry - DELTA));
        node.sync(b).unwrap();
    }
}

#[test]
fn hostile_refund_of_a_forward_that_was_settled_is_refused() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut node = Node::new(rules);
        let (a, b) = (node.balanced(), node.balanced());
        let comes = node.add(a, htlc(1, In, 2_000_000, 600));
        node.sync(a).unwrap();
        let leaves = node.add(b, htlc(1, Out, 1_900_000, 500));
        node.sync(b).unwrap();
        // Not while it is in flight, ...
        let before = node.following(a, Side::Theirs);
        let refunded =
            Commitment { to_them_sat: before.to_them_sat + 2_000 + 172, htlcs: Vec::new(), ..before.clone() };
        assert_eq!(node.ask(a, Side::Theirs, refunded.clone()).unwrap_err().reason, Reason::ForwardUnclaimed);
        node.remove(b, leaves, true);
        node.sync(b).unwrap();
        node.restart();
        // ... nor after it was paid, ...
        assert_eq!(node.ask(a, Side::Theirs, refunded).unwrap_err().reason, Reason::ForwardUnclaimed);
        node.remove(a, comes, true);
        node.sync(a).unwrap();
        assert!(node.view().payments.is_empty(), "it is over");

        // ... but once it failed.
        let comes = node.add(a, htlc(2, In, 2_000_000, 600));
        node.sync(a).unwrap();
        let leaves = node.add(b, htlc(2, Out, 1_900_000, 500));
        node.sync(b).unwrap();
        node.remove(b, leaves, false);
        node.sync(b).unwrap();
        node.remove(a, comes, false);
        node.sync(a).unwrap();
        assert!(node.view().payments.is_empty());
    }
}

#[test]
fn hostile_payment_out_of_what_was_received_is_refused() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        // After it was received ...
        let mut node = Node::new(rules);
        let (a, b) = (node.balanced(), node.balanced());
        let received = node.add(a, htlc(1, In, 2_000_000, 600));
        node.sync(a).unwrap();
        node.remove(a, received, true);
        node.sign(a, Side::Theirs).unwrap();
        node.add(b, htlc(1, Out, 2_000_000, 500));
        assert_eq!(node.sync(b).unwrap_err().reason, Reason::PaymentNotApproved);

        // ... and before, if the invoice is ours.
        let mut node = Node::new(rules);
        let (a, b) = (node.balanced(), node.balanced());
        node.issued.push(secret(1).1);
        node.add(a, htlc(1, In, 2_000_000, 600));
        node.sync(a).unwrap();
        node.add(b, htlc(1, Out, 2_000_000, 500));
        assert_eq!(node.sync(b).unwrap_err().reason, Reason::PaymentNotApproved);
    }
}

#[test]
fn honest_payment_to_oneself_passes_and_its_return_is_not_spent_twice() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.issued.push(secret(1).1);
    node.approve(1, 500_000_000);
    let leaves = node.add(a, htlc(1, Out, 505_000_000, 700));
    node.sync(a).unwrap();
    let returns = node.add(b, htlc(1, In, 500_000_000, 600));
    node.sync(b).unwrap();
    node.remove(b, returns, true);
    node.sync(b).unwrap();
    node.remove(a, leaves, true);
    node.sync(a).unwrap();
    node.add(a, htlc(1, Out, 505_000_000, 700));
    assert_eq!(node.sync(a).unwrap_err().reason, Reason::PaymentExceeded);
}

#[test]
fn honest_repetition_passes_and_changes_nothing_also_after_a_restart() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(1, 100_000_000);
    node.add(a, htlc(1, Out, 100_000_000, 500));
    node.sign(a, Side::Theirs).unwrap();
    let signed = node.channels[a].clone();
    let repeated = {
        let mut again = Node::new(WITH_PREIMAGES);
        again.channels.push(signed);
        again.following(a, Side::Theirs)
    };
    for _ in 0..2 {
        node.ask(a, Side::Theirs, repeated.clone()).unwrap();
        node.restart();
    }
    let other = shifted(repeated, 1);
    assert_eq!(node.ask(a, Side::Theirs, other).unwrap_err().reason, Reason::CommitmentOrder);
    node.revoke(a, Side::Theirs);
    node.sync(a).unwrap();
}

#[test]
fn hostile_commitment_out_of_order_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for side in BOTH {
        let mut far = node.following(a, side);
        far.number += 1;
        assert_eq!(node.ask(a, side, far).unwrap_err().reason, Reason::CommitmentOrder);
    }
}

#[test]
fn hostile_amounts_do_not_overflow() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    for side in BOTH {
        let honest = node.following(a, side);
        let huge = Commitment { to_us_sat: u64::MAX, to_them_sat: u64::MAX, ..honest.clone() };
        assert_eq!(node.ask(a, side, huge).unwrap_err().reason, Reason::ValueNotConserved);
        let htlcs = vec![htlc(1, Out, u64::MAX, u32::MAX), htlc(1, In, u64::MAX, u32::MAX)];
        let huge = Commitment { htlcs, feerate_per_kw: u32::MAX, ..honest };
        assert_eq!(node.ask(a, side, huge).unwrap_err().reason, Reason::ValueNotConserved);
    }
}

#[test]
fn what_is_over_leaves_nothing_behind() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let empty = node.entries("");
    node.approve(1, 100_000_000);
    let payment = node.add(a, htlc(1, Out, 100_000_000, 500));
    let received = node.add(b, htlc(2, In, 100_000_000, 500));
    for channel in [a, b] {
        node.sync(channel).unwrap();
    }
    node.remove(a, payment, true);
    node.remove(b, received, true);
    for channel in [a, b] {
        node.sync(channel).unwrap();
    }
    assert_eq!(node.entries(""), empty + 1, "the approval");
    node.at.now_ms += super::model::DAY_MS;
    node.book.prune(|_| false, node.at);
    node.sync(a).unwrap();
    node.set_feerate(a, 1_100);
    node.sync(a).unwrap(); // writes
    assert_eq!(node.entries(""), empty);
    node.close(b, &[]);
    node.book.prune(|_| true, node.at);
    assert_eq!(node.view().channels.len(), 1);
}
