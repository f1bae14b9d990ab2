//! Webhooks of Lightspark: each rule attacked, and its honest twin.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::Xpriv;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Scalar, Secp256k1, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use lightning::ln::chan_utils::{build_commitment_secret, make_funding_redeemscript};
use serde_json::Value;

use super::event::MAX_INDEX;
use super::keys::{hash_of, tweaked};
use super::transactions::p2wpkh;
use super::*;
use crate::keys::memory::Secret;
use crate::lightning::guard;
use crate::lightning::lnd::scripts::{Htlc, delayed_script};
use crate::names::{NodeKind, NodeName};

mod differential;

const CHANNEL: &str = "Channel:018fe6a8-1096-69e3-0000-b60765430f65";
const NODE: &str = "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19";
const CAPACITY_SAT: u64 = 1_000_000;
const MASK: u64 = 0x1234_5678_9abc;
const FEE_SAT: u64 = 1_000;

struct Spark {
    node: LightsparkNode,
    entries: BTreeMap<String, Vec<u8>>,
    events: u32,
}

fn spec() -> NodeSpec {
    let seed: [u8; 16] = std::array::from_fn(|at| at as u8);
    let master = Xpriv::new_master(Network::Regtest, &seed).expect("a key");
    NodeSpec {
        name: NodeName::new("alice").expect("a name"),
        kind: NodeKind::Lightspark,
        network: Network::Regtest,
        seed: Secret::init(|out| out.copy_from_slice(&master.private_key[..])),
        derivation: crate::keys::import::Derivation::Native,
        chain_code: Some(Secret::init(|out| out.copy_from_slice(master.chain_code.as_bytes()))),
    }
}

fn settings() -> Settings {
    let limits = LimitsConfig { max_onchain_sat: 50_000, max_onchain_sat_per_day: 60_000, ..LimitsConfig::default() };
    Settings { limits, funding_depth: 1, oracle: peer(9), desk: Arc::default() }
}

fn peer_secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).expect("a key")
}

/// Keys of others.
fn peer(byte: u8) -> PublicKey {
    peer_secret(byte).public_key(&Secp256k1::new())
}

