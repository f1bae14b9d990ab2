//! Accounts for every satoshi: what was paid into some wallets is in them, in channels or in anchors, or went to miners.

use std::collections::{BTreeMap, HashMap};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Transaction, TxOut};
use lightning::ln::chan_utils::{get_keyed_anchor_redeemscript, make_funding_redeemscript};
use thiserror::Error;

use crate::chain::Chain;

/// The value of an anchor (BOLT 3).
const ANCHOR: Amount = Amount::from_sat(330);

/// Where the coins of some wallets are, as the chain tells it: all that was paid in, and all that was made of it.
///
/// Whatever the chain holds, `deposited` and `foreign` together are the sum of the others. What the books prove is that
/// nothing is `foreign` or `astray`: ask [`check`](Self::check).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Paid into the wallets by transactions that spend none of these coins.
    pub deposited: Amount,
    /// What each wallet has, in the order in which they were given.
    pub held: Vec<Amount>,
    /// In the funding outputs of open channels.
    pub in_channels: Amount,
    /// In anchors of commitments, which are worth less than taking them costs.
    pub anchors: Amount,
    /// Paid to miners.
    pub fees: Amount,
    /// In any other unspent output: on its way to a wallet, or lost.
    pub astray: BTreeMap<OutPoint, Amount>,
    /// Others' coins, spent together with these.
    pub foreign: Amount,
}

/// Why the books do not balance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Discrepancy {
    /// The wallets were paid something else than they should have been.
    #[error("{expected} should have been paid in, and the chain shows {found}: is a wallet's script missing?")]
    Deposits {
        /// As the payer knows it.
        expected: Amount,
        /// As the chain shows it.
        found: Amount,
    },
    /// Others' coins came in, so that it cannot be said whose are left.
    #[error("others' coins of {0} were spent together with these")]
    Foreign(Amount),
    /// Coins are where no wallet, open channel or anchor is.
    #[error("coins are in no wallet, open channel or anchor: {0:?}")]
    Astray(BTreeMap<OutPoint, Amount>),
    /// A wallet has more than it is owed, or less by more than all costs.
    #[error("wallet {wallet} has {held} and is owed {owed_msat} msat, less at most what fees and anchors cost")]
    Share {
        /// Its place in the order given.
        wallet: usize,
        /// What it has.
        held: Amount,
        /// What it should have, before costs.
        owed_msat: i64,
    },
}

impl Books {
    /// Follows the coins of `wallets`, each given by all of its scripts, from block to block. `channels` are the funding
    /// outputs of channels; those unspent are open.
    pub fn of(chain: &Chain, wallets: &[Vec<ScriptBuf>], channels: &[OutPoint]) -> Self {
        let owners = wallets.iter().zip(0..).flat_map(|(scripts, owner)| scripts.iter().map(move |s| (s, owner)));
        let mut walk = Walk { owners: owners.collect(), ..Walk::default() };
        walk.books.held = vec![Amount::ZERO; wallets.len()];
        for height in 1..=chain.height() {
            let block = chain.block_at(height);
            block.iter().flat_map(|block| &block.txdata).for_each(|tx| walk.enter(tx));
        }
        walk.end(channels)
    }

    /// Whether every satoshi of `deposited`, which is known from elsewhere, is accounted for.
    pub fn check(&self, deposited: Amount) -> Result<(), Discrepancy> {
        if self.deposited != deposited {
            return Err(Discrepancy::Deposits { expected: deposited, found: self.deposited });
        }
        if self.foreign > Amount::ZERO {
            return Err(Discrepancy::Foreign(self.foreign));
        }
        if !self.astray.is_empty() {
            return Err(Discrepancy::Astray(self.astray.clone()));
        }
        Ok(())
    }

    /// Whether each wallet has what it is owed, in msat, less a part of the costs. Payments of less than a satoshi that
    /// are left over at a close are among the costs too: they went to miners.
    pub fn check_shares(&self, owed_msat: &[i64]) -> Result<(), Discrepancy> {
        let msat = |amount: Amount| amount.to_sat() as i64 * 1000;
        let costs_msat = 0..=msat(self.fees + self.anchors);
        let mut shares = self.held.iter().zip(owed_msat).zip(0..);
        let wrong = shares.find(|((held, owed_msat), _)| !costs_msat.contains(&(*owed_msat - msat(**held))));
        wrong.map_or(Ok(()), |((held, owed_msat), wallet)| {
            Err(Discrepancy::Share { wallet, held: *held, owed_msat: *owed_msat })
        })
    }
}

