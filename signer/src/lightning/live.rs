//! The chain as actors see it in the running signer: what the follower found out. Nothing here waits for the backend.

use std::time::Instant;

use super::actor::ChainFacts;
use super::persist::ChainStart;
use crate::chain::ChainView;
use crate::names::NodeName;
use crate::reasons::Refusal;

impl ChainFacts for ChainView {
    fn require_fresh(&self, node: &NodeName) -> Result<(), Refusal> {
        Self::require_fresh(self, node, Instant::now())
    }

    fn start(&self) -> Option<ChainStart> {
        let start = Self::start(self)?;
        Some(ChainStart { height: start.height, header: start.headers.0, filter_header: start.headers.1 })
    }

    fn height(&self) -> Option<u32> {
        self.tip_height()
    }
}