/// As Lightspark writes a time.
fn time(unix_ms: u64) -> String {
    let (mut days, day_ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let mut year = 1970;
    let length = |year: u64| {
        if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) { 366 } else { 365 }
    };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let mut month = 1;
    for length in [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (day_ms / 3_600_000, day_ms / 60_000 % 60, day_ms / 1_000 % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}000+00:00", days + 1, day_ms % 1_000)
}

impl Spark {
    fn new() -> Self {
        Self::with(first_entries(&spec()).into_iter().filter_map(|put| Some((put.key, put.value?))).collect(), 0)
    }

    fn with(entries: BTreeMap<String, Vec<u8>>, events: u32) -> Self {
        let node = LightsparkNode::restore(&spec(), &settings(), Arc::default(), entries.clone()).expect("restores");
        Self { node, entries, events }
    }

    /// The account as it is after a restart.
    fn restarted(self) -> Self {
        Self::with(self.entries, self.events)
    }

    /// The body of a new event.
    fn body(&mut self, entity: &str, method: Method, data: &Value) -> Value {
        self.events += 1;
        let mut data = data.clone();
        data["sub_event_type"] = method.name().into();
        data["bitcoin_network"] = "REGTEST".into();
        json!({
            "event_type": "REMOTE_SIGNING", "event_id": format!("{:032x}", self.events),
            "timestamp": time(self.node.clock.now_ms()), "entity_id": entity, "data": data,
        })
    }

    fn send(&mut self, body: &Value) -> Result<Value, Refusal> {
        let body = body.to_string();
        let event = Event::parse(body.as_bytes(), Network::Regtest).map_err(|error| refusal(&error))?;
        let Ask::Remote(_, sub_event) = event.ask else { panic!("it asks for nothing") };
        let message = [&(sub_event.method() as u16).to_be_bytes()[..], body.as_bytes()].concat();
        let row = guard::row(NodeKind::Lightspark, &message).expect("known");
        assert_eq!(row.name, sub_event.method().name());
        let handled = self.node.handle(row, &Request { request_id: 0, channel: None, message });
        for Put { key, value } in handled.puts {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        let reply = handled.reply?;
        Ok(if reply.is_empty() { Value::Null } else { serde_json::from_slice(&reply).expect("JSON") })
    }

    fn ask(&mut self, method: Method, data: Value) -> Result<Value, Refusal> {
        let body = self.body(CHANNEL, method, &data);
        self.send(&body)
    }

    fn point(&mut self, index: u64) -> Result<Value, Refusal> {
        self.ask(Method::GetPoint, json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index }))
    }

    fn release(&mut self, index: u64) -> Result<Value, Refusal> {
        self.ask(Method::ReleaseSecret, json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index }))
    }

    fn sign(&mut self, jobs: &[Value]) -> Result<Value, Refusal> {
        self.ask(Method::Sign, json!({ "signing_jobs": jobs }))
    }

    fn reason<T>(result: Result<T, Refusal>) -> Option<Reason> {
        result.err().map(|refusal| refusal.reason)
    }

    fn key(&self, key: ChannelKey) -> PublicKey {
        self.node.keys.public(KeyPath::ChannelKey(5, key))
    }

    fn address(&self, path: KeyPath) -> ScriptBuf {
        p2wpkh(&self.node.keys.public(path))
    }

    fn funding_script(&self) -> ScriptBuf {
        make_funding_redeemscript(&self.key(ChannelKey::Funding), &peer(7))
    }

    /// A job for input 0 of `tx`, which spends `amount_sat`.
    fn job(&self, id: &str, path: &str, tx: &Transaction, script: &ScriptBuf, amount_sat: u64) -> Value {
        let (mut cache, value) = (SighashCache::new(tx), Amount::from_sat(amount_sat));
        let digest = if script.is_p2wpkh() {
            cache.p2wpkh_signature_hash(0, script, value, EcdsaSighashType::All).expect("a digest").to_byte_array()
        } else {
            cache.p2wsh_signature_hash(0, script, value, EcdsaSighashType::All).expect("a digest").to_byte_array()
        };
        json!({
            "id": id, "derivation_path": path, "message": hex::encode(digest), "add_tweak": "", "mul_tweak": null,
            "script": hex::encode(script), "transaction": serialize_hex(tx), "amount": amount_sat,
            "destination_derivation_path": "m/1/77",
        })
    }

    /// The counterparty's commitment `number` that pays us `ours_sat`, with these outputs more.
    fn commitment(&self, number: u64, ours_sat: u64, more: &[TxOut]) -> Transaction {
        let theirs_sat = CAPACITY_SAT - FEE_SAT - ours_sat - more.iter().map(|out| out.value.to_sat()).sum::<u64>();
        let mut outputs = vec![output(theirs_sat, delayed_script(&peer(1), 144, &peer(2)).to_p2wsh())];
        if ours_sat > 0 {
            outputs.push(output(ours_sat, p2wpkh(&self.key(ChannelKey::Payment))));
        }
        outputs.extend_from_slice(more);
        commitment(number, outputs)
    }

    fn sign_commitment(&mut self, tx: &Transaction) -> Result<Value, Refusal> {
        let job = self.job("c", "m/3/5/0", tx, &self.funding_script(), CAPACITY_SAT);
        self.sign(&[job])
    }

    /// A channel whose first commitment pays us `ours_sat`.
    fn opened(ours_sat: u64) -> Self {
        let mut spark = Self::new();
        spark.point(MAX_INDEX).expect("the first point");
        spark.point(MAX_INDEX - 1).expect("the next point");
        let tx = spark.commitment(0, ours_sat, &[]);
        spark.sign_commitment(&tx).expect("the first commitment");
        spark
    }

    /// Our commitment `number`, closing the channel.
    fn holder_commitment(&self, number: u64) -> Transaction {
        let to_local = delayed_script(&peer(3), 144, &self.delayed_key(number)).to_p2wsh();
        commitment(number, vec![output(500_000, to_local), output(499_000, p2wpkh(&peer(4)))])
    }

    fn delayed_key(&self, number: u64) -> PublicKey {
        let secret = self.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::DelayedBase));
        let tweak = self.delayed_tweak(number);
        tweaked(secret, None, Some(&tweak)).expect("a key").public_key(self.node.keys.secp())
    }

    fn delayed_tweak(&self, number: u64) -> [u8; 32] {
        let point = self.node.keys.per_commitment_point(5, MAX_INDEX - number);
        self.node.keys.add_tweak(5, ChannelKey::DelayedBase, &point)
    }

    /// The signature of the first job, which must be good for `key`.
    fn require_good(reply: &Value, job: &Value, key: &PublicKey) {
        let bytes = |value: &Value| hex::decode(value.as_str().expect("text")).expect("hex");
        assert_eq!(reply["signatures"][0]["id"], job["id"]);
        let signature = ecdsa::Signature::from_compact(&bytes(&reply["signatures"][0]["signature"])).expect("one");
        let message = Message::from_digest_slice(&bytes(&job["message"])).expect("32 bytes");
        Secp256k1::new().verify_ecdsa(&message, &signature, key).expect("a good signature");
    }
}

fn output(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

fn coin(byte: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 0 }
}

