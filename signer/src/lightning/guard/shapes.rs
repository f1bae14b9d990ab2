//! Shapes of messages that are refused before the state machine sees them.
//!
//! vls takes some fields on trust: a point that is no point, amounts that overflow, a message that is too short. Each
//! would end in a panic that costs the node a rebuild from the journal. Here they end in a refusal.

use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{PublicKey, SecretKey, ecdsa};
use vls_protocol::model::{BitcoinSignature, Htlc, PubKey, Utxo};
use vls_protocol::msgs::Message;

use super::super::limits::MAX_MONEY_SAT;
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// BOLT 2: at most 483 HTLCs in each direction.
const MAX_HTLCS: usize = 966;
const MAX_MONEY_MSAT: u64 = MAX_MONEY_SAT * 1_000;
const MAX_COMMITMENT_NUMBER: u64 = (1 << 48) - 1;
/// SIGHASH_ALL and SIGHASH_SINGLE|ANYONECANPAY (BOLT 3).
const COMMITMENT_SIGHASH: u8 = 0x01;
const HTLC_SIGHASHES: [u8; 2] = [0x01, 0x83];

/// Refuses `message` with `malformed` if its shape cannot be handled.
pub(super) fn check(message: &Message) -> Result<(), Refusal> {
    match message {
        Message::Ecdh(m) => point("point", &m.point),
        Message::Ping(m) => {
            let text = std::str::from_utf8(&m.message.0);
            require(text.is_ok(), "message is not text", || Fact::number("text", m.message.0.len() as u64, Unit::Bytes))
        }
        Message::PreapproveKeysend(m) => money_msat("amount_msat", m.amount_msat),
        Message::SetupChannel(m) => {
            money_sat("channel_value", m.channel_value)?;
            let (push_msat, most_msat) = (m.push_value, m.channel_value * 1_000);
            require(push_msat <= most_msat, "push_value exceeds channel_value", || {
                Fact::number("push_value", push_msat, Unit::Msat).at_most(most_msat)
            })?;
            point("remote_funding_pubkey", &m.remote_funding_pubkey)?;
            point("revocation", &m.remote_basepoints.revocation)?;
            point("payment", &m.remote_basepoints.payment)?;
            point("htlc", &m.remote_basepoints.htlc)?;
            point("delayed_payment", &m.remote_basepoints.delayed_payment)?;
            channel_type(&m.channel_type)
        }
        Message::GetPerCommitmentPoint(m) => number(m.commitment_number),
        Message::GetPerCommitmentPoint2(m) => number(m.commitment_number),
        Message::RevokeCommitmentTx(m) => number(m.commitment_number),
        Message::CheckFutureSecret(m) => number(m.commitment_number),
        Message::SignLocalCommitmentTx2(m) => number(m.commitment_number),
        Message::SignCommitmentTx(m) => {
            number(m.commitment_number)?;
            paths(&m.psbt.inner)
        }
        Message::SignMutualCloseTx(m) => paths(&m.psbt.inner),
        Message::SignRemoteCommitmentTx2(m) => {
            number(m.commitment_number)?;
            point("remote_per_commitment_point", &m.remote_per_commitment_point)?;
            values(m.to_local_value_sat, m.to_remote_value_sat, &m.htlcs)
        }
        Message::ValidateCommitmentTx2(m) => {
            number(m.commitment_number)?;
            values(m.to_local_value_sat, m.to_remote_value_sat, &m.htlcs)?;
            signatures(&m.signature, &m.htlc_signatures, &m.htlcs)
        }
        Message::SignRemoteCommitmentTx(m) => {
            number(m.commitment_number)?;
            point("remote_per_commitment_point", &m.remote_per_commitment_point)?;
            count("psbt_outputs", m.psbt.inner.outputs.len(), m.tx.output.len())?;
            values(0, 0, &m.htlcs)
        }
        Message::ValidateCommitmentTx(m) => {
            number(m.commitment_number)?;
            count("psbt_outputs", m.psbt.inner.outputs.len(), m.tx.0.output.len())?;
            values(0, 0, &m.htlcs)?;
            signatures(&m.signature, &m.htlc_signatures, &m.htlcs)
        }
        Message::ValidateRevocation(m) => {
            number(m.commitment_number)?;
            scalar("commitment_secret", &m.commitment_secret.0)
        }
        Message::SignPenaltyToUs(m) => {
            scalar("revocation_secret", &m.revocation_secret.0)?;
            sweep(&m.psbt.inner, 0)
        }
        Message::SignAnyPenaltyToUs(m) => {
            scalar("revocation_secret", &m.revocation_secret.0)?;
            sweep(&m.psbt.inner, m.input)
        }
        Message::SignDelayedPaymentToUs(m) => {
            number(m.commitment_number)?;
            sweep(&m.psbt.inner, 0)
        }
        Message::SignAnyDelayedPaymentToUs(m) => {
            number(m.commitment_number)?;
            sweep(&m.psbt.inner, m.input)
        }
        Message::SignLocalHtlcTx(m) => {
            number(m.commitment_number)?;
            second_level(&m.psbt.inner, 0)
        }
        Message::SignAnyLocalHtlcTx(m) => {
            number(m.commitment_number)?;
            second_level(&m.psbt.inner, m.input)
        }
        Message::SignRemoteHtlcTx(m) => {
            point("remote_per_commitment_point", &m.remote_per_commitment_point)?;
            count("psbt_inputs", m.psbt.inner.inputs.len(), 1)?;
            count("psbt_outputs", m.psbt.inner.outputs.len(), 1)?;
            count("tx_inputs", m.tx.input.len(), 1)?;
            count("tx_outputs", m.tx.output.len(), 1)?;
            second_level(&m.psbt.inner, 0)
        }
        Message::SignRemoteHtlcToUs(m) => {
            point("remote_per_commitment_point", &m.remote_per_commitment_point)?;
            sweep(&m.psbt.inner, 0)
        }
        Message::SignAnyRemoteHtlcToUs(m) => {
            point("remote_per_commitment_point", &m.remote_per_commitment_point)?;
            sweep(&m.psbt.inner, m.input)
        }
        Message::SignLocalHtlcTx2(m) => {
            number(m.per_commitment_number)?;
            let is_there = (m.input as usize) < m.tx.0.input.len();
            require(is_there, "input is not in tx", || Fact::count("input", m.input.into()))?;
            money_msat("htlc_amount_msat", m.htlc_amount_msat)
        }
        Message::SignMutualCloseTx2(m) => values(m.to_local_value_sat, m.to_remote_value_sat, &[]),
        Message::SignWithdrawal(m) => wallet(m.psbt.0.psbt(), &m.utxos),
        Message::SignHtlcTxMingle(m) => wallet(m.psbt.0.psbt(), &m.utxos),
        Message::SignAnchorspend(m) => wallet(m.psbt.0.psbt(), &m.utxos),
        _ => Ok(()),
    }
}