/// What is known after some transactions.
#[derive(Default)]
struct Walk<'a> {
    owners: HashMap<&'a ScriptBuf, usize>,
    books: Books,
    /// Every output so far, ours or not.
    outputs: HashMap<OutPoint, TxOut>,
    /// The unspent ones among them that are a wallet's or were made of a wallet's coins.
    ours: HashMap<OutPoint, Place>,
}

#[derive(Clone, Copy)]
enum Place {
    Wallet(usize),
    Anchor,
    Elsewhere,
}

impl Walk<'_> {
    fn enter(&mut self, tx: &Transaction) {
        let (mut spent, mut foreign, mut is_ours) = (Amount::ZERO, Amount::ZERO, false);
        for input in tx.input.iter().filter(|_| !tx.is_coinbase()) {
            let value = self.value(&input.previous_output);
            spent += value;
            match self.ours.remove(&input.previous_output) {
                Some(_) => is_ours = true,
                None => foreign += value,
            }
        }
        if is_ours {
            self.books.foreign += foreign;
            self.books.fees += spent - tx.output.iter().map(|output| output.value).sum();
        }
        let mut anchors = anchor_scripts(tx);
        for (output, vout) in tx.output.iter().zip(0..) {
            let outpoint = OutPoint { txid: tx.compute_txid(), vout };
            self.outputs.insert(outpoint, output.clone());
            let place = self.place(output, &mut anchors);
            if is_ours {
                self.ours.insert(outpoint, place);
            } else if let Place::Wallet(_) = place {
                self.ours.insert(outpoint, place);
                self.books.deposited += output.value;
            }
        }
    }

    /// A commitment has one anchor for each funding key: the first output that could be it.
    fn place(&self, output: &TxOut, anchors: &mut Vec<ScriptBuf>) -> Place {
        if let Some(owner) = self.owners.get(&output.script_pubkey) {
            return Place::Wallet(*owner);
        }
        match anchors.iter().position(|anchor| output.value == ANCHOR && *anchor == output.script_pubkey) {
            Some(index) => {
                anchors.swap_remove(index);
                Place::Anchor
            }
            None => Place::Elsewhere,
        }
    }

    fn end(mut self, channels: &[OutPoint]) -> Books {
        for (outpoint, place) in std::mem::take(&mut self.ours) {
            let value = self.value(&outpoint);
            match place {
                Place::Wallet(owner) => self.books.held[owner] += value,
                Place::Anchor => self.books.anchors += value,
                Place::Elsewhere if channels.contains(&outpoint) => self.books.in_channels += value,
                // A spend that leaves everything to miners has to have an output all the same: OP_RETURN, of nothing.
                Place::Elsewhere if value == Amount::ZERO => {}
                Place::Elsewhere => {
                    self.books.astray.insert(outpoint, value);
                }
            }
        }
        self.books
    }

    fn value(&self, outpoint: &OutPoint) -> Amount {
        self.outputs.get(outpoint).expect("the chain checked that what is spent exists").value
    }
}

/// The scripts of a commitment's anchors (BOLT 3). Its witness shows the two funding keys that they are made from; any
/// other transaction has none.
fn anchor_scripts(tx: &Transaction) -> Vec<ScriptBuf> {
    let keys = tx.input.iter().filter_map(|input| funding_keys(input.witness.last()?)).flatten();
    keys.map(|key| get_keyed_anchor_redeemscript(&key).to_p2wsh()).collect()
}

fn funding_keys(witness_script: &[u8]) -> Option<[PublicKey; 2]> {
    let instructions = Script::from_bytes(witness_script).instructions();
    let mut keys = instructions.filter_map(|i| PublicKey::from_slice(i.ok()?.push_bytes()?.as_bytes()).ok());
    let keys = [keys.next()?, keys.next()?];
    (make_funding_redeemscript(&keys[0], &keys[1]).as_bytes() == witness_script).then_some(keys)
}

#[cfg(test)]
mod tests;
