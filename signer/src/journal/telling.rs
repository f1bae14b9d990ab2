//! Telling submitters what became of their commits.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::commit::{CommitError, Tenant};

/// Told once what became of a commit. Runs on whichever thread wrote it, or within `submit`: it must not block and must not
/// call the journal's blocking methods.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Tells a submitter what became of its commit: exactly once, also if the committer ends before it gets there.
pub(super) struct Completion(Option<Done>);

impl Completion {
    pub(super) fn new(done: Done) -> Self {
        Self(Some(done))
    }

    fn complete(mut self, result: Result<(), CommitError>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<(), CommitError>) {
        // A panic of one node's callback must not stop the others (P6).
        if let Some(done) = self.0.take()
            && catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
        {
            tracing::error!("a completion callback panicked");
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.tell(Err(CommitError::Closed));
    }
}

/// What became of one commit.
pub(super) struct Ended {
    pub(super) tenant: Tenant,
    pub(super) done: Completion,
    pub(super) result: Result<(), CommitError>,
}

/// The ends of one group's commits, in order of submission.
pub(super) type Group = Vec<Ended>;

/// One group is told at a time.
#[derive(Default)]
pub(super) struct Telling(Mutex<()>);

/// The right to tell the next group.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

thread_local! {
    /// Whether this thread tells. A callback may let go of the last owner of the journal.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

impl Telling {
    /// After the groups whose turns began before.
    pub(super) fn begin(&self) -> Turn<'_> {
        Turn(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is this thread's turn.
    pub(super) fn is_mine(&self) -> bool {
        TELLS.get()
    }
}

impl Turn<'_> {
    /// Tells all of `group`; `landed` hears of each one at once: whoever was told may ask for something that needs no flush,
    /// and must not wait for the next.
    pub(super) fn tell(self, group: Group, landed: impl Fn(&Tenant)) {
        TELLS.set(true);
        for Ended { tenant, done, result } in group {
            done.complete(result);
            landed(&tenant);
        }
        TELLS.set(false);
    }
}
