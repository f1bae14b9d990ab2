//! Forwards whose outgoing channel is closed: what comes in is given up only where the peer can no longer take what left.
//! Each attack is beside its honest twin, at the heights at which LDK and Core Lightning act.

use bitcoin::Transaction;
use bitcoin::hashes::{Hash as _, ripemd160};

use super::super::view::Standing;
use super::super::{Direction, Rules, Side};
use super::model::{DELTA, Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, secret};
use crate::reasons::Reason;
use Direction::{In, Out};

const IN_EXPIRY: u32 = 101_000;
const OUT_EXPIRY: u32 = IN_EXPIRY - DELTA;
const BOTH: [Rules; 2] = [WITH_PREIMAGES, WITHOUT_PREIMAGES];
/// Of the outgoing HTLCs, in sat.
const OUT_SAT: u64 = 1_900;

/// A node with forwards 1 to `n`, which come in on channel 0 and leave on channel 1, of which no output shows anything yet.
fn forwarding(rules: Rules, n: u64) -> (Node, Vec<usize>) {
    let mut node = Node::new(rules);
    let (a, b) = (node.balanced(), node.balanced());
    let come = (1..=n).map(|n| node.add(a, htlc(n, In, 2_000_000, IN_EXPIRY))).collect();
    node.sync(a).unwrap();
    for n in 1..=n {
        node.add(b, htlc(n, Out, OUT_SAT * 1_000, OUT_EXPIRY));
    }
    node.sync(b).unwrap();
    (node, come)
}

/// What becomes of giving up what came in: it is asked for, on the side that is first.
fn give_up(node: &mut Node) -> Option<Reason> {
    let refunded = node.following(0, Side::Theirs);
    node.ask(0, Side::Theirs, refunded).err().map(|refusal| refusal.reason)
}

/// BOLT 3, as far as it matters: the script names the hash.
fn script(n: u64) -> Vec<u8> {
    let named = ripemd160::Hash::hash(&secret(n).1.0).to_byte_array();
    [&[0x63, 0xa9, 0x14][..], &named, &[0x88, 0x68]].concat()
}

fn time_out(node: &mut Node, close: &Transaction, vout: u32, n: u64) {
    node.spend(close, vout, &[&[], &[9; 71], &[9; 71], &[], &script(n)]);
}

fn claim(node: &mut Node, close: &Transaction, vout: u32, n: u64) {
    node.spend(close, vout, &[&[], &[9; 71], &[9; 71], &secret(n).0, &script(n)]);
}

fn bury(node: &mut Node) {
    node.at.height += node.rules.buried - 1;
}

#[test]
fn hostile_refund_beside_a_close_on_paper_is_refused_until_the_incoming_htlc_ends() {
    for rules in BOTH {
        let (mut node, come) = forwarding(rules, 1);
        node.closing(1);
        node.remove(0, come[0], false);
        for height in [OUT_EXPIRY - 1, OUT_EXPIRY, OUT_EXPIRY + 1, IN_EXPIRY - 5] {
            node.at.height = height;
            assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "{height}");
            node.restart();
        }
        // LDK and Core Lightning, whatever became of the other, so that their peer does not close as well.
        node.at.height = IN_EXPIRY - 3;
        assert_eq!(give_up(&mut node), None);
        node.sync(0).unwrap();
        assert!(node.channels[0].is_quiet());
    }
}

#[test]
fn hostile_refund_of_what_the_peer_took_on_chain_is_refused_and_its_claim_passes() {
    for rules in BOTH {
        let (mut node, come) = forwarding(rules, 1);
        let close = node.close(1, &[OUT_SAT, 5_000_000]);
        claim(&mut node, &close, 0, 1);
        bury(&mut node);
        node.restart();
        let honest = node.channels[0].clone();
        node.remove(0, come[0], false);
        for height in [node.at.height, IN_EXPIRY - 3, IN_EXPIRY] {
            node.at.height = height;
            assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "{height}");
        }
        node.prune();
        assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "it is awaited");
        node.channels[0] = honest;
        node.remove(0, come[0], true);
        node.sync(0).unwrap();
        node.prune();
        assert_eq!(node.view().channels.len(), 1);
        node.restart();
    }
}

/// The first transaction that shows the preimage is enough: the incoming HTLC is ours to claim from then on.
#[test]
fn hostile_refund_right_after_the_peer_took_it_is_refused() {
    let (mut node, come) = forwarding(WITHOUT_PREIMAGES, 1);
    let close = node.close(1, &[OUT_SAT]);
    claim(&mut node, &close, 0, 1);
    assert!(node.view().payments[0].preimage_known);
    node.take_back();
    node.at.height = IN_EXPIRY - 3;
    node.remove(0, come[0], false);
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed));
}