fn transaction(spends: OutPoint, outputs: Vec<TxOut>) -> Transaction {
    let input = TxIn {
        previous_output: spends,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: outputs }
}

fn commitment(number: u64, outputs: Vec<TxOut>) -> Transaction {
    let obscured = number ^ MASK;
    let mut tx = transaction(coin(1), outputs);
    tx.lock_time = LockTime::from_consensus(0x2000_0000 | (obscured & 0xff_ffff) as u32);
    tx.input[0].sequence = Sequence(0x8000_0000 | (obscured >> 24) as u32);
    tx
}

/// Computed with Lightspark's own signer (PyPI, lightspark-crypto-python 0.2.0), seed 00 01 … 0f.
#[test]
fn keys_secrets_preimages_and_signatures_are_those_of_the_official_signer() {
    let keys = keys(&spec());
    assert_eq!(keys.node_id().to_string(), "027c4b09ffb985c298afe7e5813266cbfcb7780b480ac294b0b43dc21f2be3d13c");
    for (path, key) in [
        ("m/1/77", "03213e1c434467b8d9bbe67e07d009b71d1e52c8e4094c161e89583c5752911b8d"),
        ("m/3/5/0", "036120da864175fd8e366d782b16179447a6caccf78a9e138c434fb25db671eebf"),
        ("m/3/5/1", "0253b3e3cfb4089ac2a8098b6d86a6c4ecf41803aec31918abab914c240f909c54"),
        ("m/3/5/4", "026bebfbcb44704465952967498d0bd38cbf010b5127787190f35d024c9be9bec3"),
        ("m/84'/2'/0'/1/9", "027a6839167a669a8fa471a815ae6694d4c5a2dcef3c630e351b2663bd2e67e8b1"),
    ] {
        let path = KeyPath::parse(path, Network::Regtest).expect("a path");
        assert_eq!(keys.public(path).to_string(), key, "{path}");
    }
    for (index, point, secret) in [
        (
            MAX_INDEX,
            "03959b0182ea1ec369bc729c766efcd813ed4924090ff3838b65b11c40e611f80d",
            "6a54441df17ba6db078353759d72ed9846fb2ce031c3658a52b7c514db5bfb38",
        ),
        (
            MAX_INDEX - 10,
            "02e97b0ba6b1092ce8f193acb504b0686a577e628fd0b062f8795d7e985b4e537b",
            "79962d9fca8c22fad74b70c0a33763798b495f69d17695c2e5836adafbb76c7f",
        ),
        (
            27_363_191,
            "0373a88757acbf807e21a9a3047dab2b0e90d91cb84c2071f6cc6d29d90bb552b9",
            "8378a54788de8e53db8953590e71e69179b519348a06a4aa0ed2a4152b4e5f6a",
        ),
    ] {
        assert_eq!(keys.per_commitment_point(5, index).to_string(), point);
        assert_eq!(hex::encode(&keys.per_commitment_secret(5, index)[..]), secret);
    }
    let preimage = "771cb523dea3b04ebe08ba358769a80d5ce0194e3bf2f909d475f909647ca592";
    assert_eq!(hex::encode(&keys.preimage(&[7; 32])[..]), preimage);
    let secret = keys.secret(KeyPath::ChannelKey(5, ChannelKey::Funding));
    for (mul, add, signature) in [
        (
            None,
            None,
            "b153288d4c0c23ddabfcbcc32da6ec43c9cfd87bdcb19ff1b8aa8577240dd15b46bc6d4768a1b89feaf50f81fd3918fbf7453d200332ee19babf79eba9998903",
        ),
        (
            None,
            Some(&[2; 32]),
            "7e87129ce216b0f1e5ba22c7c4d32b8de9241cc225f0a3e36da718b805ff699c7c92c8d4097fbfaf2c1e546fd33cad90b0b19865f220fcbe0f3801a7fc4db16c",
        ),
        (
            Some(&[3; 32]),
            Some(&[2; 32]),
            "3c193fd0e38386835c865433e96c215bc7629ab06b8ef0a5fb47f02bb69d499059591355901a58938b390daa76e01453c15ea3830c0066c5c50b2ffee7876d64",
        ),
    ] {
        let key = tweaked(secret, mul, add).expect("a key");
        let signed = keys.secp().sign_ecdsa(&Message::from_digest([1; 32]), &key).serialize_compact();
        assert_eq!(hex::encode(signed), signature);
    }
}

