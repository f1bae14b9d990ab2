//! Where the wire brings no preimages: what one commitment removed together, and only the sum of it shows.

use super::super::Direction::{In, Out};
use super::model::{Node, WITHOUT_PREIMAGES, htlc};
use crate::reasons::Reason;

const AMOUNT_MSAT: u64 = 1_000_000_000;

/// Of two HTLCs of `channel`, the first is paid and the second fails, in the same commitment.
fn end(node: &mut Node, channel: usize, [paid, failed]: [usize; 2]) {
    node.remove(channel, paid, true);
    node.remove(channel, failed, false);
    node.sync(channel).unwrap();
}

/// Two forwards of one amount leave by `b`, and one of them is paid there: both end in the same commitment.
fn two_forwards(amount_msat: u64) -> (Node, [(usize, usize); 2]) {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b, c) = (node.balanced(), node.balanced(), node.balanced());
    let comes = [(a, 1), (c, 2)].map(|(channel, n)| (channel, node.add(channel, htlc(n, In, amount_msat, 600))));
    for channel in [a, c] {
        node.sync(channel).unwrap();
    }
    let leaves = [1, 2].map(|n| node.add(b, htlc(n, Out, amount_msat, 500)));
    node.sync(b).unwrap();
    end(&mut node, b, leaves);
    node.restart();
    (node, comes)
}

/// The one that was paid and the other: whichever the signer would guess, one of them may be given up.
#[test]
fn hostile_refund_of_both_of_two_equal_forwards_is_refused_and_that_of_the_failed_one_passes() {
    for (first, second) in [(0, 1), (1, 0)] {
        let (mut node, comes) = two_forwards(AMOUNT_MSAT);
        node.remove(comes[first].0, comes[first].1, false);
        node.sync(comes[first].0).unwrap();
        node.restart();
        let (channel, id) = comes[second];
        let honest = node.channels[channel].clone();
        node.remove(channel, id, false);
        assert_eq!(node.sync(channel).unwrap_err().reason, Reason::ForwardUnclaimed);
        node.channels[channel] = honest;
        node.remove(channel, id, true);
        node.sync(channel).unwrap();
        assert!(node.view().payments.is_empty());
    }
}

#[test]
fn hostile_refund_of_both_in_one_commitment_is_refused() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let comes = [1, 2].map(|n| node.add(a, htlc(n, In, AMOUNT_MSAT, 600)));
    node.sync(a).unwrap();
    let leaves = [1, 2].map(|n| node.add(b, htlc(n, Out, AMOUNT_MSAT, 500)));
    node.sync(b).unwrap();
    end(&mut node, b, leaves);
    let honest = node.channels[a].clone();
    comes.iter().for_each(|id| node.remove(a, *id, false));
    assert_eq!(node.sync(a).unwrap_err().reason, Reason::ForwardUnclaimed);
    node.channels[a] = honest;
    end(&mut node, a, comes);
}

/// Dust that moves in the same commitment hides nothing that is larger.
#[test]
fn hostile_refund_behind_moving_dust_is_refused_and_an_honest_end_passes() {
    for (paid, claimed, passes) in [(true, false, false), (true, true, true), (false, false, true)] {
        for amount_msat in [2_000_000_000, 50_000_000, 5_000_000] {
            let mut node = Node::new(WITHOUT_PREIMAGES);
            let (a, b) = (node.balanced(), node.balanced());
            let comes = node.add(a, htlc(1, In, amount_msat, 600));
            node.sync(a).unwrap();
            let leaves = node.add(b, htlc(1, Out, amount_msat, 500));
            let dust = node.add(b, htlc(2, Out, 300_000, 500));
            node.sync(b).unwrap();
            node.remove(b, leaves, paid);
            node.remove(b, dust, false);
            node.sync(b).unwrap();
            node.restart();
            node.remove(a, comes, claimed);
            let refused = node.sync(a).err().map(|refusal| refusal.reason);
            assert_eq!(refused, (!passes).then_some(Reason::ForwardUnclaimed), "{amount_msat} {paid} {claimed}");
        }
    }
}

/// Of two equal payments one failed: as much may be paid again, whichever it is, and no more.
#[test]
fn hostile_second_retry_after_one_of_two_payments_failed_is_refused_and_the_first_passes() {
    for first in [1, 2] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let a = node.balanced();
        let paid = [1, 2].map(|n| {
            node.approve(n, AMOUNT_MSAT);
            node.add(a, htlc(n, Out, AMOUNT_MSAT, 500))
        });
        node.sync(a).unwrap();
        end(&mut node, a, paid);
        let retry = node.add(a, htlc(first, Out, AMOUNT_MSAT, 500));
        node.sync(a).unwrap();
        node.restart();
        node.remove(a, retry, true);
        node.sync(a).unwrap();
        node.add(a, htlc(3 - first, Out, AMOUNT_MSAT, 500));
        assert_eq!(node.sync(a).unwrap_err().reason, Reason::PaymentExceeded);
    }
}

