//! One block as all nodes share it: parsed, indexed and filtered once.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use txoo::filter::BlockSpendFilter;

/// A block and where it stands, with an index of what it creates and spends.
pub struct ChainBlock {
    height: u32,
    hash: BlockHash,
    block: Block,
    /// Position of each transaction.
    created: HashMap<Txid, usize>,
    /// Position of the transaction that spends each outpoint.
    spent: HashMap<OutPoint, usize>,
    filter: OnceLock<BlockSpendFilter>,
}

impl ChainBlock {
    /// Indexes `block`, which stands at `height`.
    pub fn new(height: u32, block: Block) -> Self {
        let created = block.txdata.iter().enumerate().map(|(index, tx)| (tx.compute_txid(), index)).collect();
        let inputs = |(index, tx): (usize, &Transaction)| -> Vec<_> {
            tx.input.iter().map(|input| (input.previous_output, index)).collect()
        };
        let spent = block.txdata.iter().enumerate().flat_map(inputs).collect();
        Self { height, hash: block.block_hash(), block, created, spent, filter: OnceLock::new() }
    }

    /// Its height.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The block itself.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The filter of spent outpoints that an attestation commits to. Computed on first use.
    pub fn filter(&self) -> &BlockSpendFilter {
        self.filter.get_or_init(|| BlockSpendFilter::from_block(&self.block))
    }

    /// The transaction with this id.
    pub fn transaction(&self, txid: &Txid) -> Option<&Transaction> {
        self.created.get(txid).map(|index| &self.block.txdata[*index])
    }

    /// The transaction that spends `outpoint`.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.spent.get(outpoint).map(|index| &self.block.txdata[*index])
    }

    /// The transactions that have one of `txids`, spend one of `outpoints`, or spend an output of such a transaction,
    /// in block order.
    pub fn matching<'a, 'b>(
        &'a self,
        txids: impl IntoIterator<Item = &'b Txid>,
        outpoints: impl IntoIterator<Item = &'b OutPoint>,
    ) -> Vec<&'a Transaction> {
        let by_id = txids.into_iter().filter_map(|txid| self.created.get(txid));
        let by_spend = outpoints.into_iter().filter_map(|outpoint| self.spent.get(outpoint));
        let mut found = BTreeSet::new();
        let mut queue: Vec<usize> = by_id.chain(by_spend).copied().collect();
        while let Some(index) = queue.pop() {
            if found.insert(index) {
                let tx = &self.block.txdata[index];
                let txid = tx.compute_txid();
                let outputs = (0..tx.output.len() as u32).map(|vout| OutPoint { txid, vout });
                queue.extend(outputs.filter_map(|outpoint| self.spent.get(&outpoint)));
            }
        }
        found.into_iter().map(|index| &self.block.txdata[index]).collect()
    }
}
