//! Where the wire brings no preimages: what one commitment removed together, and only the sum of it shows.

use super::super::Direction::{In, Out};
use super::model::{Node, WITHOUT_PREIMAGES, htlc};
use crate::reasons::Reason;

const AMOUNT_MSAT: u64 = 1_000_000_000;

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
    node.remove(b, leaves[0], true);
    node.remove(b, leaves[1], false);
    node.sync(b).unwrap();
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
    node.remove(b, leaves[0], true);
    node.remove(b, leaves[1], false);
    node.sync(b).unwrap();
    let honest = node.channels[a].clone();
    comes.iter().for_each(|id| node.remove(a, *id, false));
    assert_eq!(node.sync(a).unwrap_err().reason, Reason::ForwardUnclaimed);
    node.channels[a] = honest;
    node.remove(a, comes[0], true);
    node.remove(a, comes[1], false);
    node.sync(a).unwrap();
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
        node.remove(a, paid[0], true);
        node.remove(a, paid[1], false);
        node.sync(a).unwrap();
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
        node.remove(a, paid[0], true);
        node.remove(a, paid[1], false);
        node.sync(a).unwrap();
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