/// However many commitments end payments of which one failed, the newest of them are kept open, and the others were paid.
#[test]
fn hostile_retry_of_what_ended_long_ago_is_refused_and_a_recent_one_passes() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let a = node.balanced();
    for n in (0..140).step_by(2) {
        let paid = [n, n + 1].map(|n| {
            node.approve(n, 20_000_000);
            node.add(a, htlc(n, Out, 20_000_000, 500))
        });
        node.sync(a).unwrap();
        end(&mut node, a, paid);
    }
    assert_eq!(node.entries("book/batch/"), 64);
    node.restart();
    let honest = node.channels[a].clone();
    node.add(a, htlc(1, Out, 20_000_000, 500));
    assert_eq!(node.sync(a).unwrap_err().reason, Reason::PaymentExceeded);
    node.channels[a] = honest;
    node.add(a, htlc(139, Out, 20_000_000, 500));
    node.sync(a).unwrap();
}

/// Forwards that leave two by two for channels of their own; of each two, the first is paid. All come in on one channel.
fn four_forwards() -> (Node, [usize; 4]) {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b, c) = (node.balanced(), node.balanced(), node.balanced());
    let comes = [1, 2, 3, 4].map(|n| node.add(a, htlc(n, In, AMOUNT_MSAT, 600)));
    node.sync(a).unwrap();
    for (channel, pair) in [(b, [1, 2]), (c, [3, 4])] {
        let leaves = pair.map(|n| node.add(channel, htlc(n, Out, AMOUNT_MSAT, 500)));
        node.sync(channel).unwrap();
        end(&mut node, channel, leaves);
    }
    node.restart();
    (node, comes)
}

/// A wrong guess about one batch is made up for by what failed in another, and by no more.
#[test]
fn hostile_refund_of_more_than_failed_in_all_batches_is_refused_and_of_as_much_passes() {
    for pair in [[0, 1], [2, 3], [0, 2], [1, 3], [3, 0]] {
        let (mut node, comes) = four_forwards();
        for n in pair {
            node.remove(0, comes[n], false);
            node.sync(0).unwrap();
            node.restart();
        }
        assert_eq!(node.view().dust.lost_msat, 0);
        for n in (0..4).filter(|n| !pair.contains(n)) {
            let honest = node.channels[0].clone();
            node.remove(0, comes[n], false);
            assert_eq!(node.sync(0).unwrap_err().reason, Reason::ForwardUnclaimed, "{pair:?} {n}");
            node.channels[0] = honest;
            node.remove(0, comes[n], true);
            node.sync(0).unwrap();
        }
        assert!(node.view().payments.is_empty());
    }
}

/// Sends approved payments of [`AMOUNT_MSAT`] by `channel`.
fn pay(node: &mut Node, channel: usize, payments: &[u64]) -> Vec<usize> {
    let ids = payments.iter().map(|n| {
        node.approve(*n, AMOUNT_MSAT);
        node.add(channel, htlc(*n, Out, AMOUNT_MSAT, 500))
    });
    let ids = ids.collect();
    node.sync(channel).unwrap();
    ids
}

/// Tries a payment again: on its way, or the reason why it is not.
fn retry(node: &mut Node, channel: usize, n: u64) -> Option<Reason> {
    let honest = node.channels[channel].clone();
    node.add(channel, htlc(n, Out, AMOUNT_MSAT, 500));
    let reason = node.sync(channel).err().map(|refusal| refusal.reason);
    if reason.is_some() {
        node.channels[channel] = honest;
    }
    reason
}

/// Two payments end beside one that comes in, which may have been paid: then both were. If it failed, one of them did.
#[test]
fn hostile_retries_beside_what_came_in_are_refused_and_honest_ones_pass() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    for first in [1, 11] {
        let payments = pay(&mut node, a, &[first, first + 1]);
        let comes = node.add(a, htlc(first + 2, In, AMOUNT_MSAT, 600));
        node.sync(a).unwrap();
        node.remove(a, payments[0], true);
        node.remove(a, payments[1], false);
        node.remove(a, comes, false);
        node.sync(a).unwrap();
        node.restart();
    }
    // The later one first: each batch pays for its own.
    for n in [12, 2] {
        assert_eq!(retry(&mut node, b, n), None, "{n}");
        node.restart();
    }
    assert_eq!(node.view().dust.lost_msat, 0);
    for n in [1, 11] {
        assert_eq!(retry(&mut node, b, n), Some(Reason::PaymentExceeded), "{n}");
    }
}

