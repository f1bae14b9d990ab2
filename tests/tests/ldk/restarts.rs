//! The node, its signer and both stop at each step and come back.

use std::time::Duration;

use claviger_demo::node::LdkNode;

use crate::busy::Busy;
use crate::stage::{CHANNEL, Stage, close, connect, disconnect, force_close, paid, pay, pay_held, send, usable, wait};

const AWAY: Duration = Duration::from_millis(300);

/// What stops between two steps.
#[derive(Clone, Copy)]
enum Stops {
    Node,
    Signer,
    Both,
}

/// The life of a channel with a stop after each step.
fn live_through(stops: Stops) {
    let mut stage = Stage::new();
    let (mut signed, plain) = (stage.signed(), stage.plain("bob"));
    connect(&signed, &plain);
    signed.open_channel(&plain.id(), CHANNEL, 0).unwrap();
    stage.broadcast("the funding transaction", &[&signed, &plain]);

    signed = stop_and_connect(&mut stage, signed, &plain, stops);
    stage.mine(6, &[&signed, &plain]);
    wait("the channel", &[&signed, &plain], || usable(&signed, &plain) && usable(&plain, &signed));

    signed = stop_and_connect(&mut stage, signed, &plain, stops);
    pay(&signed, &plain, 300_000_000);
    let outgoing = pay_held(&signed, &plain, 30_000_000);

    signed = stop_and_connect(&mut stage, signed, &plain, stops);
    plain.claim(&outgoing);
    plain.hold_payments(false);
    paid(&signed, &plain, outgoing);
    pay(&plain, &signed, 10_000_000);

    signed = stop_and_connect(&mut stage, signed, &plain, stops);
    close(&signed, &plain);
    stage.broadcast("the closing transaction", &[&signed, &plain]);

    signed = stop_and_connect(&mut stage, signed, &plain, stops);
    stage.mine(6, &[&signed, &plain]);
    wait("the end of the channel", &[&signed, &plain], || signed.channels().is_empty());
    stage.end_settled(&[&signed, &plain]);
}

/// The end of a channel without the peer, with a stop after each step.
fn end_through(stops: Stops) {
    let mut stage = Stage::new();
    let mut busy = Busy::channel(&stage);
    let expiry = busy.expiry();
    disconnect(&busy.signed, &busy.plain);
    // The peer does not hear of it: what it sent is claimed on the chain.
    busy.signed.claim(&busy.incoming);
    force_close(&stage, &busy.signed, &busy.plain);

    // The commitment, then the claim by preimage, then the one by timeout.
    for height in [stage.world.chain.height() + 1, stage.world.chain.height() + 2, expiry, expiry + 1] {
        busy.signed = stop(&mut stage, busy.signed, stops);
        stage.mine(height - stage.world.chain.height(), &busy.nodes());
    }
    busy.signed = stop(&mut stage, busy.signed, stops);
    busy.settle(&stage, Busy::TO_US + Busy::IN + Busy::OUT);
}

fn stop(stage: &mut Stage, signed: LdkNode, stops: Stops) -> LdkNode {
    match stops {
        Stops::Node => stage.restart(signed, |_| ()),
        Stops::Both => stage.restart_both(signed),
        Stops::Signer => {
            stage.kill_signer(AWAY);
            signed
        }
    }
}

fn stop_and_connect(stage: &mut Stage, signed: LdkNode, plain: &LdkNode, stops: Stops) -> LdkNode {
    let signed = stop(stage, signed, stops);
    connect(&signed, plain);
    let back = |node: &LdkNode| node.channels().iter().all(|c| !c.is_channel_ready || c.is_usable);
    wait("the channel to come back", &[&signed, plain], || back(&signed) && back(plain));
    signed
}

#[test]
fn the_node_stops_after_each_step() {
    live_through(Stops::Node);
}

#[test]
fn the_signer_is_killed_after_each_step() {
    live_through(Stops::Signer);
}

#[test]
fn the_node_stops_and_the_signer_is_killed_after_each_step() {
    live_through(Stops::Both);
}

#[test]
fn the_node_stops_after_each_step_of_a_forced_close() {
    end_through(Stops::Node);
}

#[test]
fn the_signer_is_killed_after_each_step_of_a_forced_close() {
    end_through(Stops::Signer);
}

#[test]
fn the_node_stops_and_the_signer_is_killed_after_each_step_of_a_forced_close() {
    end_through(Stops::Both);
}

#[test]
fn a_signer_killed_in_mid_payment_is_not_missed() {
    let mut stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 300_000_000);
    for _ in 0..3 {
        let outgoing = send(&signed, &plain, 10_000_000);
        stage.kill_signer(AWAY);
        paid(&signed, &plain, outgoing);
        let incoming = send(&plain, &signed, 10_000_000);
        stage.kill_signer(AWAY);
        paid(&plain, &signed, incoming);
    }
    stage.end();
}
