//! Answers that are called back: to a double of Lightspark's API, which is not always there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use claviger_tests::canary::{Canary, scan_files, scan_text};
use serde_json::{Value, json};

use crate::account::{Account, TOKEN, event, exchange, l1_job, node_id};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lightspark's API on this host, as long as it is open.
struct Api {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    /// A place for it, where nobody answers yet.
    fn closed() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { address, calls: Arc::default() }
    }

    fn url(&self) -> String {
        format!("http://{}/graphql/server/2023-09-13", self.address)
    }

    /// Answers from now on.
    fn open(&self) {
        let (listener, calls) = (TcpListener::bind(self.address).unwrap(), Arc::clone(&self.calls));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever is killed meanwhile calls again.
                let _ = stream.and_then(|stream| answer(stream, &calls));
            }
        });
    }

    /// All calls by now, once there are so many.
    fn calls(&self, count: usize) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let calls = self.calls.lock().unwrap().clone();
            if calls.len() >= count {
                return calls;
            }
            assert!(Instant::now() < end, "{} calls, not {count}", calls.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn answer(stream: TcpStream, calls: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut is_allowed) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        // client-id:Yw7xS1token0000000000000000000q3
        is_allowed |= line == "authorization: Basic Y2xpZW50LWlkOll3N3hTMXRva2VuMDAwMDAwMDAwMDAwMDAwMDAwMHEz";
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body)?;
    let (status, answer) = if is_allowed {
        let query = body["query"].as_str().unwrap();
        let field = query.split(['{', '(']).nth(2).unwrap().trim();
        let nodes = json!([{ "public_key": node_id(), "bitcoin_network": "REGTEST" }]);
        let data = match body["operationName"].as_str() {
            Some("Nodes") => json!({ "current_account": { "nodes": { "entities": nodes } } }),
            _ => json!({ field: { "entity": { "id": "1" } } }),
        };
        (200, json!({ "data": data }).to_string())
    } else {
        (401, String::new())
    };
    calls.lock().unwrap().push(body);
    let date = "Fri, 01 Jan 2010 00:00:00 GMT";
    let head = format!("HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {}", answer.len());
    write!(reader.into_inner(), "{head}\r\n\r\n{answer}")
}

/// Webhooks of one account: a point, jobs that are signed, and jobs that are not.
fn events() -> [(String, u16); 4] {
    let at = |index: u64| json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index });
    let jobs = |sat| json!({ "signing_jobs": [l1_job(exchange(), sat)] });
    [
        (event("1", "GET_PER_COMMITMENT_POINT", at(7)), 204),
        (event("2", "DERIVE_KEY_AND_SIGN", jobs(20_000)), 204),
        (event("3", "DERIVE_KEY_AND_SIGN", jobs(60_000)), 204),
        (event("4", "RELEASE_PER_COMMITMENT_SECRET", at(6)), 403),
    ]
}

fn variables<'a>(calls: &'a [Value], name: &str) -> Vec<&'a Value> {
    calls.iter().filter(|call| call["operationName"] == name).map(|call| &call["variables"]).collect()
}

