//! What penalties prove of the past.

use lightning::ln::chan_utils::get_revokeable_redeemscript;
use lightning::ln::channel_keys::{DelayedPaymentKey, RevocationKey};

use super::*;
use crate::lightning::lnd::signing::Tweak;

/// What revokes the counterparty's commitment with this number.
fn secret(number: u64) -> SecretKey {
    SecretKey::from_slice(&[10 + number as u8; 32]).expect("a key")
}

impl Lnd {
    /// lnd speaks with a watchtower.
    pub(super) fn with_tower() -> Self {
        let mut lnd = Self::new();
        lnd.share(Family::TowerSession as i32, 0, &peer_key(7)).expect("a session");
        lnd
    }

    /// The counterparty's balance in its commitment with this number: what `secret` and our key of index `base` revoke.
    fn balance(&self, base: u32, secret: &SecretKey) -> ScriptBuf {
        let basepoint = self.key(Family::RevocationBase, base);
        let revocation = Tweak::Double(*secret).public(&self.node.keys, &basepoint).expect("a key");
        get_revokeable_redeemscript(&RevocationKey(revocation), 144, &DelayedPaymentKey(peer_key(5)))
    }

    /// A commitment with this number whose balance for the counterparty is revocable, and an HTLC's output if there is `htlc`.
    pub(super) fn revocable(&self, number: u64, htlc: bool) -> Psbt {
        let mut psbt = self.commitment(0, number, Some(600_000));
        let outputs = &mut psbt.unsigned_tx.output;
        outputs[0].script_pubkey = self.balance(0, &secret(number)).to_p2wsh();
        if htlc {
            outputs[0].value -= Amount::from_sat(20_000);
            outputs.push(out(20_000, received(self, number).script().to_p2wsh()));
            psbt.outputs.push(Default::default());
        }
        psbt
    }

    /// What a watchtower would publish against `state`, whose secret is said to be `secret`.
    fn penalty(&self, state: &Psbt, vout: u32, script: &ScriptBuf, secret: &SecretKey) -> Psbt {
        let txid = state.unsigned_tx.compute_txid();
        let outputs = vec![out(390_000, self.address(1))];
        let mut psbt = Psbt::from_unsigned_tx(tx(vec![(OutPoint { txid, vout }, 0)], 0, outputs)).expect("unsigned");
        let key = (Family::RevocationBase, 0, self.key(Family::RevocationBase, 0));
        channel_input(&mut psbt, 0, 399_000, script, key, EcdsaSighashType::All);
        tweaked(&mut psbt, 0xd0, secret.secret_bytes());
        psbt
    }

    fn unproven(&self) -> Option<u64> {
        self.node.unproven_states()
    }
}

/// An HTLC that we offer in the counterparty's commitment with this number.
fn received(lnd: &Lnd, number: u64) -> scripts::Htlc {
    let tweaked =
        lnd.key(Family::HtlcBase, 0).add_exp_tweak(&Secp256k1::new(), &Scalar::from_be_bytes([9; 32]).expect("one"));
    scripts::Htlc {
        revocation_hash: [number as u8; 20],
        owner: peer_key(3).serialize(),
        other: tweaked.expect("a key").serialize(),
        payment_hash160: [5; 20],
        received_until: Some(HEIGHT + 100),
        anchors: true,
    }
}

/// What lnd asks for such an HTLC: the counterparty's claim of output `vout` of `state`.
pub(super) fn second_level(lnd: &Lnd, state: &Psbt, vout: u32, number: u64, sat: u64) -> Psbt {
    let txid = state.unsigned_tx.compute_txid();
    let unsigned = tx(vec![(OutPoint { txid, vout }, 1)], 0, vec![out(sat, peer_script())]);
    let mut psbt = Psbt::from_unsigned_tx(unsigned).expect("unsigned");
    let key = (Family::HtlcBase, 0, lnd.key(Family::HtlcBase, 0));
    let script = received(lnd, number).script();
    channel_input(&mut psbt, 0, sat, &script, key, EcdsaSighashType::SinglePlusAnyoneCanPay);
    tweaked(&mut psbt, 0x51, [9; 32]);
    psbt
}

