//! What a transaction must satisfy to be confirmed in the next block.

use std::collections::HashSet;

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::consensus::serialize;
use bitcoin::relative::LockTime as RelativeLockTime;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};

use super::coins::Coin;

/// Blocks after which a coinbase output may be spent.
const COINBASE_MATURITY: u32 = 100;

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// It has no inputs or no outputs, spends an output twice, or is a coinbase.
    #[error("bad-txns-malformed")]
    Malformed,
    /// An input does not exist, or was spent in a block.
    #[error("bad-txns-inputs-missingorspent: {0}")]
    MissingInput(OutPoint),
    /// A coinbase output is younger than 100 blocks.
    #[error("bad-txns-premature-spend-of-coinbase: {0}")]
    Immature(OutPoint),
    /// It pays out more than it takes in.
    #[error("bad-txns-in-belowout: {inputs} < {outputs}")]
    Inflation {
        /// Sum of the inputs.
        inputs: Amount,
        /// Sum of the outputs.
        outputs: Amount,
    },
    /// nLockTime has not been reached (BIP 113).
    #[error("non-final: locktime {0}")]
    NotFinal(u32),
    /// A relative locktime has not been reached (BIP 68).
    #[error("non-BIP68-final: {0}")]
    NotMature(OutPoint),
    /// An input's script or signature does not hold.
    #[error("mandatory-script-verify-flag-failed: input {0}")]
    Script(usize),
    /// It conflicts with a waiting transaction that pays at least as much.
    #[error("insufficient fee, rejecting replacement: {rival} pays {needs_more_than}")]
    Replacement {
        /// The waiting transaction.
        rival: Txid,
        /// Its fee.
        needs_more_than: Amount,
    },
    /// It is in a block.
    #[error("Transaction outputs already in utxo set")]
    AlreadyConfirmed,
}

/// The block in which the transaction would be confirmed.
pub(super) struct NextBlock<'a> {
    pub(super) height: u32,
    /// Median time past of the tip, in seconds (BIP 113).
    pub(super) median_time: u32,
    /// Median time past of the block before a given height, in seconds (BIP 68).
    pub(super) median_time_before: &'a dyn Fn(u32) -> u32,
}

/// The fee of `tx`, whose inputs `coin` looks up, if it may be confirmed in `next`.
pub(super) fn check(
    tx: &Transaction,
    coin: &dyn Fn(&OutPoint) -> Option<Coin>,
    next: &NextBlock<'_>,
) -> Result<Amount, Reject> {
    check_form(tx)?;
    check_locktime(tx, next)?;
    let mut spent = Vec::with_capacity(tx.input.len());
    for input in &tx.input {
        let outpoint = input.previous_output;
        let coin = coin(&outpoint).ok_or(Reject::MissingInput(outpoint))?;
        if coin.coinbase && next.height < coin.height + COINBASE_MATURITY {
            return Err(Reject::Immature(outpoint));
        }
        let relative = if tx.version.0 >= 2 { input.sequence.to_relative_lock_time() } else { None };
        let mature = match relative {
            Some(RelativeLockTime::Blocks(blocks)) => next.height >= coin.height + u32::from(blocks.value()),
            Some(RelativeLockTime::Time(units)) => {
                next.median_time >= (next.median_time_before)(coin.height) + u32::from(units.value()) * 512
            }
            None => true,
        };
        if !mature {
            return Err(Reject::NotMature(outpoint));
        }
        spent.push(coin.output);
    }
    let inputs: Amount = spent.iter().map(|output| output.value).sum();
    let outputs: Amount = tx.output.iter().map(|output| output.value).sum();
    check_scripts(tx, &spent)?;
    inputs.checked_sub(outputs).ok_or(Reject::Inflation { inputs, outputs })
}

fn check_form(tx: &Transaction) -> Result<(), Reject> {
    let distinct: HashSet<_> = tx.input.iter().map(|input| input.previous_output).collect();
    let sane = tx.output.iter().all(|output| output.value <= Amount::MAX_MONEY);
    if tx.input.is_empty() || tx.output.is_empty() || tx.is_coinbase() || distinct.len() != tx.input.len() || !sane {
        return Err(Reject::Malformed);
    }
    Ok(())
}

fn check_locktime(tx: &Transaction, next: &NextBlock<'_>) -> Result<(), Reject> {
    let locktime = tx.lock_time.to_consensus_u32();
    // BIP 113: times compare with the median time past; both kinds must lie strictly before the block.
    let now = if locktime < LOCK_TIME_THRESHOLD { next.height } else { next.median_time };
    let enabled = tx.input.iter().any(|input| input.sequence.enables_absolute_lock_time());
    if enabled && locktime >= now && locktime != 0 { Err(Reject::NotFinal(locktime)) } else { Ok(()) }
}

/// Runs every input's script, taproot included.
fn check_scripts(tx: &Transaction, spent: &[TxOut]) -> Result<(), Reject> {
    let raw = serialize(tx);
    let outputs: Vec<_> = spent
        .iter()
        .map(|output| bitcoinconsensus::Utxo {
            script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: output.script_pubkey.len() as u32,
            value: output.value.to_sat() as i64,
        })
        .collect();
    for (index, output) in spent.iter().enumerate() {
        let script = output.script_pubkey.as_bytes();
        bitcoinconsensus::verify(script, output.value.to_sat(), &raw, Some(&outputs), index)
            .map_err(|_| Reject::Script(index))?;
    }
    Ok(())
}
