//! What spends a funding output: commitments of both sides and mutual closes.

use super::*;

#[test]
fn the_counterpartys_commitments_are_signed_in_their_order() {
    let mut spark = Spark::opened(400_000);
    for (number, reason) in
        [(2, Some(Reason::CommitmentOrder)), (1, None), (0, Some(Reason::CommitmentOrder)), (2, None)]
    {
        let tx = spark.commitment(number, 400_000 - number, &[]);
        assert_eq!(Spark::reason(spark.sign_commitment(&tx)), reason, "{number}");
        spark = spark.restarted();
    }
    let tx = spark.commitment(2, 400_000 - 2, &[]);
    let job = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    let reply = spark.sign(std::slice::from_ref(&job)).expect("again");
    Spark::require_good(&reply, &job, &spark.key(ChannelKey::Funding));
}

#[test]
fn what_a_commitment_takes_from_us_is_a_payment_within_the_limits() {
    let mut spark = Spark::opened(900_000);
    let limit_sat = LimitsConfig::default().max_payment_msat / 1_000;
    let tx = spark.commitment(1, 900_000 - limit_sat - 1, &[]);
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::Limit));
    let tx = spark.commitment(1, 900_000 - limit_sat, &[]);
    spark.sign_commitment(&tx).expect("within the limit");
    let paid = spark.entries.get(limits::KEY).cloned();
    spark.sign_commitment(&tx).expect("the same again");
    assert_eq!(spark.entries.get(limits::KEY).cloned(), paid, "it is charged once");
    let tx = spark.commitment(2, 950_000 - limit_sat, &[]);
    spark.sign_commitment(&tx).expect("what comes in costs nothing");
}

#[test]
fn another_coin_than_the_channels_is_not_signed() {
    let mut spark = Spark::opened(400_000);
    let good = spark.commitment(1, 400_000, &[]);
    let mut other = good.clone();
    other.input[0].previous_output = coin(2);
    assert_eq!(Spark::reason(spark.sign_commitment(&other)), Some(Reason::TransactionUnknown));
    let script = make_funding_redeemscript(&spark.key(ChannelKey::Funding), &peer(8));
    let job = spark.job("c", "m/3/5/0", &good, &script, CAPACITY_SAT);
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::TransactionUnknown));
    let script = make_funding_redeemscript(&peer(8), &peer(7));
    let job = spark.job("c", "m/3/5/0", &good, &script, CAPACITY_SAT);
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::KeyPurpose));
    spark.sign_commitment(&good).expect("the channel's coin");
}

#[test]
fn a_commitment_that_was_signed_to_close_is_never_revoked_and_a_revoked_one_never_signed() {
    let mut spark = Spark::opened(400_000);
    spark.point(MAX_INDEX - 2).expect("a point");
    spark.release(MAX_INDEX).expect("0 is revoked");
    let revoked = spark.holder_commitment(0);
    assert_eq!(Spark::reason(spark.sign_commitment(&revoked)), Some(Reason::CommitmentRevoked));
    let future = spark.holder_commitment(3);
    assert_eq!(Spark::reason(spark.sign_commitment(&future)), Some(Reason::CommitmentOrder));
    let newest = spark.holder_commitment(1);
    spark.sign_commitment(&newest).expect("it closes the channel");
    let mut spark = spark.restarted();
    assert_eq!(Spark::reason(spark.release(MAX_INDEX - 1)), Some(Reason::RevokeAfterClose));
    let tx = spark.commitment(1, 400_000, &[]);
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::UpdateAfterClose));
    spark.release(MAX_INDEX).expect("what left may leave again");
    spark.sign_commitment(&newest).expect("again");

    // The twin that is not closed goes on.
    let mut open = Spark::opened(400_000);
    open.point(MAX_INDEX - 2).expect("a point");
    open.release(MAX_INDEX).expect("0 is revoked");
    open.release(MAX_INDEX - 1).expect("1 is revoked");
    let tx = open.commitment(1, 400_000, &[]);
    open.sign_commitment(&tx).expect("the next one");
}

#[test]
fn a_mutual_close_pays_us_what_the_last_commitment_did() {
    let closing = |ours_sat: u64, to: ScriptBuf| {
        let theirs = output(CAPACITY_SAT - FEE_SAT - ours_sat, p2wpkh(&peer(4)));
        transaction(coin(1), vec![theirs, output(ours_sat, to)])
    };
    let mut spark = Spark::opened(400_000);
    let (ours, fee_sat) = (spark.address(KeyPath::Closing(77)), LimitsConfig::default().max_onchain_fee_sat);
    let tx = closing(400_000 - fee_sat - 1, ours.clone());
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::CloseValue));
    let tx = closing(400_000, p2wpkh(&peer(5)));
    assert_eq!(Spark::reason(spark.sign_commitment(&tx)), Some(Reason::TransactionUnknown));
    let tx = closing(400_000 - FEE_SAT, ours);
    spark.sign_commitment(&tx).expect("a fair close");
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::RevokeAfterClose));
}
