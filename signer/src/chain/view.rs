//! What is known about the chain right now: shown by `status`, and asked before a request that depends on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;

use super::sink::TrackerPosition;
use super::source::Tip;
use super::start::StartingPoint;
use crate::facts::{Fact, Unit};
use crate::names::NodeName;
use crate::reasons::{Reason, Refusal};

/// Shared between the follower, which writes it, and everybody else. Reading never waits for the backend.
pub struct ChainView {
    source: String,
    stale_after: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tip: Option<(Tip, u32)>,
    last_success: Option<Instant>,
    last_error: Option<String>,
    nodes: BTreeMap<NodeName, Tracked>,
    /// Where a new node starts, and the tip at which that was found out.
    start: Option<(BlockHash, StartingPoint)>,
    /// Somebody asked for it and it was not known.
    start_wanted: bool,
}

struct Tracked {
    status: NodeStatus,
    /// When the tracker was last seen at the tip.
    at_tip: Option<Instant>,
}

/// The chain as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    /// The backend, without credentials.
    pub source: String,
    /// The backend's best block, when it last answered.
    pub tip: Option<Tip>,
    /// That block's own time, in seconds since 1970.
    pub tip_time: Option<u32>,
    /// Time since the backend last answered well.
    pub last_success: Option<Duration>,
    /// What went wrong since then, with the next step.
    pub last_error: Option<String>,
    /// Whether requests are refused for it.
    pub stale: bool,
    /// Every node's tracker.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
}

/// Where one node's tracker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its height.
    pub height: u32,
    /// Its tip.
    pub hash: BlockHash,
    /// Blocks it has yet to see, as far as heights tell.
    pub lag: u32,
    /// Why it does not move, if so.
    pub problem: Option<String>,
}

impl ChainView {
    /// A view of `source`, stale until the first answer and again `stale_after` the last good one.
    pub fn new(source: String, stale_after: Duration) -> Self {
        Self { source, stale_after, state: Mutex::default() }
    }

