//! Who waits for what: the watches of all of a node's channels in one place, so that a block is held against them without
//! a visit to each channel.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};
use lightning_signer::chain::tracker::{ChainTracker, ListenSlot};
use lightning_signer::monitor::ChainMonitor;

use super::block::ChainBlock;

/// The watches of a node's channels, each with the funding outpoint of the channel that has it.
///
/// May hold more than the channels still watch, never less: who is named by [`concerned`](Self::concerned) is asked again
/// what it watches, who is not named learns nothing of the block but its height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    txids: BTreeSet<(Txid, OutPoint)>,
    outpoints: BTreeSet<(OutPoint, OutPoint)>,
}

impl Watches {
    /// The watches of all channels of `tracker`.
    pub fn of(tracker: &ChainTracker<ChainMonitor>) -> Self {
        let mut watches = Self::default();
        tracker.listeners.iter().for_each(|(funding, (_, slot))| watches.add(*funding, slot));
        watches
    }

    /// Adds what the channel funded by `funding` watches. What it has seen spent belongs to it: a block that is removed
    /// may bring it back.
    pub fn add(&mut self, funding: OutPoint, slot: &ListenSlot) {
        self.txids.extend(slot.txid_watches.iter().map(|txid| (*txid, funding)));
        self.outpoints.extend(slot.watches.iter().chain(&slot.seen).map(|outpoint| (*outpoint, funding)));
    }

    /// Forgets the channels whose funding outpoints `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&OutPoint) -> bool) {
        self.txids.retain(|(_, funding)| keep(funding));
        self.outpoints.retain(|(_, funding)| keep(funding));
    }

    /// The funding outpoints of the channels for which `block`, added or removed, may hold a transaction.
    pub fn concerned(&self, block: &ChainBlock) -> BTreeSet<OutPoint> {
        let by_id = self.txids.iter().filter(|(txid, _)| block.transaction(txid).is_some());
        let by_spend = self.outpoints.iter().filter(|(outpoint, _)| block.spender(outpoint).is_some());
        by_id.map(|(_, funding)| *funding).chain(by_spend.map(|(_, funding)| *funding)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};

    use super::*;
    use crate::lightning::driver::MiniChain;

    fn outpoint(number: u8) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 0 }
    }

    fn spending(previous_output: OutPoint) -> Transaction {
        let input = TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() };
        let output = TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn { witness: Witness::new(), ..input }],
            output: vec![output],
        }
    }

    fn slot(txids: &[Txid], watches: &[OutPoint], seen: &[OutPoint]) -> ListenSlot {
        let (watches, seen) = (watches.iter().copied().collect(), seen.iter().copied().collect());
        ListenSlot { txid_watches: txids.iter().copied().collect(), watches, seen }
    }

    #[test]
    fn a_block_concerns_whoever_waits_for_a_transaction_of_it_or_saw_one_and_nobody_else() {
        let tx = spending(outpoint(1));
        let block = MiniChain::default().mine(vec![tx.clone()]);
        let mut watches = Watches::default();
        watches.add(outpoint(11), &slot(&[tx.compute_txid()], &[], &[]));
        watches.add(outpoint(12), &slot(&[], &[outpoint(1)], &[]));
        watches.add(outpoint(13), &slot(&[], &[], &[outpoint(1)]));
        watches.add(outpoint(14), &slot(&[outpoint(2).txid], &[outpoint(3)], &[outpoint(4)]));
        assert_eq!(watches.concerned(&block), [outpoint(11), outpoint(12), outpoint(13)].into());
        watches.retain(|funding| *funding != outpoint(12));
        assert_eq!(watches.concerned(&block), [outpoint(11), outpoint(13)].into());
    }
}