/// What certainly came in by the same commitment gives no payment back.
#[test]
fn hostile_retry_beside_a_claim_that_is_ours_is_refused_and_of_what_failed_passes() {
    for certain in [true, false] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let (a, b) = (node.balanced(), node.balanced());
        let comes = [5, 6].map(|n| node.add(a, htlc(n, In, AMOUNT_MSAT, 600)));
        node.sync(a).unwrap();
        let leaves = [5, 6].map(|n| node.add(b, htlc(n, Out, AMOUNT_MSAT, 500)));
        node.sync(b).unwrap();
        // Of both together, nobody knows which was paid; of one after the other, all is certain.
        node.remove(b, leaves[0], true);
        if certain {
            node.sync(b).unwrap();
        }
        node.remove(b, leaves[1], false);
        node.sync(b).unwrap();
        let payments = pay(&mut node, a, &[1, 2]);
        node.remove(a, payments[0], true);
        node.remove(a, payments[1], false);
        node.remove(a, comes[0], true);
        node.sync(a).unwrap();
        node.remove(a, comes[1], false);
        node.sync(a).unwrap();
        node.restart();
        assert_eq!(retry(&mut node, b, 2), None, "{certain}");
        assert_eq!(retry(&mut node, b, 1), Some(Reason::PaymentExceeded), "{certain}");
    }
}

/// One payment in two parts, of which one was certainly paid and the other ended beside an equal one.
#[test]
fn hostile_retry_of_both_parts_is_refused_and_of_the_one_that_may_have_failed_passes() {
    for certain_first in [true, false] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let (a, b, c) = (node.balanced(), node.balanced(), node.balanced());
        node.approve(1, 2 * AMOUNT_MSAT);
        let part = node.add(b, htlc(1, Out, AMOUNT_MSAT, 500));
        node.sync(b).unwrap();
        let end_it = |node: &mut Node| {
            node.remove(b, part, true);
            node.sync(b).unwrap();
        };
        if certain_first {
            end_it(&mut node);
        }
        node.approve(2, AMOUNT_MSAT);
        let together = [1, 2].map(|n| node.add(a, htlc(n, Out, AMOUNT_MSAT, 500)));
        node.sync(a).unwrap();
        node.remove(a, together[0], false);
        node.remove(a, together[1], true);
        node.sync(a).unwrap();
        if !certain_first {
            end_it(&mut node);
        }
        node.restart();
        let honest = node.channels[c].clone();
        node.add(c, htlc(1, Out, 2 * AMOUNT_MSAT, 500));
        assert_eq!(node.sync(c).unwrap_err().reason, Reason::PaymentExceeded);
        node.channels[c] = honest;
        assert_eq!(retry(&mut node, c, 1), None);
        assert_eq!(retry(&mut node, c, 1), Some(Reason::PaymentExceeded));
        assert_eq!(retry(&mut node, c, 2), Some(Reason::PaymentExceeded));
    }
}

/// Parts of one payment that ended in two batches of a channel: each retry takes what it needs, and leaves the rest to others.
#[test]
fn honest_retries_of_one_part_of_two_and_of_another_payment_pass_and_hostile_further_ones_do_not() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.approve(1, 2 * AMOUNT_MSAT);
    for beside in [2, 3] {
        node.approve(beside, AMOUNT_MSAT);
        let together = [1, beside].map(|n| node.add(a, htlc(n, Out, AMOUNT_MSAT, 500)));
        node.sync(a).unwrap();
        node.remove(a, together[0], beside == 2);
        node.remove(a, together[1], beside == 3);
        node.sync(a).unwrap();
    }
    for (n, reason) in [(1, None), (2, None), (3, Some(Reason::PaymentExceeded)), (1, Some(Reason::PaymentExceeded))] {
        assert_eq!(retry(&mut node, b, n), reason, "{n}");
        node.restart();
    }
}

/// A small amount beyond what failed is taken for dust, and charged as dust.
#[test]
fn hostile_retries_that_only_dust_accounts_for_are_charged_and_bounded_and_honest_ones_are_free() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let amount_msat = 9_000_000;
    let mut lost_msat = 0;
    for n in (0..).step_by(2) {
        let together = [n, n + 1].map(|n| {
            node.approve(n, amount_msat);
            node.add(a, htlc(n, Out, amount_msat, 500))
        });
        node.sync(a).unwrap();
        end(&mut node, a, together);
        // The first takes back nine tenths of what failed, since its approval covers the rest as a fee; the second has that.
        for (retried, cost_msat) in [(n + 1, 0), (n, amount_msat - 2 * amount_msat / 10)] {
            node.add(b, htlc(retried, Out, amount_msat, 500));
            if let Err(refusal) = node.sync(b) {
                let allowance_msat = node.view().dust.allowance_msat;
                assert_eq!((refusal.reason, retried), (Reason::DustExceeded, n));
                assert!(lost_msat + cost_msat > allowance_msat, "{lost_msat}");
                return;
            }
            lost_msat += cost_msat;
            assert_eq!(node.view().dust.lost_msat, lost_msat, "{retried}");
        }
    }
}