#[test]
fn honest_forward_that_timed_out_on_chain_is_given_up_once_that_is_buried_and_hostile_one_sooner_is_not() {
    for rules in BOTH {
        for (first, other) in [(1, 2), (2, 1)] {
            // The other has the same amount and is still there.
            let (mut node, come) = forwarding(rules, 2);
            let close = node.close(1, &[OUT_SAT, OUT_SAT]);
            bury(&mut node);
            time_out(&mut node, &close, 1, first);
            node.remove(0, come[first as usize - 1], false);
            assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "may be taken back");
            bury(&mut node);
            node.restart();
            assert_eq!(give_up(&mut node), None);
            node.sync(0).unwrap();
            node.remove(0, come[other as usize - 1], false);
            assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "the other is still there");
            time_out(&mut node, &close, 0, other);
            bury(&mut node);
            node.sync(0).unwrap();
        }
    }
}

/// Of three parts the close has one of the two that hold as many satoshis, and not the third: that one is what left.
#[test]
fn honest_refund_of_what_covered_parts_that_the_close_does_not_have_passes_and_hostile_one_of_more_is_refused() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let come = [2_000_000, 5_000_000].map(|msat| node.add(a, htlc(1, In, msat, IN_EXPIRY)));
    node.sync(a).unwrap();
    for msat in [1_900_100, 1_900_900, 2_500_500] {
        node.add(b, htlc(1, Out, msat, OUT_EXPIRY));
    }
    node.sync(b).unwrap();
    node.close(b, &[1_900]);
    let honest = node.channels[a].clone();
    node.remove(a, come[1], false);
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed));
    bury(&mut node);
    node.restart();
    assert_eq!(give_up(&mut node), None);
    node.channels[a] = honest;
    come.iter().for_each(|id| node.remove(a, *id, false));
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "one part may still be taken");
}

/// The peer publishes the commitment that does not have it, or where it is dust.
#[test]
fn honest_forward_that_the_close_does_not_have_is_given_up_once_that_is_buried_and_hostile_one_that_it_has_is_not() {
    for (outputs_sat, reason) in [(&[5_000_000][..], None), (&[OUT_SAT, 5_000_000], Some(Reason::ForwardUnclaimed))] {
        for rules in BOTH {
            let (mut node, come) = forwarding(rules, 1);
            node.close(1, outputs_sat);
            node.remove(0, come[0], false);
            assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "another may take its place");
            bury(&mut node);
            node.restart();
            assert_eq!(give_up(&mut node), reason);
        }
    }
}

/// What leaves in the newest commitment of the peer only, which it does not publish.
#[test]
fn honest_forward_that_only_one_commitment_has_is_given_up_once_the_other_is_buried() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    let comes = node.add(a, htlc(1, In, 2_000_000, IN_EXPIRY));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, OUT_SAT * 1_000, OUT_EXPIRY));
    node.sign(b, Side::Theirs).unwrap();
    node.close(b, &[5_000_000]);
    node.remove(a, comes, false);
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed));
    bury(&mut node);
    node.sync(a).unwrap();
}

#[test]
fn hostile_refund_after_a_reorg_of_what_let_it_pass_is_refused_and_an_honest_one_passes_when_it_is_back() {
    let (mut node, come) = forwarding(WITH_PREIMAGES, 1);
    node.remove(0, come[0], false);
    let close = node.close(1, &[OUT_SAT]);
    bury(&mut node);
    time_out(&mut node, &close, 0, 1);
    bury(&mut node);
    assert_eq!(give_up(&mut node), None);
    (1..node.rules.buried).for_each(|_| node.take_back());
    node.take_back(); // the timeout
    bury(&mut node);
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed));
    (0..2 * node.rules.buried).for_each(|_| node.take_back()); // the close
    node.restart();
    assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed));
    let close = node.close(1, &[OUT_SAT]);
    time_out(&mut node, &close, 0, 1);
    bury(&mut node);
    node.sync(0).unwrap();
}

/// The block with our timeout is replaced by one in which the peer takes the output.
#[test]
fn hostile_refund_after_a_reorg_in_which_the_peer_took_it_is_refused_and_an_honest_one_before_it_passes() {
    for reorg in [false, true] {
        let (mut node, come) = forwarding(WITH_PREIMAGES, 1);
        node.remove(0, come[0], false);
        let close = node.close(1, &[OUT_SAT]);
        assert_eq!(node.view().channels[1].standing, Standing::Closed);
        bury(&mut node);
        time_out(&mut node, &close, 0, 1);
        if reorg {
            node.take_back();
            node.restart();
            claim(&mut node, &close, 0, 1);
        }
        bury(&mut node);
        node.restart();
        assert_eq!(give_up(&mut node), reorg.then_some(Reason::ForwardUnclaimed));
    }
}

