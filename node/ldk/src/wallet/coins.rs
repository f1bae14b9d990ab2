//! The wallet's coins, as the chain shows them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};
use lightning::events::bump_transaction::Utxo;

const COINBASE_MATURITY: u32 = 100;
/// A witness with one low-R signature and one key, with lengths: what an input of ours adds to a transaction.
const P2WPKH_WITNESS_WEIGHT: u64 = 1 + 1 + 72 + 1 + 33;
const EMPTY_SCRIPT_SIG_WEIGHT: u64 = 4;

pub(super) const SATISFACTION_WEIGHT: u64 = EMPTY_SCRIPT_SIG_WEIGHT + P2WPKH_WITNESS_WEIGHT;

#[derive(Default)]
pub(super) struct Coins {
    pub(super) height: u32,
    coins: BTreeMap<OutPoint, Coin>,
    reserved: HashSet<OutPoint>,
}

pub(super) struct Coin {
    pub(super) output: TxOut,
    /// The whole transaction: the signer wants proof that a funding input is segwit.
    pub(super) transaction: Arc<Transaction>,
    /// The wallet path.
    pub(super) index: u32,
    height: u32,
    spent: Option<u32>,
}

impl Coin {
    pub(super) fn utxo(&self, outpoint: OutPoint) -> Utxo {
        Utxo { outpoint, output: self.output.clone(), satisfaction_weight: SATISFACTION_WEIGHT }
    }

    fn is_mature(&self, height: u32) -> bool {
        !self.transaction.is_coinbase() || height + 1 >= self.height + COINBASE_MATURITY
    }
}

impl Coins {
    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    pub(super) fn spendable(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter().filter(|(outpoint, coin)| {
            coin.spent.is_none() && coin.is_mature(self.height) && !self.reserved.contains(outpoint)
        })
    }

    /// Takes in one confirmed transaction.
    pub(super) fn add(&mut self, tx: &Transaction, height: u32, index_of: impl Fn(&ScriptBuf) -> Option<u32>) {
        for input in &tx.input {
            if let Some(coin) = self.coins.get_mut(&input.previous_output) {
                coin.spent = Some(height);
                self.reserved.remove(&input.previous_output);
            }
        }
        let mut transaction = None;
        for (output, vout) in tx.output.iter().zip(0..) {
            let Some(index) = index_of(&output.script_pubkey) else { continue };
            let transaction = transaction.get_or_insert_with(|| Arc::new(tx.clone())).clone();
            let coin = Coin { output: output.clone(), transaction, index, height, spent: None };
            self.coins.insert(OutPoint { txid: tx.compute_txid(), vout }, coin);
        }
    }

    /// Forgets what happened above `height`.
    pub(super) fn rewind(&mut self, height: u32) {
        self.height = height;
        self.coins.retain(|_, coin| coin.height <= height);
        for coin in self.coins.values_mut() {
            coin.spent = coin.spent.filter(|spent| *spent <= height);
        }
    }

    pub(super) fn reserve(&mut self, tx: &Transaction) {
        self.reserved.extend(tx.input.iter().map(|input| input.previous_output));
    }

    pub(super) fn release(&mut self, tx: &Transaction) {
        for input in &tx.input {
            self.reserved.remove(&input.previous_output);
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, TxIn};

    use super::*;

    fn pay(from: OutPoint, sat: u64) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output: from, ..TxIn::default() }],
            output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() }],
        }
    }

    fn first(tx: &Transaction) -> OutPoint {
        OutPoint { txid: tx.compute_txid(), vout: 0 }
    }

    fn spendable(coins: &Coins) -> Vec<OutPoint> {
        coins.spendable().map(|(outpoint, _)| *outpoint).collect()
    }

    #[test]
    fn a_coin_is_gone_once_spent_and_back_after_a_reorganisation() {
        let elsewhere = OutPoint { txid: pay(OutPoint::null(), 1).compute_txid(), vout: 5 };
        let received = pay(elsewhere, 100);
        let spent = pay(first(&received), 90);
        let mut coins = Coins::default();
        coins.add(&received, 1, |_| Some(7));
        assert_eq!(spendable(&coins), [first(&received)]);
        coins.add(&spent, 2, |_| None);
        assert_eq!(spendable(&coins), []);
        coins.rewind(1);
        assert_eq!(spendable(&coins), [first(&received)]);
        coins.rewind(0);
        assert_eq!(spendable(&coins), []);
    }

    #[test]
    fn a_coinbase_output_waits_for_a_hundred_blocks() {
        let mined = pay(OutPoint::null(), 100);
        let mut coins = Coins::default();
        coins.add(&mined, 1, |_| Some(7));
        coins.height = 99;
        assert_eq!(spendable(&coins), []);
        coins.height = 100;
        assert_eq!(spendable(&coins), [first(&mined)]);
    }

    #[test]
    fn a_reserved_coin_is_not_offered_twice() {
        let received = pay(OutPoint { txid: pay(OutPoint::null(), 1).compute_txid(), vout: 5 }, 100);
        let spend = pay(first(&received), 90);
        let mut coins = Coins::default();
        coins.add(&received, 1, |_| Some(7));
        coins.reserve(&spend);
        assert_eq!(spendable(&coins), []);
        coins.release(&spend);
        assert_eq!(spendable(&coins), [first(&received)]);
    }
}
