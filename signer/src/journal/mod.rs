//! Decisions, state and used limits in one hash-chained, encrypted, group-committed store (P1).
//!
//! What the rooms share is [`Journal`]: `submit` what must be durable before anything leaves, `load` what is recorded.
//! The files below it: `anchor` (its age against a counter's), `changes` (since a moment), `commit` (what is handed in), `queue` (what waits, and who writes), `committer` (groups), `telling` (order), `ledger` (versions, chain, digest),
//! `record` and `head` (formats), `log` (decisions), `verify`, and `store` (where rows rest). The format is described
//! in `docs/journal.md`.

mod anchor;
mod changes;
mod commit;
mod committer;
mod error;
mod head;
mod ledger;
mod log;
mod queue;
mod read;
mod record;
mod signed;
pub mod store;
mod tally;
mod telling;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::keys::cipher::RecordCipher;
use crate::keys::memory::{self, Secret};
use crate::metrics::Counters;
use crate::turns;

pub use anchor::{Anchor, AnchorUnreadable, Setback};
pub use changes::{Change, Changes, Mark, is_decision, is_listed};
pub use commit::{
    Commit, CommitError, Decision, InvalidCommit, MAX_DECISION, MAX_KEY, MAX_VALUE, Put, Tenant, Verdict,
};
pub use error::{Damage, DamageKind, JournalError};
pub use head::FORMAT;
pub use ledger::Resealed;
pub use log::LogLine;
pub use read::EXPLAIN_REACH;
pub use record::{BadRecord, HEAD, META};
pub use signed::{HeadAt, SignedHead, SignedHeadUnreadable};
pub use telling::Done;
pub use verify::{Check, Progress, Verified, verify};

use ledger::Ledger;
use queue::{Errand, Queue};
use read::Reader;
use store::Store;

/// The tenant of the signer's own records: CA, node registry, seeds.
pub const HOUSE: &str = "house";

/// Entries whose key starts with this are left out of [`Journal::load`]: there may be more of them than memory should hold.
/// [`Journal::get`] looks them up one by one.
pub const COLD: &str = "cold/";

/// How the journal works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many commits a flush serves.
    pub flush: FlushMode,
    /// A checkpoint is written after this many decisions.
    pub checkpoint_every: u64,
    /// How often a store that failed is tried again.
    pub probe_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { flush: FlushMode::Group, checkpoint_every: 1024, probe_every: Duration::from_millis(500) }
    }
}

/// How many commits a flush serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// All that are waiting.
    Group,
    /// One: for the bench, which compares.
    Each,
}

/// Whether the journal can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It can.
    #[default]
    Good,
    /// It cannot, and why. Unless fenced, it is tried again by itself.
    Faulted(CommitError),
}

/// What the journal has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whether it can be written.
    pub health: Health,
    /// Number of the last decision, from 1; 0 before the first.
    pub last_seq: u64,
    /// Commits recorded, without barriers.
    pub commits: u64,
    /// Batches they were recorded in.
    pub flushes: u64,
}

/// The signer's memory. Dropping it finishes what was submitted, writes a checkpoint and ends its thread.
pub struct Journal {
    queue: Arc<Queue>,
    reader: Reader,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in `store`, or makes a new one if the store is empty. Fails if the data key in `cipher` is not
    /// the one it was made with, or if the end of the chain or the set of entries is not what was written last.
    pub fn open(store: Arc<dyn Store>, cipher: RecordCipher, options: Options) -> Result<Self, JournalError> {
        let cipher = Arc::new(cipher);
        let ledger = Ledger::open(Arc::clone(&store), Arc::clone(&cipher), options.checkpoint_every)?;
        let reader = Reader::new(store, cipher, ledger.meta());
        let queue = Arc::new(Queue::new(ledger, options));
        let shared = Arc::clone(&queue);
        let thread = memory::spawn("journal", move || {
            turns::answers();
            shared.run();
        });
        let thread = thread.map_err(|error| JournalError::Store(error.into()))?;
        Ok(Self { queue, reader, thread: Some(thread) })
    }

    /// Hands in `commit`; `done` is told once, after the record is on stable storage or has failed. Callbacks of one
    /// tenant run in the order of submission, as do all callbacks of commits that record something; a barrier waits for
    /// its own tenant only, and runs at once, within this call, if nothing of its tenant is in flight.
    pub fn submit(&self, commit: Commit, done: Done) {
        self.enqueue(commit, done);
        self.queue.wake();
    }

    /// [`Journal::submit`] for who goes on to [`Journal::write`], or to hand in more of what one flush may serve: until then
    /// it may wait.
    pub fn enqueue(&self, commit: Commit, done: Done) {
        self.queue.enqueue(commit, done);
    }

