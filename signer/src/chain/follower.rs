//! A thread that watches the source and moves every node's tracker along the best chain, through reorgs.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use tracing::{error, info, warn};

use super::block::ChainBlock;
use super::sink::{ChainSink, SinkError, TrackerPosition};
use super::source::{ChainSource, SourceError, Tip};
use super::start::start_below;
use super::view::ChainView;

/// Blocks kept for nodes that stand at about the same height. A full block takes some 10 MB.
const CACHED_BLOCKS: usize = 8;
/// Blocks that one node may move before the source is asked for its tip again.
const MOVES_PER_POLL: usize = 50;
/// How far above the source's tip a tracker may stand for the difference to be examined.
const MAX_BEHIND: u32 = 100;

/// How the follower behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerOptions {
    /// Time between two looks at the source.
    pub poll_interval: Duration,
    /// Blocks below the tip at which a new node starts.
    pub start_depth: u32,
}

impl Default for FollowerOptions {
    fn default() -> Self {
        Self { poll_interval: Duration::from_secs(1), start_depth: 6 }
    }
}

/// The running thread. Stops when dropped, after the block in hand.
pub struct Follower {
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts to follow `source` for the nodes of `sink`, and reports to `view`.
    pub fn start(
        source: Arc<dyn ChainSource>,
        sink: Arc<dyn ChainSink>,
        view: Arc<ChainView>,
        options: FollowerOptions,
    ) -> io::Result<Self> {
        let (wake, woken) = channel();
        let start_depth = options.start_depth;
        let mut pass = Pass { source, sink, view, start_depth, blocks: VecDeque::new(), no_start: None };
        let thread = std::thread::Builder::new()
            .name("chain".to_owned())
            .spawn(move || while pass.run_caught(&woken) && sleep(&woken, options.poll_interval) {})?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    /// Looks at the source at once, for example because a node was added.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            // A thread that has ended needs no waking.
            let _ = wake.send(());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Without a sender, the thread sees that nobody is interested any more.
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the chain follower had panicked");
        }
    }
}

/// False when the follower was dropped.
fn sleep(woken: &Receiver<()>, interval: Duration) -> bool {
    !matches!(woken.recv_timeout(interval), Err(RecvTimeoutError::Disconnected))
}

/// What to do with one tracker next.
enum Step {
    Connect(BlockHash),
    Disconnect,
    Nothing,
}

struct Pass {
    source: Arc<dyn ChainSource>,
    sink: Arc<dyn ChainSink>,
    view: Arc<ChainView>,
    start_depth: u32,
    /// The blocks used last, the newest in front.
    blocks: VecDeque<Arc<ChainBlock>>,
    /// Why a new node has nowhere to start.
    no_start: Option<SourceError>,
}

