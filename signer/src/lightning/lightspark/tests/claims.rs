//! What spends the outputs of commitments, and the tweaks that such keys take.

use super::*;

#[test]
fn an_htlc_is_signed_for_a_commitment_that_has_it() {
    let mut spark = Spark::opened(400_000);
    let base = spark.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::HtlcBase));
    let add = hash_of(&peer(6), &spark.key(ChannelKey::HtlcBase));
    let ours = tweaked(base, None, Some(&add)).expect("a key").public_key(spark.node.keys.secp());
    let htlc = Htlc {
        revocation_hash: [1; 20],
        owner: peer(5).serialize(),
        other: ours.serialize(),
        payment_hash160: [2; 20],
        received_until: Some(800_000),
        anchors: false,
    };
    let script = htlc.script();
    let tx = spark.commitment(1, 350_000, &[output(50_000, script.to_p2wsh())]);
    let outpoint = OutPoint { txid: tx.compute_txid(), vout: 2 };
    let second = transaction(outpoint, vec![output(49_000, delayed_script(&peer(1), 144, &peer(2)).to_p2wsh())]);
    let commitment = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    let job = |spark: &Spark, tx: &Transaction, sat: u64| {
        let mut job = spark.job("h", "m/3/5/4", tx, &script, sat);
        job["add_tweak"] = hex::encode(add).into();
        job
    };
    let alone = job(&spark, &second, 50_000);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&alone))), Some(Reason::HtlcUnknown), "not signed yet");
    let wrong = job(&spark, &second, 50_001);
    assert_eq!(Spark::reason(spark.sign(&[commitment.clone(), wrong])), Some(Reason::HtlcUnknown));
    let mut two = second.clone();
    two.output.push(output(1, p2wpkh(&peer(4))));
    let wrong = job(&spark, &two, 50_000);
    assert_eq!(Spark::reason(spark.sign(&[commitment.clone(), wrong])), Some(Reason::HtlcTransaction));
    let reply = spark.sign(&[commitment, alone.clone()]).expect("both");
    assert_eq!(reply["signatures"].as_array().map(Vec::len), Some(2));
    let mut spark = spark.restarted();
    let reply = spark.sign(std::slice::from_ref(&alone)).expect("the commitment is known");
    Spark::require_good(&reply, &alone, &ours);
}

#[test]
fn our_own_output_is_claimed_for_ourselves_once_its_commitment_was_signed() {
    let mut spark = Spark::opened(400_000);
    let script = delayed_script(&peer(3), 144, &spark.delayed_key(0));
    let claim = |spark: &Spark, to: ScriptBuf, tweak: [u8; 32]| {
        let tx = transaction(coin(3), vec![output(499_000, to)]);
        let mut job = spark.job("d", "m/3/5/3", &tx, &script, 500_000);
        job["add_tweak"] = hex::encode(tweak).into();
        job
    };
    let (ours, tweak) = (spark.address(KeyPath::Closing(77)), spark.delayed_tweak(0));
    let job = claim(&spark, ours.clone(), tweak);
    assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(&job))), Some(Reason::TweakUnproven), "nothing closed");
    let closing = spark.holder_commitment(0);
    spark.sign_commitment(&closing).expect("it closes the channel");
    let theft = claim(&spark, p2wpkh(&peer(4)), tweak);
    assert_eq!(Spark::reason(spark.sign(&[theft])), Some(Reason::OutputForeign));
    let other = claim(&spark, ours, spark.delayed_tweak(1));
    assert_eq!(Spark::reason(spark.sign(&[other])), Some(Reason::KeyPurpose), "the script names another key");
    let reply = spark.sign(std::slice::from_ref(&job)).expect("ours");
    Spark::require_good(&reply, &job, &spark.delayed_key(0));
}

