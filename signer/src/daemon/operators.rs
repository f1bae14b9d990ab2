//! What operators change of the policy, as lines of the decision log: who did what, in the commit that makes it durable.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Unsealed;
use super::policy::now_ms;
use crate::facts::Fact;
use crate::journal::{Decision, HOUSE};

/// Names the lines of one run.
pub(super) struct Lines {
    run: u32,
    given: AtomicU64,
}

impl Lines {
    pub(super) fn new() -> Self {
        let mut run = [0; 4];
        getrandom::fill(&mut run).expect("the operating system provides randomness");
        Self { run: u32::from_be_bytes(run), given: AtomicU64::new(0) }
    }

    /// The name of the next line.
    pub(super) fn next(&self) -> String {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        format!("{HOUSE}-{:08x}-{number}", self.run)
    }
}

impl Unsealed {
    /// The line that says that `by` did `action`, and with what. Its time is not before the last line's: histories are
    /// searched by time.
    pub(super) fn line(&self, action: &str, by: &str, facts: impl IntoIterator<Item = Fact>) -> Decision {
        let last = self.journal.tail(1).ok().and_then(|lines| Some(lines.first()?.decision.at_ms));
        let facts = [Fact::text("ordered_by", by)].into_iter().chain(facts).collect();
        let at_ms = now_ms().max(last.unwrap_or(0));
        Decision { facts, ..Decision::unasked(self.lines.next(), at_ms, action) }
    }
}
