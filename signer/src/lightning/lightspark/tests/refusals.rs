//! What nobody may ask, and whose entries these are.

use super::*;

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
