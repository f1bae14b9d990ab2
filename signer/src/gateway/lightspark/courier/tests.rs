//! Deliveries to a double of Lightspark's GraphQL on this host.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Instant;

use bitcoin::Network;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::accounts::Account;
use super::super::api::Endpoint;
use super::*;
use crate::lightning::lightspark::{Job, SubEvent};
use crate::reasons::{Reason, Refusal};

const SOON: Patience = Patience {
    first: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    at_all: Duration::from_secs(60 * 60),
    refusals: 3,
};

/// What one call had, apart from its connection.
struct Called {
    head: String,
    body: Value,
}

fn alice() -> NodeName {
    NodeName::new("alice").expect("a name")
}

fn accounts() -> Arc<Accounts> {
    let accounts = Accounts::default();
    let secret = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let api_token = Some(secret("id:token"));
    accounts.put(alice(), Account { network: Network::Regtest, webhook_secret: secret("secret"), api_token });
    Arc::new(accounts)
}

/// Reads one call.
fn read(stream: &mut impl Read) -> Called {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(std::mem::take(&mut bytes)).expect("text");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("its length");
            break (head.clone(), length.parse::<usize>().expect("a number"));
        }
    };
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes).expect("a body");
    Called { head, body: serde_json::from_slice(&bytes).expect("JSON") }
}

fn say(stream: &mut impl Write, status: u16, body: &str) {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}").expect("written");
    stream.flush().expect("written");
}

