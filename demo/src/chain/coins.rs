//! The coins of the best chain: what is unspent, what was spent by whom, what is confirmed where.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, TxOut, Txid};

/// One unspent output.
#[derive(Clone, Debug)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// The block that created it.
    pub(super) height: u32,
    pub(super) coinbase: bool,
}

/// All coins, and an index of what is confirmed.
#[derive(Default)]
pub(super) struct Coins {
    unspent: HashMap<OutPoint, Coin>,
    spenders: HashMap<OutPoint, Txid>,
    confirmed: HashMap<Txid, u32>,
}

impl Coins {
    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.unspent.get(outpoint)
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    pub(super) fn confirmed_at(&self, txid: &Txid) -> Option<u32> {
        self.confirmed.get(txid).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.unspent.iter()
    }

    /// Applies `block`, which was checked before.
    pub(super) fn connect(&mut self, block: &Block, height: u32) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.confirmed.insert(txid, height);
            for input in &tx.input {
                self.unspent.remove(&input.previous_output);
                self.spenders.insert(input.previous_output, txid);
            }
            for (vout, output) in
                tx.output.iter().enumerate().filter(|(_, output)| !output.script_pubkey.is_op_return())
            {
                let coin = Coin { output: output.clone(), height, coinbase: tx.is_coinbase() };
                self.unspent.insert(OutPoint { txid, vout: vout as u32 }, coin);
            }
        }
    }
}
