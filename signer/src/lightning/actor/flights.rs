//! Commits on their way to the disk.

use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Commits on their way, and whether one failed.
#[derive(Default)]
pub(super) struct Flights {
    count: Mutex<usize>,
    landed: Condvar,
    /// A commit failed: what the state machine remembers is not what the journal holds.
    pub(super) broken: AtomicBool,
}

impl Flights {
    pub(super) fn take_off(&self) {
        *lock(&self.count) += 1;
    }

    pub(super) fn land(&self) {
        let mut count = lock(&self.count);
        *count -= 1;
        if *count == 0 {
            self.landed.notify_all();
        }
    }

    /// Waits until none is on its way.
    pub(super) fn wait(&self) {
        let mut count = lock(&self.count);
        while *count > 0 {
            count = self.landed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
