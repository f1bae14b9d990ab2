//! Group commit: one thread at a time takes all commits that are waiting, writes them in one batch with one flush, and only
//! then tells what became of them, in the order in which they were submitted (P1).
//!
//! Who writes? Whoever handed in something and has nothing else to do ([`Queue::write`]): on a busy machine each thread
//! that an answer goes through waits for a processor anew. If somebody is writing, that one goes on with it. The journal's
//! own thread writes for those who cannot wait, and tries a store that failed again.
//!
//! When a batch fails, all its commits fail and their tenants are *poisoned*: what they submitted after it was computed
//! from a state that is not recorded, so it fails too, until [`super::Journal::load`] has handed out the recorded state.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::changes::Changes;
use super::commit::{Commit, CommitError, Tenant};
use super::error::JournalError;
use super::ledger::{Ledger, Loading, Resealed};
use super::telling::{Completion, Done, Ended, Group, Telling};
use super::{FlushMode, Health, Options, Stats};
use crate::metrics::{Counted, Counters};

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

struct State {
    /// Whoever takes it writes; not there while somebody does, and once it has ended.
    committer: Option<Box<Committer>>,
    items: VecDeque<Item>,
    /// Commits that were submitted and not completed, by tenant.
    pending: HashMap<Tenant, usize>,
    /// Changed by the committer only.
    poisoned: HashSet<Tenant>,
    stats: Stats,
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
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Callbacks run without the lock, so a panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue in front of what `ledger` writes.
    pub(super) fn new(ledger: Ledger, options: Options) -> Self {
        let stats = Stats { last_seq: ledger.seq(), ..Stats::default() };
        Self {
            state: Mutex::new(State {
                committer: Some(Box::new(Committer { ledger, options, fault: None })),
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
    fn take(&self) -> Option<Work> {
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

/// What writes: one for a journal.
struct Committer {
    ledger: Ledger,
    options: Options,
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

impl Committer {
    /// Does what comes next; with what there is to tell of it.
    fn turn(&mut self, queue: &Queue) -> Option<Group> {
        self.probe(queue);
        match queue.take()? {
            Work::Group(group) => return Some(self.commit(queue, group)),
            Work::Errand(Errand::Reload(tenant, reply)) => self.reload(queue, &tenant, &reply),
            Work::Errand(Errand::Changes(since, reply)) => self.changes(since, &reply),
            Work::Errand(Errand::Reseal(after, reply)) => self.reseal(queue, &after, &reply),
        }
        None
    }

    fn close(&mut self) {
        if self.fault.is_none()
            && let Err(error) = self.ledger.close()
        {
            tracing::warn!(%error, "the journal could not write its closing checkpoint");
        }
    }

    fn commit(&mut self, queue: &Queue, group: Vec<(Commit, Completion)>) -> Group {
        let mut poisoned = queue.lock().poisoned.clone();
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
            self.fail(queue, cause.clone());
        }

        let mut ends = Group::with_capacity(commits.len());
        for (tenant, fate, done) in commits {
            let result = match fate {
                Fate::Failed(error) => Err(error),
                Fate::Batched(counted) => written.clone().inspect(|()| queue.counters.add(counted)),
                Fate::Barrier if poisoned.contains(&tenant) => Err(CommitError::Poisoned),
                Fate::Barrier => Ok(()),
            };
            if result.is_err() {
                poisoned.insert(tenant.clone());
            }
            ends.push(Ended { tenant, done, result });
        }
        // Submitters know of the poison before they are told.
        let mut state = queue.lock();
        state.poisoned = poisoned;
        state.stats.last_seq = self.ledger.seq();
        state.stats.commits += batched as u64;
        state.stats.flushes += u64::from(batched > 0);
        ends
    }

    fn reload(&self, queue: &Queue, tenant: &str, reply: &Reply) {
        let result = match &self.fault {
            Some((cause, _)) => Err(cause.clone()),
            None => self.ledger.load(tenant).inspect(|_| {
                queue.lock().poisoned.remove(tenant);
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

    fn reseal(&mut self, queue: &Queue, after: &str, reply: &SyncSender<Result<Resealed, JournalError>>) {
        let result = match &self.fault {
            Some((cause, _)) => Err(JournalError::Unavailable(cause.clone())),
            None => self.ledger.reseal(after).inspect_err(|error| {
                if let JournalError::Unavailable(cause) = error {
                    self.fail(queue, cause.clone());
                }
            }),
        };
        let _ = reply.try_send(result); // whoever asked may have ended
    }

    /// While faulted, and not too often: finds out whether the store works again.
    fn probe(&mut self, queue: &Queue) {
        match &self.fault {
            Some((cause, tried)) if *cause != CommitError::Fenced && tried.elapsed() >= self.options.probe_every => {}
            _ => return,
        }
        match self.ledger.resume() {
            Ok(()) => {
                tracing::info!("the journal can be written again");
                self.fault = None;
                queue.lock().stats.health = Health::Good;
            }
            Err(cause) => self.fail(queue, cause),
        }
    }

    fn fail(&mut self, queue: &Queue, cause: CommitError) {
        if self.fault.as_ref().is_none_or(|(known, _)| *known != cause) {
            tracing::error!(%cause, hint = cause.hint(), "the journal cannot be written; nothing is signed");
        }
        queue.lock().stats.health = Health::Faulted(cause.clone());
        self.fault = Some((cause, Instant::now()));
    }
}
