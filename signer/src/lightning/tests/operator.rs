//! What the operator orders and sees: freezes, exemptions, how channels stand, refusals explained.

use vls_protocol::msgs::{self, DeBolt, SerBolt};

use super::*;
use crate::facts::Fact;
use crate::journal::Verdict;
use crate::lightning::driver::{DriverError, keysend};
use crate::lightning::orders::{Order, OrderError};
use crate::lightning::standing::{Standing, compare};
use crate::pipeline::ChannelName;
use crate::reasons::Reason;

pub(super) fn order(signer: &Signer, node: &NodeName, order: Order) -> Result<String, OrderError> {
    let actor = signer.nodes().get(node).expect("running");
    actor.order(order, "uid 7".to_owned(), "suspected".to_owned())
}

fn exempt(driver: &Driver, for_s: u64) -> Order {
    Order::Exempt { channel: driver.channel().into(), reason: Reason::Frozen, for_s }
}

/// The reason for which the driver's next step was refused.
fn advance(signer: &Signer, node: &NodeName, driver: &mut Driver) -> Option<Reason> {
    match driver.advance(&mut signer.asking(node), 1) {
        Ok(()) => None,
        Err(DriverError::Refused { refusal, .. }) => Some(refusal.reason),
        Err(other) => panic!("{other}"),
    }
}

fn standing(signer: &Signer, node: &NodeName, driver: &Driver) -> Standing {
    let channel = driver.channel();
    let actor = signer.nodes().get(node).expect("running");
    let channels = actor.inspect(|engine| engine.channels()).expect("there");
    let (view, claims) = channels.iter().find(|(view, _)| view.channel == channel.into()).expect("known");
    compare(view, claims).standing
}

/// The messages of one advance, asked of nobody: what an honest node is about to send.
fn next_sign(signer: &Signer, node: &NodeName, driver: &Driver) -> msgs::SignRemoteCommitmentTx2 {
    let mut captured = None;
    let mut ask = |channel, message: Vec<u8>| match msgs::SignRemoteCommitmentTx2::from_vec(message.clone()) {
        Ok(message) => {
            captured = Some(message);
            Outcome::Refused { request: String::new(), refusal: Refusal::new(Reason::NodeBusy, "captured") }
        }
        Err(_) => signer.ask(node, channel, message),
    };
    driver.clone().advance(&mut ask, 1).expect_err("captured");
    captured.expect("captured")
}

#[test]
fn hostile_node_gets_nothing_new_signed_while_frozen_and_honest_one_goes_on_once_thawed() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let bob = signer.add("bob", NodeKind::Ldk);
    let mut driver = Driver::open(&mut signer.asking(&alice), 1).expect("opens");
    let mut other = Driver::open(&mut signer.asking(&bob), 2).expect("opens");
    signer.confirm(&[&alice, &bob], vec![driver.funding().clone(), other.funding().clone()]);
    assert_eq!(advance(&signer, &alice, &mut driver), None);

    order(&signer, &alice, Order::Freeze(None)).expect("frozen");
    for restarted in [false, true] {
        if restarted {
            signer.restart();
            signer.add("alice", NodeKind::Ldk);
            signer.add("bob", NodeKind::Ldk);
        }
        assert_eq!(advance(&signer, &alice, &mut driver.clone()), Some(Reason::Frozen));
        let (_, refusal) = refused(signer.ask(&alice, None, keysend(1, 1)));
        assert_eq!(refusal.reason, Reason::Frozen);
        assert!(refusal.detail.contains("uid 7: suspected") && refusal.reason.retry(), "{refusal:?}");
        assert_eq!(advance(&signer, &bob, &mut other), None, "only alice was frozen");
    }
    order(&signer, &alice, Order::Thaw(None)).expect("thawed");
    assert_eq!(advance(&signer, &alice, &mut driver), None);
    replied(signer.ask(&alice, None, keysend(1, 1)));
}

#[test]
fn a_freeze_in_the_middle_keeps_the_secret_and_what_was_answered_before_is_answered_again() {
    stop_in_the_middle(&Order::Freeze(None), &Order::Thaw(None), Reason::Frozen, &[(0, true), (2, true), (3, false)]);
}

#[test]
fn a_quarantine_in_the_middle_keeps_the_secret_and_what_was_answered_before_is_answered_again() {
    stop_in_the_middle(
        &Order::Quarantine,
        &Order::Restore,
        Reason::Quarantined,
        &[(0, true), (1, true), (2, true), (3, true)],
    );
}