/// Answers one call with each of `answers`, a status and a body, where it listens.
fn lightspark(answers: Vec<(u16, &'static str)>) -> (String, JoinHandle<Vec<Called>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/graphql/server/2023-09-13", listener.local_addr().expect("bound"));
    let thread = std::thread::spawn(move || {
        let one = |(status, body)| {
            let (mut stream, _): (TcpStream, _) = listener.accept().expect("a call");
            let called = read(&mut stream);
            say(&mut stream, status, body);
            called
        };
        answers.into_iter().map(one).collect()
    });
    (url, thread)
}

type Forgotten = Arc<Mutex<Vec<String>>>;

fn courier(url: &str, ca: &str, accounts: &Arc<Accounts>) -> (Courier, Forgotten) {
    let forgotten = Forgotten::default();
    let told = Arc::clone(&forgotten);
    let api = Api::new(Endpoint::parse(url).expect("a URL"), ca.into());
    let forget: Forget = Box::new(move |_, event| told.lock().expect("whole").push(event.to_owned()));
    (Courier::with(api, Arc::clone(accounts), forget, SOON), forgotten)
}

async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < end, "never");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn letter(at_ms: u64) -> Letter {
    let event = SubEvent::GetPoint { channel: 1, index: 7 };
    Letter::of(&event, Ok(br#"{"channel_id":"Channel:1"}"#), at_ms).expect("it has an answer")
}

const TAKEN: &str = r#"{"data":{"update_channel_per_commitment_point":{"channel":{"id":"Channel:1"}}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_delivered_with_the_accounts_token_and_then_forgotten() {
    let (url, calls) = lightspark(vec![(200, TAKEN)]);
    let (courier, forgotten) = courier(&url, "", &accounts());
    courier.send(&alice(), "event-1", letter(now_ms()));
    until(|| *forgotten.lock().expect("whole") == ["event-1"]).await;
    let [call] = &calls.join().expect("answered")[..] else { panic!("one call") };
    assert!(call.head.starts_with("POST /graphql/server/2023-09-13 HTTP/1.1\r\n"), "{}", call.head);
    assert!(call.head.contains("authorization: Basic aWQ6dG9rZW4=\r\n"), "{}", call.head);
    assert!(call.head.contains("x-graphql-operation: UpdateChannelPerCommitmentPoint\r\n"));
    assert_eq!(call.body["variables"], json!({ "channel_id": "Channel:1" }));
    assert_eq!(call.body["query"], Mutation::TellPoint.document());
    until(|| courier.waiting(&alice()) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lightspark_does_not_take_is_tried_again_until_it_does() {
    let (url, calls) = lightspark(vec![
        (503, ""),
        (200, "not JSON"),
        (401, ""),
        (200, r#"{"errors":[{"message":"no"}],"data":null}"#),
        (200, TAKEN),
    ]);
    let (courier, forgotten) = courier(&url, "", &accounts());
    courier.send(&alice(), "event-1", letter(now_ms()));
    courier.send(&alice(), "event-1", letter(now_ms()));
    assert_eq!(courier.waiting(&alice()), 1, "it is on its way already");
    assert_eq!(calls.join().expect("answered").len(), 5);
    until(|| *forgotten.lock().expect("whole") == ["event-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_again_and_again_or_too_old_is_given_up() {
    let no = r#"{"errors":[{"message":"no"}]}"#;
    let (url, calls) = lightspark(vec![(200, no), (200, no), (200, no), (503, "")]);
    let (courier, forgotten) = courier(&url, "", &accounts());
    courier.send(&alice(), "refused", letter(now_ms()));
    until(|| *forgotten.lock().expect("whole") == ["refused"]).await;
    courier.send(&alice(), "old", letter(now_ms() - 2 * 60 * 60 * 1_000));
    until(|| *forgotten.lock().expect("whole") == ["refused", "old"]).await;
    assert_eq!(calls.join().expect("answered").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_gone_tells_nothing_and_what_waits_stays_recorded() {
    let (url, calls) = lightspark(vec![(503, "")]);
    let accounts = accounts();
    let (courier, forgotten) = courier(&url, "", &accounts);
    courier.send(&alice(), "event-1", letter(now_ms()));
    calls.join().expect("one call");
    accounts.remove(&alice());
    courier.remove(&alice());
    tokio::time::sleep(SOON.longest * 4).await;
    assert!(forgotten.lock().expect("whole").is_empty());
}

#[test]
fn jobs_alone_are_declined_and_only_for_good() {
    let path = crate::lightning::lightspark::KeyPath::Wallet(0, 1);
    let job = |id: &str| Job {
        id: id.to_owned(),
        path,
        message: [0; 32],
        add_tweak: None,
        mul_tweak: None,
        script: vec![],
        transaction: vec![],
        amount_sat: 0,
        destination: None,
    };
    let jobs = SubEvent::Sign(vec![job("a"), job("b")]);
    let of = |event: &SubEvent, reason| Letter::of(event, Err(&Refusal::new(reason, "why")), 1);
    let declined = of(&jobs, Reason::Limit).expect("a decline");
    assert_eq!(Mutation::of(&declined), Some(Mutation::Decline));
    assert_eq!(declined.variables, br#"{"payload_ids":["a","b"]}"#);
    for not_now in [Reason::NodeBusy, Reason::Fault, Reason::EventStale, Reason::EventReused] {
        assert_eq!(of(&jobs, not_now), None, "{}", not_now.id());
    }
    assert_eq!(of(&SubEvent::GetPoint { channel: 1, index: 7 }, Reason::SecretOrder), None);
    assert_eq!(Letter::of(&jobs, Ok(b""), 1), None);
}

/// Over TLS, to whoever has a certificate of the CA in the file and to nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_to_a_certificate_of_the_ca_file_and_the_token_to_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://localhost:{}/g", listener.local_addr().expect("bound").port());
    let names = || vec!["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names()).expect("a certificate");
    let other = generate_simple_self_signed(names()).expect("a certificate").cert;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a server");
    let tls = Arc::new(tls);
    let serving = std::thread::spawn(move || {
        for taken in [false, true] {
            let (tcp, _) = listener.accept().expect("a call");
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).expect("a server"), tcp);
            if taken {
                let called = read(&mut stream);
                say(&mut stream, 200, TAKEN);
                return called;
            }
            assert!(stream.read(&mut [0]).is_err(), "the caller does not know the certificate");
        }
        unreachable!("the second is taken");
    });
    let dir = tempfile::tempdir().expect("a folder");
    let ca = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("written");
        path.display().to_string()
    };
    let (wrong, right) = (ca("wrong", other.pem()), ca("right", cert.pem()));
    let api = Api::new(Endpoint::parse(&url).expect("a URL"), wrong.into());
    let refused = api.call("Basic aWQ6dG9rZW4=", Mutation::TellPoint, b"{}").await;
    assert!(matches!(refused, Err(ApiError::Unreachable(_))), "{refused:?}");
    let api = Api::new(Endpoint::parse(&url).expect("a URL"), right.into());
    assert_eq!(api.call("Basic aWQ6dG9rZW4=", Mutation::TellPoint, b"{}").await, Ok(()));
    assert!(serving.join().expect("served").head.contains("authorization: Basic aWQ6dG9rZW4="));
    let missing = Api::new(Endpoint::parse(&url).expect("a URL"), dir.path().join("none"));
    assert!(matches!(missing.tls(), Err(ApiError::Ca(_))));
}
