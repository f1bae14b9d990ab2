//! The appliance's own view of the chain: a source, a follower that drives every node's tracker, and what `status` shows.
//!
//! Blocks never come from a node: a node could lie about them or withhold them (`docs/chain.md`).

mod apply;
mod attest;
mod bitcoind;
mod block;
mod closing;
mod follower;
mod sink;
mod source;
mod start;
mod view;
mod watches;

pub use apply::{ApplyError, Effect, apply_block, revert_block};
pub use attest::Attestor;
pub use bitcoind::{Auth, BitcoindSource};
pub use block::ChainBlock;
pub use follower::{Follower, FollowerOptions};
pub use sink::{ChainSink, SinkError, TrackerPosition};
pub use source::{ChainSource, SourceError, Tip};
pub use start::{StartingPoint, starting_point};
pub use view::{ChainStatus, ChainView, NodeStatus};
pub use watches::Watches;
