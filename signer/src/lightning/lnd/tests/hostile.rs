//! A node that lies from one question to the next, and its honest twins.

use super::*;
use crate::lightning::lnd::scripts::Htlc;
use crate::lightning::lnd::sign_psbt::MAX_DUST_SAT;

fn thief() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros())
}

/// A sweep of what two channels pay us: what lnd asks for input `at` and says that the inputs hold.
fn sweep(lnd: &Lnd, said: [u64; 2], at: usize, pays_sat: u64) -> Psbt {
    let spends = [1u8, 2].map(|byte| (OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 1 }, 1));
    let outputs = vec![out(pays_sat, lnd.address(9))];
    let mut psbt = Psbt::from_unsigned_tx(tx(spends.to_vec(), 0, outputs)).expect("unsigned");
    for (n, sat) in said.into_iter().enumerate() {
        let key = lnd.key(Family::PaymentBase, n as u32);
        let script = to_remote(&key);
        if n == at {
            channel_input(&mut psbt, n, sat, &script, (Family::PaymentBase, n as u32, key), EcdsaSighashType::All);
        } else {
            psbt.inputs[n].witness_utxo = Some(out(sat, script.to_p2wsh()));
        }
    }
    psbt
}

#[test]
fn hostile_amounts_of_a_sweep_are_found_out_across_questions_and_restarts() {
    let honest = |at| move |lnd: &Lnd| sweep(lnd, [200_000, 5_000_000], at, 5_199_000);
    let mut lnd = Lnd::new();
    for at in [0, 1] {
        let psbt = honest(at)(&lnd);
        assert_eq!(lnd.class(&psbt), Ok("to-remote-sweep".to_owned()));
        assert!(lnd.class(&psbt).is_ok(), "asked again");
        lnd = lnd.restarted();
    }
    // Each question makes the other input small, so that nothing seems burnt.
    let mut lnd = Lnd::new();
    let lie = |lnd: &Lnd, said, at| sweep(lnd, said, at, 199_000);
    let first = lie(&lnd, [200_000, 1_000], 0);
    assert!(lnd.class(&first).is_ok(), "one signature spends nothing");
    lnd = lnd.restarted();
    let truth = lie(&lnd, [200_000, 5_000_000], 1);
    assert_eq!(lnd.class(&truth), Err(Reason::CoinAmount), "the second input was said to be small");
    let both = lie(&lnd, [1, 1_000], 1);
    assert_eq!(lnd.class(&both), Err(Reason::CoinAmount));
    let burns = sweep(&Lnd::new(), [200_000, 5_000_000], 0, 199_000);
    assert_eq!(Lnd::new().class(&burns), Err(Reason::SweepFee));
}

#[test]
fn hostile_claims_of_what_belongs_to_others_do_not_pay_a_thief_from_the_wallet() {
    let coins = [(0, 10_000), (1, 5_000_000)];
    let steal = |lnd: &Lnd, at| lnd.spend(&coins, &[10_000, 5_000_000], at, vec![out(5_009_000, thief())]);
    let mut lnd = Lnd::new();
    // The large coin passes for somebody else's contribution while the small one is signed.
    let mut first = steal(&lnd, 0);
    first.inputs[1].witness_utxo = Some(out(5_000_000, peer_script()));
    assert!(lnd.class(&first).is_ok(), "it costs the wallet 9,000 sat");
    let last = steal(&lnd, 1);
    assert_eq!(lnd.class(&last), Err(Reason::CoinAmount));
    lnd = lnd.restarted();
    assert_eq!(lnd.class(&last), Err(Reason::CoinAmount));
    let fresh = |at| Lnd::new().class(&steal(&Lnd::new(), at));
    assert_eq!((fresh(0), fresh(1)), (Err(Reason::Limit), Err(Reason::Limit)));
}