#[test]
fn points_and_secrets_leave_in_their_order_only() {
    let mut spark = Spark::new();
    let first = spark.point(MAX_INDEX).expect("the first");
    assert_eq!(first["channel_id"], CHANNEL);
    assert_eq!(first["per_commitment_point_index"], MAX_INDEX);
    assert_eq!(Spark::reason(spark.point(MAX_INDEX - 2)), Some(Reason::SecretOrder), "one is left out");
    // The commitment after it has no point: it cannot have been replaced.
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::SecretOrder));
    spark.point(MAX_INDEX - 1).expect("the next");
    assert_eq!(Spark::reason(spark.release(MAX_INDEX - 1)), Some(Reason::SecretOrder), "one is left out");
    let secret = spark.release(MAX_INDEX).expect("the first");
    let known = hex::encode(&spark.node.keys.per_commitment_secret(5, MAX_INDEX)[..]);
    assert_eq!(secret["per_commitment_secret"], known);
    let mut spark = spark.restarted();
    assert_eq!(Spark::reason(spark.release(MAX_INDEX - 1)), Some(Reason::SecretOrder));
    assert_eq!(spark.release(MAX_INDEX).expect("again"), secret);
    assert_eq!(spark.point(MAX_INDEX).expect("again"), first);
}

#[test]
fn a_channel_has_one_path_and_a_path_one_channel() {
    let mut spark = Spark::opened(400_000);
    let ask = |path: &str| json!({ "derivation_path": path, "per_commitment_point_idx": MAX_INDEX });
    assert_eq!(Spark::reason(spark.ask(Method::GetPoint, ask("m/3/6"))), Some(Reason::ChannelUnknown));
    let other = spark.body("Channel:other", Method::GetPoint, &ask("m/3/5"));
    assert_eq!(Spark::reason(spark.send(&other)), Some(Reason::ChannelUnknown));
    let new = spark.body("Channel:other", Method::GetPoint, &ask("m/3/6"));
    spark.send(&new).expect("a channel of its own");
}

#[test]
fn an_invoice_has_one_payment_hash_for_ever_and_its_preimage_takes_its_nonce() {
    let mut spark = Spark::new();
    let hash =
        |spark: &mut Spark, id: &str| spark.ask(Method::InvoiceHash, json!({ "invoice_id": id })).expect("a hash");
    let first = hash(&mut spark, "Invoice:1");
    let mut spark = spark.restarted();
    assert_eq!(hash(&mut spark, "Invoice:1"), first);
    let other = hash(&mut spark, "Invoice:2");
    assert_ne!(other["payment_hash"], first["payment_hash"]);
    let mut release = |id: &str, nonce: &Value| {
        spark.ask(Method::ReleasePreimage, json!({ "invoice_id": id, "preimage_nonce": nonce }))
    };
    let released = release("Invoice:1", &first["preimage_nonce"]).expect("a preimage");
    let preimage = hex::decode(released["payment_preimage"].as_str().expect("text")).expect("hex");
    let hashed = bitcoin::hashes::sha256::Hash::hash(&preimage);
    assert_eq!(first["payment_hash"], hex::encode(hashed.as_byte_array()));
    for foreign in [&other["preimage_nonce"], &json!("00".repeat(32)), &Value::Null] {
        assert_eq!(Spark::reason(release("Invoice:1", foreign)), Some(Reason::PreimageNonce));
    }
}

#[test]
fn the_same_event_gets_the_same_answer_and_an_old_or_changed_one_none() {
    let mut spark = Spark::new();
    let data = json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": MAX_INDEX });
    let body = spark.body(CHANNEL, Method::GetPoint, &data);
    let first = spark.send(&body).expect("an answer");
    let mut spark = spark.restarted();
    let entries = spark.entries.clone();
    assert_eq!(spark.send(&body), Ok(first));
    assert_eq!(spark.entries, entries, "nothing is counted twice");
    let mut changed = body.clone();
    changed["data"]["per_commitment_point_idx"] = (MAX_INDEX - 1).into();
    assert_eq!(Spark::reason(spark.send(&changed)), Some(Reason::EventReused));
    let now_ms = spark.node.clock.now_ms();
    for (at_ms, reason) in [
        (now_ms - 16 * 60_000, Some(Reason::EventStale)),
        (now_ms - 14 * 60_000, None),
        (now_ms + 4 * 60_000, Some(Reason::EventStale)),
        (now_ms + 60_000, None),
    ] {
        let mut body = spark.body(CHANNEL, Method::GetPoint, &data);
        body["timestamp"] = time(at_ms).into();
        assert_eq!(Spark::reason(spark.send(&body)), reason);
    }
    let mut foreign = spark.body(CHANNEL, Method::GetPoint, &data);
    foreign["data"]["bitcoin_network"] = "MAINNET".into();
    assert_eq!(Spark::reason(spark.send(&foreign)), Some(Reason::NetworkForeign));
}

