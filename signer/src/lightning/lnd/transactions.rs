//! What a transaction is, seen from the key that would sign it: one class, or none, and then it is not signed (P2, P10).
//!
//! The key's family, the script it signs for, the tweak it comes with and the transaction's shape must all be those of one
//! class. What a signature cannot tell, because the other side's keys are hidden behind a hash, is said in `docs/lnd.md`.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};

use super::channel::{Asked, Output};
use super::keys::{Family, KeyPath, Keys};
use super::psbt::{Input, Packet};
use super::scripts::{ChannelScript, Htlc, payment_outputs};
use super::signing::Tweak;
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// Sighash types that lnd uses.
pub const DEFAULT: u32 = 0x00;
/// The same as `DEFAULT` for what is no taproot output.
pub const ALL: u32 = 0x01;
/// For second-level transactions of channels with anchors.
pub const SINGLE_ANYONECANPAY: u32 = 0x83;

/// The value of an anchor.
pub const ANCHOR_SAT: u64 = 330;

/// Declares the classes: variant, its name in decisions, what it is.
macro_rules! classes {
    ($( $variant:ident $name:literal $doc:literal; )*) => {
        /// What a transaction is, seen from one of its inputs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Class { $( #[doc = $doc] $variant, )* }

        impl Class {
            /// Its name in decisions.
            pub const fn name(self) -> &'static str { match self { $( Class::$variant => $name, )* } }
        }
    };
}

classes! {
    WalletSpend "wallet-spend" "Spends a coin of the wallet.";
    CounterpartyCommitment "counterparty-commitment" "A new state of a channel, for the counterparty.";
    HolderCommitment "holder-commitment" "Our own commitment: to see whether it could be signed, or to close.";
    MutualClose "mutual-close" "Closes a channel by agreement.";
    AnchorSpend "anchor-spend" "Pays for a commitment's confirmation.";
    CounterpartyHtlc "counterparty-htlc" "Lets the counterparty claim an HTLC of its own commitment.";
    HolderHtlc "holder-htlc" "Claims an HTLC of our commitment, by the second level.";
    HtlcClaim "htlc-claim" "Claims an HTLC of the counterparty's commitment.";
    DelayedSweep "delayed-sweep" "Sweeps what our commitment pays us after its delay.";
    ToRemoteSweep "to-remote-sweep" "Sweeps what the counterparty's commitment pays us.";
    Justice "justice" "Punishes a revoked commitment.";
}

/// What is left to be judged with what is known of the node.
#[derive(Debug, PartialEq)]
pub enum Candidate {
    /// A coin of the wallet.
    Wallet,
    /// A commitment, of whichever side.
    Commitment(Asked),
    /// A mutual close of the channel with this funding output.
    MutualClose(OutPoint),
    /// It claims what is ours, and pays ourselves.
    Claim(Class),
    /// It claims an HTLC or an output of our own commitment: its tweak must belong to one that was signed to close.
    OwnCommitment {
        /// `HolderHtlc` or `DelayedSweep`.
        class: Class,
        /// The untweaked key.
        basepoint: PublicKey,
        /// The tweak.
        tweak: [u8; 32],
    },
    /// A signature for the counterparty: there is nothing in it for us.
    CounterpartyHtlc(AskedHtlc),
}

/// An HTLC of the counterparty's commitment, on which it may go to the second level once this is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedHtlc {
    /// The commitment's output.
    pub output: OutPoint,
    /// Its script's.
    pub script: ScriptBuf,
    /// What it holds.
    pub sat: u64,
    /// We offered it; else the counterparty did.
    pub outgoing: bool,
    /// The height at which it expires.
    pub expiry_height: u32,
    /// RIPEMD-160 of the payment hash.
    pub payment_hash160: [u8; 20],
}

impl AskedHtlc {
    /// As rules and decisions say it.
    pub fn direction(&self) -> &'static str {
        if self.outgoing { "outgoing" } else { "incoming" }
    }
}

/// The output that input `index` spends.
pub fn spent(packet: &Packet, index: usize) -> Result<TxOut, Refusal> {
    let (input, previous) = (&packet.inputs[index], packet.tx.input[index].previous_output);
    let proven =
        match &input.non_witness_utxo {
            None => None,
            Some(tx) if tx.compute_txid() != previous.txid => {
                return Err(Refusal::new(
                    Reason::CoinAmount,
                    format!("input {index}: its transaction is not {}", previous.txid),
                ));
            }
            Some(tx) => {
                let output = tx.output.get(previous.vout as usize).cloned();
                Some(output.ok_or_else(|| {
                    Refusal::new(Reason::CoinAmount, format!("input {index}: there is no {previous}"))
                })?)
            }
        };
    match (&input.witness_utxo, proven) {
        (Some(said), Some(proven)) if *said != proven => {
            let fact = Fact::number("coin", said.value.to_sat(), Unit::Sat).exactly(proven.value.to_sat());
            Err(Refusal::new(Reason::CoinAmount, format!("input {index} is not what {previous} holds")).with_fact(fact))
        }
        (Some(said), _) => Ok(said.clone()),
        (None, Some(proven)) => Ok(proven),
        (None, None) => {
            Err(Refusal::new(Reason::Malformed, format!("input (index={index}) doesn't specify any UTXO info")))
        }
    }
}