#[test]
fn what_is_refused_leaves_nothing_behind_that_a_later_question_could_use() {
    let coins = [(0, 60_000), (1, 60_000)];
    let both = |lnd: &Lnd| {
        let outputs = vec![out(50_000, thief()), out(69_000, lnd.address(5))];
        let mut psbt = lnd.spend(&coins, &[60_000, 60_000], 0, outputs.clone());
        psbt.inputs[1] = lnd.spend(&coins, &[60_000, 60_000], 1, outputs).inputs[1].clone();
        psbt
    };
    let again = |lnd: &mut Lnd| {
        let outputs = vec![out(50_000, thief()), out(9_000, lnd.address(6))];
        let other = lnd.spend(&[(3, 60_000)], &[60_000], 0, outputs);
        lnd.class(&other)
    };
    // Refused for its second input, then asked for the first one alone: it is charged then.
    let mut lnd = Lnd::new();
    let mut refused = both(&lnd);
    refused.inputs[1].non_witness_utxo = None;
    assert_eq!(lnd.class(&refused), Err(Reason::CoinUnproven));
    let alone = lnd.spend(&coins, &[60_000, 60_000], 0, refused.unsigned_tx.output.clone());
    assert!(lnd.class(&alone).is_ok());
    assert_eq!(again(&mut lnd), Err(Reason::Limit), "the day is full");
    // The honest twin asks for both at once and is charged once.
    let mut lnd = Lnd::new();
    let psbt = both(&lnd);
    assert!(lnd.class(&psbt).is_ok());
    assert!(lnd.class(&psbt).is_ok(), "asked again");
    assert_eq!(again(&mut lnd), Err(Reason::Limit), "the day is full");
}

#[test]
fn an_old_commitment_of_ours_is_not_signed_and_one_a_few_updates_behind_is() {
    let last = 1_100;
    let mut lnd = Lnd::with_channel(0, last);
    for number in [0, 1, last - 1_025] {
        let old = lnd.commitment(0, number, None);
        assert_eq!(lnd.class(&old), Err(Reason::CommitmentRevoked), "{number}");
    }
    let ours = lnd.commitment(0, last - 20, None);
    assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
}

#[test]
fn a_channel_in_which_we_own_next_to_nothing_closes_by_force_and_is_swept() {
    // Our commitment may have the number of the counterparty's last one, the next, or the one before.
    for number in [4, 5, 6] {
        let mut lnd = Lnd::with_channel(0, 4);
        let low = lnd.commitment(0, 5, Some(1_000));
        assert!(lnd.class(&low).is_ok());
        assert_eq!(lnd.delayed_sweep(number), Err(Reason::TransactionUnknown), "nothing was signed to close");
        let ours = lnd.commitment(0, number, None);
        assert!(lnd.class(&ours).is_ok(), "{number}");
        lnd = lnd.restarted();
        assert!(lnd.class(&ours).is_ok(), "{number}, asked again");
        assert_eq!(lnd.delayed_sweep(number), Ok("delayed-sweep".to_owned()), "{number}");
        assert_eq!(lnd.delayed_sweep(number - 1), Err(Reason::TransactionUnknown), "{number}");
    }
    // The honest twin: it was the counterparty's, and the channel goes on.
    let mut lnd = Lnd::with_channel(0, 4);
    for (number, ours_sat) in [(5, Some(1_000)), (6, None), (7, None), (8, Some(2_000)), (9, Some(700_000))] {
        let commitment = lnd.commitment(0, number, ours_sat);
        assert_eq!(lnd.class(&commitment), Ok("counterparty-commitment".to_owned()), "{number}");
    }
    assert_eq!(lnd.delayed_sweep(7), Err(Reason::TransactionUnknown));
}

#[test]
fn a_channel_without_an_update_closes_by_force_and_is_swept_and_with_one_it_does_not_by_its_first_commitment() {
    let mut lnd = Lnd::with_channel(0, 0);
    assert_eq!(lnd.delayed_sweep(0), Err(Reason::TransactionUnknown), "nothing was signed to close");
    // When the channel opens, and when it closes.
    let first = lnd.commitment(0, 0, None);
    for _ in 0..2 {
        assert_eq!(lnd.class(&first), Ok("holder-commitment".to_owned()));
        lnd = lnd.restarted();
    }
    assert_eq!(lnd.delayed_sweep(0), Ok("delayed-sweep".to_owned()));
    let next = lnd.commitment(0, 1, Some(600_000));
    assert!(lnd.class(&next).is_ok());
    assert_eq!(lnd.delayed_sweep(0), Err(Reason::TransactionUnknown), "it is old");
}

