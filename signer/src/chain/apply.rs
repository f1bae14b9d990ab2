//! Moves one node's tracker by one block.
//!
//! vls-core's tracker checks the header and our attestation; the channels are shown the block's transactions here, with
//! the whole block at hand. So no filter can hit by chance, a removed block is read like an added one, and what vls-core
//! cannot read is shown in a form it can (`closing.rs`).

use std::collections::{BTreeSet, HashSet};
use std::mem;

use bitcoin::{BlockHash, Network, OutPoint, Transaction, Txid};
use lightning_signer::chain::tracker::{ChainListener, ChainTracker, Error as TrackerError, ListenSlot};
use lightning_signer::monitor::ChainMonitor;
use lightning_signer::node::Node;

use super::attest::Attestor;
use super::block::ChainBlock;
use super::closing;

/// What a block did to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The tracker's height now.
    pub height: u32,
    /// The hash of the tracker's tip now.
    pub hash: BlockHash,
    /// Funding outpoints of the channels for which the block held a transaction. If there are none, only heights changed.
    pub touched: Vec<OutPoint>,
}

/// Why a block could not be applied. The node needs its operator; its tracker is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The block does not belong at the tracker's tip.
    #[error("block {hash} at height {height} does not fit the tracker's tip {tip}")]
    Misplaced {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u32,
        /// The tracker's tip.
        tip: BlockHash,
    },
    /// The chain was reorganised below the blocks that the tracker remembers (100 at most, fewer for a young node).
    #[error("the chain was reorganised below height {height}, the oldest block this node remembers")]
    ReorgTooDeep {
        /// The height of the oldest block remembered.
        height: u32,
    },
    /// The header or the attestation breaks a rule of the network.
    #[error("block {hash} is refused: {cause}")]
    Invalid {
        /// The block.
        hash: BlockHash,
        /// The tracker's words.
        cause: String,
    },
    /// The tracker's rules do not cover this network.
    #[error("channels cannot be followed on network {0}")]
    Network(Network),
}

impl ApplyError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Misplaced { .. } => "Report this with the daemon's log: the follower lost its place.",
            Self::ReorgTooDeep { .. } => {
                "Check the backend first. If the reorg is real, close the node's channels and add it anew."
            }
            Self::Invalid { .. } => "Check that the chain backend is a fully validating node of the signer's network.",
            Self::Network(_) => "Use bitcoin, testnet, signet or regtest.",
        }
    }
}

/// Makes `block` the tip of `node`'s tracker and shows it to every channel it concerns: all of these are in `concerned`,
/// by their funding outpoints ([`Watches::concerned`](super::Watches::concerned)). To record it is the caller's part.
///
/// Panics only where vls-core does (a poisoned lock): call it inside the actor's `catch_unwind`.
pub fn apply_block(
    node: &Node,
    block: &ChainBlock,
    attestor: &Attestor,
    concerned: &BTreeSet<OutPoint>,
) -> Result<Effect, ApplyError> {
    let mut tracker = node.get_tracker();
    let tip = tracker.tip().0.block_hash();
    if block.block().header.prev_blockhash != tip || block.height() != tracker.height() + 1 {
        return Err(misplaced(block, tip));
    }
    let proof = attestor.attest(block, &tracker.tip().1);
    without_listeners(&mut tracker, block, |tracker| tracker.add_block(block.block().header, proof))?;
    let mut touched = Vec::new();
    for (monitor, slot) in tracker.listeners.values_mut() {
        let txs = transactions(block, &slot.txid_watches, &slot.watches, concerned.contains(&monitor.funding_outpoint));
        if txs.is_empty() {
            monitor.on_add_block(&[], &block.hash());
            continue;
        }
        touched.push(monitor.funding_outpoint);
        closing::show(node, monitor, block, &txs);
        let (adds, removes) = monitor.on_add_streamed_block_end(&block.hash());
        slot.watches.extend(adds);
        // Removed after adding: an output may be spent in the block that creates it.
        slot.watches.retain(|outpoint| !removes.contains(outpoint));
        slot.seen.extend(removes);
    }
    Ok(Effect { height: tracker.height(), hash: tracker.tip().0.block_hash(), touched })
}

