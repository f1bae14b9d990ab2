//! Each side's chain: blocks come and go.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, consensus, transaction,
};
use lightning_signer::persist::Persist;
use txoo::proof::{ProofType, TxoProof};

use super::Side;
use crate::chain::{Attestor, ChainBlock, Effect, apply_block, revert_block};

impl Side {
    /// The transaction in this side's chain that spends `outpoint`.
    pub(in super::super) fn spender(&self, outpoint: &OutPoint) -> Option<Transaction> {
        let mut txs = self.blocks.iter().flat_map(|block| &block.block().txdata);
        txs.find(|tx| tx.input.iter().any(|input| input.previous_output == *outpoint)).cloned()
    }

    /// Adds a block with `txs` to this side's chain.
    pub(in super::super) fn mine(&mut self, txs: Vec<Transaction>) {
        let block = self.next_block(txs);
        let effect = apply_block(&self.node, &block, &attestor(), &self.persister.concerned(&block)).unwrap();
        self.blocks.push(block);
        self.record(&effect);
    }

    /// Adds a block by streaming all of it, as vls does when its filter matches a watched outpoint by chance.
    pub(in super::super) fn mine_streamed(&mut self, txs: Vec<Transaction>) {
        let block = self.next_block(txs);
        let mut tracker = self.node.get_tracker();
        let proof = attestor().attest(&block, &tracker.tip().1);
        let proof = TxoProof { proof: ProofType::ExternalBlock(), ..proof };
        tracker.block_chunk(block.hash(), 0, &consensus::serialize(block.block())).unwrap();
        tracker.add_block(block.block().header, proof).unwrap();
        self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        drop(tracker);
        self.blocks.push(block);
        self.flush();
    }

    /// A reorganisation takes the newest block away.
    pub(in super::super) fn unmine(&mut self) {
        let Some(block) = self.blocks.pop() else { return };
        let effect = revert_block(&self.node, &block, &attestor(), &self.persister.concerned(&block)).unwrap();
        self.record(&effect);
    }

    fn next_block(&self, txs: Vec<Transaction>) -> ChainBlock {
        let tracker = self.node.get_tracker();
        let height = tracker.height() + 1;
        ChainBlock::new(height, block(&tracker.tip().0, height, txs))
    }

    fn record(&mut self, effect: &Effect) {
        if self.hints {
            self.persister.expect_block(&effect.touched);
        }
        self.persister.update_tracker(&self.node.get_id(), &self.node.get_tracker()).unwrap();
        self.flush();
    }
}

pub(super) fn attestor() -> Attestor {
    Attestor::new(&SecretKey::from_slice(&[2; 32]).unwrap())
}

fn block(tip: &Header, height: u32, txs: Vec<Transaction>) -> Block {
    let mut coinbase = spend(OutPoint::null(), 0);
    coinbase.input[0].script_sig = ScriptBuf::builder().push_int(i64::from(height)).push_int(0).into_script();
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: tip.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: tip.time + 600,
            bits: tip.bits,
            nonce: 0,
        },
        txdata: [vec![coinbase], txs].concat(),
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// A transaction that spends `outpoint`; `tag` makes it unique.
pub(in super::super) fn spend(outpoint: OutPoint, tag: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(1_000_000 + tag), script_pubkey: ScriptBuf::new() }],
    }
}
