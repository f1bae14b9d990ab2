//! Who may connect, and what both ends say to those who may not.

use std::time::{Duration, SystemTime};

use claviger::names::NodeName;
use claviger::reasons::Reason;
use claviger_ldk::LinkError;
use claviger_ldk::link::{Bundle, BundleError, ConnectError, Down, Link, LinkState};
use claviger_proto::v1::{Hello, NodeRequest, node_request::Body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{PATIENCE, World, client_options, connect, echo, try_connect};

fn why_not(bundle: &Bundle) -> Down {
    let Err(ConnectError::Down(down)) = try_connect(bundle, PATIENCE) else { panic!("connected") };
    assert!(!down.hint().is_empty() && !down.temporary(), "{down}");
    down
}

fn denied_with(down: &Down) -> &str {
    let Down::Denied(refusal) = down else { panic!("{down}") };
    &refusal.reasons[0].id
}

#[test]
fn a_revoked_certificate_closes_the_open_stream_and_opens_none() {
    let world = World::new();
    let bundle = world.enrol("alice");
    let (alice, bob) = (connect(&bundle), connect(&world.enrol("bob")));
    let caller = std::thread::spawn({
        let alice = alice.clone();
        move || alice.call(None, b"hold".to_vec())
    });
    world.handler.wait_for(1);
    world.revoke("alice");
    let Err(LinkError::Down(words)) = caller.join().unwrap() else { panic!("answered") };
    assert!(words.contains("certificate-revoked"), "{words}");
    assert_eq!(denied_with(&why_not(&bundle)), "certificate-revoked");
    assert_eq!(bob.call(None, b"hello".to_vec()), Ok(echo(b"hello")));
}

#[test]
fn a_revoked_node_gets_no_reply_even_after_it_said_goodbye() {
    let world = World::new();
    let alice = world.enrol("alice");
    world.runtime.block_on(async {
        let mut client = world.rude_client(&alice).await;
        let hello = Hello { client: String::new(), instance: vec![7; 16] };
        let frames = [Body::Hello(hello), Body::Message(b"hold".to_vec())];
        let frames = frames.map(|body| NodeRequest { request_id: 1, channel: None, body: Some(body) });
        let mut replies = client.open(tokio_stream::iter(frames)).await.unwrap().into_inner();
        assert!(replies.message().await.unwrap().is_some(), "the welcome");
        world.handler.wait_for(1);
        world.revoke("alice");
        let status = replies.message().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
    });
}

#[test]
fn a_dropped_server_takes_its_connections_along() {
    // No ping ends the connection: only the server's end can.
    let mut world = World::with(|options| options.keepalive = Duration::from_secs(3_600));
    let alice = world.enrol("alice");
    let server = world.server.take();
    world.runtime.block_on(async {
        let mut idle = world.tls(&alice, true).await.unwrap();
        idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        idle.read_u8().await.unwrap();
        drop(server);
        let closed = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "the connection outlives its server");
    });
}

#[test]
fn a_renewed_node_connects_with_either_bundle_until_the_old_one_is_revoked() {
    let world = World::new();
    let old = world.enrol("alice");
    let new = world.enrol("alice");
    drop(connect(&old));
    drop(connect(&new));
    let name = NodeName::new("alice").unwrap();
    let mut record = world.registry.get(&name).unwrap();
    let serial = record.certificates[0].serial.clone();
    record.revoke(&claviger::admin::record::Which::Serial(serial), 2).unwrap();
    world.registry.put(record);
    assert_eq!(denied_with(&why_not(&old)), "certificate-revoked");
    connect(&new);
}

#[test]
fn the_certificate_of_a_removed_node_is_nobodys() {
    let world = World::new();
    let bundle = world.enrol("alice");
    world.registry.remove(&NodeName::new("alice").unwrap());
    assert_eq!(denied_with(&why_not(&bundle)), "certificate-unknown");
}

#[test]
fn a_certificate_that_has_ended_is_named_as_such() {
    let world = World::new();
    let day = Duration::from_secs(24 * 60 * 60);
    let bundle = world.enrol_at("alice", SystemTime::now() - 2 * day, day);
    assert_eq!(why_not(&bundle), Down::CertificateExpired);
}

#[test]
fn a_bundle_of_another_signer_is_told_apart_on_both_ends() {
    let (world, other) = (World::new(), World::new());
    let honest = world.enrol("alice");
    let mut foreign = other.enrol("alice");
    foreign.signer = honest.signer.clone();
    assert_eq!(why_not(&foreign), Down::WrongSigner { address: honest.signer.clone() });

    let half_foreign = Bundle { ca_certificate: honest.ca_certificate.clone(), ..foreign };
    assert_eq!(why_not(&half_foreign), Down::CertificateForeign);
    connect(&honest);
}

#[test]
fn a_server_certificate_does_not_open_the_link() {
    let world = World::new();
    let issued = world.ca.issue_server(&[], SystemTime::now()).unwrap();
    let bundle =
        Bundle { certificate: issued.certificate_pem(), private_key: issued.key_pem(), ..world.enrol("alice") };
    assert!(matches!(try_connect(&bundle, Duration::from_millis(500)), Err(ConnectError::Down(_))));
    assert!(world.server.as_ref().unwrap().connected().is_empty());
}

#[test]
fn a_bundle_that_names_another_node_or_network_is_not_used() {
    let world = World::new();
    let bundle = Bundle { network: "bitcoin".to_owned(), ..world.enrol("alice") };
    let expected = Down::WrongNode { node: "alice".to_owned(), network: "regtest".to_owned() };
    assert_eq!(why_not(&bundle), expected);
    assert_eq!(why_not(&Bundle { node: "bob".to_owned(), ..world.enrol("alice") }), expected);
}

#[test]
fn a_damaged_bundle_is_refused_before_anything_is_dialled() {
    let world = World::new();
    let bundle = Bundle { private_key: "CANARY".to_owned().into(), ..world.enrol("alice") };
    let error = Link::start(&bundle, client_options()).unwrap_err();
    assert!(matches!(&error, ConnectError::Bundle(BundleError::Malformed(why)) if why.contains("private_key")));
    assert!(!format!("{error} {error:?}").contains("CANARY"));
}

#[test]
fn a_second_process_with_the_same_bundle_is_refused_until_the_first_leaves() {
    let world = World::new();
    let bundle = world.enrol("alice");
    let first = connect(&bundle);
    let Err(ConnectError::Down(down)) = try_connect(&bundle, Duration::from_millis(500)) else { panic!("connected") };
    assert_eq!(denied_with(&down), "link-in-use");
    assert!(down.temporary() && down.to_string().contains("alice is connected from 127.0.0.1"), "{down}");
    assert_eq!(first.call(None, b"hello".to_vec()), Ok(echo(b"hello")), "the first is not disturbed");
    drop(first);
    connect(&bundle);
}

#[test]
fn a_signer_that_is_not_there_is_named_with_the_next_step() {
    let mut world = World::new();
    let bundle = world.enrol("alice");
    let link = connect(&bundle);
    world.stop(Reason::Sealed);
    let Err(ConnectError::Down(down)) = try_connect(&bundle, Duration::from_millis(200)) else { panic!("connected") };
    assert!(matches!(&down, Down::Unreachable { address, .. } if *address == bundle.signer), "{down}");
    assert!(down.hint().contains("claviger status"));
    assert!(matches!(link.state(), LinkState::Down(_)));
}
