//! Channels in Core Lightning's own messages: real commitments in PSBTs, honest ones and what a hostile node makes of them.

use bitcoin::bip32::ChildNumber;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf, WScriptHash};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use super::book::{OURS_SAT, Stage, incoming, out};
use super::onchain::{taproot, wallet_key};
use super::*;
use crate::lightning::driver::{Asked, Dialect, DriverHtlc, Funder, Holdings};
use crate::reasons::Reason;

const CHANNEL_SAT: u64 = 10_000_000;

fn stage() -> Stage {
    Stage::of(Dialect::Cln)
}

impl Stage {
    fn channel(&self) -> ChannelRef {
        self.channels[0].channel()
    }

    /// The reason of a refusal.
    fn ask_reason(&self, channel: Option<ChannelRef>, message: &dyn SerBolt) -> Option<Reason> {
        match self.signer.ask(&self.alice, channel, message.as_vec()) {
            Outcome::Reply(_) => None,
            Outcome::Refused { refusal, .. } => Some(refusal.reason),
        }
    }

    /// The two messages that carry the next commitments of the first channel, as an honest node would send them. Nobody
    /// asks the signer.
    fn next(&self, to_us_sat: u64, htlcs: &[DriverHtlc]) -> (msgs::SignRemoteCommitmentTx, msgs::ValidateCommitmentTx) {
        let mut asked: Vec<Asked> = Vec::new();
        let mut ask = |channel: Option<ChannelRef>, message: Vec<u8>| {
            asked.push((channel, message));
            Outcome::Reply(Vec::new())
        };
        let holdings = Holdings { to_us_sat, htlcs: htlcs.to_vec() };
        assert!(self.channels[0].sign_next(&mut ask, &holdings).is_err(), "the reply is empty");
        assert!(self.channels[0].validate_next(&mut ask, &holdings).is_err(), "the reply is empty");
        let sign = msgs::SignRemoteCommitmentTx::from_vec(asked[0].1.clone()).expect("the first");
        (sign, msgs::ValidateCommitmentTx::from_vec(asked[1].1.clone()).expect("the second"))
    }

    /// SignMutualCloseTx: `to_us_sat` to the own wallet, the peer's whole balance to the peer.
    fn close(&self, n: usize, to_us_sat: u64) -> msgs::SignMutualCloseTx {
        let key = wallet_key(&self.signer, &self.alice, 5);
        let driver = &self.channels[n];
        let theirs = ScriptBuf::new_p2wsh(&WScriptHash::all_zeros());
        let mut close = driver.mutual_close(to_us_sat, driver.to_peer_sat(), taproot(key), theirs);
        to_wallet(&mut close, key);
        close
    }
}

/// Says where in the wallet the output to `key` is.
fn to_wallet(close: &mut msgs::SignMutualCloseTx, key: PublicKey) {
    let path = vec![ChildNumber::from_normal_idx(5).expect("an index")].into();
    for (output, txout) in close.psbt.0.inner.outputs.iter_mut().zip(&close.tx.0.output) {
        if txout.script_pubkey == taproot(key) {
            let (xonly, _) = key.x_only_public_key();
            output.tap_key_origins.insert(xonly, (Vec::new(), (Default::default(), path)));
            return;
        }
    }
    panic!("no output pays the wallet");
}

#[test]
fn honest_channel_pays_both_ways_forwards_changes_its_fee_and_closes() {
    let mut stage = stage();
    stage.advance(0, OURS_SAT, &[]).expect("an empty update");
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600), incoming(2, 30_000, 600)]).expect("two come");
    stage.advance(0, OURS_SAT + 20_000, &[incoming(2, 30_000, 600)]).expect("one is ours");
    stage.restart();
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("the other fails");

    stage.approve(3, 100_000);
    stage.advance(0, OURS_SAT - 81_000, &[out(3, 101_000, 500)]).expect("a payment leaves, with its fee");
    stage.advance(0, OURS_SAT - 81_000, &[]).expect("it arrived");
    stage.approve(4, 50_000);
    stage.advance(0, OURS_SAT - 131_000, &[out(4, 50_000, 500)]).expect("another leaves");
    stage.channels[0].set_feerate(2_500);
    stage.advance(0, OURS_SAT - 131_000, &[out(4, 50_000, 500)]).expect("the feerate rises");
    stage.advance(0, OURS_SAT - 81_000, &[]).expect("the payment failed");

    stage.advance(0, OURS_SAT - 81_000, &[incoming(5, 200_000, 600)]).expect("a forward comes");
    stage.advance(1, OURS_SAT - 199_000, &[out(5, 199_000, 500)]).expect("and leaves");
    stage.restart();
    stage.advance(1, OURS_SAT - 199_000, &[]).expect("it was paid");
    stage.advance(0, OURS_SAT + 119_000, &[]).expect("and claimed");

    assert_eq!(stage.ask_reason(Some(stage.channel()), &stage.close(0, OURS_SAT + 119_000)), None);
    assert_eq!(stage.advance(0, OURS_SAT + 119_000, &[]), Err(Reason::UpdateAfterClose));
    stage.advance(1, OURS_SAT - 199_000, &[]).expect("the other goes on");
}

