//! A chain of its own for a driver: regtest blocks without a node behind them.

use std::sync::Arc;

use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, Network, ScriptBuf, Transaction, TxIn, TxMerkleNode, TxOut};

use super::super::actor::ChainFacts;
use super::super::persist::ChainStart;
use crate::chain::ChainBlock;
use crate::names::NodeName;
use crate::reasons::Refusal;

/// Mines blocks on top of regtest's genesis block.
#[derive(Clone)]
pub struct MiniChain {
    tip: Header,
    height: u32,
}

impl Default for MiniChain {
    fn default() -> Self {
        Self { tip: genesis_block(Network::Regtest).header, height: 0 }
    }
}

impl MiniChain {
    /// A block with these transactions.
    pub fn mine(&mut self, transactions: Vec<Transaction>) -> Arc<ChainBlock> {
        self.height += 1;
        let txdata = [vec![coinbase(self.height)], transactions].concat();
        let header = Header {
            version: BlockVersion::TWO,
            prev_blockhash: self.tip.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.tip.time + 600,
            bits: self.tip.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
        // Regtest asks for one leading zero bit: every second nonce will do.
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }
        self.tip = block.header;
        Arc::new(ChainBlock::new(self.height, block))
    }
}

/// The chain as a driver's nodes see it: always fresh, and new nodes start at its genesis block.
impl ChainFacts for MiniChain {
    fn require_fresh(&self, _node: &NodeName) -> Result<(), Refusal> {
        Ok(())
    }

    fn start(&self) -> Option<ChainStart> {
        let block = ChainBlock::new(0, genesis_block(Network::Regtest));
        let filter_header = block.filter().filter_header(&FilterHeader::all_zeros());
        Some(ChainStart { height: 0, header: block.block().header, filter_header })
    }
}

fn coinbase(height: u32) -> Transaction {
    let script_sig = bitcoin::script::Builder::new().push_int(i64::from(height)).push_int(0).into_script();
    Transaction {
        version: bitcoin::transaction::Version::ONE,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { script_sig, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(5_000_000_000), script_pubkey: ScriptBuf::new() }],
    }
}
