//! Random honest events and what they are answered, for Lightspark's own signer to answer too: `tests/lightspark/run`.

use std::io::Write;

use fastrand::Rng;

use super::*;

/// Where the events go, one JSON object in a line: `body` as it was sent, and `reply`.
const FILE: &str = "CLAVIGER_LIGHTSPARK_EVENTS";
/// How many channels, each with an event of every kind or more; [`ROUNDS`] without it.
const ROUNDS_FROM: &str = "CLAVIGER_TEST_EVENTS";
const ROUNDS: u64 = 250;

/// What looks random and is the same in every run.
struct Chance(Rng);

impl Chance {
    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        bytes
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    fn coin(&mut self) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array(self.bytes()), vout: self.below(4) as u32 }
    }

    fn key(&mut self) -> PublicKey {
        SecretKey::from_slice(&self.bytes()).expect("a key").public_key(&Secp256k1::new())
    }
}

#[test]
#[ignore = "tests/lightspark/run compares what it writes"]
fn random_events_are_written_with_their_answers() {
    let mut file = std::fs::File::create(std::env::var_os(FILE).expect(FILE)).expect("a file");
    let (mut spark, mut chance) = (Spark::new(), Chance(Rng::with_seed(0)));
    let rounds = std::env::var(ROUNDS_FROM).map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    for _ in 0..rounds {
        let channel = chance.below(1 << 31) as u32;
        let entity = format!("Channel:{channel}");
        let first = chance.below(MAX_INDEX - 1) + 2;
        let at = |index: u64| json!({ "derivation_path": format!("m/3/{channel}"), "per_commitment_point_idx": index });
        let invoice = format!("Invoice:{}", hex::encode(chance.bytes()));
        let mut asked = vec![
            (Method::GetPoint, at(first)),
            (Method::GetPoint, at(first - 1)),
            (Method::Sign, json!({ "signing_jobs": [commitment_job(&spark, channel, &mut chance)] })),
            (Method::ReleaseSecret, at(first)),
            (Method::Sign, json!({ "signing_jobs": [claim_job(&spark, channel, &mut chance)] })),
            (Method::Sign, json!({ "signing_jobs": [wallet_job(&spark, &mut chance)] })),
        ];
        let secret = build_commitment_secret(&chance.bytes(), MAX_INDEX);
        let revealed = json!({ "per_commitment_secret_idx": MAX_INDEX, "per_commitment_secret": hex::encode(secret) });
        asked.push((Method::RevealSecret, revealed));
        let punishment = punishment_job(&spark, channel, &secret, &mut chance);
        asked.push((Method::Sign, json!({ "signing_jobs": [punishment] })));
        let hash = spark.ask(Method::InvoiceHash, json!({ "invoice_id": invoice })).expect("a hash");
        let nonce = &hash["preimage_nonce"];
        asked.push((Method::ReleasePreimage, json!({ "invoice_id": invoice, "preimage_nonce": nonce })));
        for (method, data) in asked {
            let body = spark.body(&entity, method, &data);
            let reply = spark.send(&body).expect("an honest event");
            writeln!(file, "{}", json!({ "body": body.to_string(), "reply": reply })).expect("written");
        }
    }
}

fn commitment_job(spark: &Spark, channel: u32, chance: &mut Chance) -> Value {
    let key = |key| spark.node.keys.public(KeyPath::ChannelKey(channel, key));
    let script = make_funding_redeemscript(&key(ChannelKey::Funding), &chance.key());
    let (ours_sat, theirs_sat) = (chance.below(1 << 32) + 1, chance.below(1 << 32));
    let to_local = delayed_script(&chance.key(), 144, &chance.key()).to_p2wsh();
    let outputs = vec![output(theirs_sat, to_local), output(ours_sat, p2wpkh(&key(ChannelKey::Payment)))];
    let mut tx = commitment(chance.below(1 << 48), outputs);
    tx.input[0].previous_output = chance.coin();
    spark.job("c", &format!("m/3/{channel}/0"), &tx, &script, ours_sat + theirs_sat + chance.below(100_000))
}

fn claim_job(spark: &Spark, channel: u32, chance: &mut Chance) -> Value {
    let script = p2wpkh(&spark.node.keys.public(KeyPath::ChannelKey(channel, ChannelKey::Payment)));
    let amount_sat = chance.below(1 << 32) + 100_000;
    let tx = transaction(chance.coin(), vec![output(amount_sat - 500, spark.address(KeyPath::Closing(77)))]);
    spark.job("r", &format!("m/3/{channel}/2"), &tx, &script, amount_sat)
}

fn punishment_job(spark: &Spark, channel: u32, secret: &[u8; 32], chance: &mut Chance) -> Value {
    let keys = &spark.node.keys;
    let (mul, add) = keys.revocation_tweaks(channel, secret).expect("tweaks");
    let base = keys.secret(KeyPath::ChannelKey(channel, ChannelKey::RevocationBase));
    let key = tweaked(base, Some(&mul), Some(&add)).expect("a key").public_key(keys.secp());
    let amount_sat = chance.below(1 << 32) + 100_000;
    let tx = transaction(chance.coin(), vec![output(amount_sat - 500, spark.address(KeyPath::Closing(77)))]);
    let script = delayed_script(&key, 144, &chance.key());
    let mut job = spark.job("p", &format!("m/3/{channel}/1"), &tx, &script, amount_sat);
    job["mul_tweak"] = hex::encode(mul).into();
    job["add_tweak"] = hex::encode(add).into();
    job
}

fn wallet_job(spark: &Spark, chance: &mut Chance) -> Value {
    let (chain, index) = (chance.below(2) as u32, chance.below(1 << 31) as u32);
    let script = spark.address(KeyPath::Wallet(chain, index));
    let amount_sat = chance.below(1 << 32) + 100_000;
    let tx = transaction(chance.coin(), vec![output(amount_sat - 1, spark.address(KeyPath::Closing(77)))]);
    spark.job("w", &format!("m/84'/2'/0'/{chain}/{index}"), &tx, &script, amount_sat)
}
