//! What one node can take of the signer is bounded, whatever it sends or leaves unread (P6); each with its honest twin.

use std::time::Duration;

use claviger_ldk::link::Bundle;
use claviger_proto::v1::{self, NodeReply, NodeRequest, node_reply, node_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::world::{World, answer, connect, echo};

/// A client that sends what it is told and reads when it is told.
struct Rude {
    frames: mpsc::UnboundedSender<NodeRequest>,
    replies: Streaming<NodeReply>,
}

impl Rude {
    /// A stream of the process that drew `instance`, welcomed.
    async fn open(world: &World, bundle: &Bundle, instance: u8) -> Self {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let hello = v1::Hello { client: "rude".to_owned(), instance: vec![instance; 16] };
        frames.send(frame(0, node_request::Body::Hello(hello))).unwrap();
        let mut client = world.rude_client(bundle).await;
        let mut replies = client.open(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let welcome = replies.message().await.unwrap().unwrap();
        assert!(matches!(welcome.body, Some(node_reply::Body::Welcome(_))));
        Self { frames, replies }
    }

    fn ask(&self, request_id: u64, message: &[u8]) {
        self.frames.send(frame(request_id, node_request::Body::Message(message.to_vec()))).unwrap();
    }

    async fn reply(&mut self) -> NodeReply {
        self.replies.message().await.unwrap().unwrap()
    }
}

fn frame(request_id: u64, body: node_request::Body) -> NodeRequest {
    NodeRequest { request_id, channel: None, body: Some(body) }
}

const LARGE: usize = 100 * 1024;

#[test]
fn hostile_new_streams_are_no_way_to_more_requests_in_flight() {
    let world = World::with(|options| options.max_in_flight = 4);
    let (alice, bob) = (world.enrol("alice"), connect(&world.enrol("bob")));
    world.runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..5 {
            let stream = Rude::open(&world, &alice, 1).await;
            (0..4).for_each(|n| stream.ask(n, b"hold"));
            streams.push(stream);
        }
        world.handler.wait_for(4);
        tokio::task::block_in_place(|| assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello"))));
        assert_eq!(world.handler.held(), 4, "those of the first stream");
        world.handler.take().into_iter().for_each(answer);
        world.handler.wait_for(4);
        world.handler.take().into_iter().for_each(answer);
        let last = streams.last_mut().unwrap();
        for _ in 0..4 {
            last.reply().await; // the newest is served as soon as there is room
        }
    });
}

#[test]
fn hostile_unread_replies_are_bounded_and_a_late_reader_gets_them_all() {
    let world = World::new();
    let (alice, bob) = (world.enrol("alice"), connect(&world.enrol("bob")));
    world.runtime.block_on(async {
        let mut stream = Rude::open(&world, &alice, 1).await;
        (0..100).for_each(|n| stream.ask(n, &[0; LARGE]));
        let before = world.handler.submitted();
        let calls = 50;
        tokio::task::block_in_place(|| {
            (0..calls).for_each(|_| assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello"))));
        });
        // 1 MiB waits in the signer, and 2 MiB, its HTTP/2 window, is with the node.
        let submitted = world.handler.submitted() - before - calls;
        assert!(submitted <= 48, "{submitted}");
        for _ in 0..100 {
            stream.reply().await;
        }
    });
}

#[test]
fn hostile_bytes_beyond_the_allowance_wait_and_nobody_else_does() {
    let world = World::with(|options| options.bytes_per_s = 256 << 10);
    let (alice, bob) = (world.enrol("alice"), connect(&world.enrol("bob")));
    world.runtime.block_on(async {
        let mut stream = Rude::open(&world, &alice, 1).await;
        (0..16).for_each(|n| stream.ask(n, &[0; LARGE])); // 1.6 MB, of which 1 MB at once
        tokio::task::block_in_place(|| {
            (0..50).for_each(|_| assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello"))));
        });
        for _ in 0..16 {
            stream.reply().await; // late, but answered
        }
    });
}

#[test]
fn honest_bursts_of_the_largest_messages_are_answered() {
    let world = World::new();
    let alice = world.enrol("alice");
    world.runtime.block_on(async {
        let mut stream = Rude::open(&world, &alice, 1).await;
        for n in 0..100 {
            stream.ask(n, &[0; LARGE]);
            assert_eq!(stream.reply().await.request_id, n);
        }
    });
}

#[test]
fn hostile_streams_that_break_the_protocol_again_and_again_disturb_nobody() {
    let world = World::with(|options| options.handshake_timeout = Duration::from_secs(3_600));
    let (alice, bob) = (world.enrol("alice"), connect(&world.enrol("bob")));
    world.runtime.block_on(async {
        for n in 0..30 {
            let mut stream = Rude::open(&world, &alice, n).await;
            stream.frames.send(NodeRequest { request_id: 1, channel: None, body: None }).unwrap();
            stream.replies.message().await.unwrap_err();
            tokio::task::block_in_place(|| assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello"))));
        }
        Rude::open(&world, &alice, 99).await; // slowed, not shut out
    });
}
