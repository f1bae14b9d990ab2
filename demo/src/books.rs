//! Accounts for every satoshi: what went into the world must be in wallets or have been paid as fees.

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction};

use crate::chain::Chain;

/// Where the coins of some wallets went, as the chain tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Paid into the wallets from outside.
    pub deposited: Amount,
    /// At the wallets' scripts now.
    pub held: Amount,
    /// Paid to miners by every transaction that spends their coins, directly or after others.
    pub fees: Amount,
    /// Left in outputs nobody collects: anchors.
    pub abandoned: Amount,
}

impl Books {
    /// Follows the coins of `scripts` from block to block.
    pub fn of(chain: &Chain, scripts: &[ScriptBuf]) -> Self {
        let mut books =
            Self { deposited: Amount::ZERO, held: Amount::ZERO, fees: Amount::ZERO, abandoned: Amount::ZERO };
        let mut ours: std::collections::HashMap<OutPoint, (Amount, bool)> = std::collections::HashMap::new();
        for height in 1..=chain.height() {
            let Some(block) = chain.block_at(height) else { continue };
            for tx in block.txdata.iter().filter(|tx| !tx.is_coinbase()) {
                books.enter(tx, scripts, &mut ours);
            }
        }
        for (amount, in_wallet) in ours.into_values() {
            *(if in_wallet { &mut books.held } else { &mut books.abandoned }) += amount;
        }
        books
    }

    /// Whether nothing is missing.
    pub fn reconcile(&self) -> bool {
        self.deposited == self.held + self.fees + self.abandoned
    }

    fn enter(
        &mut self,
        tx: &Transaction,
        scripts: &[ScriptBuf],
        ours: &mut std::collections::HashMap<OutPoint, (Amount, bool)>,
    ) {
        let spent: Vec<_> = tx.input.iter().filter_map(|input| ours.remove(&input.previous_output)).collect();
        let (txid, is_ours) = (tx.compute_txid(), !spent.is_empty());
        for (vout, output) in (0..).zip(&tx.output) {
            let in_wallet = scripts.contains(&output.script_pubkey);
            if is_ours || in_wallet {
                ours.insert(OutPoint { txid, vout }, (output.value, in_wallet));
            }
            if in_wallet && !is_ours {
                self.deposited += output.value;
            }
        }
        if is_ours {
            let inputs: Amount = spent.into_iter().map(|(amount, _)| amount).sum();
            let outputs: Amount = tx.output.iter().map(|output| output.value).sum();
            // What outputs hold beyond our inputs, somebody else put in.
            self.fees += inputs.checked_sub(outputs).unwrap_or(Amount::ZERO);
            self.deposited += outputs.checked_sub(inputs).unwrap_or(Amount::ZERO);
        }
    }
}
