//! Requests and replies on a healthy link.

use std::sync::mpsc;
use std::thread;

use claviger::pipeline::ChannelRef;
use claviger_ldk::link::LinkState;
use claviger_ldk::{LinkError, Transport};
use claviger_proto::MAX_MESSAGE_BYTES;

use crate::world::{World, answer, connect, echo};

#[test]
fn a_request_is_answered_with_its_channel_and_node() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    assert_eq!(link.call(None, b"hello".to_vec()), Ok(echo(b"hello")));

    let channel = claviger_ldk::ChannelRef { peer_id: [2; 33], dbid: 7 };
    let caller = thread::spawn({
        let link = link.clone();
        move || link.call(Some(channel), b"hold".to_vec())
    });
    world.handler.wait_for(1);
    let (node, request, respond) = world.handler.take().remove(0);
    assert_eq!(node.as_str(), "alice");
    assert_eq!(request.channel, Some(ChannelRef { peer_id: [2; 33], dbid: 7 }));
    answer((node, request, respond));
    assert_eq!(caller.join().unwrap(), Ok(echo(b"hold")));
}

#[test]
fn a_refusal_is_a_value_and_the_stream_goes_on() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    let Err(LinkError::Refused(refusal)) = link.call(None, b"refuse".to_vec()) else { panic!("not refused") };
    assert_eq!((refusal.request.as_str(), refusal.retry), ("alice-1", false));
    assert_eq!(refusal.reasons[0].id, "limit");
    assert!(refusal.reasons[0].detail.contains("7 msat, at most 5") && !refusal.reasons[0].hint.is_empty());
    assert_eq!(link.call(None, b"next".to_vec()), Ok(echo(b"next")));
    assert_eq!(link.state(), LinkState::Up);
}

#[test]
fn a_request_the_handler_drops_is_refused_and_may_be_repeated() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    let Err(LinkError::Refused(refusal)) = link.call(None, b"drop".to_vec()) else { panic!("not refused") };
    assert_eq!((refusal.reasons[0].id.as_str(), refusal.retry), ("node-restarting", true));
}

#[test]
fn a_message_of_the_largest_size_passes_and_a_larger_one_is_refused_here() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    let caller = thread::spawn({
        let link = link.clone();
        move || link.call(None, [b"hold".as_slice(), &[0; MAX_MESSAGE_BYTES - 4]].concat())
    });
    world.handler.wait_for(1);
    let (_, request, respond) = world.handler.take().remove(0);
    respond(claviger::pipeline::Outcome::Reply(request.message));
    assert_eq!(caller.join().unwrap().map(|reply| reply.len()), Ok(MAX_MESSAGE_BYTES));

    let Err(LinkError::Refused(refusal)) = link.call(None, vec![0; MAX_MESSAGE_BYTES + 1]) else { panic!("sent") };
    assert_eq!(refusal.reasons[0].id, "frame-too-large");
}

#[test]
fn many_requests_fly_at_once_and_replies_may_come_in_any_order() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    let callers: Vec<_> = (0..100u8)
        .map(|number| {
            let (link, message) = (link.clone(), vec![b'h', b'o', b'l', b'd', number]);
            thread::spawn(move || (link.call(None, message.clone()), Ok(echo(&message))))
        })
        .collect();
    world.handler.wait_for(100);
    world.handler.take().into_iter().rev().for_each(answer);
    for caller in callers {
        let (reply, expected) = caller.join().unwrap();
        assert_eq!(reply, expected);
    }
}

#[test]
fn a_node_with_too_many_requests_waits_and_another_does_not() {
    let world = World::with(|options| options.max_in_flight = 4);
    let (alice, bob) = (connect(&world.enrol("alice")), connect(&world.enrol("bob")));
    let (done, replies) = mpsc::channel();
    for _ in 0..10 {
        let (alice, done) = (alice.clone(), done.clone());
        thread::spawn(move || done.send(alice.call(None, b"hold".to_vec())));
    }
    world.handler.wait_for(4);
    assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
    assert_eq!(world.handler.held(), 4, "the fifth request is not read");
    let mut answered = 0;
    while answered < 10 {
        world.handler.wait_for(1);
        let held = world.handler.take();
        answered += held.len();
        held.into_iter().for_each(answer);
    }
    assert!((0..10).all(|_| replies.recv().unwrap() == Ok(echo(b"hold"))));
}

#[test]
fn calls_work_within_another_runtime_and_through_the_transport() {
    let world = World::new();
    let link = connect(&world.enrol("alice"));
    let transport: &dyn Transport = &link;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(async { transport.call(None, b"hello".to_vec()) }), Ok(echo(b"hello")));
}