/// Waits until Lightspark has taken all there is.
fn until_taken(account: &Account) {
    let end = Instant::now() + PATIENCE;
    let waits = || {
        let metrics = account.signer.cli(&["metrics"]).unwrap();
        let mut metrics = metrics["metrics"].as_array().unwrap().iter();
        let waiting = metrics.find(|metric| metric["name"] == "claviger_lightspark_letters_waiting").unwrap();
        assert_eq!(waiting["samples"][0]["labels"], json!(["acme"]));
        waiting["samples"][0]["value"].as_f64() != Some(0.0)
    };
    while waits() {
        assert!(Instant::now() < end, "never");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_decided_and_not_delivered_is_delivered_after_kill_9() {
    let api = Api::closed();
    let mut account = Account::calling_back(&api.url());
    let client = account.client();
    for (body, status) in events() {
        let (answered, told) = client.webhook(&body).unwrap();
        assert_eq!(answered, status, "{told}");
        assert!(answered == 403 || told.is_empty(), "nothing is told to whoever sent the webhook");
    }
    account.signer.kill().unwrap();
    api.open();
    account.signer.start().unwrap();
    let calls = api.calls(3);
    let [point] = &variables(&calls, "UpdateChannelPerCommitmentPoint")[..] else { panic!("{calls:?}") };
    assert_eq!(point["per_commitment_point_index"], 7);
    let [signed] = &variables(&calls, "SignMessages")[..] else { panic!("{calls:?}") };
    assert_eq!(signed["signatures"][0]["id"], "job");
    assert_eq!(variables(&calls, "DeclineToSignMessages"), [&json!({ "payload_ids": ["job"] })]);
    // What was taken is forgotten, before what is asked next is answered, and not told after another restart.
    until_taken(&account);
    let again = |id: &str| events()[0].0.replace("\"event_id\":\"1\"", &format!("\"event_id\":\"{id}\""));
    assert_eq!(client.webhook(&again("5")).unwrap().0, 204);
    until_taken(&account);
    assert_eq!(client.webhook(&again("6")).unwrap().0, 204);
    until_taken(&account);
    account.signer.stop().unwrap();
    account.signer.start().unwrap();
    assert_eq!(client.webhook(&again("7")).unwrap().0, 204);
    let calls = api.calls(6);
    assert_eq!(calls.len(), 6);
    assert!(calls[3..].iter().all(|call| call["variables"] == **point), "the same point each time");
}

#[test]
fn a_new_token_delivers_what_waited_for_it() {
    let api = Api::closed();
    let mut account = Account::new();
    let edit = |config: &mut toml::Table| {
        let lightspark = config["lightspark"].as_table_mut().unwrap();
        lightspark.insert("api".to_owned(), api.url().into());
    };
    account.signer.configure(edit).unwrap();
    account.signer.stop().unwrap();
    account.signer.start().unwrap();
    let client = account.client();
    let secrets = |name: &str, content: &str| {
        let file = account.folder.with_file_name(name);
        std::fs::write(&file, content).unwrap();
        account.signer.cli(&["lightspark", "secrets", "acme", "--api-token", file.to_str().unwrap()])
    };
    secrets("no-token", "token").unwrap_err();
    let (body, _) = &events()[0];
    assert_eq!(client.webhook(body).unwrap().0, 200, "it is answered directly still");
    secrets("wrong", "client-id:of-another-time").unwrap();
    api.open();
    assert_eq!(client.webhook(body).unwrap().0, 204);
    assert_eq!(api.calls(1)[0]["operationName"], "UpdateChannelPerCommitmentPoint");
    secrets("right", TOKEN).unwrap();
    until_taken(&account);
    assert!(api.calls(2).len() >= 2, "it was sent again");
}

#[test]
fn the_doctor_sends_a_webhook_and_compares_key_network_and_time_with_lightspark() {
    let api = Api::closed();
    let account = Account::calling_back(&api.url());
    let states = || {
        let output = account.signer.output(&["doctor", "acme"], "").unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let ours = checks.into_iter().filter(|check| check["id"].as_str().unwrap().starts_with("lightspark-"));
        ours.map(|check| format!("{} {}", check["id"].as_str().unwrap(), check["state"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(states(), ["lightspark-webhook ok", "lightspark-api fail"]);
    api.open();
    // The double is of 2010.
    assert_eq!(states(), ["lightspark-webhook ok", "lightspark-key ok", "lightspark-clock fail"]);
}

#[test]
fn no_log_and_no_file_shows_the_token_or_what_was_delivered() {
    let api = Api::closed();
    let mut account = Account::calling_back(&api.url());
    let client = account.client();
    let at = |index: u64| json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index });
    for (id, kind, index) in [
        ("1", "GET_PER_COMMITMENT_POINT", 7),
        ("2", "GET_PER_COMMITMENT_POINT", 6),
        ("3", "RELEASE_PER_COMMITMENT_SECRET", 7),
    ] {
        assert_eq!(client.webhook(&event(id, kind, at(index))).unwrap().0, 204);
    }
    api.open();
    let calls = api.calls(3);
    let [released] = &variables(&calls, "ReleaseChannelPerCommitmentSecret")[..] else { panic!("{calls:?}") };
    let secret = hex::decode(released["per_commitment_secret"].as_str().unwrap()).unwrap();
    let canaries = [
        Canary::new("API token", TOKEN.as_bytes()),
        Canary::new("its second half", TOKEN.split_once(':').unwrap().1.as_bytes()),
        Canary::new("per-commitment secret", &secret),
    ];
    for args in [&["status"][..], &["node", "show", "acme"], &["journal", "export"], &["metrics"], &["doctor"]] {
        let output = account.signer.output(args, "").unwrap();
        assert!(!output.stdout.is_empty(), "{args:?} says something");
        assert_eq!(scan_text(&args.join(" "), &[output.stdout, output.stderr].concat(), &canaries), []);
    }
    account.signer.stop().unwrap();
    let log = std::fs::read(account.signer.log_path()).unwrap();
    assert_eq!(scan_text("log", &log, &canaries), []);
    assert_eq!(scan_files(account.signer.dir(), &canaries).unwrap(), [], "the data directory");
}
