//! What approved payments are reported to have cost once they ended: budgets are charged with that, and given the rest back.

use super::super::Direction::{In, Out};
use super::super::{Approval, Hash, Paid, Side};
use super::model::{DAY_MS, Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, secret};
use crate::reasons::Reason;

/// Amounts in msat, of which every sum of some is another one.
const AMOUNTS: [u64; 3] = [200_000_000, 300_000_000, 250_000_000];

fn hash(n: u64) -> Hash {
    secret(n).1
}

/// Approves payments from 0 on with these amounts and sends them by channel 0, which is new.
fn sent(node: &mut Node, amounts_msat: &[u64]) -> Vec<usize> {
    let a = node.balanced();
    let ids = (0..).zip(amounts_msat).map(|(n, amount_msat)| {
        node.approve(n, *amount_msat);
        node.at.now_ms += 1_000; // so that they end one after the other
        node.add(a, htlc(n, Out, *amount_msat, 500))
    });
    let ids = ids.collect();
    node.sync(a).unwrap();
    ids
}

/// All that is reported from now on until nothing may leave any more, in the order of the hashes.
fn reported_at_the_end(node: &mut Node) -> Vec<(Hash, Paid)> {
    node.restart();
    node.at.now_ms += DAY_MS - 10_000;
    let mut ended = Vec::new();
    for _ in 0..20 {
        node.at.now_ms += 1_000;
        node.prune();
        ended.extend(node.book.take_ended());
        node.restart();
    }
    ended.sort_by_key(|(hash, _)| *hash);
    assert!(node.book.take_ended().is_empty(), "told once");
    assert_eq!((node.entries("book/payment/"), node.entries("book/batch/")), (0, 0), "nothing stays behind");
    ended
}

fn part_msat((_, paid): &(Hash, Paid)) -> u64 {
    if let Paid::Part(msat) = paid { *msat } else { 0 }
}

fn sorted(mut ended: Vec<(Hash, Paid)>) -> Vec<(Hash, Paid)> {
    ended.sort_by_key(|(hash, _)| *hash);
    ended
}

/// One failed, the others were paid, in one commitment: our balance says which.
#[test]
fn payments_that_ended_together_are_reported_as_our_balance_shows_them() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut node = Node::new(rules);
        let ids = sent(&mut node, &AMOUNTS);
        ids.iter().for_each(|id| node.remove(0, *id, *id != 1));
        node.sync(0).unwrap();
        let whole = [0, 2].map(|n| (hash(n), Paid::All)).to_vec();
        assert_eq!(sorted(node.book.take_ended()), sorted(whole), "these left whole");
        let ended = [(0, AMOUNTS[0]), (1, 0), (2, AMOUNTS[2])].map(|(n, msat)| (hash(n), Paid::Part(msat)));
        assert_eq!(reported_at_the_end(&mut node), sorted(ended.to_vec()));
    }
}

/// Of equal ones our balance shows only the sum: neither more nor less is reported, whichever it is.
#[test]
fn of_equal_payments_as_much_is_reported_as_left() {
    for paid in [0, 1, 2, 3, 4, 5] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let ids = sent(&mut node, &[100_000_000; 5]);
        ids.iter().for_each(|id| node.remove(0, *id, *id < paid));
        node.sync(0).unwrap();
        let whole = node.book.take_ended();
        assert!(whole.len() == paid && whole.iter().all(|(_, told)| *told == Paid::All), "{whole:?}");
        let ended = reported_at_the_end(&mut node);
        let full = ended.iter().filter(|(_, told)| *told == Paid::Part(100_000_000)).count();
        let none = ended.iter().filter(|(_, told)| *told == Paid::Part(0)).count();
        assert_eq!((full, none), (paid, 5 - paid));
    }
}

/// One that failed and was paid by its second attempt was paid once.
#[test]
fn a_payment_that_a_retry_paid_is_reported_once_and_leaves_the_other_paid() {
    for retried in [0, 1] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let ids = sent(&mut node, &[100_000_000; 2]);
        node.remove(0, ids[0], true);
        node.remove(0, ids[1], false);
        node.sync(0).unwrap();
        let retry = node.add(0, htlc(retried, Out, 100_000_000, 500));
        node.sync(0).unwrap();
        node.remove(0, retry, true);
        node.sync(0).unwrap();
        let whole: Vec<_> = node.book.take_ended().into_iter().map(|(hash, _)| hash).collect();
        assert!(whole.contains(&hash(0)) || whole.contains(&hash(1)), "{whole:?}");
        // The approval covers a fee of 10,000,000 msat: so much less had to be taken back for the retry.
        let ended = reported_at_the_end(&mut node);
        let parts = ended.iter().map(part_msat);
        assert!(parts.clone().all(|msat| (90_000_000..=110_000_000).contains(&msat)), "{ended:?}");
        assert_eq!(parts.sum::<u64>(), 200_000_000);
    }
}

