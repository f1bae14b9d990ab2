//! Clearances of a screening service: needed where one is configured, each for one payee, amount and time.

use super::operations::invoice;
use super::*;

/// The service's key.
fn service() -> SecretKey {
    peer_secret(8)
}

/// An account whose payments are screened by [`service`].
fn screened() -> Spark {
    let limits = LimitsConfig { screening_key: peer(8).to_string(), ..settings().limits };
    let spark = Spark::new();
    let settings = Settings { limits, ..settings() };
    let node = LightsparkNode::restore(&spec(), &settings, Arc::default(), spark.entries.clone()).expect("restores");
    Spark { node, ..spark }
}

fn text(account: &str, pays: &str, amount_msat: u64, until_ms: u64) -> String {
    let until = until_ms / 1_000;
    format!("claviger clearance 1\nid 7f3a\naccount {account}\npays {pays}\namount_msat {amount_msat}\nuntil {until}\n")
}

fn signed(text: &str, key: &SecretKey) -> Vec<u8> {
    let digest = sha256::Hash::hash(text.as_bytes()).to_byte_array();
    let signature = Secp256k1::new().sign_ecdsa(&Message::from_digest(digest), key);
    [&signature.serialize_compact()[..], text.as_bytes()].concat()
}

#[test]
fn a_payment_is_signed_with_a_clearance_for_it_and_without_one_where_nobody_screens() {
    let mut spark = screened();
    let invoice = invoice(1, 60_000);
    let body = spark.pay(&invoice, Some("a"), 1);
    assert_eq!(Spark::reason(spark.sign_body(&body)), Some(Reason::ClearanceMissing));
    let hash = invoice.parse::<lightning_signer::invoice::bolt11::Bolt11Invoice>().expect("an invoice");
    let pays = format!("payment:{}", hash.payment_hash());
    let soon = spark.node.clock.now_ms() + 3_600_000;
    for (bad, key) in [
        (text("alice", &pays, 60_000, soon), peer_secret(9)),
        (text("bob", &pays, 60_000, soon), service()),
        (text("alice", "payment:00", 60_000, soon), service()),
        (text("alice", &pays, 59_999, soon), service()),
        (text("alice", &pays, 60_000, soon - 3_600_000), service()),
        (text("alice", &pays, 60_000, soon + 24 * 3_600_000), service()),
        (text("alice", &pays, 60_000, soon) + "more\n", service()),
        (text("alice", &pays, 60_000, soon).replace("clearance 1", "clearance 2"), service()),
        (String::new(), service()),
    ] {
        spark.clearance = signed(&bad, &key);
        assert_eq!(Spark::reason(spark.sign_body(&body)), Some(Reason::ClearanceInvalid), "{bad}");
    }
    spark.clearance = vec![1; 63];
    assert_eq!(Spark::reason(spark.sign_body(&body)), Some(Reason::ClearanceInvalid), "too short");
    spark.clearance = vec![1; MAX_CLEARANCE_BYTES + 1];
    assert_eq!(Spark::reason(spark.sign_body(&body)), Some(Reason::Malformed), "too long");
    spark.clearance = signed(&text("alice", &pays, 60_000, soon), &service());
    let first = spark.sign_body(&body).expect("cleared");
    assert_eq!(spark.sign_body(&body), Ok(first), "again");
    let other = spark.withdraw(&operations::exchange(), 30_000, "w");
    assert_eq!(Spark::reason(spark.sign_body(&other)), Some(Reason::ClearanceInvalid), "cleared for another payee");
    let pays = format!("address:{}", operations::exchange());
    spark.clearance = signed(&text("alice", &pays, 30_000_000, soon), &service());
    spark.sign_body(&other).expect("cleared");
    let mut unscreened = Spark::new();
    unscreened.sign_body(&body).expect("nobody screens");
}