/// `moments`: right before which messages of an advance (sign, validate, revoke, take the revocation), and whether they are
/// refused.
fn stop_in_the_middle(stop: &Order, end: &Order, reason: Reason, moments: &[(usize, bool)]) {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = signer.channel(&alice, 1);
    for (before, is_refused) in moments.iter().copied() {
        let expected = is_refused.then_some(reason);
        let mut asked = Vec::new();
        let mut ask = |channel, message: Vec<u8>| {
            if asked.len() == before {
                order(&signer, &alice, stop.clone()).expect("stopped");
            }
            asked.push((channel, message.clone()));
            signer.ask(&alice, channel, message)
        };
        let outcome = match driver.clone().advance(&mut ask, 1) {
            Err(DriverError::Refused { refusal, .. }) => Some(refusal.reason),
            result => result.map(|()| None).expect("answered"),
        };
        assert_eq!(outcome, expected, "stopped before message {before}");
        if let Some((channel, stopped)) = asked.get(before).filter(|_| expected.is_some()) {
            assert_eq!(refused(signer.ask(&alice, *channel, stopped.clone())).1.reason, reason);
            for (channel, message) in &asked[..before] {
                replied(signer.ask(&alice, *channel, message.clone()));
            }
        }
        order(&signer, &alice, end.clone()).expect("it goes on");
    }
}

#[test]
fn honest_close_of_a_frozen_channel_is_signed() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    assert_eq!(advance(&signer, &alice, &mut driver), None);
    order(&signer, &alice, Order::Freeze(Some(driver.channel().into()))).expect("frozen");
    assert_eq!(advance(&signer, &alice, &mut driver.clone()), Some(Reason::Frozen));
    let close = msgs::SignLocalCommitmentTx2 { commitment_number: driver.number() };
    order(&signer, &alice, Order::Quarantine).expect("in quarantine");
    replied(signer.ask(&alice, Some(driver.channel()), close.as_vec()));
}

#[test]
fn an_exemption_lets_one_channel_go_on_until_it_ends_and_no_spending() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (mut first, second) = (signer.channel(&alice, 1), signer.channel(&alice, 2));
    order(&signer, &alice, Order::Freeze(None)).expect("frozen");
    let name = order(&signer, &alice, exempt(&first, 3_600)).expect("frozen may be exempted");
    let line = signer.journal().explain(&name).expect("readable").expect("recorded");
    assert_eq!((line.decision.action.as_str(), line.decision.verdict), ("ExemptChannel", Verdict::Permit));
    assert!(line.decision.facts.contains(&Fact::text("ordered_by", "uid 7")), "{:?}", line.decision.facts);
    assert_eq!(signer.nodes().status()[0].orders.exemptions.len(), 1);

    assert_eq!(advance(&signer, &alice, &mut first), None);
    assert_eq!(advance(&signer, &alice, &mut second.clone()), Some(Reason::Frozen), "another channel");
    assert_eq!(refused(signer.ask(&alice, None, keysend(1, 1))).1.reason, Reason::Frozen, "payments have no channel");

    let actor = signer.nodes().get(&alice).expect("running");
    actor.inspect(|engine| engine.clock().raise(engine.clock().now_ms() + 3_600_000)).expect("there");
    assert_eq!(advance(&signer, &alice, &mut first), Some(Reason::Frozen), "it has ended");
}

#[test]
fn hostile_exemptions_from_safety_rules_are_refused() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    assert_eq!(advance(&signer, &alice, &mut driver), None);
    for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Frozen) {
        let order_it = Order::Exempt { channel: driver.channel().into(), reason: *reason, for_s: 60 };
        assert_eq!(order(&signer, &alice, order_it), Err(OrderError::NotExemptible(*reason)));
    }
    let unknown = ChannelName::from(ChannelRef { dbid: 99, ..driver.channel() });
    let order_it = Order::Exempt { channel: unknown, reason: Reason::Frozen, for_s: 60 };
    assert_eq!(order(&signer, &alice, order_it), Err(OrderError::NoChannel(unknown)));

    // The one exemption that exists opens no rule of safety: another state under a signed number stays refused.
    order(&signer, &alice, exempt(&driver, 3_600)).expect("exempted");
    let mut next = next_sign(&signer, &alice, &driver);
    replied(signer.ask(&alice, Some(driver.channel()), next.as_vec()));
    next.feerate += 1;
    let (_, refusal) = refused(signer.ask(&alice, Some(driver.channel()), next.as_vec()));
    assert!(refusal.reason != Reason::Frozen && !refusal.reason.retry(), "{refusal:?}");
}