impl Pass {
    /// One pass. A panic ends it, not the follower: nodes that do not follow the chain are of no use, and `status` must
    /// say why.
    fn run_caught(&mut self, woken: &Receiver<()>) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.run(woken))).unwrap_or_else(|_| {
            if self.view.failed("the follower failed on what the chain backend sent; see the daemon's log".to_owned()) {
                error!("the chain follower panicked");
            }
            true
        })
    }

    /// Asks for the tip and moves every node towards it. False when the follower was dropped.
    fn run(&mut self, woken: &Receiver<()>) -> bool {
        let result = self.poll().and_then(|tip| self.move_all(tip, woken));
        result.unwrap_or_else(|error| {
            // Said once, not at every poll.
            if self.view.failed(format!("{error}. {}", error.hint())) {
                warn!(%error, hint = error.hint(), "no view of the chain");
            }
            true
        })
    }

    fn poll(&mut self) -> Result<Tip, SourceError> {
        let tip = self.source.tip()?;
        if tip.syncing {
            return Err(SourceError::Behind { height: tip.height });
        }
        let time = self.source.header(&tip.hash)?.time;
        self.view.succeeded(Instant::now(), tip, time);
        if self.view.start_is_wanted() {
            self.find_start(tip);
        }
        Ok(tip)
    }

    /// For new nodes. If it fails, for example at a backend that does not keep the block, only they wait.
    fn find_start(&mut self, tip: Tip) {
        match start_below(&*self.source, tip, self.start_depth) {
            Ok(start) => {
                self.view.starts_at(tip.hash, start);
                self.no_start = None;
            }
            // Said once, not at every poll.
            Err(error) if self.no_start.as_ref() != Some(&error) => {
                warn!(%error, hint = error.hint(), "a new node has no block to start from");
                self.no_start = Some(error);
            }
            Err(_) => {}
        }
    }

    /// Moves all nodes in turns, so that those at the same height share a block.
    fn move_all(&mut self, tip: Tip, woken: &Receiver<()>) -> Result<bool, SourceError> {
        let mut trackers = self.sink.trackers();
        self.view.keep_only(&trackers);
        for _ in 0..MOVES_PER_POLL {
            let mut moved = Vec::with_capacity(trackers.len());
            for tracker in trackers {
                if matches!(woken.try_recv(), Err(TryRecvError::Disconnected)) {
                    return Ok(false);
                }
                match self.move_one(tip, &tracker) {
                    Ok(position) => moved.extend(position),
                    // The source answers, but does not know where this node stands: the others go on.
                    Err(error @ (SourceError::Rpc { .. } | SourceError::Behind { .. })) => {
                        self.report_problem(&tracker, &error, error.hint());
                    }
                    Err(error) => return Err(error),
                }
            }
            if moved.is_empty() {
                break;
            }
            trackers = moved;
        }
        Ok(true)
    }

    /// Moves one node by one block; `None` if it need not or cannot move.
    fn move_one(&mut self, tip: Tip, tracker: &TrackerPosition) -> Result<Option<TrackerPosition>, SourceError> {
        let moved = match self.next_step(tip, tracker)? {
            Step::Nothing => {
                self.view.node_is_at(Instant::now(), tracker, None);
                return Ok(None);
            }
            Step::Connect(hash) => {
                let block = self.block(tracker.height + 1, &hash)?;
                if block.block().header.prev_blockhash != tracker.hash {
                    // The best chain changed between two questions.
                    return Ok(None);
                }
                self.sink.connect(&tracker.node, block)
            }
            Step::Disconnect => {
                info!(node = %tracker.node, height = tracker.height, hash = %tracker.hash, "block left the best chain");
                let block = self.block(tracker.height, &tracker.hash)?;
                self.sink.disconnect(&tracker.node, block)
            }
        };
        Ok(self.report(tracker, moved))
    }

    fn next_step(&self, tip: Tip, tracker: &TrackerPosition) -> Result<Step, SourceError> {
        if tracker.hash == tip.hash {
            return Ok(Step::Nothing);
        }
        if tracker.height > tip.height {
            self.require_not_behind(tip, tracker)?;
            return Ok(Step::Disconnect);
        }
        if self.source.hash_at(tracker.height)? != Some(tracker.hash) {
            return Ok(Step::Disconnect);
        }
        Ok(self.source.hash_at(tracker.height + 1)?.map_or(Step::Nothing, Step::Connect))
    }

    /// A source that lost blocks, and will find them again, must not be taken for a reorg.
    fn require_not_behind(&self, tip: Tip, tracker: &TrackerPosition) -> Result<(), SourceError> {
        let behind = Err(SourceError::Behind { height: tip.height });
        if tracker.height - tip.height > MAX_BEHIND {
            return behind;
        }
        let mut ancestor = tracker.hash;
        for _ in tip.height..tracker.height {
            ancestor = self.source.header(&ancestor)?.prev_blockhash;
        }
        if ancestor == tip.hash { behind } else { Ok(()) }
    }

    fn report(&self, tracker: &TrackerPosition, moved: Result<TrackerPosition, SinkError>) -> Option<TrackerPosition> {
        match moved {
            Ok(position) => {
                self.view.node_is_at(Instant::now(), &position, None);
                Some(position)
            }
            Err(SinkError::Gone) => None,
            Err(problem @ SinkError::Busy(_)) => {
                self.report_problem(tracker, &problem, "The follower asks again.");
                None
            }
            Err(SinkError::Apply(problem)) => {
                self.report_problem(tracker, &problem, problem.hint());
                None
            }
        }
    }

    fn report_problem(&self, tracker: &TrackerPosition, problem: &dyn Display, hint: &str) {
        // Said once, not at every poll.
        if self.view.node_is_at(Instant::now(), tracker, Some(format!("{problem}. {hint}"))) {
            warn!(node = %tracker.node, %problem, hint, "the node does not follow the chain");
        }
    }

    fn block(&mut self, height: u32, hash: &BlockHash) -> Result<Arc<ChainBlock>, SourceError> {
        if let Some(block) = self.blocks.iter().find(|block| block.hash() == *hash && block.height() == height) {
            return Ok(block.clone());
        }
        let block = Arc::new(ChainBlock::new(height, self.source.block(hash)?));
        self.blocks.push_front(block.clone());
        self.blocks.truncate(CACHED_BLOCKS);
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bitcoin::block::Header;
    use bitcoin::blockdata::constants::genesis_block;
    use bitcoin::{Block, Network};

    use super::*;
    use crate::names::NodeName;

    /// A chain of one block, from a source with a defect.
    struct Defective(Arc<AtomicBool>);

    impl ChainSource for Defective {
        fn tip(&self) -> Result<Tip, SourceError> {
            assert!(!self.0.load(Ordering::SeqCst), "a defect of the source");
            Ok(Tip { height: 0, hash: genesis_block(Network::Regtest).block_hash(), syncing: false })
        }

        fn hash_at(&self, _height: u32) -> Result<Option<BlockHash>, SourceError> {
            Ok(None)
        }

        fn header(&self, _hash: &BlockHash) -> Result<Header, SourceError> {
            Ok(genesis_block(Network::Regtest).header)
        }

        fn block(&self, _hash: &BlockHash) -> Result<Block, SourceError> {
            Ok(genesis_block(Network::Regtest))
        }

        fn describe(&self) -> String {
            "defective".to_owned()
        }
    }

    struct Nobody;

    impl ChainSink for Nobody {
        fn trackers(&self) -> Vec<TrackerPosition> {
            Vec::new()
        }

        fn connect(&self, _node: &NodeName, _block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
            Err(SinkError::Gone)
        }

        fn disconnect(&self, _node: &NodeName, _block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
            Err(SinkError::Gone)
        }
    }

    #[test]
    fn a_panic_is_shown_and_outlived() {
        let defect = Arc::new(AtomicBool::new(true));
        let view = Arc::new(ChainView::new("test".to_owned(), Duration::from_secs(60)));
        let options = FollowerOptions { poll_interval: Duration::from_millis(1), start_depth: 0 };
        let source = Arc::new(Defective(defect.clone()));
        let _follower = Follower::start(source, Arc::new(Nobody), view.clone(), options).expect("a thread");
        let wait_until = |done: fn(&ChainView) -> bool| {
            while !done(&view) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        wait_until(|view| view.status(Instant::now()).last_error.is_some_and(|error| error.contains("failed on what")));
        assert!(view.is_stale(Instant::now()));
        defect.store(false, Ordering::SeqCst);
        wait_until(|view| !view.is_stale(Instant::now()));
        assert_eq!(view.status(Instant::now()).last_error, None);
    }
}
