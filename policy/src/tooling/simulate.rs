//! Simulation: what a candidate would have decided. Its budgets run along from the beginning, empty at first; approvals are those
//! that were at hand, for groups that mean the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::case::Expected;
use super::record::{Event, Record};
use super::replay::STEP;
use super::suite::{Found, words};
use crate::actions::Action;
use crate::budget::{Budgets, ReservationKey};
use crate::decide::{self, Policy, State};
use crate::grant::Grants;
use crate::verdict::Verdict;

/// How long a reservation lasts that history neither settles nor releases, in ms: a day, longer than a payment takes.
const RESERVED_MS: u64 = 86_400_000;

/// What came of a simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SimulationReport {
    /// Decisions.
    pub decisions: u64,
    /// Permitted then, not permitted now.
    pub newly_refused: u64,
    /// Not permitted then, permitted now.
    pub newly_permitted: u64,
    /// Not permitted either way, but otherwise: refused where it was to be approved, or the other way round.
    pub refused_otherwise: u64,
    /// Requests that come out otherwise, by the first reason or rule of the new verdict.
    pub by_cause: BTreeMap<String, u64>,
    /// It was stopped before the end.
    pub stopped: bool,
}

/// A request that comes out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// The request's id.
    pub id: String,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whose.
    pub node: String,
    /// What was asked.
    pub action: Action,
    /// The verdict then.
    pub then: Expected,
    /// The verdict now.
    pub now: Expected,
    /// Why, now.
    pub because: Vec<String>,
}

/// A candidate policy with the state that it would have. Also what a shadow evaluates beside the policy in force.
pub struct Candidate<'a> {
    policy: &'a Policy,
    /// The policy that the history's approvals were given under.
    active: Option<&'a Policy>,
    budgets: &'a mut Budgets,
}

impl<'a> Candidate<'a> {
    /// A candidate that counts in `budgets`, which are empty at first. `active` is the policy under which the history's approvals were given: an
    /// approval counts where its group means the same; without it, where the group exists.
    pub fn new(policy: &'a Policy, active: Option<&'a Policy>, budgets: &'a mut Budgets) -> Self {
        Self { policy, active, budgets }
    }

    /// What it decides in place of the recorded verdict. What it permits is set aside in its budgets.
    pub fn decide(&mut self, record: &Record) -> Verdict {
        let (request, now_ms) = (&record.request, record.request.time_ms);
        let key = record.reservation();
        let grants = Grants::new("simulation", &request.node);
        let state = State { budgets: self.budgets, grants: &grants };
        let mut inputs = decide::inputs(self.policy, state, request, Some(&key), now_ms);
        inputs.approved = record.inputs.approved.clone();
        inputs.approved.retain(|group, _| self.means_the_same(group));
        let verdict = decide::judge(self.policy, request, &inputs);
        if verdict.permits() {
            // What a budget cannot count is refused above.
            let _ = self.budgets.reserve(&self.policy.budgets, request, &key, now_ms + RESERVED_MS, now_ms);
        }
        verdict
    }

    /// Takes in what became of a request.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Decided(_) => {}
            Event::Settled { node, key, amounts, at_ms } => {
                let amounts: Vec<_> = amounts.iter().map(|(fact, amount)| (*fact, *amount)).collect();
                self.budgets.settle(node, &ReservationKey::new(key), &amounts, *at_ms);
            }
            Event::Released { node, key, at_ms } => {
                self.budgets.release(node, &ReservationKey::new(key), *at_ms);
            }
        }
    }

    fn means_the_same(&self, group: &str) -> bool {
        let now = self.policy.approvals.group(group);
        match self.active {
            Some(active) => now.is_some() && now == active.approvals.group(group),
            None => now.is_some(),
        }
    }

    fn tidy(&mut self, node: &str, now_ms: u64) {
        self.budgets.expire(node, now_ms);
    }
}

/// Lets `candidate` decide all that was decided. `differing` hears each request that comes out otherwise, so that memory does
/// not grow with history; `progress` hears how many are done and answers whether to go on.
pub fn simulate(
    events: impl IntoIterator<Item = Event>,
    mut candidate: Candidate<'_>,
    mut differing: impl FnMut(Differing),
    mut progress: impl FnMut(u64) -> bool,
) -> SimulationReport {
    let mut report = SimulationReport::default();
    for event in events {
        let Event::Decided(record) = event else {
            candidate.take(&event);
            continue;
        };
        report.decisions += 1;
        let verdict = candidate.decide(&record);
        if let Some(difference) = report.compare(&record, &verdict) {
            differing(difference);
        }
        if report.decisions.is_multiple_of(STEP) {
            candidate.tidy(&record.request.node, record.request.time_ms);
            if !progress(report.decisions) {
                report.stopped = true;
                break;
            }
        }
    }
    report
}

impl SimulationReport {
    /// Counts a verdict, and says how it differs in kind from the recorded one. For shadows too.
    pub fn compare(&mut self, record: &Record, verdict: &Verdict) -> Option<Differing> {
        let (then, now) = (Found::of(&record.verdict).kind, Found::of(verdict).kind);
        if then == now {
            return None;
        }
        match (then, now) {
            (Expected::Permit, _) => self.newly_refused += 1,
            (_, Expected::Permit) => self.newly_permitted += 1,
            _ => self.refused_otherwise += 1,
        }
        let Record { id, request, .. } = record;
        let because = words(verdict);
        *self.by_cause.entry(cause(verdict)).or_default() += 1;
        Some(Differing {
            id: id.clone(),
            at_ms: request.time_ms,
            node: request.node.clone(),
            action: request.action,
            then,
            now,
            because,
        })
    }

    /// How many come out otherwise.
    pub fn differing(&self) -> u64 {
        self.newly_refused + self.newly_permitted + self.refused_otherwise
    }
}

/// What decides, by name: bounded by the candidate's rules and budgets.
fn cause(verdict: &Verdict) -> String {
    use crate::verdict::Denial;
    match verdict {
        Verdict::Permit(permit) => {
            permit.determining.first().map_or_else(|| "permit".to_owned(), |rule| format!("rule {rule}"))
        }
        Verdict::Deny(denials) | Verdict::NeedsApproval { denials, .. } => match denials.first() {
            Some(Denial::Forbidden { rule, .. }) => format!("rule {rule}"),
            Some(Denial::Budget(denial)) => format!("budget {}", denial.budget),
            Some(Denial::NothingPermits { .. }) | None => "nothing permits it".to_owned(),
        },
        Verdict::Fault(_) => "fault".to_owned(),
    }
}

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} would now be refused; {} newly permitted; {} refused otherwise",
            self.newly_refused, self.decisions, self.newly_permitted, self.refused_otherwise
        )?;
        for (cause, requests) in &self.by_cause {
            write!(f, "\n  {requests:>6}  {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, at_ms, node, action, then, now, because } = self;
        let at = crate::time::print(at_ms / 1_000);
        write!(f, "{id} {at} {node} {action}: {} -> {} ({})", then.id(), now.id(), because.join("; "))
    }
}
