//! Sweeps: when they may be signed, from what, and what they may cost.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use lightning::ln::chan_utils::{self, HTLCOutputInCommitment, TxCreationKeys};
use lightning::ln::channel_keys::{DelayedPaymentKey, HtlcKey, RevocationKey};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use vls_protocol::model::{DisclosedSecret, PubKey};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::psbt::PsbtWrapper;
use vls_protocol::serde_bolt::WithSize;

use super::onchain::{stranger, taproot, wallet_key};
use super::operator::order;
use super::*;
use crate::lightning::orders::Order;
use crate::reasons::Reason;

/// As [`Driver`] sets its channels up.
const CONTEST_DELAY: u32 = 144;
const HTLC_EXPIRY: u32 = 50;

/// The ways to take what is ours from a commitment on the chain.
#[derive(Clone, Copy, Debug)]
enum Sweep {
    /// Our own output, after the delay.
    Delayed,
    /// A payment to us.
    Claim,
    /// A payment of ours that expired.
    Timeout,
    /// All that a cheat had.
    Penalty,
}

const ALL: [Sweep; 4] = [Sweep::Delayed, Sweep::Claim, Sweep::Timeout, Sweep::Penalty];

/// What a closed channel holds on the chain: a transaction that spends its funding output, with these outputs.
pub(super) fn close(driver: &Driver, outputs_sat: &[u64]) -> Transaction {
    let funding = OutPoint { txid: driver.funding().compute_txid(), vout: 0 };
    let out = |sat: &u64| TxOut { value: Amount::from_sat(*sat), script_pubkey: stranger() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: funding, ..TxIn::default() }],
        output: outputs_sat.iter().map(out).collect(),
    }
}

fn outputs(tx: &Transaction, n: u32) -> Vec<OutPoint> {
    (0..n).map(|vout| OutPoint { txid: tx.compute_txid(), vout }).collect()
}

/// A channel of alice with three outputs of 10,000 sat on the chain, and her wallet key.
fn closed(signer: &mut Signer, alice: &NodeName) -> (Asking, PublicKey) {
    let driver = Driver::open(&mut signer.asking(alice), 7).expect("opens");
    let closing = close(&driver, &[10_000; 3]);
    signer.confirm(&[alice], vec![driver.funding().clone(), closing.clone()]);
    (Asking { channel: driver.channel(), spent: outputs(&closing, 1) }, wallet_key(signer, alice, 1))
}

/// Which outputs of which channel are swept; the first is the one to sign, with 10,000 sat.
#[derive(Clone)]
struct Asking {
    channel: ChannelRef,
    spent: Vec<OutPoint>,
}

/// The request for `sweep` with `locktime`, to our own wallet or, if `abroad`, to nobody, at a fee of 1,000 sat.
fn request(sweep: Sweep, asking: &Asking, key: PublicKey, locktime: u32, abroad: bool) -> Vec<u8> {
    let to = |script: &ScriptBuf| if abroad { script.to_p2wsh() } else { taproot(key) };
    request_paying(sweep, asking, key, locktime, 10_000, 9_000, to)
}

