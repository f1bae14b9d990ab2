//! Commitments, closes, and what a channel leaves.

use super::*;

#[test]
fn a_channel_opens_updates_and_closes_and_every_signature_verifies() {
    let mut lnd = Lnd::with_channel(0, 0);
    // lnd tries whether it can sign its own first commitment.
    let first = lnd.commitment(0, 0, None);
    assert_eq!(lnd.class(&first), Ok("holder-commitment".to_owned()));
    for number in 1..4 {
        let psbt = lnd.commitment(0, number, Some(600_000 - number * 1_000));
        let (signed, class) = lnd.sign(&psbt).expect("honest");
        assert_eq!(class, "counterparty-commitment");
        let key = lnd.key(Family::Multisig, 0);
        let signature = signed.inputs[0].partial_sigs[&key.into()];
        let script = lnd.funding_script(0);
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let amount = Amount::from_sat(CAPACITY_SAT);
        let digest = cache.p2wsh_signature_hash(0, &script, amount, EcdsaSighashType::All).expect("a digest");
        let digest = Digest::from_digest(digest.to_byte_array());
        assert!(lnd.node.keys.secp().verify_ecdsa(&digest, &signature.signature, &key).is_ok());
        assert_eq!(lnd.sign(&psbt).expect("asked again").0, signed, "the same answer (P5)");
        lnd = lnd.restarted();
        assert_eq!(lnd.sign(&psbt).expect("asked again").0, signed);
    }
    let ours = lnd.address(0);
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(402_000, peer_script()), out(597_000, ours)]);
    assert_eq!(lnd.class(&close), Ok("mutual-close".to_owned()));
}

#[test]
fn a_commitment_out_of_order_is_refused_and_the_last_one_passes_again_even_changed() {
    let mut lnd = Lnd::with_channel(0, 5);
    for number in [4, 7, 1 << 40] {
        let psbt = lnd.commitment(0, number, Some(1_000));
        assert_eq!(lnd.class(&psbt), Err(Reason::CommitmentOrder), "{number}");
    }
    // lnd asks for another transaction under the same number after an attempt that failed.
    for (number, sat) in [(5, 500_000), (6, 400_000)] {
        let psbt = lnd.commitment(0, number, Some(sat));
        assert!(lnd.class(&psbt).is_ok(), "{number}");
    }
}

#[test]
fn hostile_channels_that_nobody_opened_are_not_signed_for() {
    let mut lnd = Lnd::new();
    let commitment = lnd.commitment(0, 0, Some(600_000));
    assert_eq!(lnd.class(&commitment), Err(Reason::ChannelUnknown));
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(999_000, lnd.address(0))]);
    assert_eq!(lnd.class(&close), Err(Reason::ChannelUnknown));
    lnd.reserve(0, 1).expect("ours");
    assert!(lnd.class(&commitment).is_ok());
    // A key funds one channel.
    let mut other = commitment.clone();
    other.unsigned_tx.input[0].previous_output.vout = 77;
    assert_eq!(lnd.class(&other), Err(Reason::ChannelUnknown));
    // And a channel has one amount and one counterparty.
    let mut other = lnd.commitment(0, 1, Some(600_000));
    let known = other.inputs[0].witness_utxo.as_mut().expect("there");
    known.value = Amount::from_sat(CAPACITY_SAT + 1);
    assert_eq!(lnd.class(&other), Err(Reason::FundingMismatch));
}

#[test]
fn after_our_commitment_was_signed_to_close_there_is_no_other_state() {
    let mut lnd = Lnd::with_channel(0, 3);
    let ours = lnd.commitment(0, 3, None);
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
    lnd = lnd.restarted();
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()), "the same again");
    for (number, sat) in [(4, Some(600_000)), (2, None), (4, None)] {
        let other = lnd.commitment(0, number, sat);
        assert_eq!(lnd.class(&other), Err(Reason::UpdateAfterClose), "{number}");
    }
}

#[test]
fn a_mutual_close_pays_us_what_we_own_or_is_refused() {
    let close = |outputs: &dyn Fn(&Lnd) -> Vec<TxOut>| {
        let mut lnd = Lnd::with_channel(0, 1);
        let psbt = lnd.funding_spend(0, 0xffff_fffd, 800_000, outputs(&lnd));
        lnd.class(&psbt)
    };
    let foreign = || ScriptBuf::from_bytes(vec![0x52]).to_p2wsh();
    assert!(close(&|lnd| vec![out(399_000, peer_script()), out(600_000, lnd.address(3))]).is_ok());
    assert!(close(&|lnd| vec![out(400_000, peer_script()), out(599_000, lnd.address(3))]).is_ok(), "we pay the fee");
    assert_eq!(close(&|lnd| vec![out(401_000, peer_script()), out(598_000, lnd.address(3))]), Err(Reason::CloseValue));
    assert_eq!(close(&|_| vec![out(399_000, peer_script()), out(600_000, foreign())]), Err(Reason::CloseValue));
    assert_eq!(close(&|_| vec![out(999_000, peer_script())]), Err(Reason::CloseValue));
    let burns = close(&|lnd| vec![out(400_000, peer_script()), out(100_000, lnd.address(3))]);
    assert_eq!(burns, Err(Reason::SweepFee));
}

