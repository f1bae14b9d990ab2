//! What waits to be written, and who writes it.
//!
//! Whoever handed in something and has nothing else to do ([`Queue::write`]): on a busy machine each thread that an answer goes
//! through waits for a processor anew. If somebody is writing, that one goes on with it. The journal's own thread writes for
//! those who cannot wait, and tries a store that failed again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::changes::Changes;
use super::commit::{Commit, CommitError, Tenant};
use super::committer::Committer;
use super::error::JournalError;
use super::ledger::{Ledger, Loading, Resealed};
use super::telling::{Completion, Done, Telling};
use super::{FlushMode, Health, Options, Stats};
use crate::metrics::Counters;

/// Groups that one of the submitters writes before it leaves what has come meanwhile to the journal's thread.
const GROUPS_PER_VISIT: usize = 8;

/// What waits to be written, and who writes; shared with all submitters.
pub(super) struct Queue {
    state: Mutex<State>,
    /// What was recorded, for `claviger metrics`.
    pub(super) counters: Counters,
    wake: Condvar,
    /// Whoever writes takes its turn to tell before it puts the committer back: what is told stays in order.
    telling: Telling,
    options: Options,
}

pub(super) struct State {
    /// Whoever takes it writes; not there while somebody does, and once it has ended.
    committer: Option<Box<Committer>>,
    items: VecDeque<Item>,
    /// Commits that were submitted and not completed, by tenant.
    pending: HashMap<Tenant, usize>,
    /// Changed by the committer only.
    pub(super) poisoned: HashSet<Tenant>,
    pub(super) stats: Stats,
    closing: bool,
    /// The committer has ended, and will not be put back.
    ended: bool,
}

#[expect(clippy::large_enum_variant, reason = "nearly all items are the large ones")]
enum Item {
    Commit(Commit, Completion),
    Errand(Errand),
}

/// What the committer does between two groups.
pub(super) enum Errand {
    /// A tenant's entries, and the end of its poison.
    Reload(Tenant, SyncSender<Result<Loading, CommitError>>),
    /// See [`Ledger::changes`].
    Changes(Option<u64>, SyncSender<Result<Changes, CommitError>>),
    /// See [`Ledger::reseal`].
    Reseal(String, SyncSender<Result<Resealed, JournalError>>),
}

/// What the committer takes at once.
pub(super) enum Work {
    Group(Vec<(Commit, Completion)>),
    Errand(Errand),
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Callbacks run without the lock, so a panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue in front of what `ledger` writes.
    pub(super) fn new(ledger: Ledger, options: Options) -> Self {
        let stats = Stats { last_seq: ledger.seq(), ..Stats::default() };
        Self {
            state: Mutex::new(State {
                committer: Some(Box::new(Committer::new(ledger, options))),
                items: VecDeque::new(),
                pending: HashMap::new(),
                poisoned: HashSet::new(),
                stats,
                closing: false,
                ended: false,
            }),
            counters: Counters::default(),
            wake: Condvar::new(),
            telling: Telling::default(),
            options,
        }
    }

    /// See [`super::Journal::enqueue`].
    pub(super) fn enqueue(&self, commit: Commit, done: Done) {
        let mut state = self.lock();
        if state.closing {
            drop(state);
            return done(Err(CommitError::Closed));
        }
        match state.pending.get_mut(&commit.tenant) {
            Some(pending) => *pending += 1,
            // Nothing of this tenant is in flight, so its barrier has nothing to wait for.
            None if commit.is_barrier() => {
                let poisoned = state.poisoned.contains(&commit.tenant);
                drop(state);
                return done(if poisoned { Err(CommitError::Poisoned) } else { Ok(()) });
            }
            None => drop(state.pending.insert(commit.tenant.clone(), 1)),
        }
        state.items.push_back(Item::Commit(commit, Completion::new(done)));
    }

