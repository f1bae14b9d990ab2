//! Mining on regtest, and the faucet that spends what is mined.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
    WitnessMerkleNode, transaction,
};

use super::{PREMINED_BLOCKS, State};

/// Blocks between two halvings on regtest.
const HALVING_INTERVAL: u32 = 150;
/// The witness commitment's header (BIP 141).
const WITNESS_COMMITMENT: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];

/// The faucet's coins: anyone-can-spend, so that no key is needed.
pub(super) fn faucet_script() -> ScriptBuf {
    faucet_witness_script().to_p2wsh()
}

fn faucet_witness_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

impl State {
    /// Mines `count` blocks that pay `script`; what cannot be confirmed yet keeps waiting.
    pub(super) fn mine(&mut self, count: u32, script: &ScriptBuf) -> Vec<BlockHash> {
        (0..count).map(|_| self.mine_one(script)).collect()
    }

    fn mine_one(&mut self, script: &ScriptBuf) -> BlockHash {
        // A reorg may have moved a locktime into the future: such a transaction, and what spends it, waits.
        let mut waiting: Vec<Transaction> = Vec::new();
        let mut included: Vec<Transaction> = Vec::new();
        for tx in std::mem::take(&mut self.mempool) {
            let parent_waits = |parent: &Txid| waiting.iter().any(|tx| tx.compute_txid() == *parent);
            let ready = !tx.input.iter().any(|input| parent_waits(&input.previous_output.txid));
            self.mempool.clone_from(&included);
            if ready && self.check(&tx).is_ok() { included.push(tx) } else { waiting.push(tx) }
        }
        self.mempool = waiting;
        let block = self.assemble(script, included);
        let hash = block.block_hash();
        self.connect(block);
        hash
    }

    fn assemble(&mut self, script: &ScriptBuf, transactions: Vec<Transaction>) -> Block {
        let height = self.height() + 1;
        self.mined += 1;
        let previous = self.tip_header();
        // Premined blocks lie ten minutes apart in the past, later ones are mined "now".
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as u32);
        let time = now.saturating_sub(PREMINED_BLOCKS.saturating_sub(height) * 600).max(previous.time + 1);
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: previous.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: previous.bits,
            nonce: 0,
        };
        let mut txdata = vec![self.coinbase(script, height)];
        txdata.extend(transactions);
        let mut block = Block { header, txdata };
        commit_to_witnesses(&mut block);
        block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }
        block
    }

    fn coinbase(&self, script: &ScriptBuf, height: u32) -> Transaction {
        let reward = Amount::from_sat(Amount::from_int_btc(50).to_sat() >> (height / HALVING_INTERVAL));
        let input = TxIn {
            previous_output: OutPoint::null(),
            // BIP 34: the height comes first.
            script_sig: Builder::new().push_int(height.into()).push_int(self.mined as i64).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0u8; 32]]),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![TxOut { value: reward, script_pubkey: script.clone() }],
        }
    }

    /// A payment of `amount` to `script` as output 0, from mature faucet coins.
    ///
    /// # Panics
    /// If the faucet is empty: it starts with 1,000 BTC or so, which no test needs.
    pub(super) fn faucet_payment(&self, script: &ScriptBuf, amount: Amount) -> Transaction {
        let faucet = faucet_script();
        let mut total = Amount::ZERO;
        let mut input = Vec::new();
        let mut coins: Vec<_> = self.coins.iter().filter(|(_, coin)| coin.output.script_pubkey == faucet).collect();
        coins.sort_by_key(|(outpoint, coin)| (coin.height, **outpoint));
        for (outpoint, coin) in coins {
            if total >= amount || coin.coinbase && self.height() + 1 < coin.height + 100 {
                break;
            }
            if self.conflict(outpoint).is_some() {
                continue;
            }
            total += coin.output.value;
            let witness = Witness::from_slice(&[faucet_witness_script().as_bytes()]);
            input.push(TxIn { previous_output: *outpoint, sequence: Sequence::MAX, witness, ..TxIn::default() });
        }
        let change = total.checked_sub(amount).expect("the faucet is empty");
        let mut output = vec![TxOut { value: amount, script_pubkey: script.clone() }];
        if change > Amount::ZERO {
            output.push(TxOut { value: change, script_pubkey: faucet });
        }
        Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
    }
}

/// Adds BIP 141's commitment to the coinbase, which signers and light clients may check.
fn commit_to_witnesses(block: &mut Block) {
    let coinbase_id = std::iter::once(WitnessMerkleNode::all_zeros().to_raw_hash());
    let others: Vec<_> = block.txdata.iter().skip(1).map(|tx| tx.compute_wtxid().to_raw_hash()).collect();
    let root = bitcoin::merkle_tree::calculate_root(coinbase_id.chain(others)).expect("there is a coinbase");
    let commitment = Block::compute_witness_commitment(&WitnessMerkleNode::from_raw_hash(root), &[0; 32]);
    let mut payload = WITNESS_COMMITMENT.to_vec();
    payload.extend_from_slice(&commitment.to_byte_array());
    let payload = <&bitcoin::script::PushBytes>::try_from(payload.as_slice()).expect("36 bytes are pushable");
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(payload) });
}
