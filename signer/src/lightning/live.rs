//! The chain as actors see it in the running signer: the follower's view, and the backend for where new nodes start.

use std::sync::Arc;
use std::time::Instant;

use super::actor::ChainFacts;
use super::persist::ChainStart;
use crate::chain::{ChainSource, ChainView, starting_point};
use crate::names::NodeName;
use crate::reasons::Refusal;

/// The running signer's chain.
pub struct LiveChain {
    /// What the follower found out.
    pub view: Arc<ChainView>,
    /// The backend. Asked only for where a new node starts.
    pub source: Arc<dyn ChainSource>,
    /// Blocks below the tip at which a new node starts.
    pub start_depth: u32,
}

impl ChainFacts for LiveChain {
    fn require_fresh(&self, node: &NodeName) -> Result<(), Refusal> {
        self.view.require_fresh(node, Instant::now())
    }

    fn start(&self) -> Option<ChainStart> {
        // A backend that was just found silent would only keep a signing thread waiting.
        if self.view.is_stale(Instant::now()) {
            return None;
        }
        match starting_point(&*self.source, self.start_depth) {
            Ok(start) => {
                Some(ChainStart { height: start.height, header: start.headers.0, filter_header: start.headers.1 })
            }
            Err(error) => {
                tracing::warn!(%error, "a new node waits for the chain backend");
                None
            }
        }
    }
}
