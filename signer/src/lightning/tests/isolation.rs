//! A node that is refused again and again is slowed, and neither its journal nor its neighbours suffer (P6).

use std::sync::mpsc::TryRecvError;

use vls_protocol::msgs::{self, SerBolt};

use super::*;
use crate::journal::{LogLine, Verdict};
use crate::reasons::Reason;

const FLOOD: usize = 1_200;
const GARBAGE: &[u8] = &[0xff, 0xff, 1, 2, 3];

/// Asks for what is refused until an answer is held back; that answer.
fn flood(signer: &Signer, node: &NodeName) -> std::sync::mpsc::Receiver<Outcome> {
    // One at a time, so that each is known to be answered before the next.
    for _ in 0..900 {
        assert_eq!(refused(signer.ask(node, None, GARBAGE.to_vec())).1.reason, Reason::MessageUnknown);
    }
    let mut last = None;
    for _ in 900..FLOOD {
        last = Some(signer.submit(node, None, GARBAGE.to_vec()));
    }
    last.expect("asked")
}

fn of(signer: &Signer, reason: Reason) -> Vec<LogLine> {
    let is = |line: &LogLine| matches!(&line.decision.verdict, Verdict::Deny { reason: id, .. } if id == reason.id());
    signer.journal().tail(10_000).expect("readable").into_iter().filter(is).collect()
}

#[test]
fn hostile_repetition_is_held_back_without_a_thread_and_honest_requests_are_not() {
    let signer = Signer::start();
    let (alice, bob) = (signer.add("alice", NodeKind::Ldk), signer.add("bob", NodeKind::Ldk));
    let held = flood(&signer, &alice);
    for _ in 0..100 {
        replied(signer.ask(&bob, None, msgs::NodeInfo {}.as_vec()));
    }
    replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec())); // her own good ones are answered, too
    assert_eq!(held.try_recv().err(), Some(TryRecvError::Empty), "with every thread free");
    let status = signer.nodes().status();
    assert!(!status[0].held_back.is_zero() && status[0].refused == FLOOD as u64, "{:?}", status[0]);
    assert!(status[1].held_back.is_zero() && status[1].refused == 0);
    signer.nodes().shutdown();
    assert_eq!(refused(held.recv().expect("nobody is left waiting")).1.reason, Reason::MessageUnknown);
}

#[test]
fn hostile_refusals_leave_a_bounded_trace_in_the_journal_and_each_is_recorded_or_counted() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    drop(flood(&signer, &alice));
    let (request, other) = refused(signer.ask(&alice, None, Vec::new()));
    assert_eq!(other.reason, Reason::Malformed);
    assert!(signer.journal().explain(&request).expect("readable").is_some(), "a flood of one reason hides no other");
    let left_out = signer.nodes().status()[0].left_out;
    signer.restart();
    let recorded = of(&signer, Reason::MessageUnknown).len() as u64;
    assert!(recorded < 100, "{recorded}");
    assert_eq!(recorded + left_out, FLOOD as u64);
    let tallies = of(&signer, Reason::LeftOut);
    let [LogLine { decision, .. }] = &tallies[..] else { panic!("one count: {tallies:?}") };
    let Verdict::Deny { detail, .. } = &decision.verdict else { panic!("no denial") };
    assert_eq!(*detail, format!("message-unknown: {left_out}"));
}

#[test]
fn honest_refusals_are_recorded_one_by_one_and_answered_at_once() {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    for n in 0..50 {
        let (request, refusal) =
            refused(signer.ask(&alice, None, super::super::driver::keysend(n, u64::MAX / 1_000_000)));
        assert_eq!(refusal.reason, Reason::Limit);
        assert!(signer.journal().explain(&request).expect("readable").is_some());
    }
    let status = signer.nodes().status().remove(0);
    assert_eq!((status.refused, status.left_out, status.held_back), (50, 0, Duration::ZERO));
}

#[test]
fn hostile_details_are_cut() {
    assert_eq!(Refusal::new(Reason::Malformed, "x".repeat(100_000)).detail.chars().count(), Refusal::MAX_DETAIL + 1);
    assert_eq!(Refusal::new(Reason::Malformed, "short").detail, "short");
}