    /// Whether there was no good answer within the time allowed before `now`.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.lock().last_success.is_none_or(|last| self.is_too_old(last, now))
    }

    /// Refuses with [`Reason::ChainStale`] if at `now` the view is stale, or `node`'s tracker has not been at the tip
    /// within the time allowed.
    pub fn require_fresh(&self, node: &NodeName, now: Instant) -> Result<(), Refusal> {
        let stale = |last: Option<Instant>| last.is_none_or(|last| self.is_too_old(last, now));
        let limit = self.stale_after.as_secs();
        let state = self.lock();
        if stale(state.last_success) {
            let since = age(state.last_success, now);
            let error = state.last_error.as_deref().unwrap_or("no answer yet");
            let detail = format!("the chain backend gave no good answer {since}, {limit} s allowed; {error}");
            return Err(stale_since(state.last_success, now, limit, detail));
        }
        let tracked = state.nodes.get(node);
        let at_tip = tracked.and_then(|tracked| tracked.at_tip);
        if stale(at_tip) {
            let since = age(at_tip, now);
            let lag = tracked.map_or("all".to_owned(), |tracked| tracked.status.lag.to_string());
            let problem = tracked.and_then(|tracked| tracked.status.problem.as_deref()).unwrap_or("it is catching up");
            let detail =
                format!("the node has not been at the tip {since}, {limit} s allowed; {lag} blocks to go: {problem}");
            let lag = tracked.map(|tracked| Fact::number("lag", tracked.status.lag.into(), Unit::Blocks));
            let refusal = stale_since(at_tip, now, limit, detail);
            return Err(lag.into_iter().fold(refusal, Refusal::with_fact));
        }
        Ok(())
    }

    /// Everything, at `now`.
    pub fn status(&self, now: Instant) -> ChainStatus {
        let stale = self.is_stale(now);
        let state = self.lock();
        ChainStatus {
            source: self.source.clone(),
            tip: state.tip.map(|(tip, _)| tip),
            tip_time: state.tip.map(|(_, time)| time),
            last_success: state.last_success.map(|last| now.saturating_duration_since(last)),
            last_error: state.last_error.clone(),
            stale,
            nodes: state.nodes.iter().map(|(name, tracked)| (name.clone(), tracked.status.clone())).collect(),
        }
    }

    /// How many blocks `node`'s tracker has yet to see; `None` if it is not followed.
    pub fn lag(&self, node: &NodeName) -> Option<u32> {
        self.lock().nodes.get(node).map(|tracked| tracked.status.lag)
    }

    /// The height of the tip that the backend told last.
    pub fn tip_height(&self) -> Option<u32> {
        self.lock().tip.map(|(tip, _)| tip.height)
    }

    /// Where a new node starts to follow the chain. `None` while that is not known; the follower finds out at its next
    /// look.
    pub fn start(&self) -> Option<StartingPoint> {
        let mut state = self.lock();
        let tip = state.tip.map(|(tip, _)| tip.hash);
        let start = state.start.as_ref().filter(|(at, _)| Some(*at) == tip).map(|(_, start)| start.clone());
        state.start_wanted = start.is_none();
        start
    }

    /// Whether somebody waits for [`start`](Self::start).
    pub(super) fn start_is_wanted(&self) -> bool {
        self.lock().start_wanted
    }

    /// Now that the tip is `tip`, new nodes start at `start`.
    pub(super) fn starts_at(&self, tip: BlockHash, start: StartingPoint) {
        self.lock().start = Some((tip, start));
    }

    /// The backend answered at `now`: `tip`, whose block has this `time`.
    pub(super) fn succeeded(&self, now: Instant, tip: Tip, time: u32) {
        let mut state = self.lock();
        state.tip = Some((tip, time));
        state.last_success = Some(now);
        state.last_error = None;
        for tracked in state.nodes.values_mut() {
            tracked.status.lag = tip.height.saturating_sub(tracked.status.height);
            if tracked.status.hash == tip.hash {
                tracked.at_tip = Some(now);
            }
        }
    }

    /// The backend did not answer, or not well. True if it was well before, or unwell in another way.
    pub(super) fn failed(&self, error: String) -> bool {
        let mut state = self.lock();
        let news = state.last_error.as_ref() != Some(&error);
        state.last_error = Some(error);
        news
    }

    /// At `now`, `position` is where a tracker stands, and `problem` why it does not move. True if the problem is new.
    pub(super) fn node_is_at(&self, now: Instant, position: &TrackerPosition, problem: Option<String>) -> bool {
        let mut state = self.lock();
        let tip = state.tip.map(|(tip, _)| tip);
        let lag = tip.map_or(0, |tip| tip.height.saturating_sub(position.height));
        let before = state.nodes.get(&position.node);
        let news = problem.is_some() && before.and_then(|before| before.status.problem.as_ref()) != problem.as_ref();
        let last_at_tip = before.and_then(|before| before.at_tip);
        let at_tip = if tip.is_some_and(|tip| tip.hash == position.hash) { Some(now) } else { last_at_tip };
        let status = NodeStatus { height: position.height, hash: position.hash, lag, problem };
        state.nodes.insert(position.node.clone(), Tracked { status, at_tip });
        news
    }

    /// Forgets nodes that are not in `positions` any more, unless their problem is why they left.
    pub(super) fn keep_only(&self, positions: &[TrackerPosition]) {
        let listed = |name: &NodeName| positions.iter().any(|position| position.node == *name);
        self.lock().nodes.retain(|name, tracked| tracked.status.problem.is_some() || listed(name));
    }

    fn is_too_old(&self, last: Instant, now: Instant) -> bool {
        now.saturating_duration_since(last) >= self.stale_after
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, whole after every step: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusal for a view that was last good at `last`, which may be `limit` seconds ago.
fn stale_since(last: Option<Instant>, now: Instant, limit: u64, detail: String) -> Refusal {
    let age = last.map(|last| now.saturating_duration_since(last).as_secs());
    let fact = match age {
        Some(age) => Fact::number("seconds_since_good", age, Unit::Seconds),
        None => Fact::text("seconds_since_good", "never"),
    };
    Refusal::new(Reason::ChainStale, detail).with_fact(fact.at_most(limit))
}

/// In words, how long ago `last` was.
fn age(last: Option<Instant>, now: Instant) -> String {
    last.map_or("since the signer started".to_owned(), |last| {
        format!("for {} s", now.saturating_duration_since(last).as_secs())
    })
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn tip(height: u32) -> Tip {
        Tip { height, hash: hash(height), syncing: false }
    }

    fn hash(height: u32) -> BlockHash {
        BlockHash::from_byte_array([height as u8; 32])
    }

    fn alice() -> NodeName {
        NodeName::new("alice").unwrap()
    }

    fn alice_at(height: u32) -> TrackerPosition {
        TrackerPosition { node: alice(), height, hash: hash(height) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_view_is_stale_until_the_first_answer_and_when_answers_stop() {
        let view = ChainView::new("test".to_owned(), seconds(120));
        let start = Instant::now();
        assert_eq!(view.require_fresh(&alice(), start).unwrap_err().reason, Reason::ChainStale);
        view.succeeded(start, tip(7), 1);
        view.node_is_at(start, &alice_at(7), None);
        assert_eq!(view.require_fresh(&alice(), start + seconds(119)), Ok(()));
        view.failed("it is down".to_owned());
        let refusal = view.require_fresh(&alice(), start + seconds(120)).unwrap_err();
        assert_eq!(refusal.detail, "the chain backend gave no good answer for 120 s, 120 s allowed; it is down");
        view.succeeded(start + seconds(200), tip(7), 2);
        assert_eq!(view.require_fresh(&alice(), start + seconds(200)), Ok(()));
    }

    #[test]
    fn a_node_that_stays_behind_is_refused_and_one_that_caught_up_is_not() {
        let view = ChainView::new("test".to_owned(), seconds(120));
        let start = Instant::now();
        view.succeeded(start, tip(9), 1);
        view.node_is_at(start, &alice_at(7), None);
        assert!(view.require_fresh(&alice(), start).is_err(), "it was never at the tip");
        view.node_is_at(start, &alice_at(9), None);
        assert_eq!(view.require_fresh(&alice(), start), Ok(()));
        let later = start + seconds(120);
        view.succeeded(later, tip(10), 1);
        let refusal = view.require_fresh(&alice(), later).unwrap_err();
        assert_eq!(refusal.reason, Reason::ChainStale);
        assert!(refusal.detail.contains("1 blocks to go"), "{}", refusal.detail);
        view.node_is_at(later, &alice_at(10), None);
        assert_eq!(view.require_fresh(&alice(), later), Ok(()));
    }

    #[test]
    fn lag_counts_the_blocks_a_node_has_yet_to_see() {
        let view = ChainView::new("test".to_owned(), seconds(1));
        let now = Instant::now();
        assert_eq!(view.lag(&alice()), None);
        view.succeeded(now, tip(10), 1);
        view.node_is_at(now, &alice_at(8), None);
        assert_eq!(view.lag(&alice()), Some(2));
        view.succeeded(now, tip(12), 1);
        assert_eq!(view.lag(&alice()), Some(4));
        view.keep_only(&[]);
        assert_eq!(view.lag(&alice()), None);
    }
}
