//! Each side's chain: blocks come and go.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, consensus,
    transaction,
};
use lightning_signer::chain::tracker::ListenSlot;
use lightning_signer::persist::Persist;
use txoo::Attestation;
use txoo::filter::BlockSpendFilter;
use txoo::proof::{ProofType, TxoProof};
use txoo::util::sign_attestation;

use super::Side;

const ORACLE: [u8; 32] = [2; 32];

impl Side {
    /// The transaction in this side's chain that spends `outpoint`.
    pub(in super::super) fn spender(&self, outpoint: &OutPoint) -> Option<Transaction> {
        let mut txs = self.blocks.iter().flat_map(|block| &block.txdata);
        txs.find(|tx| tx.input.iter().any(|input| input.previous_output == *outpoint)).cloned()
    }

    /// Adds a block with `txs` to this side's chain, with the proof that the signer's own chain view would make.
    pub(in super::super) fn mine(&mut self, txs: Vec<Transaction>) {
        let (tip, height) = {
            let tracker = self.node.get_tracker();
            (tracker.tip().clone(), tracker.height())
        };
        let block = block(&tip.0, height + 1, txs);
        let (txids, outpoints) = self.node.get_tracker().get_all_forward_watches();
        let proof = prove(&block, height + 1, &tip.1, &outpoints, &txids);
        self.expect_block(&block);
        {
            let mut tracker = self.node.get_tracker();
            tracker.add_block(block.header, proof).unwrap();
            self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        }
        self.blocks.push(block);
        self.flush();
    }

    /// Adds a block by streaming all of it, as happens when its filter matches a watched outpoint by chance.
    pub(in super::super) fn mine_streamed(&mut self, txs: Vec<Transaction>) {
        let mut tracker = self.node.get_tracker();
        let (tip, height) = (tracker.tip().clone(), tracker.height());
        let block = block(&tip.0, height + 1, txs);
        let proof = TxoProof { proof: ProofType::ExternalBlock(), ..prove(&block, height + 1, &tip.1, &[], &[]) };
        tracker.block_chunk(block.block_hash(), 0, &consensus::serialize(&block)).unwrap();
        tracker.add_block(block.header, proof).unwrap();
        self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        drop(tracker);
        self.blocks.push(block);
        self.flush();
    }

    /// A reorganisation takes the newest block away.
    pub(in super::super) fn unmine(&mut self) {
        let Some(block) = self.blocks.pop() else { return };
        let (before, height) = {
            let tracker = self.node.get_tracker();
            (tracker.headers()[0].clone(), tracker.height())
        };
        self.expect_block(&block);
        let (txids, outpoints) = self.node.get_tracker().get_all_reverse_watches();
        let proof = prove(&block, height, &before.1, &outpoints, &txids);
        {
            let mut tracker = self.node.get_tracker();
            tracker.remove_block(proof, before).unwrap();
            self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        }
        self.flush();
    }

    fn expect_block(&self, block: &Block) {
        if self.hints {
            let tracker = self.node.get_tracker();
            let concerned = tracker.listeners.iter().filter(|(_, (_, slot))| concerns(block, slot));
            let concerned: Vec<OutPoint> = concerned.map(|(outpoint, _)| *outpoint).collect();
            self.persister.expect_block(&concerned);
        }
    }
}

fn concerns(block: &Block, slot: &ListenSlot) -> bool {
    let known = |outpoint: &OutPoint| slot.watches.contains(outpoint) || slot.seen.contains(outpoint);
    let spends = |tx: &Transaction| tx.input.iter().any(|input| known(&input.previous_output));
    block.txdata.iter().any(|tx| slot.txid_watches.contains(&tx.compute_txid()) || spends(tx))
}

pub(super) fn oracle() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &ORACLE).unwrap()
}

fn prove(block: &Block, height: u32, before: &FilterHeader, outpoints: &[OutPoint], txids: &[Txid]) -> TxoProof {
    let attestation = Attestation {
        block_hash: block.block_hash(),
        block_height: height,
        filter_header: BlockSpendFilter::from_block(block).filter_header(before),
        time: 0,
    };
    let signed = sign_attestation(attestation, &oracle(), &Secp256k1::new());
    TxoProof::prove(vec![(oracle().public_key(), signed)], before, block, height, outpoints, txids)
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