#[test]
fn an_answered_event_that_is_forgotten_stays_too_old() {
    let mut spark = Spark::new();
    let data = json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": MAX_INDEX });
    let body = spark.body(CHANNEL, Method::GetPoint, &data);
    spark.send(&body).expect("an answer");
    let count = |spark: &Spark| spark.entries.keys().filter(|key| key.starts_with("lightspark/event/")).count();
    spark.node.clock.raise(spark.node.clock.now_ms() + 3_600_000);
    let later = spark.body(CHANNEL, Method::GetPoint, &data);
    spark.send(&later).expect("an answer");
    assert_eq!(count(&spark), 1, "the old one is forgotten");
    // The clock of the machine is an hour behind now.
    let mut spark = spark.restarted();
    assert_eq!(Spark::reason(spark.send(&body)), Some(Reason::EventStale));
    spark.send(&later).expect("the same answer");
}

#[test]
fn the_counterpartys_commitments_are_signed_in_their_order() {
    let mut spark = Spark::opened(400_000);
    for (number, reason) in
        [(2, Some(Reason::CommitmentOrder)), (1, None), (0, Some(Reason::CommitmentOrder)), (2, None)]
    {
        let tx = spark.commitment(number, 400_000 - number, &[]);
        assert_eq!(Spark::reason(spark.sign_commitment(&tx)), reason, "{number}");
        spark = spark.restarted();
    }
    let tx = spark.commitment(2, 400_000 - 2, &[]);
    let job = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    let reply = spark.sign(std::slice::from_ref(&job)).expect("again");
    Spark::require_good(&reply, &job, &spark.key(ChannelKey::Funding));
}

#[test]
fn what_a_commitment_takes_from_us_is_a_payment_within_the_limits() {
    let mut spark = Spark::opened(900_000);
    let limit_sat = LimitsConfig::default().max_payment_msat / 1_000;
    let tx = spark.commitment(1, 900_000 - limit_sat - 1, &[]);
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::Limit));
    let tx = spark.commitment(1, 900_000 - limit_sat, &[]);
    spark.sign_commitment(&tx).expect("within the limit");
    let paid = spark.entries.get(limits::KEY).cloned();
    spark.sign_commitment(&tx).expect("the same again");
    assert_eq!(spark.entries.get(limits::KEY).cloned(), paid, "it is charged once");
    let tx = spark.commitment(2, 950_000 - limit_sat, &[]);
    spark.sign_commitment(&tx).expect("what comes in costs nothing");
}

#[test]
fn another_coin_than_the_channels_is_not_signed() {
    let mut spark = Spark::opened(400_000);
    let good = spark.commitment(1, 400_000, &[]);
    let mut other = good.clone();
    other.input[0].previous_output = coin(2);
    assert_eq!(Spark::reason(spark.sign_commitment(&other)), Some(Reason::TransactionUnknown));
    let script = make_funding_redeemscript(&spark.key(ChannelKey::Funding), &peer(8));
    let job = spark.job("c", "m/3/5/0", &good, &script, CAPACITY_SAT);
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::TransactionUnknown));
    let script = make_funding_redeemscript(&peer(8), &peer(7));
    let job = spark.job("c", "m/3/5/0", &good, &script, CAPACITY_SAT);
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::KeyPurpose));
    spark.sign_commitment(&good).expect("the channel's coin");
}

#[test]
fn a_commitment_that_was_signed_to_close_is_never_revoked_and_a_revoked_one_never_signed() {
    let mut spark = Spark::opened(400_000);
    spark.point(MAX_INDEX - 2).expect("a point");
    spark.release(MAX_INDEX).expect("0 is revoked");
    let revoked = spark.holder_commitment(0);
    assert_eq!(Spark::reason(spark.sign_commitment(&revoked)), Some(Reason::CommitmentRevoked));
    let future = spark.holder_commitment(3);
    assert_eq!(Spark::reason(spark.sign_commitment(&future)), Some(Reason::CommitmentOrder));
    let newest = spark.holder_commitment(1);
    spark.sign_commitment(&newest).expect("it closes the channel");
    let mut spark = spark.restarted();
    assert_eq!(Spark::reason(spark.release(MAX_INDEX - 1)), Some(Reason::RevokeAfterClose));
    let tx = spark.commitment(1, 400_000, &[]);
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::UpdateAfterClose));
    spark.release(MAX_INDEX).expect("what left may leave again");
    spark.sign_commitment(&newest).expect("again");

    // The twin that is not closed goes on.
    let mut open = Spark::opened(400_000);
    open.point(MAX_INDEX - 2).expect("a point");
    open.release(MAX_INDEX).expect("0 is revoked");
    open.release(MAX_INDEX - 1).expect("1 is revoked");
    let tx = open.commitment(1, 400_000, &[]);
    open.sign_commitment(&tx).expect("the next one");
}