/// Removes `block`, the tip of `node`'s tracker, and undoes what it did to the channels, all of which are in `concerned`.
/// To record it is the caller's part.
///
/// Panics as [`apply_block`] does.
pub fn revert_block(
    node: &Node,
    block: &ChainBlock,
    attestor: &Attestor,
    concerned: &BTreeSet<OutPoint>,
) -> Result<Effect, ApplyError> {
    let mut tracker = node.get_tracker();
    let tip = tracker.tip().0.block_hash();
    if block.hash() != tip || block.height() != tracker.height() {
        return Err(misplaced(block, tip));
    }
    let Some(previous) = tracker.headers().front().cloned() else {
        return Err(ApplyError::ReorgTooDeep { height: tracker.height() });
    };
    let proof = attestor.attest(block, &previous.1);
    without_listeners(&mut tracker, block, |tracker| tracker.remove_block(proof, previous).map(drop))?;
    let mut touched = Vec::new();
    for (monitor, slot) in tracker.listeners.values_mut() {
        let watches = slot.watches.union(&slot.seen);
        let mut txs = transactions(block, &slot.txid_watches, watches, concerned.contains(&monitor.funding_outpoint));
        // Undone backwards: what spends a close goes before the close.
        txs.reverse();
        if txs.is_empty() {
            monitor.on_remove_block(&[], &block.hash());
            continue;
        }
        touched.push(monitor.funding_outpoint);
        closing::show(node, monitor, block, &txs);
        monitor.on_remove_streamed_block_end(&block.hash());
        watch_again(slot, &txs);
    }
    Ok(Effect { height: tracker.height(), hash: tracker.tip().0.block_hash(), touched })
}

/// The transactions of `block` for a channel with these watches, in block order. A channel that is not concerned has none,
/// and is not asked.
fn transactions<'a, 'b>(
    block: &'a ChainBlock,
    txids: impl IntoIterator<Item = &'b Txid>,
    outpoints: impl IntoIterator<Item = &'b OutPoint>,
    concerned: bool,
) -> Vec<&'a Transaction> {
    if concerned {
        return block.matching(txids, outpoints);
    }
    debug_assert!(block.matching(txids, outpoints).is_empty(), "a watch is missing from the index");
    Vec::new()
}

/// What the removed transactions spent is unspent again, and what they created does not exist any more.
fn watch_again(slot: &mut ListenSlot, removed: &[&Transaction]) {
    for input in removed.iter().flat_map(|tx| &tx.input) {
        if slot.seen.remove(&input.previous_output) {
            slot.watches.insert(input.previous_output);
        }
    }
    let created: HashSet<_> = removed.iter().map(|tx| tx.compute_txid()).collect();
    slot.watches.retain(|outpoint| !created.contains(&outpoint.txid));
}

/// Runs `step` while the tracker has no channels and the difficulty rules that fit its network.
fn without_listeners(
    tracker: &mut ChainTracker<ChainMonitor>,
    block: &ChainBlock,
    step: impl FnOnce(&mut ChainTracker<ChainMonitor>) -> Result<(), TrackerError>,
) -> Result<(), ApplyError> {
    let network = tracker.network;
    let rules = difficulty_rules(network).ok_or(ApplyError::Network(network))?;
    let headers = tracker.headers.clone();
    let listeners = mem::take(&mut tracker.listeners);
    tracker.network = rules;
    let result = step(tracker);
    tracker.network = network;
    tracker.listeners = listeners;
    result.map_err(|error| {
        // The tracker drops a header before it looks at the block to be removed.
        tracker.headers = headers;
        ApplyError::Invalid { hash: block.hash(), cause: format!("{error:?}") }
    })
}

/// The network whose difficulty rules, as the tracker knows them, hold on `network`.
///
/// Signet retargets as mainnet does but starts easier, which the tracker's regtest rules allow. Testnet4 may jump by more
/// than a factor of four (BIP 94), which no rule of the tracker allows.
fn difficulty_rules(network: Network) -> Option<Network> {
    match network {
        Network::Bitcoin | Network::Testnet | Network::Regtest => Some(network),
        Network::Signet => Some(Network::Regtest),
        Network::Testnet4 => None,
    }
}

fn misplaced(block: &ChainBlock, tip: BlockHash) -> ApplyError {
    ApplyError::Misplaced { hash: block.hash(), height: block.height(), tip }
}