#[test]
fn honest_channel_that_we_fund_pays_its_fee_and_no_hostile_one_more() {
    let mut stage = stage();
    let n = stage.open(Funder::Us);
    let ours = |stage: &Stage, sat: u64, htlcs: usize| sat - stage.channels[n].cost_sat(htlcs);
    stage.approve(1, 1_000_000);
    let left = CHANNEL_SAT - 1_000_000;
    stage.advance(n, ours(&stage, left, 1), &[out(1, 1_000_000, 500)]).expect("a payment leaves");
    stage.channels[n].set_feerate(5_000);
    stage.advance(n, ours(&stage, left, 1), &[out(1, 1_000_000, 500)]).expect("the feerate rises");
    assert_eq!(stage.refused(n, ours(&stage, left, 0) - 1, &[]), Reason::ValueNotConserved);
    stage.advance(n, ours(&stage, left, 0), &[]).expect("it arrived");
    stage.channels[n].set_feerate(253);
    stage.advance(n, ours(&stage, left, 0), &[]).expect("the feerate falls");
    stage.advance(n, ours(&stage, left, 1), &[incoming(2, 300_000, 600)]).expect("a payment comes");
    stage.advance(n, ours(&stage, left + 300_000, 0), &[]).expect("it is ours");
}

#[test]
fn hostile_shift_of_the_balance_is_refused_and_the_honest_channel_goes_on() {
    let mut stage = stage();
    for sat in [1, 1_000, OURS_SAT * 9 / 10] {
        assert_eq!(stage.refused(0, OURS_SAT - sat, &[]), Reason::ValueNotConserved);
    }
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600)]).expect("an HTLC comes");
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("it is ours");
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ValueNotConserved);
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("an empty update");
}

#[test]
fn hostile_payment_without_approval_or_beyond_it_is_refused_and_the_honest_one_leaves() {
    let mut stage = stage();
    assert_eq!(stage.refused(0, OURS_SAT - 100_000, &[out(1, 100_000, 500)]), Reason::PaymentNotApproved);
    stage.approve(1, 100_000);
    assert_eq!(stage.refused(0, OURS_SAT - 120_000, &[out(1, 120_000, 500)]), Reason::PaymentExceeded);
    stage.advance(0, OURS_SAT - 100_000, &[out(1, 100_000, 500)]).expect("approved");
    stage.advance(0, OURS_SAT - 100_000, &[]).expect("it arrived");
    stage.restart();
    assert_eq!(stage.refused(1, OURS_SAT - 100_000, &[out(1, 100_000, 500)]), Reason::PaymentExceeded);
}

#[test]
fn hostile_forward_of_more_than_comes_in_or_given_up_is_refused_and_the_honest_one_is_claimed() {
    let mut stage = stage();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 600)]).expect("it comes");
    assert_eq!(stage.refused(1, OURS_SAT - 3_000_000, &[out(1, 3_000_000, 500)]), Reason::ForwardNotCovered);
    assert_eq!(stage.refused(1, OURS_SAT - 99_000, &[out(1, 99_000, 597)]), Reason::ForwardCltv);
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 500)]).expect("it leaves");
    stage.advance(1, OURS_SAT - 99_000, &[]).expect("it was paid");
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.advance(0, OURS_SAT + 100_000, &[]).expect("claimed");
}