#[test]
fn a_mutual_close_pays_us_what_the_last_commitment_did() {
    let closing = |ours_sat: u64, to: ScriptBuf| {
        let theirs = output(CAPACITY_SAT - FEE_SAT - ours_sat, p2wpkh(&peer(4)));
        transaction(coin(1), vec![theirs, output(ours_sat, to)])
    };
    let mut spark = Spark::opened(400_000);
    let (ours, fee_sat) = (spark.address(KeyPath::Closing(77)), LimitsConfig::default().max_onchain_fee_sat);
    let tx = closing(400_000 - fee_sat - 1, ours.clone());
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::CloseValue));
    let tx = closing(400_000, p2wpkh(&peer(5)));
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::TransactionUnknown));
    let tx = closing(400_000 - FEE_SAT, ours);
    spark.sign_commitment(&tx).expect("a fair close");
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::RevokeAfterClose));
}

#[test]
fn an_htlc_is_signed_for_a_commitment_that_has_it() {
    let mut spark = Spark::opened(400_000);
    let base = spark.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::HtlcBase));
    let add = hash_of(&peer(6), &spark.key(ChannelKey::HtlcBase));
    let ours = tweaked(base, None, Some(&add)).expect("a key").public_key(spark.node.keys.secp());
    let htlc = Htlc {
        revocation_hash: [1; 20],
        owner: peer(5),
        other: ours,
        payment_hash160: [2; 20],
        received_until: Some(800_000),
        anchors: false,
    };
    let script = htlc.script();
    let tx = spark.commitment(1, 350_000, &[output(50_000, script.to_p2wsh())]);
    let outpoint = OutPoint { txid: tx.compute_txid(), vout: 2 };
    let second = transaction(outpoint, vec![output(49_000, delayed_script(&peer(1), 144, &peer(2)).to_p2wsh())]);
    let commitment = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    let job = |spark: &Spark, tx: &Transaction, sat: u64| {
        let mut job = spark.job("h", "m/3/5/4", tx, &script, sat);
        job["add_tweak"] = hex::encode(add).into();
        job
    };
    let alone = job(&spark, &second, 50_000);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&alone))), Some(Reason::HtlcUnknown), "not signed yet");
    let wrong = job(&spark, &second, 50_001);
    assert_eq!(Spark::reason(spark.sign(&[commitment.clone(), wrong])), Some(Reason::HtlcUnknown));
    let mut two = second.clone();
    two.output.push(output(1, p2wpkh(&peer(4))));
    let wrong = job(&spark, &two, 50_000);
    assert_eq!(Spark::reason(spark.sign(&[commitment.clone(), wrong])), Some(Reason::HtlcTransaction));
    let reply = spark.sign(&[commitment, alone.clone()]).expect("both");
    assert_eq!(reply["signatures"].as_array().map(Vec::len), Some(2));
    let mut spark = spark.restarted();
    let reply = spark.sign(std::slice::from_ref(&alone)).expect("the commitment is known");
    Spark::require_good(&reply, &alone, &ours);
}

#[test]
fn our_own_output_is_claimed_for_ourselves_once_its_commitment_was_signed() {
    let mut spark = Spark::opened(400_000);
    let script = delayed_script(&peer(3), 144, &spark.delayed_key(0));
    let claim = |spark: &Spark, to: ScriptBuf, tweak: [u8; 32]| {
        let tx = transaction(coin(3), vec![output(499_000, to)]);
        let mut job = spark.job("d", "m/3/5/3", &tx, &script, 500_000);
        job["add_tweak"] = hex::encode(tweak).into();
        job
    };
    let (ours, tweak) = (spark.address(KeyPath::Closing(77)), spark.delayed_tweak(0));
    let job = claim(&spark, ours.clone(), tweak);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&job))), Some(Reason::TweakUnproven), "nothing closed");
    let closing = spark.holder_commitment(0);
    spark.sign_commitment(&closing).expect("it closes the channel");
    let theft = claim(&spark, p2wpkh(&peer(4)), tweak);
    assert_eq!(Spark::reason(spark.sign(&[theft])), Some(Reason::OutputForeign));
    let other = claim(&spark, ours, spark.delayed_tweak(1));
    assert_eq!(Spark::reason(spark.sign(&[other])), Some(Reason::KeyPurpose), "the script names another key");
    let reply = spark.sign(std::slice::from_ref(&job)).expect("ours");
    Spark::require_good(&reply, &job, &spark.delayed_key(0));
}

