//! A regtest chain in memory that verifies what it confirms: scripts, locktimes, values, maturity.
//!
//! Nodes in this process use [`Chain`] directly; the signer daemon reaches it through [`RpcServer`], which speaks
//! bitcoind's JSON-RPC dialect. It is a test peer: one miner, no fees required, any replacement that pays more is taken.

mod coins;
mod miner;
mod rpc;
mod rules;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::{Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};

pub use self::rpc::RpcServer;
pub use self::rules::Reject;

use self::coins::{Coin, Coins};

/// Blocks mined before anyone looks, so that the faucet has mature coins.
const PREMINED_BLOCKS: u32 = 120;

/// What happened to the best chain, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A block became the tip.
    Connected(Arc<Block>, u32),
    /// The tip at this height left the best chain.
    Disconnected(Arc<Block>, u32),
}

/// The chain, its unconfirmed transactions and a faucet.
pub struct Chain {
    state: Mutex<State>,
}

struct State {
    /// Every block ever mined, also those that a reorg left behind.
    blocks: HashMap<BlockHash, Arc<Block>>,
    /// The best chain; the index is the height.
    best: Vec<BlockHash>,
    coins: Coins,
    /// Unconfirmed transactions in the order they arrived: parents before children.
    mempool: Vec<Transaction>,
    /// Makes every coinbase, hence every block, unique.
    mined: u64,
    subscribers: Vec<Sender<Event>>,
}

impl Chain {
    /// A chain whose faucet holds mature coins.
    pub fn new() -> Arc<Self> {
        let genesis = Arc::new(genesis_block(Network::Regtest));
        let mut state = State {
            best: vec![genesis.block_hash()],
            blocks: HashMap::from([(genesis.block_hash(), genesis)]),
            coins: Coins::default(),
            mempool: Vec::new(),
            mined: 0,
            subscribers: Vec::new(),
        };
        state.mine(PREMINED_BLOCKS, &miner::faucet_script());
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Checks `tx` and adds it to the mempool, replacing cheaper conflicts with all that spends them.
    ///
    /// A transaction that waits already is accepted again.
    pub fn broadcast(&self, tx: &Transaction) -> Result<Txid, Reject> {
        self.lock().accept(tx)
    }

    /// Mines `count` blocks with everything that may be confirmed.
    pub fn mine(&self, count: u32) {
        self.lock().mine(count, &miner::faucet_script());
    }

    /// Mines `count` blocks whose coinbase pays `script`.
    pub fn mine_to(&self, count: u32, script: &ScriptBuf) -> Vec<BlockHash> {
        self.lock().mine(count, script)
    }

    /// Pays `amount` to `script` from the faucet and confirms it in a new block.
    pub fn fund(&self, script: &ScriptBuf, amount: Amount) -> OutPoint {
        let mut state = self.lock();
        let tx = state.faucet_payment(script, amount);
        let txid = state.accept(&tx).expect("the faucet spends its own mature coins");
        state.mine(1, &miner::faucet_script());
        OutPoint { txid, vout: 0 }
    }

    /// Removes the last `depth` blocks; their transactions wait again, except those in `dropped` and what spends them.
    ///
    /// The chain is shorter until something is mined.
    pub fn invalidate(&self, depth: u32, dropped: &[Txid]) {
        self.lock().invalidate(depth, dropped);
    }

    /// Replaces the last `depth` blocks by `depth + 1` others, in which `dropped` is not confirmed.
    pub fn reorg(&self, depth: u32, dropped: &[Txid]) {
        let mut state = self.lock();
        state.invalidate(depth, dropped);
        state.mine(depth + 1, &miner::faucet_script());
    }

    /// A signed payment of `amount` to `script` from the faucet as output 0, not broadcast: another one made before this
    /// is confirmed may spend the same coins.
    pub fn faucet_payment(&self, script: &ScriptBuf, amount: Amount) -> Transaction {
        self.lock().faucet_payment(script, amount)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = channel();
        self.lock().subscribers.push(sender);
        receiver
    }

    /// Height and hash of the tip.
    pub fn tip(&self) -> (u32, BlockHash) {
        let state = self.lock();
        (state.height(), state.tip_hash())
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.lock().height()
    }

    /// The best chain's block at `height`.
    pub fn block_at(&self, height: u32) -> Option<Arc<Block>> {
        self.lock().block_at(height).cloned()
    }

    /// A block by hash, also one that a reorg left behind.
    pub fn block(&self, hash: &BlockHash) -> Option<Arc<Block>> {
        self.lock().blocks.get(hash).cloned()
    }

    /// The height of a block of the best chain.
    pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.lock().best.iter().position(|best| best == hash).map(|height| height as u32)
    }

    /// A confirmed or waiting transaction.
    pub fn transaction(&self, txid: &Txid) -> Option<Transaction> {
        let state = self.lock();
        let confirmed = state.coins.confirmed_at(txid).and_then(|height| state.block_at(height));
        let mut all = confirmed.map_or([].as_slice(), |block| &block.txdata).iter().chain(&state.mempool);
        all.find(|tx| tx.compute_txid() == *txid).cloned()
    }

    /// The height at which `txid` is confirmed.
    pub fn confirmed_at(&self, txid: &Txid) -> Option<u32> {
        self.lock().coins.confirmed_at(txid)
    }