#[test]
fn the_doctor_tells_a_node_in_step_from_one_behind_ahead_or_forked() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    for _ in 0..3 {
        assert_eq!(advance(&signer, &alice, &mut driver), None);
    }
    assert_eq!(standing(&signer, &alice, &driver), Standing::InStep);
    let next = next_sign(&signer, &alice, &driver);
    let number = next.commitment_number;
    let ask = |number: u64, feerate: u32| {
        let next = next_sign(&signer, &alice, &driver);
        let message = msgs::SignRemoteCommitmentTx2 { commitment_number: number, feerate, ..next };
        let outcome = signer.ask(&alice, Some(driver.channel()), message.as_vec());
        (outcome, standing(&signer, &alice, &driver))
    };
    let (_, ahead) = ask(number + 1, next.feerate);
    assert_eq!(ahead, Standing::NodeAhead);
    let (outcome, behind) = ask(number - 2, next.feerate);
    assert_eq!(behind, Standing::NodeBehind);
    let fact = Fact::count("commitment_number", number - 2).at_least(number - 1);
    assert!(refused(outcome).1.facts.contains(&fact));

    // The honest twin: the next state, and the same again after a reply that was lost.
    for _ in 0..2 {
        let (outcome, in_step) = ask(number, next.feerate);
        replied(outcome);
        assert_eq!(in_step, Standing::InStep);
    }
    assert_eq!(ask(number, next.feerate + 1).1, Standing::Forked);
    // Once it is in force it is not signed again, and asking so is confused, but no fork.
    driver.advance(&mut signer.asking(&alice), 1).expect("the same");
    let again = signer.ask(&alice, Some(driver.channel()), next.as_vec());
    assert!(!refused(again).1.reason.retry());
    assert_eq!(standing(&signer, &alice, &driver), Standing::InStep);
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    assert_eq!(standing(&signer, &alice, &driver), Standing::Unknown);
}

#[test]
fn a_refusal_that_decided_nothing_is_explained_from_memory() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = signer.channel(&alice, 1);
    let next = next_sign(&signer, &alice, &driver);
    signer.facts = Arc::new(LateChain::default());
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    let (request, refusal) = refused(signer.ask(&alice, Some(driver.channel()), next.as_vec()));
    assert_eq!(refusal.reason, Reason::ChainStale);
    assert_eq!(signer.journal().explain(&request).expect("readable"), None, "nothing was decided");
    let known = signer.nodes().get(&alice).expect("running").unrecorded(&request).expect("kept");
    assert_eq!((known.action.as_str(), &known.refusal), ("SignRemoteCommitmentTx2", &refusal));
    assert_eq!(known.channel, Some(driver.channel().to_string()));
}

#[test]
fn hostile_claims_of_channels_that_do_not_exist_are_not_kept() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = signer.channel(&alice, 1);
    let next = next_sign(&signer, &alice, &driver);
    for dbid in 0..200 {
        let channel = ChannelRef { peer_id: [3; 33], dbid };
        refused(signer.ask(&alice, Some(channel), next.as_vec()));
    }
    let actor = signer.nodes().get(&alice).expect("running");
    let kept = |actor: &Arc<crate::lightning::actor::Actor>| actor.inspect(|engine| engine.claimed_channels());
    assert_eq!(kept(&actor), Ok(1), "the channel that exists, from when it was opened");
    replied(signer.ask(&alice, Some(driver.channel()), next.as_vec()));
    assert_eq!(standing(&signer, &alice, &driver), Standing::InStep);
}

/// The node's state is later than this one: it waits with what this one cannot take, and tells it nothing.
#[test]
fn honest_node_that_is_ahead_of_a_quarantined_signer_waits_and_goes_on_once_the_latest_is_back() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = signer.channel(&alice, 1);
    let channel = Some(driver.channel());
    let ahead = [
        msgs::SignLocalCommitmentTx2 { commitment_number: 4 }.as_vec(),
        msgs::GetPerCommitmentPoint { commitment_number: 9 }.as_vec(),
    ];
    let reasons = |signer: &Signer| ahead.clone().map(|message| refused(signer.ask(&alice, channel, message)).1.reason);
    let terminal = reasons(&signer);
    assert!(terminal.iter().all(|reason| !reason.retry()), "{terminal:?}");
    order(&signer, &alice, Order::Quarantine).expect("in quarantine");
    assert_eq!(reasons(&signer), [Reason::Quarantined; 2]);
    let preimage = [&[0x0b, 0xb8, 0, 1][..], &[7; 32]].concat();
    assert_eq!(refused(signer.ask(&alice, channel, preimage.clone())).1.reason, Reason::Quarantined);
    order(&signer, &alice, Order::Restore).expect("it goes on");
    replied(signer.ask(&alice, channel, preimage));
    assert_eq!(reasons(&signer), terminal);
}
