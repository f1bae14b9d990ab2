//! What a platform that turned hostile would try first, each beside its honest twin. `docs/lightspark.md` lists all of them.

use bitcoin::Address;
use bitcoin::secp256k1::constants::CURVE_ORDER;

use super::*;
use crate::lightning::orders::{Given, Order};

/// A withdrawal of 20,000 sat; the rest is change.
fn withdrawal(spark: &Spark, id: &str, byte: u8) -> Value {
    let (coin_script, change) = (spark.address(KeyPath::Wallet(0, 1)), spark.address(KeyPath::Wallet(1, 9)));
    let outputs = vec![output(20_000, p2wpkh(&peer(4))), output(979_000, change)];
    let mut job = spark.job(id, "m/84'/2'/0'/0/1", &transaction(coin(byte), outputs), &coin_script, 1_000_000);
    job["destination_derivation_path"] = "m/84'/2'/0'/1/9".into();
    job
}

/// 1 / `number`, by Fermat: to the power of the order less two.
fn inverse(number: &SecretKey) -> SecretKey {
    let mut exponent = CURVE_ORDER;
    exponent[31] -= 2;
    let mut power: Option<SecretKey> = None;
    for bit in (0..256).map(|at| exponent[at / 8] >> (7 - at % 8) & 1 == 1) {
        let times = |power: SecretKey, factor: &SecretKey| power.mul_tweak(&Scalar::from(*factor)).expect("not zero");
        power = power.map(|power| times(power, &power));
        if bit {
            power = Some(power.map_or(*number, |power| times(power, number)));
        }
    }
    power.expect("the exponent is not zero")
}

#[test]
fn hostile_no_signature_on_what_is_allowed_is_turned_into_one_on_a_theft() {
    let mut spark = Spark::new();
    let honest = withdrawal(&spark, "w", 5);
    let bytes = |value: &Value| hex::decode(value.as_str().expect("text")).expect("hex");
    let allowed = SecretKey::from_slice(&bytes(&honest["message"])).expect("a scalar");
    let theft = [0x66; 32];
    let factor = allowed.mul_tweak(&Scalar::from(inverse(&SecretKey::from_slice(&theft).expect("a scalar"))));
    let factor = factor.expect("a scalar");
    // What it would be worth: whoever signs with the multiplied key has signed the theft with the key itself.
    let secp = Secp256k1::new();
    let key = spark.node.keys.secret(KeyPath::Wallet(0, 1));
    let multiplied = tweaked(key, Some(&factor.secret_bytes()), None).expect("a key");
    let signed = secp.sign_ecdsa(&Message::from_digest(allowed.secret_bytes()), &multiplied).serialize_compact();
    let s = SecretKey::from_slice(&signed[32..]).expect("a scalar").mul_tweak(&Scalar::from(inverse(&factor)));
    let mut forged = ecdsa::Signature::from_compact(&[&signed[..32], &s.expect("a scalar").secret_bytes()].concat());
    forged.as_mut().expect("a signature").normalize_s();
    let verified = secp.verify_ecdsa(&Message::from_digest(theft), &forged.expect("one"), &key.public_key(&secp));
    assert_eq!(verified, Ok(()), "the attack is real");
    let mut asked = honest.clone();
    asked["mul_tweak"] = hex::encode(factor.secret_bytes()).into();
    assert_eq!(Spark::reason(spark.sign(&[asked])), Some(Reason::TweakUnproven));
    spark.sign(&[honest]).expect("without a factor");
}

#[test]
fn hostile_no_other_text_of_a_path_leads_to_its_key() {
    let mut spark = Spark::new();
    let honest = withdrawal(&spark, "w", 5);
    for (alias, reason) in [
        ("m/084'/2'/0'/0/1", Reason::PathNotCanonical),
        ("m/+84'/2'/0'/0/1", Reason::PathNotCanonical),
        ("84'/2'/0'/0/1", Reason::PathNotCanonical),
        ("M/84'/2'/0'/0/1", Reason::PathNotCanonical),
        ("m/84h/2'/0'/0/1", Reason::PathNotCanonical),
        ("m/84'/2'/0'/0/1/", Reason::PathNotCanonical),
        ("m/84'/2'/0'/0/1 ", Reason::PathNotCanonical),
        ("m/84'/0'/0'/0/1", Reason::KeyPurpose),
        ("m/84'/2'/0'/2/1", Reason::KeyPurpose),
        ("m", Reason::KeyPurpose),
    ] {
        for field in ["derivation_path", "destination_derivation_path"] {
            let mut asked = honest.clone();
            asked[field] = alias.into();
            assert_eq!(Spark::reason(spark.sign(&[asked])), Some(reason), "{field} {alias}");
        }
    }
    spark.sign(&[honest]).expect("in canonical form");
}

