//! Events by themselves: points and secrets, invoices, repeats.

use super::*;

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
    let hashed = sha256::Hash::hash(&preimage);
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
