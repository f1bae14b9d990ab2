//! Group commit: one thread at a time takes all commits that are waiting, writes them in one batch with one flush, and only
//! then tells what became of them, in the order in which they were submitted (P1).
//!
//! When a batch fails, all its commits fail and their tenants are *poisoned*: what they submitted after it was computed
//! from a state that is not recorded, so it fails too, until [`super::Journal::load`] has handed out the recorded state.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::changes::Changes;
use super::commit::{Commit, CommitError};
use super::error::JournalError;
use super::ledger::{Ledger, Loading, Resealed};
use super::queue::{Errand, Queue, Work};
use super::telling::{Completion, Ended, Group};
use super::{Health, Options};
use crate::keys::memory::scrubbed_together;
use crate::metrics::Counted;

/// What writes: one for a journal.
pub(super) struct Committer {
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
    pub(super) fn new(ledger: Ledger, options: Options) -> Self {
        Self { ledger, options, fault: None }
    }

    /// Does what comes next in `queue`; with what there is to tell of it.
    pub(super) fn turn(&mut self, queue: &Queue) -> Option<Group> {
        self.probe(queue);
        match queue.take()? {
            Work::Group(group) => return Some(self.commit(queue, group)),
            Work::Errand(Errand::Reload(tenant, reply)) => self.reload(queue, &tenant, &reply),
            Work::Errand(Errand::Changes(since, reply)) => self.changes(since, &reply),
            Work::Errand(Errand::Reseal(after, reply)) => self.reseal(queue, &after, &reply),
        }
        None
    }

    /// The end of the journal, if it can be written.
    pub(super) fn close(&mut self) {
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
        // Each record's cipher leaves traces of the data key.
        scrubbed_together(|| {
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
        });

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

    fn reload(&self, queue: &Queue, tenant: &str, reply: &SyncSender<Result<Loading, CommitError>>) {
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
