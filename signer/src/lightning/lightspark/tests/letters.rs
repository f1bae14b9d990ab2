//! Letters: what an account that is called back records with each decision.

use super::*;

fn calling_back() -> Spark {
    Spark { calls_back: true, ..Spark::new() }
}

impl Spark {
    /// The letter about the newest event.
    fn letter(&self) -> Option<Letter> {
        let event = format!("{:032x}", self.events);
        letters(&self.entries).find(|(about, _)| *about == event).map(|(_, letter)| letter.expect("readable"))
    }

    /// A job that nobody may have signed.
    fn theft(&self) -> Value {
        let tx = transaction(coin(5), vec![output(999_000, p2wpkh(&peer(5)))]);
        self.job("theft", "m/84'/2'/0'/0/1", &tx, &self.address(KeyPath::Wallet(0, 1)), 1_000_000)
    }
}

#[test]
fn an_answer_is_recorded_with_the_letter_that_tells_it_and_outlives_a_restart() {
    let mut spark = calling_back();
    let reply = spark.point(MAX_INDEX).expect("the first point");
    let letter = spark.letter().expect("a letter");
    assert_eq!((letter.method(), letter.declines), (Some(Method::GetPoint), false));
    assert_eq!(serde_json::from_slice::<Value>(&letter.variables).expect("JSON"), reply);
    // A second time, as long as it is not known to be taken.
    let body = spark.body(
        CHANNEL,
        Method::GetPoint,
        &json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": MAX_INDEX }),
    );
    spark.send(&body).expect("the same point");
    let Put { key, .. } = letter_gone(&format!("{:032x}", spark.events));
    assert!(spark.entries.remove(&key).is_some());
    spark.send(&body).expect("the same event");
    assert!(spark.entries.contains_key(&key));
    let spark = Spark { calls_back: true, ..spark.restarted() };
    assert_eq!(letters(&spark.entries).count(), 2, "they wait for whoever delivers them");
    let mut direct = Spark::new();
    direct.point(MAX_INDEX).expect("the first point");
    assert_eq!(letters(&direct.entries).count(), 0, "it was answered directly");
}

#[test]
fn refused_jobs_leave_a_letter_that_declines_them_and_other_refusals_none() {
    let mut spark = calling_back();
    let theft = spark.theft();
    assert_eq!(Spark::reason(spark.sign(&[theft])), Some(Reason::Limit));
    let letter = spark.letter().expect("a letter");
    assert!(letter.declines);
    assert_eq!(letter.variables, br#"{"payload_ids":["theft"]}"#);
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::ChannelUnknown));
    assert_eq!(spark.letter(), None);
    spark
        .ask(Method::RevealSecret, json!({ "per_commitment_secret_idx": 1, "per_commitment_secret": "11".repeat(32) }))
        .expect_err("of no channel");
    assert_eq!(spark.letter(), None);
}

#[test]
fn hostile_an_event_that_somebody_kept_leaves_no_letter() {
    let mut spark = calling_back();
    let theft = json!({ "signing_jobs": [spark.theft()] });
    let mut old = spark.body(CHANNEL, Method::Sign, &theft);
    old["timestamp"] = time(spark.node.clock.now_ms() - 16 * 60_000).into();
    assert_eq!(Spark::reason(spark.send(&old)), Some(Reason::EventStale));
    assert_eq!(spark.letter(), None);
    let honest = spark.body(CHANNEL, Method::InvoiceHash, &json!({ "invoice_id": "Invoice:1" }));
    spark.send(&honest).expect("answered");
    let known = spark.letter().expect("a letter");
    let mut other = spark.body(CHANNEL, Method::Sign, &theft);
    other["event_id"] = honest["event_id"].clone();
    assert_eq!(Spark::reason(spark.send(&other)), Some(Reason::EventReused));
    spark.events -= 1;
    assert_eq!(spark.letter(), Some(known), "what was decided is told");
}

#[test]
fn an_account_whose_letters_cannot_be_read_does_not_start() {
    let mut spark = calling_back();
    spark.point(MAX_INDEX).expect("the first point");
    let (key, _) = spark.entries.iter().find(|(key, _)| key.starts_with("lightspark/letter/")).expect("a letter");
    let key = key.clone();
    spark.entries.insert(key, vec![0]);
    let restored = LightsparkNode::restore(&spec(), &settings(), Arc::default(), spark.entries);
    assert_eq!(restored.err(), Some(RestoreError::Entries("a letter".to_owned())));
}