#[test]
fn a_close_that_a_reorg_removed_is_closing_again_and_nothing_of_it_is_left() {
    let (mut node, _) = forwarding(WITH_PREIMAGES, 1);
    let close = node.close(1, &[OUT_SAT]);
    node.spend(&close, 0, &[&[], &script(1)]);
    for (standing, entries) in [(Standing::Closed, 1), (Standing::Closing, 0), (Standing::Closing, 0)] {
        node.take_back();
        node.restart();
        assert_eq!((node.view().channels[1].standing, node.entries("book/close/")), (standing, entries));
    }
    assert_eq!(node.view().channels[0].standing, Standing::Ready, "the other is as it was");
}

/// What comes in is exchanged for what ends sooner and is then given up at its end.
#[test]
fn hostile_exchange_for_what_ends_sooner_is_refused_beside_a_close_on_paper() {
    let (mut node, come) = forwarding(WITH_PREIMAGES, 1);
    node.closing(1);
    let soon = node.at.height + 10;
    node.add(0, htlc(1, In, 2_000_000, soon));
    node.sync(0).unwrap();
    node.remove(0, come[0], false);
    assert_eq!(give_up(&mut node), Some(Reason::ForwardCltv));
}

/// It was given up in time on one side when the peer took what left.
#[test]
fn honest_refund_on_its_way_goes_on_when_the_preimage_turns_up() {
    for rules in BOTH {
        let (mut node, come) = forwarding(rules, 1);
        let close = node.close(1, &[OUT_SAT]);
        node.remove(0, come[0], false);
        node.at.height = IN_EXPIRY - 4;
        node.sign(0, Side::Theirs).unwrap();
        claim(&mut node, &close, 0, 1);
        node.restart();
        node.revoke(0, Side::Theirs);
        node.sync(0).unwrap();
    }
}

/// After all HTLCs are gone.
#[test]
fn honest_cooperative_close_leaves_nothing_that_binds() {
    let (mut node, come) = forwarding(WITH_PREIMAGES, 1);
    node.remove(1, 0, true);
    node.sync(1).unwrap();
    node.closing(1);
    node.remove(0, come[0], true);
    node.sync(0).unwrap();
    node.close(1, &[OUT_SAT, 5_000_000]);
    node.prune();
    assert_eq!(node.view().channels.len(), 1);
    assert!(node.view().payments.is_empty());
    node.restart();
}

/// Near its end an incoming HTLC is given up, whatever became of as much as it covers, and of no more.
#[test]
fn hostile_refund_of_what_ends_later_beside_one_that_ends_now_is_refused_and_of_the_one_passes() {
    const LATER: u32 = IN_EXPIRY + 500;
    for (second, parts) in [(1, [1, 1]), (2, [1, 2])] {
        let mut node = Node::new(WITH_PREIMAGES);
        let (a, b) = (node.balanced(), node.balanced());
        let come = [(1, IN_EXPIRY), (second, LATER)].map(|(n, expiry)| node.add(a, htlc(n, In, 2_000_000, expiry)));
        node.sync(a).unwrap();
        for n in parts {
            node.add(b, htlc(n, Out, OUT_SAT * 1_000, OUT_EXPIRY));
        }
        node.sync(b).unwrap();
        node.closing(b);
        node.at.height = IN_EXPIRY - 3;
        let honest = node.channels[a].clone();
        come.iter().for_each(|id| node.remove(a, *id, false));
        assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "{parts:?}");
        node.channels[a] = honest;
        node.remove(a, come[0], false);
        node.sync(a).unwrap();
        node.remove(a, come[1], false);
        assert_eq!(give_up(&mut node), Some(Reason::ForwardUnclaimed), "{parts:?}");
    }
}

/// What came in and was claimed covers what leaves for it later, also when its channel is gone.
#[test]
fn honest_attempt_that_a_claim_on_a_channel_covers_passes_and_a_hostile_one_of_more_is_refused() {
    for (is_gone, amount_msat, reason) in [
        (false, 1_900_000, None),
        (false, 2_500_000, Some(Reason::ForwardNotCovered)),
        (true, 1_900_000, None),
        (true, 2_500_000, Some(Reason::ForwardNotCovered)),
    ] {
        let mut node = Node::new(WITH_PREIMAGES);
        let (a, b, c) = (node.balanced(), node.balanced(), node.balanced());
        let comes = node.add(a, htlc(1, In, 4_000_000, IN_EXPIRY));
        node.sync(a).unwrap();
        let parts = [1, 2].map(|_| node.add(b, htlc(1, Out, OUT_SAT * 1_000, OUT_EXPIRY)));
        node.sync(b).unwrap();
        node.remove(a, comes, true);
        node.sync(a).unwrap();
        if is_gone {
            node.close(a, &[5_000_000]);
            bury(&mut node);
            node.prune();
            assert_eq!(node.view().channels.len(), 2);
        }
        node.remove(b, parts[0], false);
        node.sync(b).unwrap();
        node.restart();
        node.add(c, htlc(1, Out, amount_msat, OUT_EXPIRY));
        assert_eq!(node.sync(c).err().map(|refusal| refusal.reason), reason, "{is_gone} {amount_msat}");
    }
}