/// What the transaction is, seen from input `index`, which our key signs that stands at `path`. `our_payment` knows which of our
/// payment keys an output pays.
pub fn classify(
    packet: &Packet,
    index: usize,
    (path, key): (KeyPath, PublicKey),
    keys: &Keys,
    our_payment: impl FnMut(&ScriptBuf) -> Option<u32>,
) -> Result<Candidate, Refusal> {
    let input = &packet.inputs[index];
    let spent = spent(packet, index)?;
    let KeyPath::Channel(family, key_index) = path else {
        require(input.single_tweak.is_none() && input.double_tweak.is_none(), "a key of the wallet has no tweak")?;
        require(!input.tap_leaf && input.merkle_root.is_none(), "the wallet's taproot outputs have no scripts")?;
        let is_taproot = spent.script_pubkey.is_p2tr();
        require(input.sighash == ALL || is_taproot && input.sighash == DEFAULT, "its sighash type is not ALL")?;
        return Ok(Candidate::Wallet);
    };
    if family == Family::PaymentBase && spent.script_pubkey == payment_outputs(&key)[1] {
        require(input.sighash == ALL && no_tweak(input), "to_remote is swept with ALL and without a tweak")?;
        return Ok(Candidate::Claim(Class::ToRemoteSweep));
    }
    let script = input.witness_script.as_ref().ok_or_else(|| unknown("there is no witness script"))?;
    require(spent.script_pubkey == script.to_p2wsh(), "the witness script is not that of the output")?;
    let parsed = ChannelScript::parse(script).ok_or_else(|| unknown("the witness script is none of BOLT 3"))?;
    let signs = Tweak::of(input)?.public(keys, &key)?;
    match (family, parsed) {
        (Family::Multisig, ChannelScript::Funding(both)) => {
            require(no_tweak(input) && input.sighash == ALL, "a funding output is spent with ALL and without a tweak")?;
            let [a, b] = both;
            let other = if a == key { b } else { a };
            require(both.contains(&key) && other != key, "our funding key is not in the script")?;
            funding_spend(packet, index, &spent, (key_index, other), our_payment)
        }
        (Family::Multisig, ChannelScript::Anchor(owner)) => {
            let fits = no_tweak(input) && input.sighash == ALL && owner == key && spent.value.to_sat() == ANCHOR_SAT;
            require(fits, "it is no anchor of ours")?;
            Ok(Candidate::Claim(Class::AnchorSpend))
        }
        (Family::HtlcBase, ChannelScript::Htlc(htlc)) => {
            let tweak = input.single_tweak.ok_or_else(|| unknown("an HTLC's key has a tweak"))?;
            htlc_spend(packet, index, &spent, &htlc, (key, tweak, signs))
        }
        (Family::DelayBase, ChannelScript::Delayed { delayed, .. }) => {
            let tweak = input.single_tweak.ok_or_else(|| unknown("a delayed output's key has a tweak"))?;
            require(delayed == signs && input.sighash == ALL, "the delayed output is not ours")?;
            Ok(Candidate::OwnCommitment { class: Class::DelayedSweep, basepoint: key, tweak })
        }
        (Family::PaymentBase, ChannelScript::ToRemote(owner)) => {
            require(no_tweak(input) && owner == key && input.sighash == ALL, "to_remote is not ours")?;
            Ok(Candidate::Claim(Class::ToRemoteSweep))
        }
        (Family::RevocationBase, ChannelScript::Delayed { revocation, .. }) => {
            let fits = input.double_tweak.is_some() && revocation == signs && input.sighash == ALL;
            require(fits, "the revocation key is not ours")?;
            Ok(Candidate::Claim(Class::Justice))
        }
        (Family::RevocationBase, ChannelScript::Htlc(htlc)) => {
            let fits = input.double_tweak.is_some() && htlc.is_revoked_by(&signs) && input.sighash == ALL;
            require(fits, "the revocation key is not ours")?;
            Ok(Candidate::Claim(Class::Justice))
        }
        (family, _) => {
            Err(unknown(&format!("keys of family {} ({family:?}) do not sign for such a script", family as u32)))
        }
    }
}

