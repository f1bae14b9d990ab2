//! The channel book (P9) through encoded messages: the attack is refused with its reason, the honest twin is answered.

use bitcoin::hashes::{Hash, sha256};
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{self, SerBolt};

use super::*;
use crate::lightning::driver::{DriverError, DriverHtlc, Holdings};
use crate::reasons::Reason;

const OURS_SAT: u64 = 5_000_000;

/// A node with two channels, half of each its own.
struct Stage {
    signer: Signer,
    alice: NodeName,
    channels: Vec<Driver>,
}

impl Stage {
    fn new() -> Self {
        let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
        let alice = signer.add("alice", NodeKind::Ldk);
        let mut channels = Vec::new();
        for dbid in 1..=2 {
            let driver = Driver::open_pushed(&mut signer.asking(&alice), dbid, OURS_SAT).expect("opens");
            signer.confirm(&[&alice], vec![driver.funding().clone()]);
            channels.push(driver);
        }
        Self { signer, alice, channels }
    }

    fn advance(&mut self, n: usize, to_us_sat: u64, htlcs: &[DriverHtlc]) -> Result<(), Reason> {
        let Self { signer, alice, channels } = self;
        let holdings = Holdings { to_us_sat, htlcs: htlcs.to_vec() };
        channels[n].advance_to(&mut signer.asking(alice), &holdings).map_err(reason)
    }

    /// Asks for either of the two next commitments; neither must be given. Returns why not.
    fn refused(&mut self, n: usize, to_us_sat: u64, htlcs: &[DriverHtlc]) -> Reason {
        let holdings = Holdings { to_us_sat, htlcs: htlcs.to_vec() };
        let mut ask = self.signer.asking(&self.alice);
        let signed = self.channels[n].sign_next(&mut ask, &holdings).map_err(reason);
        let validated = self.channels[n].validate_next(&mut ask, &holdings).map_err(reason);
        assert_eq!(signed, validated);
        signed.expect_err("neither is given")
    }

    fn approve(&self, n: u8, amount_sat: u64) {
        let destination = PubKey(self.channels[0].funding_keys()[1].serialize());
        let payment_hash = Sha256(secret(n).1);
        let keysend = msgs::PreapproveKeysend { destination, payment_hash, amount_msat: amount_sat * 1_000 };
        replied(self.signer.ask(&self.alice, None, keysend.as_vec()));
    }

    /// Message 3000, on channel `n`.
    fn learn(&self, n: usize, preimage: [u8; 32]) {
        let message = [&[0x0b, 0xb8, 0, 1][..], &preimage].concat();
        assert_eq!(replied(self.signer.ask(&self.alice, Some(self.channels[n].channel()), message)), [0x0c, 0x1c]);
    }

    fn restart(&mut self) {
        self.signer.restart();
        self.signer.add("alice", NodeKind::Ldk);
    }
}

fn limits() -> LimitsConfig {
    LimitsConfig {
        max_payment_msat: 1_000_000_000,
        max_payment_msat_per_hour: 10_000_000_000,
        ..LimitsConfig::default()
    }
}

fn reason(error: DriverError) -> Reason {
    match error {
        DriverError::Refused { refusal, .. } => refusal.reason,
        other => panic!("{other}"),
    }
}

fn secret(n: u8) -> ([u8; 32], [u8; 32]) {
    let preimage = [n; 32];
    (preimage, sha256::Hash::hash(&preimage).to_byte_array())
}

fn out(n: u8, amount_sat: u64, cltv_expiry: u32) -> DriverHtlc {
    DriverHtlc { is_ours: true, payment_hash: secret(n).1, amount_sat, cltv_expiry }
}

fn incoming(n: u8, amount_sat: u64, cltv_expiry: u32) -> DriverHtlc {
    DriverHtlc { is_ours: false, ..out(n, amount_sat, cltv_expiry) }
}

#[test]
fn hostile_shift_of_the_balance_is_refused_and_the_channel_goes_on() {
    let mut stage = Stage::new();
    for sat in [1, 1_000, OURS_SAT * 9 / 10] {
        assert_eq!(stage.refused(0, OURS_SAT - sat, &[]), Reason::ValueNotConserved);
    }
    stage.advance(0, OURS_SAT, &[]).expect("an empty update");
    stage.advance(0, OURS_SAT, &[incoming(1, 20_000, 500)]).expect("an HTLC comes");
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("it is ours");
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ValueNotConserved);
    stage.advance(0, OURS_SAT + 20_000, &[incoming(2, 20_000, 500)]).expect("the next comes");
    stage.advance(0, OURS_SAT + 20_000, &[]).expect("it fails");
}

#[test]
fn hostile_forward_of_a_known_hash_for_more_than_comes_in_is_refused() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 1_500, 600)]).expect("a small one comes");
    let reason = stage.refused(1, OURS_SAT - 3_000_000, &[out(1, 3_000_000, 500)]);
    assert_eq!(reason, Reason::ForwardNotCovered);
    stage.advance(1, OURS_SAT - 1_490, &[out(1, 1_490, 500)]).expect("as much as came, less a fee");
}

#[test]
fn hostile_peer_takes_no_payment_without_its_preimage_and_none_twice() {
    let mut stage = Stage::new();
    stage.approve(1, 100_000);
    stage.advance(0, OURS_SAT - 101_000, &[out(1, 101_000, 500)]).expect("approved, with a fee");
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT - 101_000, &[]), Reason::PreimageMissing);
    stage.learn(0, secret(9).0);
    assert_eq!(stage.refused(0, OURS_SAT - 101_000, &[]), Reason::PreimageMissing);
    stage.learn(0, secret(1).0);
    stage.restart();
    stage.advance(0, OURS_SAT - 101_000, &[]).expect("it was paid");
    stage.approve(1, 100_000);
    assert_eq!(stage.refused(1, OURS_SAT - 100_000, &[out(1, 100_000, 500)]), Reason::PaymentExceeded);

    stage.approve(2, 100_000);
    stage.advance(1, OURS_SAT - 100_000, &[out(2, 100_000, 500)]).expect("approved");
    stage.advance(1, OURS_SAT, &[]).expect("it failed");
    stage.advance(0, OURS_SAT - 201_000, &[out(2, 100_000, 500)]).expect("again, on another channel");
}

#[test]
fn hostile_refund_of_a_forward_that_was_paid_is_refused_and_its_claim_answered() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 600)]).expect("it comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 500)]).expect("it leaves");
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.learn(1, secret(1).0);
    stage.advance(1, OURS_SAT - 99_000, &[]).expect("it was paid");
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.advance(0, OURS_SAT + 100_000, &[]).expect("claimed");
}

#[test]
fn honest_repetition_of_every_message_is_answered_after_a_restart() {
    let mut stage = Stage::new();
    let mut asked = Vec::new();
    {
        let Stage { signer, alice, channels } = &mut stage;
        let mut ask = signer.asking(alice);
        let mut recording = |channel: Option<ChannelRef>, message: Vec<u8>| {
            asked.push((channel, message.clone()));
            ask(channel, message)
        };
        let holdings = Holdings { to_us_sat: OURS_SAT, htlcs: vec![incoming(1, 20_000, 500)] };
        channels[0].sign_next(&mut recording, &holdings).expect("signs");
        channels[0].validate_next(&mut recording, &holdings).expect("validates");
    }
    let answers = |stage: &Stage| -> Vec<Vec<u8>> {
        asked.iter().map(|(c, m)| replied(stage.signer.ask(&stage.alice, *c, m.clone()))).collect()
    };
    let before = answers(&stage);
    stage.restart();
    assert_eq!(answers(&stage), before);
}
