//! What a hostile or broken peer can send: refused, with words, and nobody else is disturbed.

use std::time::Duration;

use claviger_ldk::link::Bundle;
use claviger_proto::v1::{self, NodeReply, NodeRequest, node_reply, node_request};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};

use crate::world::{World, connect, echo};

fn frame(body: node_request::Body) -> NodeRequest {
    NodeRequest { request_id: 1, channel: None, body: Some(body) }
}

fn hello() -> NodeRequest {
    frame(node_request::Body::Hello(v1::Hello { client: "rude\n".to_owned(), instance: vec![7; 16] }))
}

fn message(bytes: usize) -> NodeRequest {
    frame(node_request::Body::Message(vec![0; bytes]))
}

/// Sends `frames` and keeps the stream open; the replies, or why there are none.
async fn send(world: &World, bundle: &Bundle, frames: Vec<NodeRequest>) -> Result<Streaming<NodeReply>, Status> {
    let mut client = world.rude_client(bundle).await;
    let frames = tokio_stream::StreamExt::chain(tokio_stream::iter(frames), tokio_stream::pending());
    client.open(frames).await.map(tonic::Response::into_inner)
}

/// The status that ends the stream, after any replies.
async fn end(world: &World, bundle: &Bundle, frames: Vec<NodeRequest>) -> Status {
    let mut replies = match send(world, bundle, frames).await {
        Ok(replies) => replies,
        Err(status) => return status,
    };
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => return status,
        }
    }
}

fn reason(status: &Status) -> (Code, String) {
    let refusal = v1::Refusal::decode(status.details()).unwrap();
    assert!(!refusal.reasons[0].hint.is_empty() && status.message().contains(&refusal.reasons[0].id), "{status:?}");
    (status.code(), refusal.reasons[0].id.clone())
}

#[test]
fn an_oversized_frame_ends_the_stream_with_a_reason() {
    let world = World::new();
    let (bob, alice) = (connect(&world.enrol("bob")), world.enrol("alice"));
    let status = world.runtime.block_on(end(&world, &alice, vec![hello(), message(200 * 1024)]));
    assert_eq!(reason(&status), (Code::OutOfRange, "frame-too-large".to_owned()));
    let status = world.runtime.block_on(end(&world, &alice, vec![message(200 * 1024)]));
    assert_eq!(reason(&status), (Code::OutOfRange, "frame-too-large".to_owned()));
    assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
}

#[test]
fn frames_out_of_order_end_the_stream_with_a_reason() {
    let world = World::with(|options| options.hello_timeout = Duration::from_millis(200));
    let alice = world.enrol("alice");
    let short = frame(node_request::Body::Hello(v1::Hello { client: String::new(), instance: vec![7; 15] }));
    let empty = NodeRequest { request_id: 2, channel: None, body: None };
    for frames in [vec![message(1)], vec![hello(), hello()], vec![short], vec![hello(), empty], vec![]] {
        let status = world.runtime.block_on(end(&world, &alice, frames));
        assert_eq!(reason(&status), (Code::InvalidArgument, "link-protocol".to_owned()));
    }
}

#[test]
fn what_is_wrong_with_one_message_is_answered_as_a_value() {
    let world = World::new();
    let alice = world.enrol("alice");
    world.runtime.block_on(async {
        let bad_channel = NodeRequest {
            request_id: 2,
            channel: Some(v1::ChannelRef { peer_id: vec![2; 32], dbid: 1 }),
            body: message(1).body,
        };
        let too_long = NodeRequest { request_id: 3, channel: None, body: message(128 * 1024 + 1).body };
        let good = NodeRequest { request_id: 4, channel: None, body: message(1).body };
        let mut replies = send(&world, &alice, vec![hello(), bad_channel, too_long, good]).await.unwrap();
        let Some(node_reply::Body::Welcome(welcome)) = replies.message().await.unwrap().unwrap().body else {
            panic!("no welcome")
        };
        assert_eq!((welcome.node.as_str(), welcome.network.as_str()), ("alice", "regtest"));
        for request_id in [2, 3] {
            let reply = replies.message().await.unwrap().unwrap();
            assert_eq!(reply.request_id, request_id);
            let Some(node_reply::Body::Refusal(refusal)) = reply.body else { panic!("not refused") };
            assert_eq!(refusal.reasons[0].id, "malformed");
        }
        assert_eq!(replies.message().await.unwrap().unwrap().request_id, 4);
    });
}

#[test]
fn plaintext_is_answered_with_what_this_port_speaks() {
    let world = World::new();
    let answer = world.runtime.block_on(async {
        let mut tcp = TcpStream::connect(world.address).await.unwrap();
        tcp.write_all(b"GET /status HTTP/1.1\r\nhost: signer\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("TLS 1.3 with client certificates only"), "{answer}");
}

#[test]
fn tls_before_1_3_is_refused_with_its_alert() {
    let world = World::new();
    // A TLS 1.2 ClientHello (RFC 5246 §7.4.1): ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and ecdsa_secp256r1_sha256.
    let mut hello = vec![3, 3];
    hello.extend([0x55; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let alert = world.runtime.block_on(async {
        let mut tcp = TcpStream::connect(world.address).await.unwrap();
        tcp.write_all(&record).await.unwrap();
        let mut alert = Vec::new();
        tcp.read_to_end(&mut alert).await.unwrap();
        alert
    });
    // RFC 8446 §6: record type alert, fatal, protocol_version.
    assert_eq!((alert.first(), &alert[alert.len() - 2..]), (Some(&21), [2, 70].as_slice()));
}

#[test]
fn a_caller_without_a_certificate_gets_tls_own_alert() {
    let world = World::new();
    let bundle = world.enrol("alice");
    let error = world.runtime.block_on(async {
        let mut tls = world.tls(&bundle, false).await.unwrap();
        tls.read_u8().await.unwrap_err()
    });
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[test]
fn garbage_before_and_after_the_handshake_disturbs_nobody() {
    let world = World::new();
    let (bob, alice) = (connect(&world.enrol("bob")), world.enrol("alice"));
    world.runtime.block_on(async {
        for garbage in [&[22u8; 4096], &[0u8; 4096], &[0xffu8; 4096]] {
            let mut tcp = TcpStream::connect(world.address).await.unwrap();
            tcp.write_all(garbage).await.unwrap();
            // Closed, cleanly or not, is all a talker of garbage can expect.
            let _ = tcp.read_to_end(&mut Vec::new()).await;

            let mut tls = world.tls(&alice, true).await.unwrap();
            tls.write_all(garbage).await.unwrap();
            let _ = tls.read_to_end(&mut Vec::new()).await;
        }
    });
    assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
}

#[test]
fn hostile_silent_callers_do_not_keep_an_honest_one_out() {
    let world = World::with(|options| {
        options.handshake_timeout = Duration::from_secs(3_600);
        options.max_handshakes = 2;
    });
    let silent: Vec<_> = (0..8).map(|_| world.runtime.block_on(TcpStream::connect(world.address)).unwrap()).collect();
    let link = connect(&world.enrol("alice"));
    assert_eq!(link.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
    drop(silent);
}

#[test]
fn one_certificate_cannot_take_all_connections() {
    let world = World::with(|options| {
        options.max_connections = 4;
        options.max_connections_per_certificate = 2;
    });
    let mallory = world.enrol("mallory");
    let mut kept = Vec::new();
    world.runtime.block_on(async {
        for _ in 0..6 {
            kept.push(world.tls(&mallory, true).await.unwrap());
        }
    });
    let link = connect(&world.enrol("alice"));
    assert_eq!(link.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
}