#[test]
fn hostile_close_with_a_revoked_commitment_or_revocation_of_a_signed_one_is_refused_and_the_honest_close_answered() {
    let mut stage = stage();
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600)]).expect("advances");
    let old = stage.channels[0].force_close();
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("advances");
    assert_eq!(stage.ask_reason(None, &old), Some(Reason::CommitmentRevoked));

    let Stage { signer, alice, channels, .. } = &stage;
    let holdings = Holdings { to_us_sat: OURS_SAT + 20_000, htlcs: Vec::new() };
    channels[0].validate_next(&mut signer.asking(alice), &holdings).expect("the next is validated");
    assert_eq!(stage.ask_reason(None, &channels[0].force_close()), None);
    let commitment_number = channels[0].number();
    let revoke = msgs::RevokeCommitmentTx { commitment_number };
    assert_eq!(stage.ask_reason(Some(stage.channel()), &revoke), Some(Reason::RevokeAfterClose));
    stage.restart();
    assert_eq!(stage.ask_reason(Some(stage.channel()), &revoke), Some(Reason::RevokeAfterClose));
    let told_before = msgs::RevokeCommitmentTx { commitment_number: commitment_number - 1 };
    assert_eq!(stage.ask_reason(Some(stage.channel()), &told_before), None);
}

#[test]
fn hostile_commitment_that_differs_from_its_description_is_refused_and_the_honest_one_signed() {
    let stage = stage();
    let htlcs = [incoming(1, 20_000, 600), incoming(2, 30_000, 600)];
    let ask = |message: &dyn SerBolt| stage.ask_reason(Some(stage.channel()), message);
    type Change = (&'static str, fn(&mut msgs::SignRemoteCommitmentTx), Reason);
    let changes: [Change; 8] = [
        ("an HTLC less is told", |m| m.htlcs = m.htlcs.to_vec().split_off(1).into(), Reason::Validation),
        (
            "an HTLC more is told",
            |m| m.htlcs = [m.htlcs.to_vec(), m.htlcs.to_vec()].concat().into(),
            Reason::ValueNotConserved,
        ),
        ("another amount is told", |m| m.htlcs = told(m, |h| h.amount += 1_000), Reason::ValueNotConserved),
        ("another hash is told", |m| m.htlcs = told(m, |h| h.payment_hash.0[0] ^= 1), Reason::Validation),
        ("an output has no script", |m| m.psbt.0.inner.outputs[2].witness_script = None, Reason::ValueNotConserved),
        ("an output has less", |m| m.tx.0.output[2].value -= Amount::from_sat(1), Reason::Validation),
        ("an output is missing", |m| drop(m.tx.0.output.pop()), Reason::Malformed),
        ("the input is another", |m| m.tx.0.input[0].previous_output.vout = 1, Reason::Validation),
    ];
    for (what, change, expected) in changes {
        let (mut sign, _) = stage.next(OURS_SAT, &htlcs);
        change(&mut sign);
        assert_eq!(ask(&sign), Some(expected), "{what}");
    }
    let (sign, validate) = stage.next(OURS_SAT, &htlcs);
    assert_eq!(ask(&sign), None);
    assert_eq!(ask(&validate), None);
}

fn told(
    message: &msgs::SignRemoteCommitmentTx,
    change: fn(&mut vls_protocol::model::Htlc),
) -> vls_protocol::serde_bolt::Array<vls_protocol::model::Htlc> {
    let mut htlcs = message.htlcs.to_vec();
    change(&mut htlcs[0]);
    htlcs.into()
}

/// vls reckons with commitments that fit.
#[test]
fn hostile_commitments_beyond_their_channel_are_refused_and_the_node_is_not_shaken() {
    for dialect in [Dialect::Ldk, Dialect::Cln] {
        let mut stage = Stage::of(dialect);
        let n = stage.open(Funder::Us);
        let all = CHANNEL_SAT - stage.channels[n].cost_sat(0);
        for (to_us_sat, htlcs) in [(CHANNEL_SAT + 1, vec![]), (all, vec![incoming(1, 20_000, 600)])] {
            assert_eq!(stage.refused(n, to_us_sat, &htlcs), Reason::ValueNotConserved, "{dialect:?}");
        }
        stage.advance(n, all, &[]).expect("one that fits");
    }
}

#[test]
fn hostile_close_that_pays_a_satoshi_less_is_refused_and_the_honest_one_signed() {
    let mut stage = stage();
    let channel = Some(stage.channel());
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 600)]).expect("an HTLC comes");
    assert_eq!(
        stage.ask_reason(channel, &stage.close(0, OURS_SAT)),
        Some(Reason::Validation),
        "with a payment pending"
    );
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("it is ours");
    assert_eq!(stage.ask_reason(channel, &stage.close(0, OURS_SAT + 19_999)), Some(Reason::CloseValue));
    assert_eq!(stage.ask_reason(channel, &stage.close(0, OURS_SAT + 20_000)), None);
}