/// The same with the amount of the output to sign as the node tells it, and the one that is paid to `destination`.
fn request_paying(
    sweep: Sweep,
    asking: &Asking,
    key: PublicKey,
    locktime: u32,
    told_sat: u64,
    paid_sat: u64,
    destination: impl Fn(&ScriptBuf) -> ScriptBuf,
) -> Vec<u8> {
    let script = match sweep {
        Sweep::Claim => htlc_script(key, true),
        Sweep::Timeout => htlc_script(key, false),
        Sweep::Delayed | Sweep::Penalty => {
            chan_utils::get_revokeable_redeemscript(&RevocationKey(key), 144, &DelayedPaymentKey(key))
        }
    };
    let sequence = match sweep {
        Sweep::Delayed => CONTEST_DELAY,
        Sweep::Claim | Sweep::Timeout => 1, // BOLT 3, anchors
        Sweep::Penalty => 0xffff_fffd,
    };
    let channel = asking.channel;
    let spends = |spent: &OutPoint| TxIn { previous_output: *spent, sequence: Sequence(sequence), ..TxIn::default() };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(locktime),
        input: asking.spent.iter().map(spends).collect(),
        output: vec![TxOut { value: Amount::from_sat(paid_sat), script_pubkey: destination(&script) }],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx.clone()).expect("unsigned");
    psbt.inputs[0].witness_utxo = Some(TxOut { value: Amount::from_sat(told_sat), script_pubkey: script.to_p2wsh() });
    let path: DerivationPath = vec![ChildNumber::from_normal_idx(1).expect("an index")].into();
    psbt.outputs[0].bip32_derivation.insert(key, (Fingerprint::default(), path));

    let (tx, psbt) = (WithSize(tx), WithSize(PsbtWrapper::from(psbt)));
    let (wscript, peer_id, dbid) = (script.into_bytes().into(), PubKey(channel.peer_id), channel.dbid);
    match sweep {
        Sweep::Delayed => {
            msgs::SignAnyDelayedPaymentToUs { commitment_number: 0, tx, psbt, wscript, input: 0, peer_id, dbid }
                .as_vec()
        }
        Sweep::Claim | Sweep::Timeout => msgs::SignAnyRemoteHtlcToUs {
            remote_per_commitment_point: PubKey(key.serialize()),
            tx,
            psbt,
            wscript,
            option_anchors: true,
            input: 0,
            peer_id,
            dbid,
        }
        .as_vec(),
        Sweep::Penalty => {
            let revocation_secret = DisclosedSecret([7; 32]);
            msgs::SignAnyPenaltyToUs { revocation_secret, tx, psbt, wscript, input: 0, peer_id, dbid }.as_vec()
        }
    }
}

/// An HTLC on the peer's commitment, `offered` by the peer or by us.
fn htlc_script(key: PublicKey, offered: bool) -> ScriptBuf {
    let htlc = HTLCOutputInCommitment {
        offered,
        amount_msat: 10_000_000,
        cltv_expiry: HTLC_EXPIRY,
        payment_hash: PaymentHash([1; 32]),
        transaction_output_index: Some(0),
    };
    let keys = TxCreationKeys {
        per_commitment_point: key,
        revocation_key: RevocationKey(key),
        broadcaster_htlc_key: HtlcKey(key),
        countersignatory_htlc_key: HtlcKey(key),
        broadcaster_delayed_payment_key: DelayedPaymentKey(key),
    };
    let mut features = ChannelTypeFeatures::only_static_remote_key();
    features.set_anchors_zero_fee_htlc_tx_required();
    chan_utils::get_htlc_redeemscript(&htlc, &features, &keys)
}

/// A view of the chain that can be stale.
#[derive(Default)]
struct Changeable(std::sync::atomic::AtomicBool);

impl ChainFacts for Changeable {
    fn require_fresh(&self, _node: &NodeName) -> Result<(), Refusal> {
        let stale = self.0.load(std::sync::atomic::Ordering::SeqCst);
        if stale { Err(Refusal::new(Reason::ChainStale, "switched off")) } else { Ok(()) }
    }

    fn start(&self) -> Option<ChainStart> {
        MiniChain::default().start()
    }
}

/// A sweep of an output that the chain has not shown: our own view of it is asked while vls holds its locks.
pub(super) fn unseen(channel: ChannelRef, key: PublicKey) -> Vec<u8> {
    let spent = vec![OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 }];
    request(Sweep::Delayed, &Asking { channel, spent }, key, 0, false)
}

fn refusal(outcome: Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Reply(_) => None,
        Outcome::Refused { refusal, .. } => Some(refusal.reason),
    }
}

#[test]
fn a_sweep_by_a_node_that_is_ahead_is_signed_once_our_view_has_caught_up() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (channel, key) = closed(&mut signer, &alice);
    // The funding transaction is in block 1; an HTLC may be taken back from its expiry on, whatever the height.
    let height_of = |sweep| if matches!(sweep, Sweep::Timeout) { HTLC_EXPIRY } else { 4 };
    for sweep in ALL {
        let mut late = request(sweep, &channel, key, height_of(sweep) + 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late.clone())), Some(Reason::ChainPending), "{sweep:?}");
        late = request(sweep, &channel, key, 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late)), None, "{sweep:?} at our height");
    }
    for _ in 0..HTLC_EXPIRY {
        signer.confirm(&[&alice], vec![]);
    }
    for sweep in ALL {
        let late = request(sweep, &channel, key, height_of(sweep) + 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late)), None, "{sweep:?} after we caught up");
    }
}

