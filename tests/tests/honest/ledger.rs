//! What was done, and what came of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// How many operations a failing run tells.
const LAST: usize = 40;
const PROGRESS_EVERY: u64 = 100;

pub(crate) struct Ledger {
    town: &'static str,
    begun: Instant,
    /// How many operations of each kind there were.
    kinds: BTreeMap<&'static str, u64>,
    /// How many payments came to what.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    last: VecDeque<String>,
    operations: u64,
}

impl Ledger {
    pub(crate) fn new(town: &'static str) -> Self {
        let (kinds, outcomes) = (BTreeMap::new(), BTreeMap::new());
        Self { town, begun: Instant::now(), kinds, outcomes, last: VecDeque::new(), operations: 0 }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Notes an operation that begins.
    pub(crate) fn begin(&mut self, kind: &'static str, what: &str) {
        self.operations += 1;
        *self.kinds.entry(kind).or_default() += 1;
        self.note(format!("{:>5} {kind} {what}", self.operations));
        if self.operations.is_multiple_of(PROGRESS_EVERY) {
            println!("{}", self.summary());
        }
    }

    /// Notes what a payment came to.
    pub(crate) fn end(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Notes something that is no operation.
    pub(crate) fn note(&mut self, line: String) {
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(format!("{:7.2} s {line}", self.begun.elapsed().as_secs_f64()));
    }

    /// The last operations, oldest first.
    pub(crate) fn last(&self) -> String {
        self.last.iter().map(|line| format!("  {line}\n")).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.operations as f64 / seconds;
        let list = |counts: &BTreeMap<&str, u64>| {
            counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        let (kinds, outcomes) = (list(&self.kinds), list(&self.outcomes));
        format!(
            "{}: {} operations, {seconds:.0} s, {rate:.1}/s: {kinds}; payments: {outcomes}",
            self.town, self.operations
        )
    }
}
