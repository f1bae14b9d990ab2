//! What nobody may ask, and whose entries these are.

use super::*;

#[test]
fn what_is_blind_is_refused() {
    let mut spark = Spark::new();
    let ecdh = spark.ask(Method::Ecdh, json!({ "peer_public_key": peer(4).to_string() }));
    assert_eq!(Spark::reason(ecdh), Some(Reason::SecretPurpose));
    let invoice = spark.ask(Method::SignInvoice, json!({ "invoice_id": "1", "payreq_hash": "11".repeat(32) }));
    assert_eq!(Spark::reason(invoice), Some(Reason::BlindDigest));
    // As one of the JavaScript SDK's tests has a job: a path and a digest. The twin shows what is signed.
    let message = "476bdd1db5d91897d00d75300eef50c0da7e0b2dada06dde93cbb5903b7e16b2";
    let blind = json!({ "id": "payload-1", "derivation_path": "m/3/5/0", "message": message, "is_raw": true });
    assert_eq!(Spark::reason(spark.sign(&[blind])), Some(Reason::BlindDigest));
    let mut spark = Spark::opened(400_000);
    let tx = spark.commitment(1, 400_000, &[]);
    let job = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    for field in ["script", "transaction"] {
        let mut job = job.clone();
        job[field] = Value::Null;
        assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::BlindDigest), "without its {field}");
    }
    spark.sign(&[job]).expect("all is shown");
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
