//! What the spending policy is told of forwards.

use super::super::Direction::{In, Out};
use super::super::{Forward, Side};
use super::model::{Node, WITH_PREIMAGES, htlc, secret};

const IN_MSAT: u64 = 1_010_000_000;
const OUT_MSAT: u64 = 1_000_000_000;

/// What the policy would be asked of the commitment of `side` that is to follow on `n`.
fn told(node: &mut Node, n: usize, side: Side) -> Vec<Forward> {
    let commitment = node.following(n, side);
    node.ask(n, side, commitment).unwrap();
    node.book.forwards(node.at)
}

#[test]
fn a_forward_is_told_with_what_comes_in_and_how_much_later_that_ends() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    for (msat, ends) in [(IN_MSAT, 600), (1_000_000, 590)] {
        node.add(a, htlc(1, In, msat, ends));
    }
    assert_eq!(told(&mut node, a, Side::Ours), [], "what comes in goes on by no commitment of ours");
    node.sync(a).unwrap();
    for ends in [500, 520] {
        node.add(b, htlc(1, Out, OUT_MSAT / 2, ends));
    }
    let forward = Forward {
        payment_hash: secret(1).1,
        amount_msat: OUT_MSAT,
        incoming_msat: IN_MSAT + 1_000_000,
        cltv_delta_blocks: Some(70),
    };
    assert_eq!(told(&mut node, b, Side::Theirs), [forward]);
    node.sign(b, Side::Theirs).unwrap();
    node.revoke(b, Side::Theirs);
    // Only what is added is told, and what is only there is not told again.
    node.add(b, htlc(1, Out, 9_000_000, 520));
    assert_eq!(told(&mut node, b, Side::Theirs), [Forward { amount_msat: 9_000_000, ..forward }]);
    node.sync(b).unwrap();
    node.add(b, htlc(2, In, 50_000_000, 600));
    assert_eq!(told(&mut node, b, Side::Theirs), []);
}

#[test]
fn dust_and_what_was_approved_are_no_forwards() {
    let mut node = Node::new(WITH_PREIMAGES);
    let (a, b) = (node.balanced(), node.balanced());
    node.approve(1, OUT_MSAT);
    node.add(b, htlc(1, Out, OUT_MSAT + OUT_MSAT / 10, 500));
    node.add(a, htlc(2, In, 302_000, 600));
    node.sync(a).unwrap();
    node.add(b, htlc(2, Out, 300_000, 500));
    assert_eq!(told(&mut node, b, Side::Theirs), []);
    // What leaves beyond the approval is passed on for others.
    node.add(a, htlc(1, In, IN_MSAT, 600));
    node.sync(a).unwrap();
    node.add(b, htlc(1, Out, OUT_MSAT / 2, 500));
    let told = told(&mut node, b, Side::Theirs);
    assert_eq!(
        told.iter().map(|told| (told.payment_hash, told.amount_msat)).collect::<Vec<_>>(),
        [(secret(1).1, OUT_MSAT / 2)]
    );
}
