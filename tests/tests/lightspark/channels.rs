//! A channel of the account over the real daemon: opened by webhooks, and seen, frozen and recovered from the command line.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Address, Amount, Network, ScriptBuf, Sequence, Transaction, TxOut};
use serde_json::{Value, json};

use crate::account::{Account, Client, event};

/// Two channels of Lightspark's own recovery kits, and the seed of their keys.
pub(crate) const KITS: &str = include_str!("../../../signer/src/lightning/lightspark/tests/recovery_kits.jsonl");
const SEED: &str = "f520e5271623fe21c76b0212f855c97a";
/// Where the kits' owner wanted the money.
const OWNER: &str = "00146b0009af85b18052eb83afbdc9c45521c552588f";
/// The channel of the first kit, what it holds, and the number of the commitment in it.
const PATH: &str = "m/3/599143572";
const CAPACITY_SAT: u64 = 500_000;
const NUMBER: u64 = 10;
/// Of the first commitment's secret.
const FIRST: u64 = (1 << 48) - 1;

/// The account of the kits. Its channel has been opened here, and `NUMBER` commitments of ours are revoked.
struct Opened {
    account: Account,
    client: Client,
    kit: Value,
    events: u32,
}

impl Opened {
    fn new() -> Self {
        let owner = Address::from_script(&ScriptBuf::from_hex(OWNER).unwrap(), Network::Regtest).unwrap().to_string();
        let account = Account::of(SEED, &[&owner]);
        let client = account.client();
        let kit = serde_json::from_str(KITS.lines().next().unwrap()).unwrap();
        let mut opened = Self { account, client, kit, events: 0 };
        assert_eq!(opened.point(FIRST), 200);
        assert_eq!(opened.sign(0, 499_000), 200);
        for number in 0..NUMBER {
            assert_eq!((opened.point(FIRST - number - 1), opened.release(FIRST - number)), (200, 200), "{number}");
        }
        opened
    }

    fn post(&mut self, sub_event: &str, data: Value) -> u16 {
        self.events += 1;
        self.client.webhook(&event(&format!("{:032x}", self.events), sub_event, data)).unwrap().0
    }

    fn point(&mut self, index: u64) -> u16 {
        self.post("GET_PER_COMMITMENT_POINT", json!({ "derivation_path": PATH, "per_commitment_point_idx": index }))
    }

    fn release(&mut self, index: u64) -> u16 {
        let data = json!({ "derivation_path": PATH, "per_commitment_point_idx": index });
        self.post("RELEASE_PER_COMMITMENT_SECRET", data)
    }

    fn commitment(&self) -> Transaction {
        deserialize_hex(self.kit["commitment_tx"].as_str().unwrap()).unwrap()
    }

    /// Asks for the counterparty's commitment `number`, which has one output.
    fn sign(&mut self, number: u64, sat: u64) -> u16 {
        let mut tx = self.commitment();
        let script = ScriptBuf::from_bytes(tx.input[0].witness.last().unwrap().to_vec());
        // Both sides' numbers hide behind the same constant (BOLT 3).
        let hidden = NUMBER ^ number;
        tx.input[0].witness.clear();
        tx.input[0].sequence = Sequence(tx.input[0].sequence.0 ^ (hidden >> 24) as u32);
        tx.lock_time = LockTime::from_consensus(tx.lock_time.to_consensus_u32() ^ (hidden & 0xff_ffff) as u32);
        tx.output = vec![TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new().to_p2wsh() }];
        let (mut cache, capacity) = (SighashCache::new(&tx), Amount::from_sat(CAPACITY_SAT));
        let digest = cache.p2wsh_signature_hash(0, &script, capacity, EcdsaSighashType::All).unwrap();
        let job = json!({
            "id": "job", "derivation_path": format!("{PATH}/0"), "message": hex::encode(digest.to_byte_array()),
            "add_tweak": "", "mul_tweak": "", "script": hex::encode(&script), "transaction": serialize_hex(&tx),
            "amount": CAPACITY_SAT, "destination_derivation_path": "m/1/1",
        });
        self.post("DERIVE_KEY_AND_SIGN", json!({ "signing_jobs": [job] }))
    }

    fn show(&self, channel: &str) -> Value {
        self.account.signer.cli(&["channel", "show", "acme", channel]).unwrap()
    }
}

#[test]
fn a_channel_is_listed_and_takes_no_new_state_while_it_is_frozen() {
    let mut opened = Opened::new();
    let list = opened.account.signer.cli(&["channel", "list", "acme"]).unwrap();
    let funding = opened.commitment().input[0].previous_output.to_string();
    assert_eq!(list["channels"][0]["channel"], funding.as_str(), "{list}");
    assert_eq!(list["channels"][0]["capacity_sat"], CAPACITY_SAT);
    assert_eq!(list["channels"][0]["standing"], "in-step", "{list}");
    assert_eq!(list["channels"][0]["counterparty"]["balance"]["theirs_sat"], 499_000, "{list}");
    let shown = opened.show(&funding);
    let id = shown["aliases"][0].as_str().unwrap().to_owned();
    assert_eq!((&opened.show(&id), &opened.show(PATH)), (&shown, &shown), "by any of its names");
    assert_eq!((&shown["state"], &shown["holder"]["revoked"]), (&json!("ready"), &json!(NUMBER - 1)));
    let order = |opened: &Opened, order: &str| opened.account.signer.cli(&["channel", order, "acme", &id]).unwrap();
    order(&opened, "freeze");
    assert_eq!(opened.show(&id)["frozen"]["by"].as_str().map(str::is_empty), Some(false));
    assert_eq!(opened.sign(1, 498_000), 503, "asked again it may pass");
    order(&opened, "thaw");
    assert_eq!(opened.sign(1, 498_000), 200);
}

#[test]
fn the_newest_state_of_a_kit_is_signed_and_the_channel_is_closing_from_then_on() {
    let mut opened = Opened::new();
    let path = |name: &str| opened.account.folder.with_file_name(name).display().to_string();
    let kit = path("kit.json");
    std::fs::write(&kit, opened.kit.to_string()).unwrap();
    let recover = |out: &str| {
        let out = path(out);
        opened.account.signer.cli(&["lightspark", "recover", "acme", &kit, "--out", &out]).unwrap();
        serde_json::from_slice::<Value>(&std::fs::read(out).unwrap()).unwrap()
    };
    let signed = recover("signed.json");
    assert_eq!(recover("again.json"), signed, "the same question, the same answer");
    let transactions = signed[0]["transactions"].as_array().unwrap();
    let whats: Vec<_> = transactions.iter().map(|signed| signed["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["commitment", "sweep", "counterparty-sweep"]);
    let commitment = opened.commitment();
    assert_eq!(transactions[0]["txid"], commitment.compute_txid().to_string());
    for signed in &transactions[1..] {
        let tx: Transaction = deserialize_hex(signed["hex"].as_str().unwrap()).unwrap();
        let to: Vec<_> = tx.output.iter().map(|output| output.script_pubkey.to_hex_string()).collect();
        assert_eq!((to, tx.input[0].witness[0].is_empty()), (vec![OWNER.to_owned()], false), "{}", signed["what"]);
    }
    assert_eq!(opened.show(PATH)["state"], "closing");
    assert_eq!(opened.point(FIRST - NUMBER - 1), 200);
    assert_eq!(opened.release(FIRST - NUMBER), 403, "what closes the channel is not revoked");
}
