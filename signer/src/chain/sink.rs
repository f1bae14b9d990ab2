//! What the follower drives: the trackers of all nodes, each behind its actor.

use std::sync::Arc;

use bitcoin::BlockHash;

use super::apply::ApplyError;
use super::block::ChainBlock;
use crate::names::NodeName;

/// Where one node's tracker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerPosition {
    /// The node.
    pub node: NodeName,
    /// Height of the tracker's tip.
    pub height: u32,
    /// Hash of the tracker's tip.
    pub hash: BlockHash,
}

/// The trackers of all nodes that follow the chain. Calls block until the block's effect is durable (P1).
pub trait ChainSink: Send + Sync {
    /// Every tracker that can move now. A frozen node is not listed.
    fn trackers(&self) -> Vec<TrackerPosition>;

    /// Makes `block`, whose parent is the tracker's tip, the tracker's tip; returns the new position.
    fn connect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError>;

    /// Removes `block`, the tracker's tip; returns the new position.
    fn disconnect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError>;
}

/// Why a tracker did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The node cannot take it now: it is being rebuilt, or the journal cannot be written. The follower asks again.
    #[error("the node is busy: {0}")]
    Busy(String),
    /// There is no such node any more.
    #[error("the node is gone")]
    Gone,
    /// The node cannot follow the chain any further and needs its operator. It is asked again at every poll unless the
    /// sink stops listing it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}