/// A freeze must not make a node lose what it could punish or claim.
#[test]
fn honest_sweeps_and_penalties_of_a_frozen_node_are_signed_and_hostile_ones_are_not() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (asking, key) = closed(&mut signer, &alice);
    order(&signer, &alice, Order::Freeze(None)).expect("frozen");
    order(&signer, &alice, Order::Freeze(Some(asking.channel.into()))).expect("frozen");
    for sweep in ALL {
        let ask = |abroad| refusal(signer.ask(&alice, None, request(sweep, &asking, key, 1, abroad)));
        assert_eq!((ask(true), ask(false)), (Some(Reason::Validation), None), "{sweep:?}");
    }
}

#[test]
fn a_sweep_locked_into_a_far_future_is_refused_for_good() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (channel, key) = closed(&mut signer, &alice);
    let one_and_a_half_billion_seconds = 1_500_000_000;
    for sweep in ALL {
        for locktime in [146, 500_000, one_and_a_half_billion_seconds] {
            let far = request(sweep, &channel, key, locktime, false);
            assert_eq!(refusal(signer.ask(&alice, None, far)), Some(Reason::Validation), "{sweep:?} at {locktime}");
        }
    }
}

#[test]
fn what_else_is_wrong_with_an_early_sweep_is_wrong_for_good() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (channel, key) = closed(&mut signer, &alice);
    for sweep in ALL {
        let abroad = request(sweep, &channel, key, 60, true);
        assert_eq!(refusal(signer.ask(&alice, None, abroad)), Some(Reason::Validation), "{sweep:?} to a stranger");
    }
}

#[test]
fn a_stale_view_makes_no_sweep_wrong_and_hinders_none_whose_locktime_was_reached() {
    let facts = Arc::new(Changeable::default());
    let mut signer = Signer::start();
    signer.facts = facts.clone();
    signer.restart();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (channel, key) = closed(&mut signer, &alice);
    facts.0.store(true, std::sync::atomic::Ordering::SeqCst);
    for sweep in ALL {
        let far = request(sweep, &channel, key, 500_000, false);
        assert_eq!(refusal(signer.ask(&alice, None, far)), Some(Reason::ChainStale), "{sweep:?}");
        let reached = request(sweep, &channel, key, 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, reached)), None, "{sweep:?}");
    }
}

/// An honest penalty takes several outputs at once; LDK asks for each input's signature by itself.
#[test]
fn a_sweep_of_several_outputs_is_signed_at_an_honest_fee_and_no_hostile_one() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (mut asking, key) = closed(&mut signer, &alice);
    asking.spent = (0..3).map(|vout| OutPoint { vout, ..asking.spent[0] }).collect();
    for sweep in ALL {
        let paying = |paid_sat| request_paying(sweep, &asking, key, 0, 10_000, paid_sat, |_| taproot(key));
        assert_eq!(refusal(signer.ask(&alice, None, paying(28_000))), None, "{sweep:?}");
        assert_eq!(
            refusal(signer.ask(&alice, None, paying(30_001))),
            Some(Reason::SweepFee),
            "{sweep:?} out of nothing"
        );
    }
    let driver = Driver::open(&mut signer.asking(&alice), 8).expect("opens");
    let large = close(&driver, &[10_000, 3_000_000]);
    signer.confirm(&[&alice], vec![driver.funding().clone(), large.clone()]);
    let asking = Asking { channel: driver.channel(), spent: outputs(&large, 2) };
    for sweep in ALL {
        let paying = |paid_sat| request_paying(sweep, &asking, key, 0, 10_000, paid_sat, |_| taproot(key));
        let burning = refusal(signer.ask(&alice, None, paying(20_000)));
        assert_eq!(burning, Some(Reason::SweepFee), "{sweep:?}: the other input's 3,000,000 sat would be fee");
        assert_eq!(refusal(signer.ask(&alice, None, paying(3_000_000))), None, "{sweep:?}");
    }
}

