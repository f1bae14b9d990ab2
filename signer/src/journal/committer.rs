//! Group commit: one thread takes all commits that are waiting, writes them in one batch with one flush, and only then
//! has them told, in the order in which they were submitted (P1).
//!
//! When a batch fails, all its commits fail and their tenants are *poisoned*: what they submitted after it was computed
//! from a state that is not recorded, so it fails too, until [`super::Journal::load`] has handed out the recorded state.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::commit::{Commit, CommitError, Tenant};
use super::error::JournalError;
use super::ledger::{Ledger, Loading, Resealed};
use super::teller::{Completion, Done, Ended, Group};
use super::{FlushMode, Health, Options, Stats};
use crate::metrics::{Counted, Counters};

/// What waits for the committer; shared with all submitters.
pub(super) struct Queue {
    state: Mutex<State>,
    /// What was recorded, for `claviger metrics`.
    pub(super) counters: Counters,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Commits that were submitted and not completed, by tenant.
    pending: HashMap<Tenant, usize>,
    /// Changed by the committer only.
    poisoned: HashSet<Tenant>,
    stats: Stats,
    closing: bool,
}

#[expect(clippy::large_enum_variant, reason = "nearly all items are the large ones")]
enum Item {
    Commit(Commit, Completion),
    Errand(Errand),
}

/// What the committer does between two groups.
enum Errand {
    Reload(Tenant, Reply),
    /// See [`Ledger::changes`].
    Changes(Option<u64>, SyncSender<Result<Changes, CommitError>>),
    /// See [`Ledger::reseal`].
    Reseal(String, SyncSender<Result<Resealed, JournalError>>),
}

/// Takes the recorded state to whoever asked for it.
pub(super) type Reply = SyncSender<Result<Loading, CommitError>>;

/// What the committer takes at once.
enum Work {
    Group(Vec<(Commit, Completion)>),
    Errand(Errand),
    /// Nothing is waiting, but the disk may be back.
    Probe,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Callbacks run without the lock, so a panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue in front of a journal whose last decision is number `last_seq`.
    pub(super) fn new(last_seq: u64) -> Self {
        let state = State { stats: Stats { last_seq, ..Stats::default() }, ..State::default() };
        Self { state: Mutex::new(state), counters: Counters::default(), wake: Condvar::new() }
    }

    /// See [`super::Journal::submit`].
    pub(super) fn submit(&self, commit: Commit, done: Done) {
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
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for `tenant`'s entries, and for its poison to be cleared, after all that was submitted before.
    pub(super) fn reload(&self, tenant: &str, reply: Reply) {
        let mut state = self.lock();
        if state.closing {
            let _ = reply.try_send(Err(CommitError::Closed)); // the receiver waits for it
            return;
        }
        state.items.push_back(Item::Errand(Errand::Reload(tenant.to_owned(), reply)));
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for the journal as it is then, and for the entries that batches after `since` changed.
    pub(super) fn changes(&self, since: Option<u64>, reply: SyncSender<Result<Changes, CommitError>>) {
        let mut state = self.lock();
        if state.closing {
            return; // the sender is gone: that says it
        }
        state.items.push_back(Item::Errand(Errand::Changes(since, reply)));
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for the rows after `after` to be sealed with the current data key.
    pub(super) fn reseal(&self, after: &str, reply: SyncSender<Result<Resealed, JournalError>>) {
        let mut state = self.lock();
        if state.closing {
            return; // the sender is gone: that says it
        }
        state.items.push_back(Item::Errand(Errand::Reseal(after.to_owned(), reply)));
        drop(state);
        self.wake.notify_one();
    }

    /// The committer has ended, as told or by a panic: whoever still waits is told so.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.stats.health = Health::Faulted(CommitError::Closed);
        let items = std::mem::take(&mut state.items);
        drop(state); // callbacks run without the lock
        drop(items);
    }

    /// Lets the committer finish what is waiting and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// A commit of `tenant` has ended, and whoever submitted it was told.
    pub(super) fn landed(&self, tenant: &str) {
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

    /// The next work in order of submission, or `None` when closing and all is done.
    fn take(&self, mode: FlushMode, patience: Option<Duration>) -> Option<Work> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closing {
                return None;
            }
            state = match patience {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (state, timeout) =
                        self.wake.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && state.items.is_empty() && !state.closing {
                        return Some(Work::Probe);
                    }
                    state
                }
            };
        }
        let limit = match mode {
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
        Some(Work::Group(group))
    }
}

/// The committer's thread.
pub(super) struct Committer<'q> {
    queue: &'q Queue,
    ledger: Ledger,
    options: Options,
    ends: Sender<Group>,
    /// Why nothing can be written, and when that was last tried.
    fault: Option<(CommitError, Instant)>,
}

/// What becomes of one commit of a group.
enum Fate {
    /// In the batch: as the batch goes. With what it counts for.
    Batched(Option<Counted>),
    /// A barrier: passes unless an earlier commit of its tenant fails.
    Barrier,
    /// Fails by itself.
    Failed(CommitError),
}