#[test]
fn a_state_is_proven_revoked_by_its_penalty_and_counted_until_then() {
    let mut lnd = Lnd::with_tower();
    assert_eq!(lnd.unproven(), Some(0));
    lnd.reserve(0, 1).expect("ours");
    let states: Vec<_> = (0..4).map(|number| lnd.revocable(number, false)).collect();
    for (number, state) in states.iter().enumerate() {
        assert!(lnd.class(state).is_ok());
        assert_eq!(lnd.unproven(), Some(number as u64), "the newest is not of the past");
    }
    // Of the newest there is nothing to prove, whatever is said.
    let newest = lnd.penalty(&states[3], 0, &lnd.balance(0, &secret(3)), &secret(3));
    assert_eq!(lnd.class(&newest), Ok("justice".to_owned()));
    assert_eq!(lnd.unproven(), Some(3));
    lnd = lnd.restarted();
    for (left, number) in [(2, 1u64), (1, 0), (0, 2), (0, 2)] {
        let penalty = lnd.penalty(&states[number as usize], 0, &lnd.balance(0, &secret(number)), &secret(number));
        assert_eq!(lnd.class(&penalty), Ok("justice".to_owned()));
        assert_eq!(lnd.unproven(), Some(left), "asked again, it proves nothing more");
    }
    let kept = lnd.entries.keys().filter(|key| key.starts_with("lnd/state/")).count();
    assert_eq!(kept, 1, "the newest");
    assert_eq!(lnd.restarted().unproven(), Some(0));
}

#[test]
fn hostile_penalties_of_other_scripts_secrets_or_transactions_prove_nothing() {
    let mut lnd = Lnd::with_tower();
    lnd.reserve(0, 1).expect("ours");
    let states: Vec<_> = (0..3).map(|number| lnd.revocable(number, false)).collect();
    for state in &states {
        assert!(lnd.class(state).is_ok());
    }
    let unproven = lnd.unproven();
    assert_eq!(unproven, Some(2));
    // A secret that somebody made up, with a script to fit: it does not stand in the commitment.
    let made_up = SecretKey::from_slice(&[99; 32]).expect("a key");
    let attack = lnd.penalty(&states[0], 0, &lnd.balance(0, &made_up), &made_up);
    assert!(lnd.class(&attack).is_ok(), "signed to our own wallet as any penalty");
    // The true script at another place, or in another transaction.
    let attack = lnd.penalty(&states[0], 1, &lnd.balance(0, &secret(0)), &secret(0));
    assert!(lnd.class(&attack).is_ok());
    let never_signed = lnd.revocable(7, false);
    let attack = lnd.penalty(&never_signed, 0, &lnd.balance(0, &secret(7)), &secret(7));
    assert!(lnd.class(&attack).is_ok());
    assert_eq!(lnd.unproven(), unproven);
    // A wrong secret does not even fit the script.
    let attack = lnd.penalty(&states[0], 0, &lnd.balance(0, &secret(0)), &secret(1));
    assert_eq!(lnd.class(&attack), Err(Reason::TransactionUnknown));
    let honest = lnd.penalty(&states[0], 0, &lnd.balance(0, &secret(0)), &secret(0));
    assert!(lnd.class(&honest).is_ok());
    assert_eq!(lnd.unproven(), Some(1));
}

