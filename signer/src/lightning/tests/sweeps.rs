//! Sweeps whose locktime is ahead of our own view of the chain.

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

use super::onchain::{taproot, wallet_key};
use super::*;
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

/// The request for `sweep` with `locktime`, to our own wallet or, if `abroad`, to nobody.
fn request(sweep: Sweep, channel: ChannelRef, key: PublicKey, locktime: u32, abroad: bool) -> Vec<u8> {
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
    let destination = if abroad { script.to_p2wsh() } else { taproot(key) };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(locktime),
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 },
            sequence: Sequence(sequence),
            ..TxIn::default()
        }],
        output: vec![TxOut { value: Amount::from_sat(9_000), script_pubkey: destination }],
    };
    let mut psbt = Psbt::from_unsigned_tx(tx.clone()).expect("unsigned");
    psbt.inputs[0].witness_utxo = Some(TxOut { value: Amount::from_sat(10_000), script_pubkey: script.to_p2wsh() });
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
    let channel = signer.channel(&alice, 7).channel();
    let key = wallet_key(&signer, &alice, 1);
    // The funding transaction is in block 1; an HTLC may be taken back from its expiry on, whatever the height.
    let height_of = |sweep| if matches!(sweep, Sweep::Timeout) { HTLC_EXPIRY } else { 4 };
    for sweep in ALL {
        let mut late = request(sweep, channel, key, height_of(sweep) + 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late.clone())), Some(Reason::ChainPending), "{sweep:?}");
        late = request(sweep, channel, key, 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late)), None, "{sweep:?} at our height");
    }
    for _ in 0..HTLC_EXPIRY {
        signer.confirm(&[&alice], vec![]);
    }
    for sweep in ALL {
        let late = request(sweep, channel, key, height_of(sweep) + 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, late)), None, "{sweep:?} after we caught up");
    }
}

#[test]
fn a_sweep_locked_into_a_far_future_is_refused_for_good() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let channel = signer.channel(&alice, 7).channel();
    let key = wallet_key(&signer, &alice, 1);
    let one_and_a_half_billion_seconds = 1_500_000_000;
    for sweep in ALL {
        for locktime in [146, 500_000, one_and_a_half_billion_seconds] {
            let far = request(sweep, channel, key, locktime, false);
            assert_eq!(refusal(signer.ask(&alice, None, far)), Some(Reason::Validation), "{sweep:?} at {locktime}");
        }
    }
}

#[test]
fn what_else_is_wrong_with_an_early_sweep_is_wrong_for_good() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let channel = signer.channel(&alice, 7).channel();
    let key = wallet_key(&signer, &alice, 1);
    for sweep in ALL {
        let abroad = request(sweep, channel, key, 60, true);
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
    let channel = signer.channel(&alice, 7).channel();
    let key = wallet_key(&signer, &alice, 1);
    facts.0.store(true, std::sync::atomic::Ordering::SeqCst);
    for sweep in ALL {
        let far = request(sweep, channel, key, 500_000, false);
        assert_eq!(refusal(signer.ask(&alice, None, far)), Some(Reason::ChainStale), "{sweep:?}");
        let reached = request(sweep, channel, key, 1, false);
        assert_eq!(refusal(signer.ask(&alice, None, reached)), None, "{sweep:?}");
    }
}