#[test]
fn a_key_is_multiplied_for_a_punishment_by_a_revealed_secret_alone() {
    let mut spark = Spark::opened(400_000);
    let seed = [9; 32];
    let (secret, unrevealed) =
        (build_commitment_secret(&seed, MAX_INDEX), build_commitment_secret(&seed, MAX_INDEX - 1));
    let reveal = |spark: &mut Spark, index: u64, secret: &[u8; 32]| {
        let secret = hex::encode(secret);
        let data = json!({ "per_commitment_secret_idx": index, "per_commitment_secret": secret, "node_id": NODE });
        spark.ask(Method::RevealSecret, data)
    };
    assert_eq!(Spark::reason(reveal(&mut spark, MAX_INDEX - 1, &secret)), Some(Reason::SecretOrder));
    assert_eq!(reveal(&mut spark, MAX_INDEX, &secret), Ok(Value::Null));
    assert_eq!(reveal(&mut spark, MAX_INDEX, &secret), Ok(Value::Null), "again");
    assert_eq!(Spark::reason(reveal(&mut spark, MAX_INDEX, &unrevealed)), Some(Reason::SecretOrder));
    let mut spark = spark.restarted();
    let base = spark.node.keys.secret(KeyPath::ChannelKey(5, ChannelKey::RevocationBase));
    let punish = |spark: &Spark, tweaks: ([u8; 32], [u8; 32]), to: ScriptBuf| {
        let key = tweaked(base, Some(&tweaks.0), Some(&tweaks.1)).expect("a key").public_key(spark.node.keys.secp());
        let tx = transaction(coin(4), vec![output(99_000, to)]);
        let mut job = spark.job("p", "m/3/5/1", &tx, &delayed_script(&key, 144, &peer(2)), 100_000);
        job["mul_tweak"] = hex::encode(tweaks.0).into();
        job["add_tweak"] = hex::encode(tweaks.1).into();
        (job, key)
    };
    let tweaks = |secret| spark.node.keys.revocation_tweaks(5, secret).expect("tweaks");
    let (good, early, ours) = (tweaks(&secret), tweaks(&unrevealed), spark.address(KeyPath::Closing(77)));
    for forged in [early, (good.0, early.1), (early.0, good.1), ([2; 32], [1; 32])] {
        let (job, _) = punish(&spark, forged, ours.clone());
        assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::TweakUnproven));
    }
    let (job, _) = punish(&spark, good, p2wpkh(&peer(4)));
    assert_eq!(Spark::reason(spark.sign(&[job])), Some(Reason::OutputForeign));
    let (job, key) = punish(&spark, good, ours);
    let reply = spark.sign(std::slice::from_ref(&job)).expect("a punishment");
    Spark::require_good(&reply, &job, &key);
    // BOLT 3: the same key as from the sum of both points.
    let lone = Scalar::from_be_bytes(good.0).expect("a scalar");
    let point = SecretKey::from_slice(&good.1).expect("a key").public_key(spark.node.keys.secp());
    let product = spark.key(ChannelKey::RevocationBase).mul_tweak(spark.node.keys.secp(), &lone).expect("a point");
    assert_eq!(product.combine(&point), Ok(key));
}

/// A signature under a multiplied key is one under the key itself, on another digest.
#[test]
fn no_other_key_is_multiplied_and_no_wallet_key_tweaked() {
    let mut spark = Spark::opened(400_000);
    let tx = spark.commitment(1, 400_000, &[]);
    let good = spark.job("c", "m/3/5/0", &tx, &spark.funding_script(), CAPACITY_SAT);
    for (path, tweak) in
        [("m/3/5/0", "mul_tweak"), ("m/3/5/0", "add_tweak"), ("m/84'/2'/0'/0/1", "mul_tweak"), ("m/3/5/4", "mul_tweak")]
    {
        let mut forged = good.clone();
        forged["derivation_path"] = path.into();
        forged[tweak] = "03".repeat(32).into();
        assert_eq!(Spark::reason(spark.sign(&[forged])), Some(Reason::TweakUnproven), "{path} {tweak}");
    }
    spark.sign(&[good]).expect("without a tweak");
}