#[test]
fn a_state_without_a_balance_of_the_counterpartys_needs_no_proof_whichever_request_comes_first() {
    let mut lnd = Lnd::with_tower();
    lnd.reserve(0, 1).expect("ours");
    let only_htlc = |lnd: &Lnd, number| {
        let mut psbt = lnd.revocable(number, true);
        psbt.unsigned_tx.output.remove(0);
        psbt.outputs.pop();
        psbt
    };
    for number in 0..4 {
        let state = only_htlc(&lnd, number);
        let htlc = second_level(&lnd, &state, 1, number, 20_000);
        let questions = if number % 2 == 0 { [&state, &htlc] } else { [&htlc, &state] };
        for question in questions {
            assert!(lnd.class(question).is_ok(), "{number}");
        }
        assert_eq!(lnd.unproven(), Some(0), "{number}");
    }
    // What was not asked for as an HTLC may be a balance.
    let states = [lnd.revocable(4, true), lnd.revocable(5, false)];
    for state in &states {
        assert!(lnd.class(state).is_ok());
    }
    assert_eq!(lnd.unproven(), Some(1));
}

#[test]
fn a_penalty_and_an_anchors_spend_pay_ourselves_and_no_thief() {
    let mut lnd = Lnd::new();
    let thief = || ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros());
    let state = lnd.revocable(0, false);
    let honest = lnd.penalty(&state, 0, &lnd.balance(0, &secret(0)), &secret(0));
    let mut attack = honest.clone();
    attack.unsigned_tx.output[0].script_pubkey = thief();
    assert_eq!(lnd.class(&attack), Err(Reason::OutputForeign));
    assert_eq!(lnd.class(&honest), Ok("justice".to_owned()));

    let key = lnd.key(Family::Multisig, 0);
    let script = lightning::ln::chan_utils::get_keyed_anchor_redeemscript(&key);
    let spends = |pays| {
        let anchor = OutPoint { txid: state.unsigned_tx.compute_txid(), vout: 2 };
        let unsigned = tx(vec![(anchor, 0)], 0, vec![out(200, pays)]);
        let mut psbt = Psbt::from_unsigned_tx(unsigned).expect("unsigned");
        channel_input(&mut psbt, 0, 330, &script, (Family::Multisig, 0, key), EcdsaSighashType::All);
        psbt
    };
    assert_eq!(lnd.class(&spends(thief())), Err(Reason::OutputForeign));
    let honest = spends(lnd.address(4));
    assert_eq!(lnd.class(&honest), Ok("anchor-spend".to_owned()));
}

#[test]
fn hostile_htlcs_do_not_hide_a_balance() {
    for htlc_first in [true, false] {
        let mut lnd = Lnd::with_tower();
        lnd.reserve(0, 1).expect("ours");
        let state = lnd.revocable(0, false);
        // An HTLC that the commitment does not have, where the balance stands.
        let attack = second_level(&lnd, &state, 0, 0, 20_000);
        let questions = if htlc_first { [&attack, &state] } else { [&state, &attack] };
        for question in questions {
            assert!(lnd.class(question).is_ok());
        }
        let next = lnd.revocable(1, false);
        assert!(lnd.class(&next).is_ok());
        assert_eq!(lnd.unproven(), Some(1), "{htlc_first}");
        assert!(lnd.class(&attack).is_ok());
        let honest = lnd.penalty(&state, 0, &lnd.balance(0, &secret(0)), &secret(0));
        assert!(lnd.class(&honest).is_ok());
        assert_eq!(lnd.unproven(), Some(0));
    }
}

#[test]
fn without_a_tower_nobody_keeps_count_and_from_the_first_talk_on_somebody_does() {
    let mut lnd = Lnd::new();
    lnd.reserve(0, 1).expect("ours");
    for number in 0..3 {
        let state = lnd.revocable(number, false);
        assert!(lnd.class(&state).is_ok());
    }
    assert_eq!(lnd.unproven(), None);
    lnd.share(Family::TowerSession as i32, 0, &peer_key(7)).expect("a session");
    for number in 3..5 {
        let state = lnd.revocable(number, false);
        assert!(lnd.class(&state).is_ok());
    }
    // Of states before it, lnd asks for no penalties.
    assert_eq!(lnd.unproven(), Some(1));
    assert_eq!(lnd.restarted().unproven(), Some(1));
}