/// What was reported as failed was given back to a budget: it is not given back again to another payment.
#[test]
fn hostile_retry_of_what_another_report_gave_back_is_refused_and_an_honest_one_passes() {
    let mut outcomes = Vec::new();
    for first in [0, 1] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        node.balanced();
        let ids = [0, 1].map(|n| {
            let ends_ms = node.at.now_ms + DAY_MS * if n == first { 1 } else { 2 };
            node.book.approve(hash(n), Approval::new(100_000_000, ends_ms), node.at);
            node.add(0, htlc(n, Out, 100_000_000, 500))
        });
        node.sync(0).unwrap();
        node.remove(0, ids[0], true);
        node.remove(0, ids[1], false);
        node.sync(0).unwrap();
        node.book.take_ended();
        node.at.now_ms += DAY_MS;
        node.prune();
        let [(told, Paid::Part(msat))] = node.book.take_ended()[..] else { panic!("one has ended") };
        assert_eq!(told, hash(first));
        node.add(0, htlc(1 - first, Out, 100_000_000, 500));
        let refused = node.sync(0).err().map(|refusal| refusal.reason);
        outcomes.push((msat, refused));
    }
    outcomes.sort_by_key(|(msat, _)| *msat);
    assert_eq!(outcomes, [(0, Some(Reason::PaymentExceeded)), (100_000_000, None)]);
}

/// Our commitment loses them one after the other, which shows what became of each; the peer's loses them at once. What was
/// paid is told once; what failed, at most as if it had been paid.
#[test]
fn what_only_one_side_ended_at_once_is_reported_once() {
    let mut exact = 0;
    for paid in [0, 1] {
        let mut node = Node::new(WITHOUT_PREIMAGES);
        let ids = sent(&mut node, &[100_000_000; 2]);
        for (n, id) in (0..).zip(ids) {
            node.remove(0, id, n == paid);
            node.sign(0, Side::Ours).unwrap();
            node.revoke(0, Side::Ours);
        }
        node.sync(0).unwrap();
        assert!(node.book.take_ended().contains(&(hash(paid), Paid::All)));
        let ended = reported_at_the_end(&mut node);
        assert!(ended.contains(&(hash(paid), Paid::Part(100_000_000))), "{ended:?}");
        exact += usize::from(ended.contains(&(hash(1 - paid), Paid::Part(0))));
        assert!(ended.iter().map(part_msat).sum::<u64>() <= 200_000_000, "{ended:?}");
    }
    assert_eq!(exact, 1, "of equal ones the same is taken for paid, whichever was");
}

/// Parts of one payment on two channels add up.
#[test]
fn parts_on_several_channels_are_reported_as_their_sum() {
    let mut node = Node::new(WITHOUT_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    for n in [0, 1, 2] {
        node.approve(n, 200_000_000);
    }
    // Each part ends beside an equal payment that fails.
    let ends = [(a, 1), (b, 2)]
        .map(|(channel, beside)| [0, beside].map(|n| node.add(channel, htlc(n, Out, 100_000_000, 500))));
    for (channel, [part, beside]) in [a, b].into_iter().zip(ends) {
        node.sync(channel).unwrap();
        node.remove(channel, part, true);
        node.remove(channel, beside, false);
        node.sync(channel).unwrap();
    }
    node.restart();
    node.at.now_ms += DAY_MS;
    node.prune();
    assert_eq!(node.book.take_ended().iter().map(part_msat).sum::<u64>(), 200_000_000);
}

/// What comes in of an approved payment of ours is no part of what it cost.
#[test]
fn a_payment_that_also_came_in_is_reported_with_what_left() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.approve(0, 100_000_000);
    let comes = node.add(a, htlc(0, In, 50_000_000, 600));
    node.sync(a).unwrap();
    let leaves = node.add(b, htlc(0, Out, 100_000_000, 500));
    node.sync(b).unwrap();
    for (channel, id) in [(b, leaves), (a, comes)] {
        node.remove(channel, id, true);
        node.sync(channel).unwrap();
    }
    assert_eq!(node.book.take_ended(), [(hash(0), Paid::All)]);
    assert_eq!(reported_at_the_end(&mut node), [(hash(0), Paid::Part(100_000_000))]);
    assert_eq!(node.following(a, Side::Ours).htlcs, []);
}

/// A small one that may have left as dust counts as paid: nothing shows that it did not.
#[test]
fn a_small_payment_that_never_left_counts_as_paid_and_one_that_failed_does_not() {
    let mut node = Node::new(WITH_PREIMAGES);
    let a = node.balanced();
    node.approve(0, 400_000);
    node.approve(1, 5_000_000);
    let attempt = node.add(a, htlc(1, Out, 5_000_000, 500));
    node.sync(a).unwrap();
    node.remove(a, attempt, false);
    node.sync(a).unwrap();
    assert_eq!(node.book.take_ended(), []);
    let ended = [(hash(0), Paid::All), (hash(1), Paid::Part(0))];
    assert_eq!(reported_at_the_end(&mut node), sorted(ended.to_vec()));
}
