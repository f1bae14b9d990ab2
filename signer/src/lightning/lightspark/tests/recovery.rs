//! Recovery kits: real ones, signed where their channels are known, and what is refused of them.

use bitcoin::Address;
use bitcoin::consensus::encode::{deserialize_hex, serialize};

use super::*;

/// Two channels of Lightspark's own recovery kits, whose keys follow from [`SEED`]: one plain, one with an HTLC on both
/// commitments.
const KITS: &str = include_str!("recovery_kits.jsonl");
const SEED: &str = "f520e5271623fe21c76b0212f855c97a";
/// Where the kits' owner wanted the money.
const OWNER: &str = "00146b0009af85b18052eb83afbdc9c45521c552588f";
/// The numbers of their commitments.
const NUMBERS: [(u32, u64); 2] = [(599_143_572, 10), (637_642_393, 13)];

fn kit(at: usize) -> Value {
    serde_json::from_str(KITS.lines().nth(at).expect("a kit")).expect("JSON")
}

fn spec_of_kits() -> NodeSpec {
    let master = Xpriv::new_master(Network::Regtest, &hex::decode(SEED).expect("hex")).expect("a key");
    NodeSpec {
        seed: Secret::init(|out| out.copy_from_slice(&master.private_key[..])),
        chain_code: Some(Secret::init(|out| out.copy_from_slice(master.chain_code.as_bytes()))),
        ..spec()
    }
}

fn owner() -> ScriptBuf {
    ScriptBuf::from_hex(OWNER).expect("a script")
}

/// The account of the kits, after it signed the first commitments and revoked those before `NUMBERS` less `late`.
fn account(late: u64, desk: Arc<Desk>, allow: &[ScriptBuf]) -> Spark {
    let mut entries: BTreeMap<_, _> =
        first_entries(&spec_of_kits()).into_iter().filter_map(|put| Some((put.key, put.value?))).collect();
    for (at, (channel, number)) in NUMBERS.iter().enumerate() {
        let tx: Transaction = deserialize_hex(kit(at)["commitment_tx"].as_str().expect("text")).expect("one");
        let obscured = transactions::obscured_number(&tx).expect("a commitment");
        let released = MAX_INDEX - (number - 1) - late;
        let entry = json!({
            "version": 1, "entity": format!("Channel:{channel}"), "first": MAX_INDEX, "told": released - 2,
            "released": released, "closing": false, "closed": [],
            "funding": {
                "outpoint": tx.input[0].previous_output, "amount_sat": 500_000, "mask": obscured ^ number,
                "script": hex::encode(tx.input[0].witness.last().expect("a script")), "number": number,
                "txid": Txid::from_byte_array([7; 32]), "ours_sat": 250_000, "outputs": [],
            },
        });
        entries.insert(format!("{}{channel}", super::super::CHANNEL), entry.to_string().into_bytes());
    }
    let address = |script: &ScriptBuf| Address::from_script(script, Network::Regtest).expect("an address").to_string();
    let limits = LimitsConfig { allow: allow.iter().map(address).collect(), ..settings().limits };
    let settings = Settings { desk: desk.clone(), limits, ..settings() };
    let node = LightsparkNode::restore(&spec_of_kits(), &settings, Arc::default(), entries.clone()).expect("restores");
    Spark { node, entries, desk, events: 0, calls_back: false, clearance: vec![], told: vec![] }
}

fn newest() -> Spark {
    account(0, Arc::default(), &[owner()])
}

impl Spark {
    fn recover(&mut self, kit: &Value) -> Result<Recovered, Refusal> {
        let message = [&RECOVER.to_be_bytes()[..], kit.to_string().as_bytes()].concat();
        let row = guard::row(NodeKind::Lightspark, &message).expect("known");
        self.handle(row, message).map(|reply| serde_json::from_slice(&reply).expect("a report"))
    }
}

/// Every transaction is valid under consensus, in the order in which they are sent.
fn require_valid(kit: &Value, recovered: &Recovered) {
    let mut outputs: BTreeMap<OutPoint, TxOut> = BTreeMap::new();
    let mut add = |tx: &Transaction| {
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            outputs.insert(OutPoint { txid, vout }, output.clone());
        }
        outputs.clone()
    };
    let commitment: Transaction = deserialize_hex(kit["commitment_tx"].as_str().expect("text")).expect("one");
    let funding = ScriptBuf::from_bytes(commitment.input[0].witness.last().expect("a script").to_vec()).to_p2wsh();
    let theirs: Transaction =
        deserialize_hex(kit["counterparty_serialized_commitment_tx"].as_str().expect("text")).expect("one");
    let mut known = add(&theirs);
    known.insert(commitment.input[0].previous_output, output(500_000, funding));
    for signed in &recovered.transactions {
        let tx: Transaction = deserialize_hex(&signed.hex).expect("a transaction");
        assert_eq!(tx.compute_txid().to_string(), signed.txid);
        let spent = known[&tx.input[0].previous_output].clone();
        let script = spent.script_pubkey.as_bytes();
        let verified = bitcoinconsensus::verify(script, spent.value.to_sat(), &serialize(&tx), None, 0);
        assert_eq!(verified, Ok(()), "{}", signed.what);
        known.extend(add(&tx));
    }
}