#[test]
fn what_a_sweep_spends_is_what_the_chain_shows_and_not_what_a_hostile_node_says() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (asking, key) = closed(&mut signer, &alice);
    let unseen = Asking { spent: vec![OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 }], ..asking.clone() };
    let beside = Asking { spent: vec![asking.spent[0], unseen.spent[0]], ..asking.clone() };
    for sweep in ALL {
        let told = |told_sat| request_paying(sweep, &asking, key, 0, told_sat, 9_000, |_| taproot(key));
        assert_eq!(refusal(signer.ask(&alice, None, told(9_500))), Some(Reason::CoinAmount), "{sweep:?}");
        for unseen in [&unseen, &beside] {
            let early = request(sweep, unseen, key, 0, false);
            assert_eq!(refusal(signer.ask(&alice, None, early)), Some(Reason::ChainPending), "{sweep:?}");
        }
        assert_eq!(refusal(signer.ask(&alice, None, told(10_000))), None, "{sweep:?}");
    }
    signer.restart();
    signer.add("alice", NodeKind::Ldk);
    let request = request(Sweep::Delayed, &asking, key, 0, false);
    assert_eq!(refusal(signer.ask(&alice, None, request)), None, "it was recorded");
}

/// What a cheat took to the second level is ours too, and an output of the second level may be swept after its delay.
#[test]
fn honest_sweeps_of_the_second_level_are_signed() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let (asking, key) = closed(&mut signer, &alice);
    let first = OutPoint { vout: 2, ..asking.spent[0] };
    let second = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default(), TxIn { previous_output: first, ..TxIn::default() }],
        output: [1, 10_000].map(|sat| TxOut { value: Amount::from_sat(sat), script_pubkey: stranger() }).to_vec(),
    };
    let asking = Asking { spent: vec![OutPoint { txid: second.compute_txid(), vout: 1 }], ..asking };
    for sweep in [Sweep::Delayed, Sweep::Penalty] {
        let early = request(sweep, &asking, key, 0, false);
        assert_eq!(refusal(signer.ask(&alice, None, early)), Some(Reason::ChainPending));
    }
    signer.confirm(&[&alice], vec![second]);
    for sweep in [Sweep::Delayed, Sweep::Penalty] {
        assert_eq!(refusal(signer.ask(&alice, None, request(sweep, &asking, key, 0, false))), None, "{sweep:?}");
    }
}

#[test]
fn an_honest_sweep_may_go_to_an_allowed_address_and_its_fee_is_bounded_there_too() {
    let allow = vec!["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned()];
    let limits = LimitsConfig { allow, ..LimitsConfig::default() };
    let mut signer = Signer::start_over(Arc::new(MemoryStore::new()), limits);
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = Driver::open(&mut signer.asking(&alice), 7).expect("opens");
    let large = close(&driver, &[3_000_000]);
    signer.confirm(&[&alice], vec![driver.funding().clone(), large.clone()]);
    let (asking, key) =
        (Asking { channel: driver.channel(), spent: outputs(&large, 1) }, wallet_key(&signer, &alice, 1));
    for sweep in ALL {
        let paying = |paid_sat| request_paying(sweep, &asking, key, 0, 3_000_000, paid_sat, |_| stranger());
        assert_eq!(refusal(signer.ask(&alice, None, paying(2_990_000))), None, "{sweep:?}");
        assert_eq!(refusal(signer.ask(&alice, None, paying(1_000))), Some(Reason::Validation), "{sweep:?}");
    }
}

/// A freeze leaves this open: the lists are the operator's, like `limits.allow`.
#[test]
fn an_honest_sweep_may_go_to_a_destination_of_the_bundles_lists_and_a_hostile_one_to_no_other() {
    for (files, is_frozen) in [(&policy::LISTED[..1], false), (policy::LISTED, false), (policy::LISTED, true)] {
        let mut signer = Signer::start();
        let alice = signer.add("alice", NodeKind::Ldk);
        let (asking, key) = closed(&mut signer, &alice);
        policy::apply(&signer, files);
        if is_frozen {
            order(&signer, &alice, Order::Freeze(None)).expect("frozen");
        }
        for sweep in ALL {
            let to = |script: &ScriptBuf| {
                let message = request_paying(sweep, &asking, key, 1, 10_000, 9_000, |_| script.clone());
                refusal(signer.ask(&alice, None, message))
            };
            // No policy is asked about a penalty: it goes to the wallet, or where `limits.allow` says.
            let is_listed = files.len() > 1 && !matches!(sweep, Sweep::Penalty);
            assert_eq!(to(&stranger()), (!is_listed).then_some(Reason::Validation), "{sweep:?} {files:?}");
            let other = ScriptBuf::new_p2wsh(&stranger().wscript_hash());
            assert_eq!(to(&other), Some(Reason::Validation), "{sweep:?} {files:?}");
        }
    }
}
