//! Tells submitters what became of their commits, on a thread of its own: the committer goes on to the next flush at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::commit::{CommitError, Tenant};
use super::committer::Queue;

/// Told once what became of a commit. Runs on the journal's telling thread, or within `submit`: it must not block and
/// must not call the journal's blocking methods.
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

/// What the committer hands groups to, and the thread's own end of it.
pub(super) fn line() -> (Sender<Group>, Receiver<Group>) {
    channel() // holds no more than front doors let wait
}

/// Works until the committer is gone and all is told.
pub(super) fn run(queue: &Queue, groups: &Receiver<Group>) {
    for Ended { tenant, done, result } in groups.iter().flatten() {
        done.complete(result);
        // At once: whoever was told may ask for something that needs no flush, and must not wait for the next.
        queue.landed(&tenant);
    }
}
