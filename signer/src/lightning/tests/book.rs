//! The channel book (P9) through encoded messages: the attack is refused with its reason, the honest twin is answered.

use bitcoin::hashes::{Hash, sha256};
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{self, SerBolt};

use super::*;
use crate::lightning::driver::{Dialect, DriverError, DriverHtlc, Funder, Holdings, Opening};
use crate::reasons::Reason;

pub(super) const OURS_SAT: u64 = 5_000_000;

/// A node with two channels, half of each its own.
pub(super) struct Stage {
    pub(super) signer: Signer,
    pub(super) alice: NodeName,
    dialect: Dialect,
    pub(super) channels: Vec<Driver>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::of(Dialect::Ldk)
    }

    /// The same for a node that speaks `dialect`.
    pub(super) fn of(dialect: Dialect) -> Self {
        let signer = Signer::start_over(Arc::new(MemoryStore::new()), limits());
        let alice = signer.add("alice", dialect.into());
        let mut stage = Self { signer, alice, dialect, channels: Vec::new() };
        for _ in 0..2 {
            stage.open(Funder::Peer { to_us_sat: OURS_SAT });
        }
        stage
    }

    /// Opens the next channel. Returns its place.
    pub(super) fn open(&mut self, funder: Funder) -> usize {
        let n = self.channels.len();
        let opening = Opening { dialect: self.dialect, dbid: n as u64 + 1, funder };
        let driver = Driver::open_as(&mut self.signer.asking(&self.alice), opening).expect("opens");
        self.signer.confirm(&[&self.alice], vec![driver.funding().clone()]);
        self.channels.push(driver);
        n
    }

    pub(super) fn advance(&mut self, n: usize, to_us_sat: u64, htlcs: &[DriverHtlc]) -> Result<(), Reason> {
        let Self { signer, alice, channels, .. } = self;
        let holdings = Holdings { to_us_sat, htlcs: htlcs.to_vec() };
        channels[n].advance_to(&mut signer.asking(alice), &holdings).map_err(reason)
    }

    /// Asks for either of the two next commitments; neither must be given. Returns why not.
    pub(super) fn refused(&mut self, n: usize, to_us_sat: u64, htlcs: &[DriverHtlc]) -> Reason {
        let holdings = Holdings { to_us_sat, htlcs: htlcs.to_vec() };
        let mut ask = self.signer.asking(&self.alice);
        let signed = self.channels[n].sign_next(&mut ask, &holdings).map_err(reason);
        let validated = self.channels[n].validate_next(&mut ask, &holdings).map_err(reason);
        assert_eq!(signed, validated);
        signed.expect_err("neither is given")
    }

    pub(super) fn approve(&self, n: u8, amount_sat: u64) {
        let destination = PubKey(self.channels[0].funding_keys()[1].serialize());
        let payment_hash = Sha256(secret(n).1);
        let keysend = msgs::PreapproveKeysend { destination, payment_hash, amount_msat: amount_sat * 1_000 };
        replied(self.signer.ask(&self.alice, None, keysend.as_vec()));
    }

    /// Message 3000, on channel `n`.
    pub(super) fn learn(&self, n: usize, preimage: [u8; 32]) {
        let message = [&[0x0b, 0xb8, 0, 1][..], &preimage].concat();
        assert_eq!(replied(self.signer.ask(&self.alice, Some(self.channels[n].channel()), message)), [0x0c, 0x1c]);
    }

    pub(super) fn restart(&mut self) {
        self.signer.restart();
        self.signer.add("alice", self.dialect.into());
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

pub(super) fn secret(n: u8) -> ([u8; 32], [u8; 32]) {
    let preimage = [n; 32];
    (preimage, sha256::Hash::hash(&preimage).to_byte_array())
}

pub(super) fn out(n: u8, amount_sat: u64, cltv_expiry: u32) -> DriverHtlc {
    DriverHtlc { is_ours: true, payment_hash: secret(n).1, amount_sat, cltv_expiry }
}

pub(super) fn incoming(n: u8, amount_sat: u64, cltv_expiry: u32) -> DriverHtlc {
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

/// On the channels of a forward, dust may mean different things. vls sees only what a commitment shows.
#[test]
fn honest_forward_that_is_dust_on_one_of_its_channels_passes_and_a_hostile_one_out_of_nothing_does_not() {
    for trims in [0, 1] {
        let mut stage = Stage::new();
        stage.channels[trims].trim_below(546);
        let mut ours_sat = [OURS_SAT; 2];
        for n in [1, 2] {
            stage.advance(0, ours_sat[0], &[incoming(n, 500, 600)]).expect("it comes");
            ours_sat[1] -= 499;
            stage.advance(1, ours_sat[1], &[out(n, 499, 500)]).expect("it leaves");
            stage.restart();
            stage.learn(1, secret(n).0);
            stage.advance(1, ours_sat[1], &[]).expect("it was paid");
            ours_sat[0] += 500;
            stage.advance(0, ours_sat[0], &[]).expect("claimed");
        }
        let hostile = stage.refused(1, ours_sat[1] - 546, &[out(3, 546, 500)]);
        assert_eq!(hostile, Reason::PaymentNotApproved, "none came that is dust anywhere");
    }
}

/// Of a small payment a base fee is a large part.
#[test]
fn honest_small_payment_with_a_base_fee_passes_and_a_hostile_fee_does_not() {
    let mut stage = Stage::new();
    stage.approve(1, 450);
    stage.advance(0, OURS_SAT - 500, &[out(1, 500, 500)]).expect("a ninth of it is fee");
    stage.learn(0, secret(1).0);
    stage.advance(0, OURS_SAT - 500, &[]).expect("it was paid");
    stage.approve(2, 600);
    assert_eq!(stage.refused(1, OURS_SAT - 661, &[out(2, 661, 500)]), Reason::PaymentExceeded);
    stage.advance(1, OURS_SAT - 660, &[out(2, 660, 500)]).expect("a tenth of it is fee");
}

#[test]
fn honest_payment_on_its_way_is_not_stranded_by_a_lower_limit_and_a_hostile_new_one_is_refused() {
    let mut stage = Stage::new();
    stage.approve(1, 500_000);
    let mut ours_sat = OURS_SAT - 520_000;
    stage.advance(0, ours_sat, &[out(1, 520_000, 500)]).expect("approved, with a fee");
    stage.signer.limits = LimitsConfig { max_payment_msat: 1_000_000, ..limits() };
    stage.restart();
    stage.advance(0, ours_sat, &[out(1, 520_000, 500), incoming(2, 20_000, 500)]).expect("the channel goes on");
    ours_sat += 20_000;
    stage.advance(0, ours_sat, &[out(1, 520_000, 500)]).expect("the channel goes on");
    stage.learn(0, secret(1).0);
    stage.advance(0, ours_sat, &[]).expect("it was paid");
    let keysend = crate::lightning::driver::keysend(3, 1_000_001);
    assert_eq!(refused(stage.signer.ask(&stage.alice, None, keysend)).1.reason, Reason::Limit);
}

#[test]
fn honest_repetition_of_every_message_is_answered_after_a_restart() {
    let mut stage = Stage::new();
    let mut asked = Vec::new();
    {
        let Stage { signer, alice, channels, .. } = &mut stage;
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

#[test]
fn hostile_payment_out_of_what_an_invoice_brought_is_refused_and_an_approved_one_passes() {
    let mut stage = Stage::new();
    let payment_hash = sha256::Hash::hash(&7u64.to_be_bytes()).to_byte_array();
    let sign = crate::lightning::driver::invoice_to_sign(7, 100_000_000);
    replied(stage.signer.ask(&stage.alice, None, sign));
    stage.advance(0, OURS_SAT, &[DriverHtlc { payment_hash, ..incoming(1, 100_000, 600) }]).expect("it comes");
    let passed_on = [DriverHtlc { payment_hash, ..out(1, 99_000, 500) }];
    assert_eq!(stage.refused(1, OURS_SAT - 99_000, &passed_on), Reason::PaymentNotApproved);
    stage.advance(0, OURS_SAT, &[incoming(2, 100_000, 600)]).expect("it failed, another comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(2, 99_000, 500)]).expect("which no invoice is for");
}

/// Spends the funding output of a channel.
fn close_on_chain(driver: &Driver) -> bitcoin::Transaction {
    let previous_output = bitcoin::OutPoint { txid: driver.funding().compute_txid(), vout: 0 };
    bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn { previous_output, ..Default::default() }],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(1_000), script_pubkey: onchain::stranger() }],
    }
}

#[test]
fn honest_forward_is_given_up_once_the_chain_closed_its_channel_and_hostile_before_it_is_not() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 600)]).expect("it comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 500)]).expect("it leaves");
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    let close = close_on_chain(&stage.channels[1]);
    stage.signer.confirm(&[&stage.alice], vec![close]);
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed, "another commitment may take its place");
    (0..5).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.restart();
    stage.advance(0, OURS_SAT, &[]).expect("the close does not have it");
}

