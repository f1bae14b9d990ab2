//! Replay: each recorded verdict is made again with its own bundle, and must come out byte for byte.

use std::fmt;

use serde::Serialize;

use super::record::{Event, Record};
use super::suite::words;
use crate::bundle::{Bundle, BundleHash};
use crate::decide;
use crate::verdict::Verdict;

/// Decisions between two calls of the progress callback.
pub(super) const STEP: u64 = 256;
/// The most differences that a report lists.
pub const MAX_LISTED: usize = 1_000;

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Decisions.
    pub decisions: u64,
    /// Came out as they are recorded.
    pub reproduced: u64,
    /// Came out otherwise.
    pub differing: u64,
    /// Their bundle is not at hand, so that nothing can be said.
    pub without_bundle: u64,
    /// The first [`MAX_LISTED`] that differ.
    pub listed: Vec<Irreproducible>,
    /// It was stopped before the end.
    pub stopped: bool,
}

/// A decision that comes out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Irreproducible {
    /// The request's id.
    pub id: String,
    /// The bundle.
    pub bundle: BundleHash,
    /// As recorded.
    pub recorded: Vec<String>,
    /// As it comes out.
    pub found: Vec<String>,
}

/// Makes every decision again. `bundle` gives the bundle with a hash, once after another for consecutive decisions; `progress`
/// hears how many are done and answers whether to go on.
pub fn replay<'a>(
    events: impl IntoIterator<Item = Event>,
    mut bundle: impl FnMut(BundleHash) -> Option<&'a Bundle>,
    mut progress: impl FnMut(u64) -> bool,
) -> ReplayReport {
    let mut report = ReplayReport::default();
    for event in events {
        let Event::Decided(record) = event else { continue };
        report.decisions += 1;
        match bundle(record.bundle) {
            None => report.without_bundle += 1,
            Some(bundle) => report.compare(*record, bundle),
        }
        if report.decisions.is_multiple_of(STEP) && !progress(report.decisions) {
            report.stopped = true;
            break;
        }
    }
    report
}

impl ReplayReport {
    /// Whether every decision came out as it is recorded.
    pub fn reproduces(&self) -> bool {
        self.reproduced == self.decisions && !self.stopped
    }

    fn compare(&mut self, record: Record, bundle: &Bundle) {
        let found = decide::judge(bundle.policy(), &record.request, &record.inputs);
        if bytes(&found) == bytes(&record.verdict) {
            self.reproduced += 1;
            return;
        }
        self.differing += 1;
        if self.listed.len() < MAX_LISTED {
            let (recorded, found) = (words(&record.verdict), words(&found));
            self.listed.push(Irreproducible { id: record.id, bundle: record.bundle, recorded, found });
        }
    }
}

/// A verdict as the journal keeps it.
fn bytes(verdict: &Verdict) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(verdict, &mut bytes).expect("a vector takes what is written, and verdicts have a CBOR form");
    bytes
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Irreproducible { id, recorded, found, .. } in &self.listed {
            writeln!(f, "{id}: recorded {}; now {}", recorded.join("; "), found.join("; "))?;
        }
        write!(f, "{} of {} decisions reproduced", self.reproduced, self.decisions)?;
        if self.without_bundle > 0 {
            write!(f, "; {} have a bundle that is not at hand", self.without_bundle)?;
        }
        Ok(())
    }
}