#[test]
fn a_key_is_multiplied_for_a_punishment_by_a_revealed_secret_alone() {
    let mut spark = Spark::opened(400_000);
    let seed = [9; 32];
    let (secret, unrevealed) =
        (build_commitment_secret(&seed, MAX_INDEX), build_commitment_secret(&seed, MAX_INDEX - 1));
    let reveal = |spark: &mut Spark, index: u64, secret: &[u8; 32]| {
        let secret = hex::encode(secret);
        let data = json!({ "per_commitment_secret_idx": index, "per_commitment_secret": secret, "node_id": NODE });
        spark.ask(Method::RevealSecret, data)
    };
    assert_eq!(Spark::reason(reveal(&mut spark, MAX_INDEX - 1, &secret)), Some(Reason::SecretOrder));
    assert_eq!(reveal(&mut spark, MAX_INDEX, &secret), Ok(Value::Null));
    assert_eq!(reveal(&mut spark, MAX_INDEX, &secret), Ok(Value::Null), "again");
    assert_eq!(Spark::reason(reveal(&mut spark, MAX_INDEX, &unrevealed)), Some(Reason::SecretOrder));
    let mut spark = spark.restarted();
    let base = spark.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::RevocationBase));
    let punish = |spark: &Spark, tweaks: ([u8; 32], [u8; 32]), to: ScriptBuf| {
        let key = tweaked(base, Some(&tweaks.0), Some(&tweaks.1)).expect("a key").public_key(spark.node.keys.secp());
        let tx = transaction(coin(4), vec![output(99_000, to)]);
        let mut job = spark.job("p", "m/3/5/1", &tx, &delayed_script(&key, 144, &peer(2)), 100_000);
        job["mul_tweak"] = hex::encode(tweaks.0).into();
        job["add_tweak"] = hex::encode(tweaks.1).into();
        (job, key)
    };
    let tweaks = |secret| spark.node.keys.revocation_tweaks(5, secret).expect("tweaks");
    let (good, early, ours) = (tweaks(&secret), tweaks(&unrevealed), spark.address(KeyPath::Closing(77)));
    for forged in [early, (good.0, early.1), (early.0, good.1), ([2; 32], [1; 32])] {
        let (job, _) = punish(&spark, forged, ours.clone());
        assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::TweakUnproven));
    }
    let (job, _) = punish(&spark, good, p2wpkh(&peer(4)));
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::OutputForeign));
    let (job, key) = punish(&spark, good, ours);
    let reply = spark.sign(std::slice::from_ref(&job)).expect("a punishment");
    Spark::require_good(&reply, &job, &key);
    // BOLT 3: the same key as from the sum of both points.
    let lone = Scalar::from_be_bytes(good.0).expect("a scalar");
    let point = SecretKey::from_slice(&good.1).expect("a key").public_key(spark.node.keys.secp());
    let product = spark.key(ChannelKey::RevocationBase).mul_tweak(spark.node.keys.secp(), &lone).expect("a point");
    assert_eq!(product.combine(&point), Ok(key));
}

/// A signature under a multiplied key is one under the key itself, on another digest.
#[test]
fn no_other_key_is_multiplied_and_no_wallet_key_tweaked() {
    let mut spark = Spark::opened(400_000);
    let tx = spark.commitment(1, 400_000, &[]);
    let good = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    for (path, tweak) in
        [("m/3/5/0", "mul_tweak"), ("m/3/5/0", "add_tweak"), ("m/84'/2'/0'/0/1", "mul_tweak"), ("m/3/5/4", "mul_tweak")]
    {
        let mut forged = good.clone();
        forged["derivation_path"] = path.into();
        forged[tweak] = "03".repeat(32).into();
        assert_eq!(Spark::reason(spark.sign(&[forged])), Some(Reason::TweakUnproven), "{path} {tweak}");
    }
    spark.sign(&[good]).expect("without a tweak");
}

