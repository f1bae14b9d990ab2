//! Where new nodes start in the chain, and whether the view of it is fresh: what the actors ask.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::lock;
use crate::chain::{ChainSource, ChainView, starting_point};
use crate::lightning::actor::ChainFacts;
use crate::lightning::persist::ChainStart;
use crate::names::NodeName;
use crate::reasons::Refusal;

/// Time between two attempts to learn the first starting point.
const RETRY: Duration = Duration::from_secs(1);

/// Remembers the last starting point, so that no actor waits for the backend.
pub(super) struct Starting {
    source: Arc<dyn ChainSource>,
    view: Arc<ChainView>,
    depth: u32,
    point: Mutex<Option<ChainStart>>,
}

impl Starting {
    /// Starts to ask `source` for the block `depth` below its tip, until it answers once.
    pub(super) fn start(source: Arc<dyn ChainSource>, view: Arc<ChainView>, depth: u32) -> std::io::Result<Arc<Self>> {
        let starting = Arc::new(Self { source, view, depth, point: Mutex::default() });
        let weak = Arc::downgrade(&starting);
        std::thread::Builder::new().name("chain-start".to_owned()).spawn(move || {
            while let Some(starting) = weak.upgrade() {
                if starting.refresh() {
                    return;
                }
                drop(starting);
                std::thread::sleep(RETRY);
            }
        })?;
        Ok(starting)
    }

    /// Asks the backend for the starting point of a node that is added now. Blocks. Returns whether it is known.
    pub(super) fn refresh(&self) -> bool {
        match starting_point(&*self.source, self.depth) {
            Ok(start) => *lock(&self.point) = Some(ChainStart { height: start.height, header: start.headers.0 }),
            Err(error) => tracing::warn!(%error, "no starting point for new nodes yet"),
        }
        lock(&self.point).is_some()
    }
}

impl ChainFacts for Starting {
    fn require_fresh(&self, node: &NodeName) -> Result<(), Refusal> {
        self.view.require_fresh(node, Instant::now())
    }

    fn start(&self) -> Option<ChainStart> {
        *lock(&self.point)
    }
}