#[test]
fn the_newest_state_of_real_kits_is_signed_and_everything_in_it_is_valid() {
    let mut spark = newest();
    let plain = spark.recover(&kit(0)).expect("the newest state");
    let whats =
        |recovered: &Recovered| recovered.transactions.iter().map(|signed| signed.what.clone()).collect::<Vec<_>>();
    assert_eq!(whats(&plain), ["commitment", "sweep", "counterparty-sweep"]);
    assert_eq!(plain.channel, "Channel:599143572");
    assert_eq!((plain.transactions[1].after_blocks, plain.transactions[1].amount_sat), (144, 243_963));
    require_valid(&kit(0), &plain);
    let htlc = spark.recover(&kit(1)).expect("the newest state");
    assert_eq!(whats(&htlc), ["commitment", "sweep", "htlc", "htlc-sweep", "counterparty-sweep", "counterparty-htlc"]);
    require_valid(&kit(1), &htlc);
    // Again, after a restart: the same.
    let mut spark = account_again(spark);
    assert_eq!(spark.recover(&kit(1)), Ok(htlc));
}

/// The same account after a restart.
fn account_again(spark: Spark) -> Spark {
    let address = Address::from_script(&owner(), Network::Regtest).expect("an address").to_string();
    let limits = LimitsConfig { allow: vec![address], ..settings().limits };
    let settings = Settings { desk: spark.desk.clone(), limits, ..settings() };
    let node = LightsparkNode::restore(&spec_of_kits(), &settings, Arc::default(), spark.entries.clone());
    Spark { node: node.expect("restores"), ..spark }
}

#[test]
fn hostile_an_older_state_is_not_signed_and_nothing_new_happens_after_the_newest() {
    let mut spark = account(1, Arc::default(), &[owner()]);
    assert_eq!(Spark::reason(spark.recover(&kit(0))), Some(Reason::CommitmentRevoked));
    let mut spark = newest();
    spark.recover(&kit(0)).expect("the newest state");
    let release = json!({ "derivation_path": "m/3/599143572", "per_commitment_point_idx": MAX_INDEX - 10 });
    let body = spark.body("Channel:599143572", Method::ReleaseSecret, &release);
    assert_eq!(Spark::reason(spark.send(&body)), Some(Reason::RevokeAfterClose));
}

#[test]
fn hostile_what_collects_pays_a_listed_address_and_none_is_listed_by_the_kit() {
    let mut spark = account(0, Arc::default(), &[]);
    assert_eq!(Spark::reason(spark.recover(&kit(0))), Some(Reason::OutputForeign));
    let mut spark = account(0, Arc::default(), &[p2wpkh(&peer(5))]);
    assert_eq!(Spark::reason(spark.recover(&kit(0))), Some(Reason::OutputForeign));
    assert!(newest().recover(&kit(0)).is_ok());
}

#[test]
fn hostile_a_kit_that_was_changed_is_refused() {
    let unknown = json!("m/3/5/0");
    let other = kit(1);
    for (at, field, value, reason) in [
        (0, "funding_private_key_derivation_path", &unknown, Reason::Malformed),
        (0, "funding_private_key_derivation_path", &json!("m/3/+599143572/0"), Reason::PathNotCanonical),
        (0, "commitment_tx", &other["commitment_tx"], Reason::Malformed),
        (0, "sweep_tx", &other["sweep_tx"], Reason::Malformed),
        (0, "sweep_tx_add_tweak", &json!("11".repeat(32)), Reason::KeyPurpose),
        (0, "channel_capacity", &json!(500_001), Reason::TransactionUnknown),
        (1, "nonces", &json!(["11".repeat(32)]), Reason::PreimageNonce),
        (1, "nonces", &json!([]), Reason::Malformed),
        (1, "serialized_htlc_sweep_tx", &json!([]), Reason::Malformed),
        (1, "counterparty_nonces", &json!(["11".repeat(32)]), Reason::PreimageNonce),
        (1, "counterparty_serialized_commitment_tx", &other["commitment_tx"], Reason::Malformed),
    ] {
        let mut changed = kit(at);
        changed[field] = value.clone();
        assert_eq!(Spark::reason(newest().recover(&changed)), Some(reason), "{field}: {value}");
    }
    // A channel that is not known here.
    assert_eq!(Spark::reason(Spark::new().recover(&kit(0))), Some(Reason::Malformed), "of another seed");
    let mut spark = newest();
    spark.node.channels.clear();
    assert_eq!(Spark::reason(spark.recover(&kit(0))), Some(Reason::ChannelUnknown));
}

#[test]
fn recovery_is_asked_of_the_policy_and_signed_where_it_permits() {
    let desk = |rules: &str| desk("version = 1\n", rules);
    const ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";
    for action in ["ForceClose", "Sweep"] {
        let rules = format!("{ALL}@id(\"no\") forbid (principal, action == Action::\"{action}\", resource);");
        let mut spark = account(0, desk(&rules), &[owner()]);
        assert_eq!(Spark::reason(spark.recover(&kit(0))), Some(Reason::PolicyForbidden), "{action}");
    }
    assert!(account(0, desk(ALL), &[owner()]).recover(&kit(1)).is_ok());
}
