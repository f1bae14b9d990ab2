//! Where a new node's tracker starts: a few blocks below the tip, so that it has nothing to catch up with.

use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use lightning_signer::chain::tracker::Headers;
use lightning_signer::node::Node;

use super::apply::{ApplyError, difficulty_rules};
use super::attest::Attestor;
use super::block::ChainBlock;
use super::source::{ChainSource, SourceError};

/// The block on which a new tracker stands.
#[derive(Clone)]
pub struct StartingPoint {
    /// Its height.
    pub height: u32,
    /// Its header, and the filter header that all later attestations build on.
    pub headers: Headers,
}

/// The block `depth` below the tip of `source`. No channel of a new node can be older.
pub fn starting_point(source: &dyn ChainSource, depth: u32) -> Result<StartingPoint, SourceError> {
    let tip = source.tip()?;
    if tip.syncing {
        return Err(SourceError::Behind { height: tip.height });
    }
    let height = tip.height.saturating_sub(depth);
    let hash = source.hash_at(height)?.ok_or(SourceError::Behind { height })?;
    let block = ChainBlock::new(height, source.block(&hash)?);
    // The tracker does not check attestations after an all-zero filter header, so the first one is a real one.
    let filter_header = block.filter().filter_header(&FilterHeader::all_zeros());
    Ok(StartingPoint { height, headers: Headers(block.block().header, filter_header) })
}

/// Puts the tracker of a new `node`, which has no channel yet, at `start`; it trusts `attestor` alone from now on.
///
/// The caller records the node afterwards.
pub fn start_node_at(node: &Node, start: &StartingPoint, attestor: &Attestor) -> Result<(), ApplyError> {
    let mut tracker = node.get_tracker();
    difficulty_rules(tracker.network).ok_or(ApplyError::Network(tracker.network))?;
    tracker.headers.clear();
    tracker.tip = start.headers.clone();
    tracker.height = start.height;
    tracker.trusted_oracle_pubkeys = vec![attestor.public_key()];
    Ok(())
}