    /// Wakes the journal's thread, to write what is waiting.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Writes what is waiting, unless somebody is at it, who goes on with it then.
    pub(super) fn write(&self) {
        for _ in 0..GROUPS_PER_VISIT {
            let mut state = self.lock();
            if state.items.is_empty() {
                return;
            }
            let Some(committer) = state.committer.take() else { return };
            drop(state);
            self.turn(committer);
        }
        self.wake();
    }

    /// The journal's thread: works until the queue is closed and empty.
    pub(super) fn run(&self) {
        while let Some(committer) = self.wait() {
            self.turn(committer);
        }
        let last = self.lock().committer.take();
        if let Some(mut committer) = last {
            committer.close();
        }
        drop(self.telling.begin()); // one of the submitters may still be telling what it wrote
        self.abandon();
    }

    /// Waits for something to do; `None` when closing and all is done.
    fn wait(&self) -> Option<Box<Committer>> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if state.committer.is_some() && (state.closing || !state.items.is_empty()) {
                return if state.items.is_empty() { None } else { state.committer.take() };
            }
            if state.stats.health == Health::Good {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let woken = self.wake.wait_timeout(state, self.options.probe_every);
            let (after, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
            state = after;
            if timeout.timed_out() && state.committer.is_some() {
                return state.committer.take(); // the disk may be back
            }
        }
    }

    /// One group or errand, if there is one, and puts the committer back.
    fn turn(&self, mut committer: Box<Committer>) {
        let Ok(group) = catch_unwind(AssertUnwindSafe(|| committer.turn(self))) else { return self.abandon() };
        let telling = group.map(|group| (self.telling.begin(), group));
        let mut state = self.lock();
        state.committer = Some(committer);
        // Only the journal's thread waits for these.
        let missed = state.closing || matches!(state.stats.health, Health::Faulted(_));
        drop(state);
        if missed {
            self.wake();
        }
        if let Some((telling, group)) = telling {
            telling.tell(group, |tenant| self.landed(tenant));
        }
    }

    /// Has `errand` done after all that was submitted before. Without a committer nobody does it, and its sender is gone: that
    /// says it.
    pub(super) fn send(&self, errand: Errand) {
        let mut state = self.lock();
        if state.closing {
            return;
        }
        state.items.push_back(Item::Errand(errand));
        drop(state);
        self.wake();
    }

    /// The committer has ended, as told or by a panic: whoever still waits is told so.
    fn abandon(&self) {
        let mut state = self.lock();
        (state.closing, state.ended) = (true, true);
        state.stats.health = Health::Faulted(CommitError::Closed);
        let items = std::mem::take(&mut state.items);
        drop(state); // callbacks run without the lock
        drop(items);
        self.wake();
    }

    /// Whether it is this thread that tells.
    pub(super) fn is_telling(&self) -> bool {
        self.telling.is_mine()
    }

    /// Lets the committer finish what is waiting and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// A commit of `tenant` has ended, and whoever submitted it was told.
    fn landed(&self, tenant: &str) {
        let mut state = self.lock();
        if let Some(pending) = state.pending.get_mut(tenant) {
            *pending -= 1;
            if *pending == 0 {
                state.pending.remove(tenant);
            }
        }
    }

    /// What the committer has done so far.
    pub(super) fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// The next work in order of submission, if there is any.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = self.lock();
        let limit = match self.options.flush {
            FlushMode::Group => usize::MAX,
            FlushMode::Each => 1,
        };
        let mut group = Vec::new();
        while group.len() < limit {
            match state.items.pop_front() {
                Some(Item::Commit(commit, done)) => group.push((commit, done)),
                // What comes after a reload may depend on it: it starts a new group.
                Some(Item::Errand(errand)) if group.is_empty() => return Some(Work::Errand(errand)),
                Some(errand) => {
                    state.items.push_front(errand);
                    break;
                }
                None => break,
            }
        }
        (!group.is_empty()).then_some(Work::Group(group))
    }
}