#[test]
fn a_frozen_or_closing_channel_in_which_we_own_next_to_nothing_still_closes_by_force() {
    for frozen in [true, false] {
        let mut lnd = Lnd::with_channel(0, 4);
        let low = lnd.commitment(0, 5, Some(1_000));
        assert!(lnd.class(&low).is_ok());
        if frozen {
            let given = Given { at_ms: 1, by: "uid 0".to_owned(), why: String::new() };
            lnd.node.order(&Order::Freeze(None), given).expect("ordered");
        } else {
            let outputs = vec![out(998_000, peer_script()), out(1_000, lnd.address(1))];
            let close = lnd.funding_spend(0, 0xffff_ffff, 0, outputs);
            assert!(lnd.class(&close).is_ok());
        }
        let ours = lnd.commitment(0, 5, None);
        assert_eq!(lnd.class(&ours), Ok("holder-commitment".to_owned()));
        let next = lnd.commitment(0, 6, Some(1_000));
        assert!(matches!(lnd.class(&next), Err(Reason::UpdateAfterClose)));
    }
}

#[test]
fn hostile_second_levels_of_the_counterparty_are_not_signed_and_bolt_3s_are() {
    let mut lnd = Lnd::new();
    let basepoint = lnd.key(Family::HtlcBase, 0);
    let scalar = Scalar::from_be_bytes([9; 32]).expect("a scalar");
    let ours = basepoint.add_exp_tweak(&Secp256k1::new(), &scalar).expect("a key");
    let mut ask = |owner: PublicKey, received_until, lock_time, sequence, sighash, pays: ScriptBuf| {
        let htlc = Htlc {
            revocation_hash: [1; 20],
            owner: owner.serialize(),
            other: ours.serialize(),
            payment_hash160: [5; 20],
            received_until,
            anchors: true,
        };
        let spends = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
        let unsigned = tx(vec![(spends, sequence)], lock_time, vec![out(100_000, pays)]);
        let mut psbt = Psbt::from_unsigned_tx(unsigned).expect("unsigned");
        channel_input(&mut psbt, 0, 100_000, &htlc.script(), (Family::HtlcBase, 0, basepoint), sighash);
        tweaked(&mut psbt, 0x51, [9; 32]);
        lnd.class(&psbt)
    };
    let one = EcdsaSighashType::SinglePlusAnyoneCanPay;
    for (received_until, lock_time) in [(Some(700), 0), (None, 700)] {
        let signed = ask(peer_key(3), received_until, lock_time, 1, one, peer_script());
        assert_eq!(signed, Ok("counterparty-htlc".to_owned()));
        // A success has no lock time and a timeout has one; both pay a script, one block later.
        let swapped = if lock_time == 0 { 700 } else { 0 };
        let refused = Err(Reason::TransactionUnknown);
        assert_eq!(ask(peer_key(3), received_until, swapped, 1, one, peer_script()), refused);
        assert_eq!(ask(peer_key(3), received_until, lock_time, 0, one, peer_script()), refused);
        assert_eq!(ask(peer_key(3), received_until, lock_time, 1, one, thief()), refused);
        assert_eq!(ask(ours, received_until, lock_time, 1, one, peer_script()), refused, "both keys are ours");
        let all = ask(peer_key(3), received_until, lock_time, 1, EcdsaSighashType::All, thief());
        assert_eq!(all, Err(Reason::OutputForeign), "a claim pays ourselves");
    }
}

#[test]
fn a_commitment_that_burns_the_channel_is_not_signed_and_one_with_a_high_fee_is() {
    let mut lnd = Lnd::with_channel(0, 1);
    let limit_sat = settings().limits.max_onchain_fee_sat + MAX_DUST_SAT;
    for (burnt_sat, expected) in [(limit_sat + 1, Err(Reason::CommitmentFee)), (limit_sat, Ok(()))] {
        for ours_sat in [Some(1_000), None] {
            let mut psbt = lnd.commitment(0, 2, ours_sat);
            let theirs_sat = CAPACITY_SAT - burnt_sat - ours_sat.unwrap_or_default();
            psbt.unsigned_tx.output[0].value = Amount::from_sat(theirs_sat);
            assert_eq!(lnd.class(&psbt).map(drop), expected, "{burnt_sat}");
        }
    }
}
