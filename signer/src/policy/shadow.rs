//! A candidate judged beside the bundle in force: on every decision, with no effect on any answer.
//!
//! Which bundle it is, is durable. What it counted and its budgets are in memory: they begin anew when the signer does.

use std::collections::VecDeque;
use std::sync::Arc;

use claviger_policy::budget::Budgets;
use claviger_policy::bundle::{Bundle, Files, InForce};
use claviger_policy::decide::Policy;
use claviger_policy::tooling::{Candidate, Differing, Record, SimulationReport};

use super::desk::{Desk, puts};
use super::force::{ApplyFailed, tested};
use crate::journal::Put;

/// So many decisions that came out otherwise are listed: the last ones.
const MAX_LISTED: usize = 256;

/// A candidate, and what came of it.
pub(super) struct Shadow {
    bundle: Arc<Bundle>,
    since_ms: u64,
    budgets: Budgets,
    report: SimulationReport,
    differing: VecDeque<Differing>,
}

/// What came of a shadow so far.
#[derive(Clone, Debug)]
pub struct Shadowed {
    /// The candidate.
    pub bundle: Arc<Bundle>,
    /// Counted from then on, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The counts.
    pub report: SimulationReport,
    /// The last that came out otherwise, oldest first. Their id is the key that the desk knows them by.
    pub differing: Vec<Differing>,
}

impl Shadow {
    pub(super) fn new(bundle: Arc<Bundle>, since_ms: u64) -> Self {
        let (budgets, report, differing) = (Budgets::default(), SimulationReport::default(), VecDeque::new());
        Self { bundle, since_ms, budgets, report, differing }
    }

    /// Judges what was decided under `active`. What both permit is set aside until the desk says what became of it.
    fn judge(&mut self, active: &Policy, record: &Record) {
        let verdict = Candidate::new(self.bundle.policy(), Some(active), &mut self.budgets).decide(record);
        if verdict.permits() && record.verdict.permits() {
            self.budgets.hold(&record.request.node, &record.reservation(), record.request.time_ms);
        }
        self.report.decisions += 1;
        if let Some(differing) = self.report.compare(record, &verdict) {
            if self.differing.len() == MAX_LISTED {
                self.differing.pop_front();
            }
            self.differing.push_back(Differing { id: record.key.clone(), ..differing });
        }
    }
}

impl Desk {
    /// Judges every decision by the bundle in `files` too, from now on; `None` ends it. `record` as for
    /// [`apply`](Self::apply). Needs no signatures: it decides nothing.
    pub fn shadow<E: From<ApplyFailed>>(
        &self,
        files: Option<Files>,
        network: bitcoin::Network,
        now_ms: u64,
        record: impl FnOnce(Vec<Put>) -> Result<(), E>,
    ) -> Result<(), E> {
        let candidate = files.map(|files| tested(files, network)).transpose()?;
        let (mut in_force, active) = self.standing(now_ms);
        if active.is_none() && candidate.is_some() {
            return Err(ApplyFailed::NothingBeside.into());
        }
        record(puts(in_force.set_shadow(candidate.as_deref(), now_ms)))?;
        self.lock().in_force = in_force;
        *self.shadowing() = candidate.map(|bundle| Shadow::new(bundle, now_ms));
        Ok(())
    }

    /// What came of the shadow so far; `None` without one.
    pub fn shadowed(&self) -> Option<Shadowed> {
        self.shadowing().as_ref().map(|shadow| Shadowed {
            bundle: shadow.bundle.clone(),
            since_ms: shadow.since_ms,
            report: shadow.report.clone(),
            differing: shadow.differing.iter().cloned().collect(),
        })
    }

    /// Shows the shadow what was decided under `active`.
    pub(super) fn show_shadow(&self, active: &Bundle, record: &Record) {
        if let Some(shadow) = &mut *self.shadowing() {
            shadow.judge(active.policy(), record);
        }
    }

    /// What happens to the budgets happens to the shadow's too.
    pub(super) fn in_shadow(&self, change: impl FnOnce(&mut Budgets)) {
        if let Some(shadow) = &mut *self.shadowing() {
            change(&mut shadow.budgets);
        }
    }

    /// The bundle that was the shadow came into force, and needs none any more.
    pub(super) fn end_shadow(&self, in_force: &InForce) {
        if in_force.shadow.is_none() {
            *self.shadowing() = None;
        }
    }
}