#[test]
fn a_digest_is_signed_if_transaction_script_and_amount_make_it() {
    let mut spark = Spark::opened(400_000);
    let tx = spark.commitment(1, 400_000, &[]);
    let good = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    let other = serialize_hex(&spark.commitment(1, 399_999, &[]));
    for (field, value, reason) in [
        ("message", json!("11".repeat(32)), Reason::DigestMismatch),
        ("amount", json!(CAPACITY_SAT + 1), Reason::DigestMismatch),
        ("amount", json!(1u64 << 53), Reason::Malformed),
        ("script", json!("51"), Reason::DigestMismatch),
        ("script", json!("00".repeat(10_001)), Reason::Malformed),
        ("transaction", json!(other), Reason::DigestMismatch),
        ("transaction", json!("00"), Reason::Malformed),
        ("transaction", json!(""), Reason::Malformed),
        ("derivation_path", json!("m/03/5/0"), Reason::PathNotCanonical),
        ("derivation_path", json!("m"), Reason::KeyPurpose),
        ("derivation_path", json!("m/0"), Reason::KeyPurpose),
        ("derivation_path", json!("m/5"), Reason::KeyPurpose),
        ("derivation_path", json!("m/3/5"), Reason::KeyPurpose),
        ("derivation_path", json!("m/3/5/2"), Reason::KeyPurpose),
        ("derivation_path", json!("m/3/6/0"), Reason::KeyPurpose),
    ] {
        let mut forged = good.clone();
        forged[field] = value;
        assert_eq!(Spark::reason(spark.sign(&[forged])), Some(reason), "{field}");
    }
    assert_eq!(Spark::reason(spark.sign(&[good.clone(), good.clone()])), Some(Reason::Malformed), "an id twice");
    spark.sign(&[good]).expect("all agree");
}

#[test]
fn all_outputs_of_an_l1_spend_are_judged() {
    let mut spark = Spark::new();
    let coin_script = spark.address(KeyPath::Wallet(0, 1));
    let change = spark.address(KeyPath::Wallet(1, 9));
    let spend = |spark: &Spark, sent_sat: u64, change_sat: u64| {
        let outputs = vec![output(sent_sat, p2wpkh(&peer(4))), output(change_sat, change.clone())];
        let mut job = spark.job("w", "m/84'/2'/0'/0/1", &transaction(coin(5), outputs), &coin_script, 1_000_000);
        job["destination_derivation_path"] = "m/84'/2'/0'/1/9".into();
        job
    };
    // The change is right; the first output is not.
    let theft = spend(&spark, 899_000, 100_000);
    assert_eq!(Spark::reason(spark.sign(&[theft])), Some(Reason::Limit));
    let burnt = spend(&spark, 1_000, 800_000);
    assert_eq!(Spark::reason(spark.sign(&[burnt])), Some(Reason::Limit));
    let sent = spend(&spark, 50_000, 949_000);
    let reply = spark.sign(std::slice::from_ref(&sent)).expect("within the limits");
    Spark::require_good(&reply, &sent, &spark.node.keys.public(KeyPath::Wallet(0, 1)));
    let mut spark = spark.restarted();
    spark.sign(&[sent]).expect("the same is charged once");
    let more = spend(&spark, 10_001, 988_000);
    assert_eq!(Spark::reason(spark.sign(&[more])), Some(Reason::Limit), "the day's limit");
}

#[test]
fn an_l1_spend_shows_all_its_coins() {
    let mut spark = Spark::new();
    let script = spark.address(KeyPath::Wallet(0, 1));
    let mut tx = transaction(coin(5), vec![output(1_999_000, spark.address(KeyPath::Closing(77)))]);
    tx.input.push(TxIn { previous_output: coin(6), ..tx.input[0].clone() });
    let first = spark.job("a", "m/84'/2'/0'/0/1", &tx, &script, 1_000_000);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&first))), Some(Reason::CoinUnproven));
    let mut second = first.clone();
    let digest = SighashCache::new(&tx)
        .p2wpkh_signature_hash(1, &script, Amount::from_sat(1_000_000), EcdsaSighashType::All)
        .expect("a digest");
    second["id"] = "b".into();
    second["message"] = hex::encode(digest.to_byte_array()).into();
    spark.sign(&[first, second]).expect("both coins are shown");
}

#[test]
fn what_is_blind_is_refused() {
    let mut spark = Spark::new();
    let ecdh = spark.ask(Method::Ecdh, json!({ "peer_public_key": peer(4).to_string() }));
    assert_eq!(Spark::reason(ecdh), Some(Reason::SecretPurpose));
    let invoice = spark.ask(Method::SignInvoice, json!({ "invoice_id": "1", "payreq_hash": "11".repeat(32) }));
    assert_eq!(Spark::reason(invoice), Some(Reason::BlindDigest));
}

#[test]
fn another_seed_or_network_does_not_take_the_entries_over() {
    let spark = Spark::opened(400_000);
    let restore = |spec: &NodeSpec| {
        LightsparkNode::restore(spec, &settings(), Arc::default(), spark.entries.clone()).map(|node| node.channels())
    };
    assert!(matches!(restore(&spec()), Ok(1)));
    let other = NodeSpec { seed: Secret::init(|seed| seed.fill(1)), ..spec() };
    assert!(matches!(restore(&other), Err(RestoreError::OtherNode(_))));
    let other = NodeSpec { network: Network::Testnet, ..spec() };
    assert!(matches!(restore(&other), Err(RestoreError::OtherNode(_))));
}
