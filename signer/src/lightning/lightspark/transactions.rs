//! The transaction of a signing job, and which of its inputs the job is about: recomputed, never believed (P2).

use bitcoin::consensus::encode::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::script::Instruction;
use bitcoin::secp256k1::PublicKey;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, CompressedPublicKey, ScriptBuf, Transaction};

use super::event::Job;
use crate::lightning::limits::MAX_MONEY_SAT;
use crate::reasons::{Reason, Refusal};

/// Every input of a transaction may be the one that is asked for.
const MAX_INPUTS: usize = 512;
/// No script that can be spent is longer, in bytes.
const MAX_SCRIPT_BYTES: usize = 10_000;

/// Reads a transaction, as such or as a PSBT.
pub(super) fn read(bytes: &[u8]) -> Result<Transaction, Refusal> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Refusal::new(Reason::Malformed, format!("the job's transaction cannot be read: {error}"))
    };
    let tx = if bytes.starts_with(b"psbt\xff") {
        Psbt::deserialize(bytes).map_err(|error| unreadable(&error))?.unsigned_tx
    } else {
        deserialize::<Transaction>(bytes).map_err(|error| unreadable(&error))?
    };
    if tx.input.is_empty() || tx.output.is_empty() || tx.input.len() > MAX_INPUTS {
        return Err(unreadable(&format!("{} inputs, {} outputs", tx.input.len(), tx.output.len())));
    }
    let total_sat = tx.output.iter().try_fold(0u64, |sum, out| sum.checked_add(out.value.to_sat()));
    match total_sat {
        Some(total_sat) if total_sat <= MAX_MONEY_SAT => Ok(tx),
        _ => Err(unreadable(&"its outputs exceed all money")),
    }
}

/// The input whose digest (BIP 143, SIGHASH_ALL) is the job's message.
pub(super) fn input(job: &Job, tx: &Transaction) -> Result<usize, Refusal> {
    if job.amount_sat > MAX_MONEY_SAT || job.script.len() > MAX_SCRIPT_BYTES {
        return Err(Refusal::new(Reason::Malformed, "the job's amount or script is larger than there can be"));
    }
    let (script, value) = (ScriptBuf::from_bytes(job.script.clone()), Amount::from_sat(job.amount_sat));
    let mut cache = SighashCache::new(tx);
    let mut digest = |at| match script.is_p2wpkh() {
        true => cache.p2wpkh_signature_hash(at, &script, value, EcdsaSighashType::All).map_err(drop),
        false => cache.p2wsh_signature_hash(at, &script, value, EcdsaSighashType::All).map_err(drop),
    };
    let found = (0..tx.input.len()).find(|at| digest(*at).is_ok_and(|digest| digest.to_byte_array() == job.message));
    found.ok_or_else(|| {
        let detail = format!("job {}: no input of its transaction has this digest with its script and amount", job.id);
        Refusal::new(Reason::DigestMismatch, detail)
    })
}

/// The digest that is signed for the first input, as [`input`] looks for it.
pub(super) fn digest(tx: &Transaction, script: &[u8], amount_sat: u64) -> Option<[u8; 32]> {
    let (script, value) = (ScriptBuf::from_bytes(script.to_vec()), Amount::from_sat(amount_sat));
    let mut cache = SighashCache::new(tx);
    match script.is_p2wpkh() {
        true => cache.p2wpkh_signature_hash(0, &script, value, EcdsaSighashType::All).ok().map(|it| it.to_byte_array()),
        false => cache.p2wsh_signature_hash(0, &script, value, EcdsaSighashType::All).ok().map(|it| it.to_byte_array()),
    }
}

/// Whether `script` names `key`: itself, or by its hash.
pub(super) fn names(script: &[u8], key: &PublicKey) -> bool {
    let (plain, hash) = (key.serialize(), CompressedPublicKey(*key).wpubkey_hash().to_byte_array());
    let pushes = ScriptBuf::from_bytes(script.to_vec());
    pushes.instructions_minimal().any(|instruction| match instruction {
        Ok(Instruction::PushBytes(bytes)) => bytes.as_bytes() == plain || bytes.as_bytes() == hash,
        _ => false,
    })
}

/// What a job's script stands behind.
pub(super) fn output_script(script: &[u8]) -> ScriptBuf {
    let script = ScriptBuf::from_bytes(script.to_vec());
    if script.is_p2wpkh() {
        return script;
    }
    // BIP 143 writes a P2WPKH output as the P2PKH script of its key.
    match script.as_bytes() {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] if hash.len() == 20 => {
            ScriptBuf::from_bytes([&[0x00, 0x14], hash].concat())
        }
        _ => script.to_p2wsh(),
    }
}

/// The P2WPKH output of `key`.
pub(super) fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())
}

/// The obscured number of a commitment (BOLT 3), if the transaction has a commitment's form.
pub(super) fn obscured_number(tx: &Transaction) -> Option<u64> {
    let [input] = &tx.input[..] else { return None };
    let (sequence, lock_time) = (input.sequence.0, tx.lock_time.to_consensus_u32());
    let is_commitment = lock_time >> 24 == 0x20 && sequence >> 24 == 0x80;
    is_commitment.then(|| u64::from(sequence & 0xff_ffff) << 24 | u64::from(lock_time & 0xff_ffff))
}