#[test]
fn hostile_shapes_around_a_funding_key_are_no_class() {
    let mut lnd = Lnd::with_channel(0, 1);
    let honest = lnd.commitment(0, 2, Some(600_000));
    let mut refused = |change: &dyn Fn(&mut Psbt)| {
        let mut psbt = honest.clone();
        change(&mut psbt);
        lnd.class(&psbt).expect_err("refused")
    };
    for sighash in [2u32, 3, 0x81, 0x82, 0x83, 0x84] {
        let kind = bitcoin::psbt::PsbtSighashType::from_u32(sighash);
        assert_eq!(refused(&|psbt| psbt.inputs[0].sighash_type = Some(kind)), Reason::TransactionUnknown);
    }
    assert_eq!(refused(&|psbt| tweaked(psbt, 0x51, [7; 32])), Reason::TransactionUnknown);
    assert_eq!(refused(&|psbt| tweaked(psbt, 0xd0, [7; 32])), Reason::TransactionUnknown);
    let script = || ScriptBuf::from_bytes(vec![0x53]);
    assert_eq!(refused(&|psbt| psbt.inputs[0].witness_script = Some(script())), Reason::TransactionUnknown);
    assert_eq!(refused(&|psbt| psbt.inputs[0].witness_utxo = None), Reason::Malformed);
    let foreign = |psbt: &mut Psbt| psbt.inputs[0].bip32_derivation = [(peer_key(3), Default::default())].into();
    assert_eq!(refused(&foreign), Reason::KeyPurpose);
    let sequence = |psbt: &mut Psbt| psbt.unsigned_tx.input[0].sequence = Sequence(7);
    assert_eq!(refused(&sequence), Reason::TransactionUnknown);
    let more = |psbt: &mut Psbt| psbt.unsigned_tx.output[0].value = Amount::from_sat(CAPACITY_SAT);
    assert_eq!(refused(&more), Reason::TransactionUnknown);
    assert!(lnd.class(&honest).is_ok());
}

#[test]
fn what_a_channel_pays_us_is_swept_to_ourselves_only() {
    let mut lnd = Lnd::new();
    let key = lnd.key(Family::PaymentBase, 4);
    let script = to_remote(&key);
    let sweep = |pays: ScriptBuf, sat: u64| {
        let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 1 };
        let mut psbt = Psbt::from_unsigned_tx(tx(vec![(spends, 1)], 0, vec![out(sat, pays)])).expect("unsigned");
        channel_input(&mut psbt, 0, 200_000, &script, (Family::PaymentBase, 4, key), EcdsaSighashType::All);
        psbt
    };
    assert_eq!(lnd.class(&sweep(peer_script(), 199_000)), Err(Reason::OutputForeign));
    assert_eq!(lnd.class(&sweep(lnd.address(9), 90_000)), Err(Reason::SweepFee));
    assert_eq!(lnd.class(&sweep(lnd.address(9), 199_000)), Ok("to-remote-sweep".to_owned()));
    // The key of one family does not sign for another's script.
    let mut psbt = sweep(lnd.address(9), 199_000);
    psbt.inputs[0].bip32_derivation.clear();
    let delay = lnd.key(Family::DelayBase, 4);
    channel_input(&mut psbt, 0, 200_000, &to_remote(&delay), (Family::DelayBase, 4, delay), EcdsaSighashType::All);
    assert_eq!(lnd.class(&psbt), Err(Reason::TransactionUnknown));
}

#[test]
fn a_delayed_output_is_swept_only_if_its_commitment_was_signed_to_close() {
    let mut lnd = Lnd::with_channel(0, 2);
    assert_eq!(lnd.delayed_sweep(2), Err(Reason::TransactionUnknown));
    let ours = lnd.commitment(0, 2, None);
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
    assert_eq!(lnd.delayed_sweep(1), Err(Reason::TransactionUnknown), "another commitment's");
    assert_eq!(lnd.delayed_sweep(2), Ok("delayed-sweep".to_owned()));
}