/// Another block takes the place of the one with the close.
#[test]
fn hostile_refund_after_a_reorg_of_the_close_is_refused_and_an_honest_one_passes_once_it_is_back() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 600)]).expect("it comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 500)]).expect("it leaves");
    let close = close_on_chain(&stage.channels[1]);
    let before = stage.signer.chain.clone();
    stage.signer.confirm(&[&stage.alice], vec![close.clone()]);
    let block = stage.signer.blocks.pop().expect("just mined");
    stage.signer.nodes().disconnect(&stage.alice, block).expect("the tip");
    stage.signer.chain = before;
    (0..6).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.signer.confirm(&[&stage.alice], vec![close]);
    (0..5).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.advance(0, OURS_SAT, &[]).expect("the close does not have it");
}

/// What the chain gave back of a payment may leave again on another channel, and not before.
#[test]
fn honest_payment_is_made_again_once_its_channel_is_closed_without_it_and_hostile_before_it_is_not() {
    let mut stage = Stage::new();
    stage.approve(1, 100_000);
    stage.advance(0, OURS_SAT - 100_000, &[out(1, 100_000, 500)]).expect("it leaves");
    let close = close_on_chain(&stage.channels[0]);
    stage.signer.confirm(&[&stage.alice], vec![close]);
    let again = [out(1, 100_000, 500)];
    assert_eq!(stage.refused(1, OURS_SAT - 100_000, &again), Reason::PaymentExceeded);
    (0..5).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.restart();
    stage.advance(1, OURS_SAT - 100_000, &again).expect("the close does not have it");
}