    /// The transaction that spends `outpoint`, confirmed or waiting.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        let state = self.lock();
        state.coins.spender(outpoint).or_else(|| state.conflict(outpoint).map(Transaction::compute_txid))
    }

    /// An output that is confirmed and not spent in a block.
    pub fn unspent(&self, outpoint: &OutPoint) -> Option<TxOut> {
        self.lock().coins.get(outpoint).map(|coin| coin.output.clone())
    }

    /// The transactions that wait, parents before children.
    pub fn mempool(&self) -> Vec<Transaction> {
        self.lock().mempool.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn height(&self) -> u32 {
        self.best.len() as u32 - 1
    }

    fn tip_hash(&self) -> BlockHash {
        *self.best.last().expect("the genesis block is never removed")
    }

    fn block_at(&self, height: u32) -> Option<&Arc<Block>> {
        self.best.get(height as usize).and_then(|hash| self.blocks.get(hash))
    }

    /// Median of the eleven block times up to `height` (BIP 113).
    fn median_time(&self, height: u32) -> u32 {
        let mut times: Vec<u32> = (height.saturating_sub(10)..=height)
            .filter_map(|height| self.block_at(height).map(|block| block.header.time))
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// The waiting transaction that spends `outpoint`.
    fn conflict(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.mempool.iter().find(|tx| tx.input.iter().any(|input| input.previous_output == *outpoint))
    }

    /// The coin at `outpoint`: confirmed, or created by a waiting transaction (then as if confirmed in the next block).
    fn spendable(&self, outpoint: &OutPoint) -> Option<Coin> {
        if let Some(coin) = self.coins.get(outpoint) {
            return Some(coin.clone());
        }
        let parent = self.mempool.iter().find(|tx| tx.compute_txid() == outpoint.txid)?;
        let output = parent.output.get(outpoint.vout as usize)?.clone();
        Some(Coin { output, height: self.height() + 1, coinbase: false })
    }

    fn accept(&mut self, tx: &Transaction) -> Result<Txid, Reject> {
        let txid = tx.compute_txid();
        if self.mempool.iter().any(|waiting| waiting.compute_txid() == txid) {
            return Ok(txid);
        }
        if self.coins.confirmed_at(&txid).is_some() {
            return Err(Reject::AlreadyConfirmed);
        }
        let fee = self.check(tx)?;
        let mut replaced = Vec::new();
        for input in &tx.input {
            if let Some(rival) = self.conflict(&input.previous_output) {
                let rival_fee = self.check(rival).unwrap_or(Amount::ZERO);
                if fee <= rival_fee {
                    return Err(Reject::Replacement { rival: rival.compute_txid(), needs_more_than: rival_fee });
                }
                replaced.push(rival.compute_txid());
            }
        }
        self.evict(&replaced);
        self.mempool.push(tx.clone());
        Ok(txid)
    }

    /// The fee of `tx` if it could be confirmed in the next block.
    fn check(&self, tx: &Transaction) -> Result<Amount, Reject> {
        let next = rules::NextBlock {
            height: self.height() + 1,
            median_time: self.median_time(self.height()),
            median_time_before: &|height| self.median_time(height.saturating_sub(1)),
        };
        rules::check(tx, &|outpoint| self.spendable(outpoint), &next)
    }

    /// Removes waiting transactions and all that spend them.
    fn evict(&mut self, gone: &[Txid]) {
        let mut gone = gone.to_vec();
        self.mempool.retain(|tx| {
            let txid = tx.compute_txid();
            let out = gone.contains(&txid) || tx.input.iter().any(|input| gone.contains(&input.previous_output.txid));
            if out {
                gone.push(txid);
            }
            !out
        });
    }

    fn connect(&mut self, block: Block) {
        let block = Arc::new(block);
        let height = self.height() + 1;
        self.coins.connect(&block, height);
        self.best.push(block.block_hash());
        self.blocks.insert(block.block_hash(), block.clone());
        self.announce(Event::Connected(block, height));
    }

    fn invalidate(&mut self, depth: u32, dropped: &[Txid]) {
        let keep = (self.best.len() - depth as usize).max(1);
        let removed: Vec<Arc<Block>> =
            self.best.split_off(keep).iter().filter_map(|hash| self.blocks.get(hash).cloned()).collect();
        for (index, block) in removed.iter().enumerate().rev() {
            self.announce(Event::Disconnected(block.clone(), (keep + index) as u32));
        }
        self.coins = Coins::default();
        for height in 1..self.best.len() as u32 {
            if let Some(block) = self.block_at(height).cloned() {
                self.coins.connect(&block, height);
            }
        }
        // What came back is older than what waits, and is checked again: its parents may be gone.
        let returned = removed.iter().flat_map(|block| block.txdata.iter().skip(1).cloned());
        let waiting: Vec<Transaction> = returned.chain(std::mem::take(&mut self.mempool)).collect();
        for tx in waiting.iter().filter(|tx| !dropped.contains(&tx.compute_txid())) {
            // A transaction that cannot be confirmed any more is forgotten, as bitcoind does.
            let _ = self.accept(tx);
        }
    }

    fn announce(&mut self, event: Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn tip_header(&self) -> Header {
        self.blocks[&self.tip_hash()].header
    }
}

#[cfg(test)]
mod tests;