fn require(holds: bool, complaint: &str, fact: impl FnOnce() -> Fact) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(Reason::Malformed, complaint).with_fact(fact())) }
}

/// The field named `what` holds as many as something else does.
fn count(what: &'static str, found: usize, wanted: usize) -> Result<(), Refusal> {
    require(found == wanted, &format!("{what}: {found}, not {wanted}"), || {
        Fact::count(what, found as u64).exactly(wanted as u64)
    })
}

fn money_sat(what: &'static str, amount_sat: u64) -> Result<(), Refusal> {
    require(amount_sat <= MAX_MONEY_SAT, &format!("{what} is no amount of bitcoin"), || {
        Fact::number(what, amount_sat, Unit::Sat).at_most(MAX_MONEY_SAT)
    })
}

fn money_msat(what: &'static str, amount_msat: u64) -> Result<(), Refusal> {
    require(amount_msat <= MAX_MONEY_MSAT, &format!("{what} is no amount of bitcoin"), || {
        Fact::number(what, amount_msat, Unit::Msat).at_most(MAX_MONEY_MSAT)
    })
}

fn point(what: &'static str, key: &PubKey) -> Result<(), Refusal> {
    require(PublicKey::from_slice(&key.0).is_ok(), &format!("{what} is not a point"), || {
        Fact::text(what, hex::encode(key.0))
    })
}

fn scalar(what: &'static str, secret: &[u8; 32]) -> Result<(), Refusal> {
    require(SecretKey::from_slice(secret).is_ok(), &format!("{what} is not a secret key"), || Fact::text("field", what))
}

/// BOLT 3: commitments are numbered in 48 bits. vls counts on from the number it is given, without a check.
fn number(commitment_number: u64) -> Result<(), Refusal> {
    require(commitment_number <= MAX_COMMITMENT_NUMBER, "a commitment number has 48 bits", || {
        Fact::count("commitment_number", commitment_number).at_most(MAX_COMMITMENT_NUMBER)
    })
}