impl<'q> Committer<'q> {
    /// A committer of what `queue` holds, which hands what became of it to `ends`.
    pub(super) fn new(queue: &'q Queue, ledger: Ledger, options: Options, ends: Sender<Group>) -> Self {
        Self { queue, ledger, options, ends, fault: None }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let patience = self.fault.is_some().then_some(self.options.probe_every);
            let Some(work) = self.queue.take(self.options.flush, patience) else { break };
            self.probe();
            match work {
                Work::Group(group) => self.commit(group),
                Work::Errand(Errand::Reload(tenant, reply)) => self.reload(&tenant, &reply),
                Work::Errand(Errand::Changes(since, reply)) => self.changes(since, &reply),
                Work::Errand(Errand::Reseal(after, reply)) => self.reseal(&after, &reply),
                Work::Probe => {}
            }
        }
        if self.fault.is_none()
            && let Err(error) = self.ledger.close()
        {
            tracing::warn!(%error, "the journal could not write its closing checkpoint");
        }
    }

    fn commit(&mut self, group: Vec<(Commit, Completion)>) {
        let mut poisoned = self.queue.lock().poisoned.clone();
        let mut batch = self.ledger.begin();
        let mut commits = Vec::with_capacity(group.len());
        for (commit, done) in group {
            let tenant = commit.tenant.clone();
            let counted = commit.decision.as_ref().map(|decision| Counted::of(&tenant, decision));
            let fate = match &self.fault {
                _ if poisoned.contains(&tenant) => Fate::Failed(CommitError::Poisoned),
                _ if commit.is_barrier() => Fate::Barrier,
                Some((cause, _)) => Fate::Failed(cause.clone()),
                None => match self.ledger.add(&mut batch, commit) {
                    Ok(()) => Fate::Batched(counted),
                    Err(invalid) => Fate::Failed(CommitError::Invalid(invalid)),
                },
            };
            if matches!(fate, Fate::Failed(_)) {
                poisoned.insert(tenant.clone());
            }
            commits.push((tenant, fate, done));
        }

        let batched = commits.iter().filter(|(_, fate, _)| matches!(fate, Fate::Batched(_))).count();
        let written = if batched > 0 { self.ledger.write(batch) } else { Ok(()) };
        if let Err(cause) = &written {
            self.fail(cause.clone());
        }

        let mut ends = Group::with_capacity(commits.len());
        for (tenant, fate, done) in commits {
            let result = match fate {
                Fate::Failed(error) => Err(error),
                Fate::Batched(counted) => written.clone().inspect(|()| self.queue.counters.add(counted)),
                Fate::Barrier if poisoned.contains(&tenant) => Err(CommitError::Poisoned),
                Fate::Barrier => Ok(()),
            };
            if result.is_err() {
                poisoned.insert(tenant.clone());
            }
            ends.push(Ended { tenant, done, result });
        }
        self.complete(poisoned, ends, batched as u64);
    }

    /// Makes the poison known to submitters, then has them told.
    fn complete(&self, poisoned: HashSet<Tenant>, ends: Group, batched: u64) {
        let mut state = self.queue.lock();
        state.poisoned = poisoned;
        state.stats.last_seq = self.ledger.seq();
        state.stats.commits += batched;
        state.stats.flushes += u64::from(batched > 0);
        drop(state);
        let _ = self.ends.send(ends); // without the thread that tells, dropping them does
    }

    fn reload(&self, tenant: &str, reply: &Reply) {
        let result = match &self.fault {
            Some((cause, _)) => Err(cause.clone()),
            None => self.ledger.load(tenant).inspect(|_| {
                self.queue.lock().poisoned.remove(tenant);
            }),
        };
        let _ = reply.try_send(result); // if nobody waits any more, the tenant is loaded again later
    }

    fn changes(&mut self, since: Option<u64>, reply: &SyncSender<Result<Changes, CommitError>>) {
        let result = match &self.fault {
            Some((cause, _)) => Err(cause.clone()),
            None => self.ledger.changes(since),
        };
        let _ = reply.try_send(result); // whoever asked may have ended
    }

    fn reseal(&mut self, after: &str, reply: &SyncSender<Result<Resealed, JournalError>>) {
        let result = match &self.fault {
            Some((cause, _)) => Err(JournalError::Unavailable(cause.clone())),
            None => self.ledger.reseal(after).inspect_err(|error| {
                if let JournalError::Unavailable(cause) = error {
                    self.fail(cause.clone());
                }
            }),
        };
        let _ = reply.try_send(result); // whoever asked may have ended
    }

    /// While faulted, and not too often: finds out whether the store works again.
    fn probe(&mut self) {
        match &self.fault {
            Some((cause, tried)) if *cause != CommitError::Fenced && tried.elapsed() >= self.options.probe_every => {}
            _ => return,
        }
        match self.ledger.resume() {
            Ok(()) => {
                tracing::info!("the journal can be written again");
                self.fault = None;
                self.queue.lock().stats.health = Health::Good;
            }
            Err(cause) => self.fail(cause),
        }
    }

    fn fail(&mut self, cause: CommitError) {
        if self.fault.as_ref().is_none_or(|(known, _)| *known != cause) {
            tracing::error!(%cause, hint = cause.hint(), "the journal cannot be written; nothing is signed");
        }
        self.queue.lock().stats.health = Health::Faulted(cause.clone());
        self.fault = Some((cause, Instant::now()));
    }
}
