//! Sweeps: delayed outputs, HTLCs on the peer's commitment and what a cheat had, one or several in a transaction.
//!
//! vls knows where they go and the amount of the one input it is asked to sign. A signature proves that amount only, so with
//! several inputs, signed one by one with a different lie about the others each time, any fee could be hidden. Here every
//! input must be an output that the chain showed us, and the fee is what these amounts leave (F14 and its neighbours).

use bitcoin::Transaction;
use bitcoin::absolute::LockTime;
use lightning_signer::policy::error::ValidationError;
use lightning_signer::policy::validator::ChainState;

use super::outputs::Outputs;
use super::policy::MAX_ENDING_FEERATE_PER_KW;
use super::{HouseValidator, locktime};
use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// The witness of a swept output weighs at least this much: a signature and a script (BOLT 3).
const WITNESS_WEIGHT: u64 = 150;

impl HouseValidator {
    /// What `rules` of vls and our own say of a sweep. Of the locktime only we judge: to vls a node that saw a block before
    /// we did, or bumped a claim after an HTLC's expiry, looks like an attack.
    pub(super) fn sweep(
        &self,
        tx: &Transaction,
        chain: &ChainState,
        input: usize,
        amount_sat: u64,
        rules: impl Fn(&Transaction) -> Result<(), ValidationError>,
    ) -> Result<(), ValidationError> {
        if let Err(error) = rules(tx) {
            self.refused_by.note_rule(&error);
            let LockTime::Blocks(height) = tx.lock_time else { return Err(error) };
            // What else is wrong with it stays wrong.
            self.noted(rules(&Transaction { lock_time: LockTime::ZERO, ..tx.clone() }))?;
            self.refused_by.take();
            let require_fresh = || self.view.chain.require_fresh(&self.view.node);
            self.house(locktime::judge(height.to_consensus_u32(), chain.current_height, require_fresh))?;
        }
        self.house(self.swept(tx, input, amount_sat))
    }

    fn swept(&self, tx: &Transaction, input: usize, told_sat: u64) -> Result<(), Refusal> {
        let outputs = &self.view.outputs;
        let mut swept_sat = 0u64;
        for (index, spent) in tx.input.iter().map(|txin| txin.previous_output).enumerate() {
            let Some(amount_sat) = outputs.amount_sat(&spent) else {
                // A node may see the close of a channel before we do.
                self.view.chain.require_fresh(&self.view.node)?;
                let detail = format!("the chain has not shown {spent} as an output of a channel of this node");
                return Err(
                    Refusal::new(Reason::ChainPending, detail).with_fact(Fact::text("outpoint", spent.to_string()))
                );
            };
            if index == input && amount_sat != told_sat {
                return Err(amount_differs(outputs, &spent, told_sat));
            }
            swept_sat = swept_sat.saturating_add(amount_sat);
        }
        require_fee(tx, swept_sat)
    }
}

fn amount_differs(outputs: &Outputs, spent: &bitcoin::OutPoint, told_sat: u64) -> Refusal {
    let shown_sat = outputs.amount_sat(spent).unwrap_or_default();
    let detail = format!("{spent}: the node says {told_sat} sat, the chain {shown_sat} sat");
    Refusal::new(Reason::CoinAmount, detail).with_fact(Fact::number("coin", told_sat, Unit::Sat).exactly(shown_sat))
}

/// Whether what the outputs leave of `swept_sat` can be a fee.
fn require_fee(tx: &Transaction, swept_sat: u64) -> Result<(), Refusal> {
    let paid_sat = tx.output.iter().fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()));
    let Some(fee_sat) = swept_sat.checked_sub(paid_sat) else {
        let detail = format!("the outputs pay {paid_sat} sat, the inputs hold {swept_sat} sat");
        let fact = Fact::number("sweep_outputs", paid_sat, Unit::Sat).at_most(swept_sat);
        return Err(Refusal::new(Reason::SweepFee, detail).with_fact(fact));
    };
    let weight = tx.weight().to_wu() + WITNESS_WEIGHT * tx.input.len() as u64;
    let limit_sat = weight * u64::from(MAX_ENDING_FEERATE_PER_KW) / 1_000;
    if fee_sat > limit_sat {
        let detail = format!("fee of the sweep: {fee_sat} sat > {limit_sat} sat, {MAX_ENDING_FEERATE_PER_KW} sat/kw");
        let fact = Fact::number("sweep_fee", fee_sat, Unit::Sat).at_most(limit_sat);
        return Err(Refusal::new(Reason::SweepFee, detail).with_fact(fact));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut};

    use super::*;

    #[test]
    fn the_fee_of_all_inputs_together_is_bounded() {
        let tx = |inputs, paid_sat| Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default(); inputs],
            output: vec![TxOut { value: Amount::from_sat(paid_sat), script_pubkey: ScriptBuf::new() }],
        };
        let reason = |tx: &Transaction, swept_sat| require_fee(tx, swept_sat).map_err(|refusal| refusal.reason);
        assert_eq!(reason(&tx(1, 9_000), 10_000), Ok(()));
        assert_eq!(reason(&tx(1, 10_000), 10_000), Ok(()), "somebody else may pay");
        assert_eq!(reason(&tx(1, 10_001), 10_000), Err(Reason::SweepFee));
        assert_eq!(reason(&tx(3, 100_000), 2_000_000), Err(Reason::SweepFee));
        assert_eq!(reason(&tx(3, 1_900_000), 2_000_000), Ok(()));
    }
}
