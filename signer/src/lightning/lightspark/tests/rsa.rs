//! Accounts without remote signing: their operations are signed with an RSA key, which came encrypted.

use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::operations::invoice;
use super::*;
use crate::keys::import::{Format, ImportError, import};

/// A key made for this test, which Lightspark's own SDK encrypted with [`PASSWORD`].
const ENCRYPTED: &str = include_str!("osk.json");
const PASSWORD: &str = "1234!@#$";

fn key() -> RsaKey {
    let imported = import(NodeKind::Lightspark, Format::LightsparkOsk, ENCRYPTED.as_bytes(), PASSWORD);
    imported.expect("it opens").operations_key.expect("an RSA key")
}

fn spec_of_key() -> NodeSpec {
    NodeSpec { operations_key: Some(Arc::new(key())), ..spec() }
}

fn account() -> Spark {
    let entries = first_entries(&spec()).into_iter().filter_map(|put| Some((put.key, put.value?)));
    restarted(Spark { entries: entries.collect(), ..Spark::new() })
}

fn restarted(spark: Spark) -> Spark {
    let settings = Settings { desk: spark.desk.clone(), ..settings() };
    let node = LightsparkNode::restore(&spec_of_key(), &settings, Arc::default(), spark.entries.clone());
    Spark { node: node.expect("restores"), ..spark }
}

impl Spark {
    fn sign_rsa(&mut self, body: &str) -> Result<Vec<u8>, Refusal> {
        let message = operation_request(&[], body.as_bytes());
        let row = guard::row(NodeKind::Lightspark, &message).expect("known");
        self.handle(row, message)
    }
}

#[test]
fn an_operation_is_signed_as_the_service_verifies_it_and_the_same_bytes_once() {
    let mut spark = account();
    let invoices = [invoice(1, 60_000), invoice(2, 60_000)];
    let body = spark.pay(&invoices[0], Some("order 7"), 1);
    let first = spark.sign_rsa(&body).expect("permitted");
    // PSS with SHA-256 and a salt as long as that: what ring verifies, and nothing else.
    let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key().public_key().to_vec());
    public.verify(body.as_bytes(), &first).expect("a good signature");
    assert!(public.verify(body.replace("60,", "61,").as_bytes(), &first).is_err(), "of these bytes alone");
    for at in 0..20 {
        if at % 5 == 0 {
            spark = restarted(spark);
        }
        assert_eq!(spark.sign_rsa(&body), Ok(first.clone()));
    }
    let repeat = spark.pay(&invoices[0], Some("order 7"), 2);
    let other = spark.sign_rsa(&repeat).expect("the same operation");
    public.verify(repeat.as_bytes(), &other).expect("a good signature");
    let another = spark.pay(&invoices[1], Some("order 7"), 3);
    assert_eq!(Spark::reason(spark.sign_rsa(&another)), Some(Reason::OperationReused));
}

/// No job moves the money of such an account later: it is charged with the signature.
#[test]
fn what_such_an_account_spends_is_charged_with_its_signature_and_a_repeat_is_not() {
    let mut spark = account();
    let exchange = operations::exchange();
    let calls = [(30_000, "a"), (30_000, "a"), (30_000, "b")].map(|(sat, key)| spark.withdraw(&exchange, sat, key));
    for call in &calls {
        spark.sign_rsa(call).expect("60000 sat within a day");
    }
    let mut spark = restarted(spark);
    let more = spark.withdraw(&exchange, 1, "c");
    assert_eq!(Spark::reason(spark.sign_rsa(&more)), Some(Reason::Limit));
    spark.sign_rsa(&calls[2]).expect("the same again");
    let hour = LimitsConfig::default().max_payment_msat_per_hour / LimitsConfig::default().max_payment_msat;
    let largest = LimitsConfig::default().max_payment_msat - 1_000; // and the routing fee
    for n in 0..hour {
        let pay = spark.pay(&invoice(n + 1, largest), None, n);
        spark.sign_rsa(&pay).expect("within the hour");
    }
    let pay = spark.pay(&invoice(hour + 1, largest), None, 1);
    assert_eq!(Spark::reason(spark.sign_rsa(&pay)), Some(Reason::Limit));
}

#[test]
fn an_account_with_such_a_key_answers_no_webhook() {
    let mut spark = account();
    assert_eq!(Spark::reason(spark.point(MAX_INDEX)), Some(Reason::NotAllowed));
    assert_eq!(
        Spark::reason(spark.ask(Method::InvoiceHash, json!({ "invoice_id": "Invoice:1" }))),
        Some(Reason::NotAllowed)
    );
    assert!(Spark::new().point(MAX_INDEX).is_ok());
}

#[test]
fn a_key_opens_with_its_password_alone_and_shows_nothing_of_itself() {
    let wrong = import(NodeKind::Lightspark, Format::LightsparkOsk, ENCRYPTED.as_bytes(), "1234!@#");
    assert_eq!(wrong.err(), Some(ImportError::NodePassword));
    let other = import(NodeKind::Ldk, Format::LightsparkOsk, ENCRYPTED.as_bytes(), PASSWORD);
    assert_eq!(other.err(), Some(ImportError::OtherKind(Format::LightsparkOsk, NodeKind::Ldk)));
    assert_eq!(format!("{:?}", key()), "RsaKey { .. }");
    assert_eq!(key().bits(), 2_048);
    assert!(RsaKey::from_pkcs8(zeroize::Zeroizing::new(vec![0x30, 0])).is_err());
}
