//! Digests, and what spends coins of the L1 wallet.

use super::*;

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
        ("transaction", json!(""), Reason::BlindDigest),
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