/// Anchors come with static_remotekey: BOLT 9, bits 12, 20 and 22. In a channel type only even bits are set (BOLT 2).
fn channel_type(features: &[u8]) -> Result<(), Refusal> {
    let has = |bit: usize| features.iter().rev().nth(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0);
    let complaint = "the channel type has anchors without static_remotekey";
    let told = || Fact::text("channel_type", hex::encode(&features[..features.len().min(64)]));
    require(has(12) || !(has(20) || has(22)), complaint, told)
}

fn values(to_local_sat: u64, to_remote_sat: u64, htlcs: &[Htlc]) -> Result<(), Refusal> {
    let many = || Fact::count("htlcs", htlcs.len() as u64).at_most(MAX_HTLCS as u64);
    require(htlcs.len() <= MAX_HTLCS, "more HTLCs than BOLT 2 allows", many)?;
    let side = htlcs.iter().map(|htlc| htlc.side).max().unwrap_or(Htlc::LOCAL);
    require(side <= Htlc::REMOTE, "an HTLC is neither local nor remote", || {
        Fact::count("htlc_side", side.into()).at_most(Htlc::REMOTE.into())
    })?;
    let sides = to_local_sat.saturating_add(to_remote_sat);
    let sum_sat = htlcs.iter().fold(sides, |sum, htlc| sum.saturating_add(htlc.amount / 1_000));
    money_sat("commitment_amounts", sum_sat)
}

fn signatures(commitment: &BitcoinSignature, of_htlcs: &[BitcoinSignature], htlcs: &[Htlc]) -> Result<(), Refusal> {
    let parses = |s: &BitcoinSignature| ecdsa::Signature::from_compact(&s.signature.0).is_ok();
    let unreadable = of_htlcs.iter().chain([commitment]).filter(|signature| !parses(signature)).count();
    require(unreadable == 0, "a signature does not parse", || {
        Fact::count("unreadable_signatures", unreadable as u64).at_most(0)
    })?;
    let sighash = commitment.sighash;
    require(sighash == COMMITMENT_SIGHASH, "the commitment's sighash is not ALL", || {
        Fact::count("sighash", sighash.into()).exactly(u64::from(COMMITMENT_SIGHASH))
    })?;
    let odd = of_htlcs.iter().map(|signature| signature.sighash).find(|sighash| !HTLC_SIGHASHES.contains(sighash));
    require(odd.is_none(), "an HTLC's sighash is neither ALL nor SINGLE|ANYONECANPAY", || {
        Fact::count("htlc_sighash", odd.unwrap_or_default().into())
    })?;
    count("htlc_signatures", of_htlcs.len(), htlcs.len())
}

fn sweep(psbt: &Psbt, input: u32) -> Result<(), Refusal> {
    spends(psbt, input)?;
    require(!psbt.outputs.is_empty(), "there is no output", || Fact::count("outputs", 0).at_least(1))?;
    paths(psbt)
}

/// A transaction on an HTLC output of a commitment.
fn second_level(psbt: &Psbt, input: u32) -> Result<(), Refusal> {
    spends(psbt, input)?;
    let script = psbt.outputs.first().and_then(|output| output.witness_script.as_ref());
    require(script.is_some(), "the output's witness script is missing", || Fact::text("field", "witness_script"))
}

fn spends(psbt: &Psbt, input: u32) -> Result<(), Refusal> {
    let spent = psbt.inputs.get(input as usize).and_then(|input| input.witness_utxo.as_ref());
    require(spent.is_some(), "the input, or the output it spends, is missing", || Fact::count("input", input.into()))
}

fn wallet(psbt: &Psbt, utxos: &[Utxo]) -> Result<(), Refusal> {
    for point in utxos.iter().filter_map(|utxo| utxo.close_info.as_ref()?.commitment_point.as_ref()) {
        self::point("commitment_point", point)?;
    }
    let input = |index: usize| move || Fact::count("input", index as u64);
    for (index, told) in psbt.inputs.iter().enumerate() {
        require(told.witness_utxo.is_some(), "an input does not tell what it spends", input(index))?;
        let is_signed = told.redeem_script.is_some() && told.final_script_sig.is_some();
        require(!is_signed, "an input is signed already", input(index))?;
    }
    paths(psbt)
}

/// An output has one derivation path at most, and no script leaf.
fn paths(psbt: &Psbt) -> Result<(), Refusal> {
    let odd = psbt.outputs.iter().position(|output| {
        output.bip32_derivation.len() > 1
            || output.tap_key_origins.len() > 1
            || output.tap_key_origins.values().any(|(leaves, _)| !leaves.is_empty())
    });
    require(odd.is_none(), "an output has more than one derivation path", || {
        Fact::count("output", odd.unwrap_or_default() as u64)
    })
}

#[cfg(test)]
mod tests;
