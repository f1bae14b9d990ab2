//! Webhooks of Lightspark: each rule attacked, and its honest twin. Here is the platform that sends them.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::Xpriv;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, ripemd160};
use bitcoin::secp256k1::{Message, Scalar, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use claviger_policy::bundle::Files;
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
use crate::policy::{ApplyFailed, Desk};

mod attacks;
mod channels;
mod claims;
mod clearances;
mod commitments;
mod differential;
mod events;
mod letters;
mod operations;
mod payments;
mod recovery;
mod recovery_kits;
mod refusals;
mod rsa;
mod spends;
mod timing;
mod vectors;

const CHANNEL: &str = "Channel:018fe6a8-1096-69e3-0000-b60765430f65";
const NODE: &str = "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19";
const CAPACITY_SAT: u64 = 1_000_000;
const MASK: u64 = 0x1234_5678_9abc;
const FEE_SAT: u64 = 1_000;

struct Spark {
    node: LightsparkNode,
    entries: BTreeMap<String, Vec<u8>>,
    desk: Arc<Desk>,
    events: u32,
    calls_back: bool,
    clearance: Vec<u8>,
    /// What the last answer says of itself.
    told: Vec<Fact>,
}

/// An HTLC of the counterparty's commitment.
#[derive(Clone, Copy)]
struct Offer {
    payment_hash: [u8; 32],
    sat: u64,
    outgoing: bool,
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
        operations_key: None,
    }
}

/// The keys of a seed, in hex.
fn keys_of(seed: &str, network: Network) -> Keys {
    let master = Xpriv::new_master(network, &hex::decode(seed).expect("hex")).expect("a key");
    let seed = Secret::init(|out| out.copy_from_slice(&master.private_key[..]));
    Keys::new(&seed, &Secret::init(|out| out.copy_from_slice(master.chain_code.as_bytes())), network)
}

fn settings() -> Settings {
    let limits = LimitsConfig { max_onchain_sat: 50_000, max_onchain_sat_per_day: 60_000, ..LimitsConfig::default() };
    Settings { limits, funding_depth: 1, oracle: peer(9), desk: Arc::default() }
}

/// A desk with this policy in force.
fn desk(policy: &str, rules: &str) -> Arc<Desk> {
    let mut files = Files::default();
    for (name, text) in [("policy.toml", policy), ("rules.cedar", rules)] {
        files.add(name, text.as_bytes().to_vec()).expect("a file of a bundle");
    }
    let desk = Desk::default();
    desk.apply(files, Network::Regtest, None, 1, |_| Ok::<_, ApplyFailed>(())).expect("a bundle");
    Arc::new(desk)
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
        Self::under(Arc::default())
    }

    /// Under the policy of `desk`.
    fn under(desk: Arc<Desk>) -> Self {
        let entries = first_entries(&spec()).into_iter().filter_map(|put| Some((put.key, put.value?)));
        Self::with(entries.collect(), desk, 0)
    }

    fn with(entries: BTreeMap<String, Vec<u8>>, desk: Arc<Desk>, events: u32) -> Self {
        let settings = Settings { desk: desk.clone(), ..settings() };
        let node = LightsparkNode::restore(&spec(), &settings, Arc::default(), entries.clone()).expect("restores");
        Self { node, entries, desk, events, calls_back: false, clearance: vec![], told: vec![] }
    }

    /// The account as it is after a restart.
    fn restarted(self) -> Self {
        Self::with(self.entries, self.desk, self.events)
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
        let message = request(sub_event.method(), self.calls_back, body.as_bytes());
        let row = guard::row(NodeKind::Lightspark, &message).expect("known");
        assert_eq!(row.name, sub_event.method().name());
        let reply = self.handle(row, message)?;
        Ok(if reply.is_empty() { Value::Null } else { serde_json::from_slice(&reply).expect("JSON") })
    }

    fn handle(&mut self, row: &Row, message: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let handled = self.node.handle(row, &Request { request_id: 0, channel: None, message });
        self.told = handled.facts;
        for Put { key, value } in handled.puts {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        handled.reply
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
        Self::new().open(ours_sat)
    }

    /// Opens a channel whose first commitment pays us `ours_sat`.
    fn open(mut self, ours_sat: u64) -> Self {
        self.point(MAX_INDEX).expect("the first point");
        self.point(MAX_INDEX - 1).expect("the next point");
        let tx = self.commitment(0, ours_sat, &[]);
        self.sign_commitment(&tx).expect("the first commitment");
        self
    }

    /// The jobs of the counterparty's commitment `number`, which pays us `ours_sat` and has these HTLCs.
    fn batch(&self, number: u64, ours_sat: u64, offers: &[Offer]) -> Vec<Value> {
        let base = self.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::HtlcBase));
        let add = hash_of(&peer(6), &self.key(ChannelKey::HtlcBase));
        let ours = tweaked(base, None, Some(&add)).expect("a key").public_key(self.node.keys.secp());
        let script = |offer: &Offer| {
            let htlc = Htlc {
                revocation_hash: [1; 20],
                owner: peer(5).serialize(),
                other: ours.serialize(),
                payment_hash160: ripemd160::Hash::hash(&offer.payment_hash).to_byte_array(),
                received_until: offer.outgoing.then_some(800_000),
                anchors: false,
            };
            htlc.script()
        };
        let outputs: Vec<_> = offers.iter().map(|offer| output(offer.sat, script(offer).to_p2wsh())).collect();
        let tx = self.commitment(number, ours_sat, &outputs);
        let job = |(vout, offer): (u32, &Offer)| {
            let outpoint = OutPoint { txid: tx.compute_txid(), vout };
            let on = delayed_script(&peer(1), 144, &peer(2)).to_p2wsh();
            let mut second = transaction(outpoint, vec![output(offer.sat - 500, on)]);
            if !offer.outgoing {
                second.lock_time = LockTime::from_consensus(800_001);
            }
            let mut job = self.job(&format!("h{vout}"), "m/3/5/4", &second, &script(offer), offer.sat);
            job["add_tweak"] = hex::encode(add).into();
            job
        };
        let commitment = self.job("c", "m/3/5/0", &tx, &self.funding_script(), CAPACITY_SAT);
        [commitment].into_iter().chain((2..).zip(offers).map(job)).collect()
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