    /// Has what was enqueued written, by another thread.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Writes what was enqueued and tells it, on this thread, unless another one is at it and sees to it. Blocks for a
    /// flush or a few.
    pub fn write(&self) {
        self.queue.write();
    }

    /// [`Journal::submit`], waiting for the outcome.
    pub fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.submit(commit, Box::new(move |result| drop(reply.try_send(result))));
        outcome.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// All live entries of `tenant` but [`COLD`] ones, after everything submitted before. Whoever asks starts from the recorded state, so
    /// a tenant whose commit failed may commit again. Fails while the store cannot be written, and if the entries are not
    /// together those that were recorded last.
    pub fn load(&self, tenant: &str) -> Result<BTreeMap<String, Vec<u8>>, JournalError> {
        commit::check_tenant(tenant)?;
        let (reply, outcome) = mpsc::sync_channel(1);
        self.queue.send(Errand::Reload(tenant.to_owned(), reply));
        let loading = outcome.recv().unwrap_or(Err(CommitError::Closed)).map_err(JournalError::Unavailable)?;
        self.reader.entries(tenant, &loading)
    }

    /// One recorded entry, as of the last batch.
    pub fn get(&self, tenant: &str, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.reader.entry(tenant, key)
    }

    /// At most `limit` decisions with numbers from `from` upwards: for export in pages, and to follow the log.
    pub fn decisions(&self, from: u64, limit: usize) -> Result<Vec<LogLine>, JournalError> {
        self.reader.decisions(from, limit)
    }

    /// The last `count` decisions, oldest first.
    pub fn tail(&self, count: usize) -> Result<Vec<LogLine>, JournalError> {
        self.reader.tail(count)
    }

    /// The decision on `request`, looked for from the newest back to [`EXPLAIN_REACH`] decisions.
    pub fn explain(&self, request: &str) -> Result<Option<LogLine>, JournalError> {
        self.reader.explain(request)
    }

    /// Checks every record as of now and names the first bad one, unless `progress` returns false and ends it. Commits go
    /// on meanwhile.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<Verified, JournalError> {
        self.reader.verify(progress)
    }

    /// Every row as of now, sealed as it is stored, and how many there were: `meta`, `head`, then the others in the order of
    /// their keys. Ends with the first error of `each`. Commits go on meanwhile.
    pub fn rows<E: From<JournalError>>(&self, each: &mut dyn FnMut(&store::Row) -> Result<(), E>) -> Result<u64, E> {
        self.reader.rows(each)
    }

    /// The journal as it is after everything submitted before, and what changed in it since `since`, which
    /// [`Changes::mark`] gave. From then on it is remembered what changes, so that the next call need not read all entries.
    /// Fails with [`JournalError::Diverged`] if `since` is no moment of this journal's past. Commits go on meanwhile.
    pub fn changes(&self, since: Option<&Mark>) -> Result<Changes, JournalError> {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.queue.send(Errand::Changes(since.map(|since| since.version), reply));
        let changes = outcome.recv().unwrap_or(Err(CommitError::Closed)).map_err(JournalError::Unavailable)?;
        if let Some(since) = since {
            self.reader.require_past(&changes, since)?;
        }
        Ok(changes)
    }

    /// Seals with `key` from now on; what was sealed so far still opens. Whoever turns it sees to [`Journal::reseal`].
    pub fn turn(&self, key: Secret<32>) {
        self.reader.cipher().turn(key);
    }

    /// Forgets the key before. What it sealed is lost, if there still is any.
    pub fn retire(&self) {
        self.reader.cipher().retire();
    }

    /// Whether it seals with `key`.
    pub fn seals_with(&self, key: &Secret<32>) -> bool {
        self.reader.cipher().seals_with(key)
    }

    /// Seals the next few rows after the row `after`, `""` at first, with the current data key. Commits wait meanwhile.
    pub fn reseal(&self, after: &str) -> Result<Resealed, JournalError> {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.queue.send(Errand::Reseal(after.to_owned(), reply));
        outcome.recv().unwrap_or(Err(JournalError::Unavailable(CommitError::Closed)))
    }

    /// What was done so far, and whether it works.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// What the recorded decisions count for, since it was opened.
    pub fn counters(&self) -> &Counters {
        &self.queue.counters
    }

    /// Whether the journal can be written.
    pub fn health(&self) -> Health {
        self.stats().health
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
        // A callback may own the last reference: then the journal's thread waits for it, or runs it.
        if let Some(thread) = self.thread.take()
            && !self.queue.is_telling()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join(); // panics are caught within
        }
    }
}