#[test]
fn hostile_refund_beside_a_close_on_paper_is_refused_also_when_the_forward_expired() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 60)]).expect("it comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 20)]).expect("it leaves");
    let sign = msgs::SignLocalCommitmentTx2 { commitment_number: stage.channels[1].number() };
    replied(stage.signer.ask(&stage.alice, Some(stage.channels[1].channel()), sign.as_vec()));
    (0..30).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    (0..30).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.advance(0, OURS_SAT, &[]).expect("it ends");
}

#[test]
fn hostile_refund_of_what_the_peer_took_on_chain_is_refused_and_its_claim_answered() {
    let mut stage = Stage::new();
    stage.advance(0, OURS_SAT, &[incoming(1, 100_000, 600)]).expect("it comes");
    stage.advance(1, OURS_SAT - 99_000, &[out(1, 99_000, 500)]).expect("it leaves");
    let mut close = close_on_chain(&stage.channels[1]);
    close.output[0].value = bitcoin::Amount::from_sat(99_000);
    let named = bitcoin::hashes::ripemd160::Hash::hash(&secret(1).1).to_byte_array();
    let mut claim = close.clone();
    claim.input[0].previous_output = bitcoin::OutPoint { txid: close.compute_txid(), vout: 0 };
    claim.input[0].witness = bitcoin::Witness::from_slice(&[&[9; 71][..], &secret(1).0, &named]);
    // In one block: what spends a close is read with it.
    stage.signer.confirm(&[&stage.alice], vec![close, claim]);
    (0..10).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    stage.restart();
    assert_eq!(stage.refused(0, OURS_SAT, &[]), Reason::ForwardUnclaimed);
    stage.advance(0, OURS_SAT + 100_000, &[]).expect("claimed");
}

#[test]
fn a_channel_leaves_the_book_once_it_is_closed_and_forgotten_and_no_other_does() {
    use crate::lightning::book::view::Standing;
    let mut stage = Stage::new();
    let standings = |stage: &Stage| {
        let actor = stage.signer.nodes().get(&stage.alice).expect("running");
        let book = actor.inspect(|engine| engine.book()).expect("there");
        book.channels.iter().map(|channel| channel.standing).collect::<Vec<_>>()
    };
    let sign = msgs::SignLocalCommitmentTx2 { commitment_number: 0 };
    let closed = stage.channels[1].channel();
    replied(stage.signer.ask(&stage.alice, Some(closed), sign.as_vec()));
    assert_eq!(standings(&stage), [Standing::Ready, Standing::Closing]);
    let close = close_on_chain(&stage.channels[1]);
    stage.signer.confirm(&[&stage.alice], vec![close]);
    assert_eq!(standings(&stage), [Standing::Ready, Standing::Closed]);
    let mine = |stage: &mut Stage| (0..110).for_each(|_| stage.signer.confirm(&[&stage.alice], Vec::new()));
    mine(&mut stage);
    assert_eq!(standings(&stage), [Standing::Ready, Standing::Closed], "the node may ask for its outputs still");
    let forget = msgs::ForgetChannel { node_id: PubKey(closed.peer_id), dbid: closed.dbid };
    replied(stage.signer.ask(&stage.alice, None, forget.as_vec()));
    mine(&mut stage);
    assert_eq!(standings(&stage), [Standing::Ready]);
    stage.restart();
    stage.advance(0, OURS_SAT, &[]).expect("the other goes on");
}
