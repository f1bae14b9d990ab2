//! Where a new node's tracker starts: a few blocks below the tip, so that it has nothing to catch up with.

use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use lightning_signer::chain::tracker::Headers;

use super::block::ChainBlock;
use super::source::{ChainSource, SourceError, Tip};

/// The block on which a new tracker stands. Its tip must be `headers`, its height `height`, its header memory empty.
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
    start_below(source, tip, depth)
}

/// The same for a tip that is known.
pub(super) fn start_below(source: &dyn ChainSource, tip: Tip, depth: u32) -> Result<StartingPoint, SourceError> {
    let height = tip.height.saturating_sub(depth);
    let hash = source.hash_at(height)?.ok_or(SourceError::Behind { height })?;
    let block = ChainBlock::new(height, source.block(&hash)?);
    // The tracker does not check attestations after an all-zero filter header, so the first one is a real one.
    let filter_header = block.filter().filter_header(&FilterHeader::all_zeros());
    Ok(StartingPoint { height, headers: Headers(block.block().header, filter_header) })
}