#[test]
fn hostile_a_batch_is_of_one_transaction_and_one_channel() {
    let mut spark = Spark::opened(400_000);
    let (first, second) = (withdrawal(&spark, "a", 5), withdrawal(&spark, "b", 6));
    let commitment = spark.commitment(1, 400_000, &[]);
    let commitment = spark.job("c", "m/3/5/0", &commitment, &spark.funding_script(), CAPACITY_SAT);
    let two = spark.sign(&[first.clone(), second]);
    assert_eq!(Spark::reason(two), Some(Reason::TransactionUnknown), "two withdrawals as one");
    let mixed = spark.sign(&[first.clone(), commitment.clone()]);
    assert_eq!(Spark::reason(mixed), Some(Reason::TransactionUnknown), "a withdrawal beside a commitment");
    spark.sign(&[first]).expect("alone");
    spark.sign(&[commitment]).expect("alone");
}

#[test]
fn hostile_a_signature_covers_the_whole_transaction() {
    let mut spark = Spark::new();
    let honest = withdrawal(&spark, "w", 5);
    let script = spark.address(KeyPath::Wallet(0, 1));
    let tx = hex::decode(honest["transaction"].as_str().expect("text")).expect("hex");
    let tx = transactions::read(&tx).expect("a transaction");
    for kind in [EcdsaSighashType::None, EcdsaSighashType::Single, EcdsaSighashType::AllPlusAnyoneCanPay] {
        let digest = SighashCache::new(&tx).p2wpkh_signature_hash(0, &script, Amount::from_sat(1_000_000), kind);
        let mut asked = honest.clone();
        asked["message"] = hex::encode(digest.expect("a digest").to_byte_array()).into();
        assert_eq!(Spark::reason(spark.sign(&[asked])), Some(Reason::DigestMismatch), "{kind}");
    }
    spark.sign(&[honest]).expect("all of it");
}

#[test]
fn hostile_what_cannot_be_read_is_not_signed() {
    let mut spark = Spark::new();
    let honest = withdrawal(&spark, "w", 5);
    let transaction = honest["transaction"].as_str().expect("text").to_owned();
    for (field, value, reason) in [
        ("transaction", json!("abcd"), Reason::Malformed),
        ("transaction", json!("70736274ff"), Reason::Malformed),
        ("transaction", json!(format!("{transaction}00")), Reason::Malformed),
        ("transaction", json!("zz"), Reason::Malformed),
        ("amount", json!("1000000"), Reason::Malformed),
        ("amount", Value::Null, Reason::DigestMismatch),
        ("add_tweak", json!("01"), Reason::Malformed),
        ("message", json!("01"), Reason::Malformed),
        ("message", Value::Null, Reason::Malformed),
        ("id", json!(""), Reason::Malformed),
    ] {
        let mut asked = honest.clone();
        asked[field] = value.clone();
        assert_eq!(Spark::reason(spark.sign(&[asked])), Some(reason), "{field} {value}");
    }
    assert_eq!(Spark::reason(spark.sign(&[])), Some(Reason::Malformed), "no job");
    spark.sign(&[honest]).expect("readable");
}

#[test]
fn hostile_a_frozen_account_moves_nothing_and_after_the_thaw_it_does() {
    let mut spark = Spark::opened(400_000);
    let (spend, commitment) = (withdrawal(&spark, "w", 5), spark.commitment(1, 400_000, &[]));
    let elsewhere = Address::from_script(&p2wpkh(&peer(4)), Network::Regtest).expect("an address").to_string();
    let call = spark.withdraw(&elsewhere, 9, "k");
    let given = |at_ms| Given { at_ms, by: "uid 0".to_owned(), why: String::new() };
    spark.node.order(&Order::Freeze(None), given(1)).expect("ordered");
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&spend))), Some(Reason::Frozen));
    assert_eq!(Spark::reason(spark.sign_commitment(&commitment)), Some(Reason::Frozen));
    assert_eq!(Spark::reason(spark.sign_body(&call)), Some(Reason::Frozen));
    spark.node.order(&Order::Thaw(None), given(2)).expect("ordered");
    spark.sign(&[spend]).expect("thawed");
    spark.sign_commitment(&commitment).expect("thawed");
    spark.sign_body(&call).expect("thawed");
}

#[test]
fn hostile_an_old_state_closes_no_channel_and_reveals_no_secret_until_an_operator_says_it_is_the_latest() {
    let mut spark = Spark::opened(400_000);
    let given = |at_ms| Given { at_ms, by: "uid 0".to_owned(), why: String::new() };
    spark.node.order(&Order::Quarantine, given(1)).expect("ordered");
    let closing = spark.holder_commitment(0);
    assert_eq!(Spark::reason(spark.sign_commitment(&closing)), Some(Reason::Quarantined));
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::Quarantined));
    spark.node.order(&Order::Restore, given(2)).expect("ordered");
    spark.sign_commitment(&closing).expect("the latest state");
}
