//! How long a batch takes from its bytes to its signatures, recorded: `tests/lightspark/timing` compares that with Lightspark's own
//! signer, which looks at nothing.

use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::*;
use crate::chain::Attestor;
use crate::config::SignerConfig;
use crate::journal::store::LoggedStore;
use crate::journal::{Journal, Options};
use crate::keys::cipher::RecordCipher;
use crate::lightning::actor::House;
use crate::lightning::driver::MiniChain;
use crate::lightning::nodes::Nodes;
use crate::pipeline::Outcome;

/// Where the events and the times go.
const FILE: &str = "CLAVIGER_LIGHTSPARK_EVENTS";
const BATCHES: u64 = 500;

/// A commitment of the counterparty's with two HTLCs, and both HTLCs: three signatures.
fn batch(spark: &Spark, number: u64) -> Vec<Value> {
    let base = spark.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::HtlcBase));
    let add = hash_of(&peer(6), &spark.key(ChannelKey::HtlcBase));
    let ours = tweaked(base, None, Some(&add)).expect("a key").public_key(spark.node.keys.secp());
    let scripts = [3u8, 4].map(|byte| {
        let htlc = Htlc {
            revocation_hash: [1; 20],
            owner: peer(5).serialize(),
            other: ours.serialize(),
            payment_hash160: [byte; 20],
            received_until: Some(800_000),
            anchors: false,
        };
        htlc.script()
    });
    let htlcs: Vec<TxOut> = scripts.iter().map(|script| output(25_000, script.to_p2wsh())).collect();
    let tx = spark.commitment(number, 350_000, &htlcs);
    let mut jobs = vec![spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT)];
    for (at, script) in scripts.iter().enumerate() {
        let outpoint = OutPoint { txid: tx.compute_txid(), vout: 2 + at as u32 };
        let second = transaction(outpoint, vec![output(24_000, delayed_script(&peer(1), 144, &peer(2)).to_p2wsh())]);
        let mut job = spark.job(&format!("h{at}"), "m/3/5/4", &second, script, 25_000);
        job["add_tweak"] = hex::encode(add).into();
        jobs.push(job);
    }
    jobs
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times[times.len() / 2].as_micros()
}

#[test]
#[ignore = "tests/lightspark/timing compares it"]
fn a_batch_with_two_htlcs_is_timed_with_its_record_on_the_disk() {
    let path = std::env::var_os(FILE).expect(FILE);
    let store = Arc::new(
        LoggedStore::open(&std::path::Path::new(&path).with_extension("redb"), LoggedStore::DEFAULT_CACHE)
            .expect("a store"),
    );
    let cipher = RecordCipher::new(Secret::init(|key| key.fill(7)));
    let journal = Arc::new(Journal::open(store, cipher, Options::default()).expect("a journal"));
    let attestor = Arc::new(Attestor::new(&peer_secret(9)));
    let house = House { journal, chain: Arc::new(MiniChain::default()), attestor, settings: settings() };
    let nodes = Nodes::start(house, &SignerConfig::default()).expect("threads");
    nodes.add(spec()).expect("a node");
    let name = spec().name;
    let mut events = Spark::opened(400_000); // only to write them
    let mut file = std::fs::File::create(&path).expect("a file");
    let mut times = Vec::new();
    let mut ask = |events: &mut Spark, method, data: Value| {
        let body = events.body(CHANNEL, method, &data).to_string();
        let (reply, outcome) = sync_channel(1);
        let begun = Instant::now();
        let message = request(method, false, body.as_bytes());
        let respond = Box::new(move |outcome| drop(reply.try_send(outcome)));
        nodes.submit(&name, Request { request_id: 0, channel: None, message }, respond);
        let outcome = outcome.recv().expect("an outcome");
        times.push(begun.elapsed());
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        body
    };
    for index in [MAX_INDEX, MAX_INDEX - 1] {
        ask(&mut events, Method::GetPoint, json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index }));
    }
    let first = events.commitment(0, 400_000, &[]);
    let job = events.job("c", "m/3/5/0", &first, &events.funding_script(), CAPACITY_SAT);
    ask(&mut events, Method::Sign, json!({ "signing_jobs": [job] }));
    for number in 1..=BATCHES {
        let jobs = batch(&events, number);
        let body = ask(&mut events, Method::Sign, json!({ "signing_jobs": jobs }));
        writeln!(file, "{body}").expect("written");
    }
    nodes.shutdown();
    let (secp, key) = (Secp256k1::new(), peer_secret(3));
    let raw = (0..BATCHES).map(|number| {
        let begun = Instant::now();
        for job in 0..3u8 {
            let digest = sha256::Hash::hash(&[&number.to_be_bytes()[..], &[job]].concat());
            secp.sign_ecdsa(&Message::from_digest(digest.to_byte_array()), &key);
        }
        begun.elapsed()
    });
    let raw = median(raw.collect());
    let ours = median(times.split_off(3));
    std::fs::write(std::path::Path::new(&path).with_extension("times"), format!("{ours} {raw}\n")).expect("written");
}
