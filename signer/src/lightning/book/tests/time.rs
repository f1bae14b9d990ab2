//! What time changes: expiries of HTLCs, and approvals that ended.

use super::super::{Approval, Direction};
use super::model::{DAY_MS, DELTA, Node, WITH_PREIMAGES, WITHOUT_PREIMAGES, htlc, secret};
use crate::reasons::Reason;
use Direction::{In, Out};

/// vls may remember an approval for longer than the book, which forgets what was paid with it.
#[test]
fn hostile_approval_that_ended_is_not_used_again_and_an_honest_new_one_passes() {
    for rules in [WITH_PREIMAGES, WITHOUT_PREIMAGES] {
        let mut node = Node::new(rules);
        let a = node.balanced();
        let approval = Approval::new(100_000_000, node.at.now_ms + DAY_MS);
        node.book.approve(secret(1).1, approval, node.at);
        let payment = node.add(a, htlc(1, Out, 100_000_000, 500));
        node.sync(a).unwrap();
        node.at.now_ms += DAY_MS;
        node.remove(a, payment, true);
        node.sync(a).unwrap();
        assert!(node.view().payments.is_empty(), "it is over");
        node.book.approve(secret(1).1, approval, node.at);
        node.add(a, htlc(1, Out, 100_000_000, 500));
        assert_eq!(node.sync(a).unwrap_err().reason, Reason::PaymentNotApproved);
        node.approve(1, 100_000_000);
        node.sync(a).unwrap();
    }
}

/// What covers a forward for long enough is not exchanged for what does not.
#[test]
fn hostile_exchange_of_what_covers_a_forward_for_what_ends_sooner_is_refused_and_an_honest_spare_part_passes() {
    for (expiry, beside, reason) in
        [(599, 0, Some(Reason::ForwardCltv)), (599, 1, Some(Reason::ForwardCltv)), (600, 0, None)]
    {
        let mut node = Node::new(WITH_PREIMAGES);
        let (a, b) = (node.balanced(), node.balanced());
        let comes = node.add(a, htlc(1, In, 2_000_000, 600));
        node.sync(a).unwrap();
        node.add(b, htlc(1, Out, 1_900_000, 600 - DELTA));
        node.sync(b).unwrap();
        node.add(a, htlc(1, In, 2_000_000, expiry));
        node.sync(a).unwrap();
        node.remove(a, comes, false);
        // Another may come at the same time, so that no less comes in.
        (0..beside).for_each(|_| _ = node.add(a, htlc(1, In, 2_000_000, expiry)));
        assert_eq!(node.sync(a).err().map(|refusal| refusal.reason), reason, "{expiry}");
    }
}