/// A funding output is spent by a commitment or by a mutual close, alone.
fn funding_spend(
    packet: &Packet,
    index: usize,
    spent: &TxOut,
    (our_index, counterparty_key): (u32, PublicKey),
    mut our_payment: impl FnMut(&ScriptBuf) -> Option<u32>,
) -> Result<Candidate, Refusal> {
    let tx = &packet.tx;
    require(tx.input.len() == 1, "a funding output is spent together with others")?;
    let capacity_sat = spent.value.to_sat();
    let out_sat = sum_sat(&tx.output).filter(|sum| *sum <= capacity_sat);
    require(out_sat.is_some(), "it pays more than the channel holds")?;
    let funding = tx.input[index].previous_output;
    let (sequence, lock_time) = (tx.input[index].sequence.to_consensus_u32(), tx.lock_time.to_consensus_u32());
    // BOLT 3, "Commitment Transaction": the upper bytes of both are fixed, the lower ones hold the number.
    if lock_time >> 24 == 0x20 && sequence >> 24 == 0x80 {
        let obscured = u64::from(sequence & 0xff_ffff) << 24 | u64::from(lock_time & 0xff_ffff);
        let (mut pays, mut others, mut anchors) = (Vec::new(), Vec::new(), 0);
        for (vout, TxOut { value, script_pubkey }) in tx.output.iter().enumerate() {
            match our_payment(script_pubkey) {
                Some(index) => pays.push((index, value.to_sat())),
                None if value.to_sat() == ANCHOR_SAT && anchors < 2 => anchors += 1,
                None => others.push(Output { vout: vout as u32, sat: value.to_sat(), script: script_pubkey.clone() }),
            }
        }
        let txid = tx.compute_txid();
        return Ok(Candidate::Commitment(Asked {
            funding,
            capacity_sat,
            our_index,
            counterparty_key,
            obscured,
            txid,
            pays,
            others,
        }));
    }
    let is_close = matches!(sequence, 0xffff_ffff | 0xffff_fffd) && lock_time < 500_000_000 && tx.output.len() <= 2;
    require(is_close, "it is neither a commitment nor a mutual close")?;
    Ok(Candidate::MutualClose(funding))
}

/// An HTLC: a signature for the counterparty, a claim from its commitment, or the second level of our own.
fn htlc_spend(
    packet: &Packet,
    index: usize,
    spent: &TxOut,
    htlc: &Htlc,
    (basepoint, tweak, signs): (PublicKey, [u8; 32], PublicKey),
) -> Result<Candidate, Refusal> {
    let (tx, sighash) = (&packet.tx, packet.inputs[index].sighash);
    let signs = signs.serialize();
    if htlc.owner == signs && htlc.other != signs {
        require(
            matches!(sighash, ALL | SINGLE_ANYONECANPAY),
            "its sighash type is neither ALL nor SINGLE|ANYONECANPAY",
        )?;
        let on = tx.output.get(index).ok_or_else(|| unknown("the HTLC's output is missing"))?;
        // With anchors the second level pays no fee of its own; without, it is all there is in the transaction.
        let alone = tx.input.len() == 1 && tx.output.len() == 1;
        let keeps = if htlc.anchors { on.value == spent.value } else { on.value <= spent.value && alone };
        require(keeps && on.script_pubkey.is_p2wsh(), "the HTLC's output does not go on")?;
        return Ok(Candidate::OwnCommitment { class: Class::HolderHtlc, basepoint, tweak });
    }
    require(htlc.other == signs && htlc.owner != signs, "neither of the HTLC's keys is ours, or both are")?;
    // A success transaction has no lock time, a timeout transaction the HTLC's expiry.
    let lock_time = tx.lock_time.to_consensus_u32();
    let sequence = tx.input[index].sequence.to_consensus_u32();
    let expected = if htlc.anchors { (SINGLE_ANYONECANPAY, 1) } else { (ALL, 0) };
    let is_second_level = tx.input.len() == 1
        && tx.output.len() == 1
        && (sighash, sequence) == expected
        && tx.output[0].script_pubkey.is_p2wsh()
        && tx.output[0].value <= spent.value
        && htlc.received_until.is_none() != (lock_time == 0);
    if is_second_level {
        return Ok(Candidate::CounterpartyHtlc(AskedHtlc {
            output: tx.input[0].previous_output,
            script: spent.script_pubkey.clone(),
            sat: spent.value.to_sat(),
            outgoing: htlc.received_until.is_some(),
            expiry_height: htlc.received_until.unwrap_or(lock_time),
            payment_hash160: htlc.payment_hash160,
        }));
    }
    require(sighash == ALL, "an HTLC is claimed with ALL")?;
    Ok(Candidate::Claim(Class::HtlcClaim))
}

/// The sum of these outputs, if it is an amount of bitcoin.
pub fn sum_sat(outputs: &[TxOut]) -> Option<u64> {
    outputs.iter().try_fold(0u64, |sum, out| sum.checked_add(out.value.to_sat()))
}

/// What `tx` burns, as far as its inputs are what they are said to be.
pub fn fee_sat(packet: &Packet) -> Result<u64, Refusal> {
    let mut inputs = Vec::with_capacity(packet.inputs.len());
    for index in 0..packet.inputs.len() {
        inputs.push(spent(packet, index)?);
    }
    fee_of(&packet.tx, &inputs).ok_or_else(|| Refusal::new(Reason::SweepFee, "it pays more than it spends"))
}

fn fee_of(tx: &Transaction, inputs: &[TxOut]) -> Option<u64> {
    sum_sat(inputs)?.checked_sub(sum_sat(&tx.output)?)
}

fn no_tweak(input: &Input) -> bool {
    input.single_tweak.is_none() && input.double_tweak.is_none()
}

fn require(holds: bool, complaint: &str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(unknown(complaint)) }
}

fn unknown(detail: &str) -> Refusal {
    Refusal::new(Reason::TransactionUnknown, detail)
}
