//! Runs the tests of a bundle against its policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::case::{Case, Expected};
use crate::budget::{Budget, Budgets, ReservationKey};
use crate::bundle::{Bundle, BundleError, Part};
use crate::decide::{self, Policy, State};
use crate::grant::{GrantId, Grants};
use crate::place::Place;
use crate::value::{MAX_MONEY_MSAT, Value};
use crate::verdict::{Denial, Verdict};

/// What came of all tests of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SuiteReport {
    /// How many passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: Vec<Failure>,
    /// Files that cannot be read as tests.
    pub errors: Vec<BundleError>,
}

/// One test that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub file: String,
    /// Where the test begins.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What differs.
    pub differences: Vec<Difference>,
    /// The verdict, in words.
    pub because: Vec<String>,
}

/// One thing that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which: `expect`, `rules`, `budgets`, `groups`, `spent` or `approved`.
    pub what: &'static str,
    /// As the test says.
    pub expected: String,
    /// As it is.
    pub found: String,
}

impl SuiteReport {
    /// Whether every test passed, and every file could be read.
    pub fn passes(&self) -> bool {
        self.failed.is_empty() && self.errors.is_empty()
    }
}

impl fmt::Display for SuiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}\n  hint: {}", error.hint)?;
        }
        for Failure { file, place, name, differences, because } in &self.failed {
            writeln!(f, "{file}:{place}: FAILED {name}")?;
            for Difference { what, expected, found } in differences {
                writeln!(f, "  {what:<9} expected {expected}\n            found    {found}")?;
            }
            for line in because {
                writeln!(f, "  because   {line}")?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())
    }
}

/// Runs the tests of all `*.test.toml` of the bundle, in the order of files and lines.
pub fn test(bundle: &Bundle) -> SuiteReport {
    let mut report = SuiteReport::default();
    for (file, contents) in bundle.files().of(Part::Tests) {
        let cases = match read(file, contents) {
            Ok(cases) => cases,
            Err(errors) => {
                report.errors.extend(errors);
                continue;
            }
        };
        for case in cases {
            let (differences, verdict) = run(bundle.policy(), &case);
            if differences.is_empty() {
                report.passed += 1;
            } else {
                let because = words(&verdict);
                let Case { place, name, .. } = case;
                report.failed.push(Failure { file: file.to_owned(), place, name, differences, because });
            }
        }
    }
    report
}

/// The tests of one file of a bundle.
pub(crate) fn read(file: &str, contents: &[u8]) -> Result<Vec<Case>, Vec<BundleError>> {
    let text = std::str::from_utf8(contents)
        .map_err(|error| vec![BundleError::not_text(file, contents, error.valid_up_to())])?;
    Case::parse(text).map_err(|errors| errors.into_iter().map(|error| BundleError::of_case(file, error)).collect())
}

/// What came out otherwise, and the verdict.
fn run(policy: &Policy, case: &Case) -> (Vec<Difference>, Verdict) {
    let mut differences = Vec::new();
    let now_ms = case.request.time_ms;
    let mut budgets = Budgets::default();
    for (name, spent) in &case.spent {
        match policy.budgets.iter().find(|budget| budget.name == *name) {
            None => differences.push(different("spent", &["a budget's name"], &[name])),
            Some(budget) => spend(&mut budgets, budget, case, *spent, now_ms),
        }
    }
    let grants = Grants::new("tests", &case.request.node);
    let state = State { budgets: &budgets, grants: &grants };
    let mut inputs = decide::inputs(policy, state, &case.request, None, now_ms);
    for group in &case.approved {
        if policy.approvals.group(group).is_none() {
            differences.push(different("approved", &["an approval group"], &[group]));
        }
        inputs.approved.insert(group.clone(), GrantId([0; 16]));
    }
    let verdict = decide::judge(policy, &case.request, &inputs);
    let found = Found::of(&verdict);
    if found.kind != case.expect {
        differences.push(different("expect", &[case.expect.id()], &[found.kind.id()]));
    }
    for (what, expected, found) in [
        ("rules", &case.rules, &found.rules),
        ("budgets", &case.budgets, &found.budgets),
        ("groups", &case.groups, &found.groups),
    ] {
        if let Some(expected) = expected {
            let mut expected = expected.clone();
            expected.sort();
            if expected != *found {
                differences.push(different(what, &expected, found));
            }
        }
    }
    (differences, verdict)
}

/// Lets the request's own window of `budget` hold `spent`.
fn spend(budgets: &mut Budgets, budget: &Budget, case: &Case, spent: u64, now_ms: u64) {
    let unbounded = Budget { limit: MAX_MONEY_MSAT, actions: vec![case.request.action], ..budget.clone() };
    let (requests, request) = match budget.fact {
        Some(fact) => (1, case.request.clone().with(fact, Value::number(spent))),
        None => (spent.min(budget.limit.saturating_add(1)).min(MAX_COUNTED), case.request.clone()),
    };
    for index in 0..requests {
        let key = ReservationKey::new(&format!("spent before:{}:{index}", budget.name));
        if budgets.reserve(std::slice::from_ref(&unbounded), &request, &key, now_ms + 1, now_ms).is_ok() {
            budgets.settle(&request.node, &key, &[], now_ms);
        }
    }
}

/// The most requests that are counted one by one before a test.
const MAX_COUNTED: u64 = 10_000;

/// What a test compares.
pub(crate) struct Found {
    pub(crate) kind: Expected,
    rules: Vec<String>,
    budgets: Vec<String>,
    groups: Vec<String>,
}

impl Found {
    pub(crate) fn of(verdict: &Verdict) -> Self {
        let (kind, denials): (_, &[Denial]) = match verdict {
            Verdict::Permit(_) => (Expected::Permit, &[]),
            Verdict::Deny(denials) => (Expected::Deny, denials),
            Verdict::NeedsApproval { denials, .. } => (Expected::NeedsApproval, denials),
            Verdict::Fault(_) => (Expected::Fault, &[]),
        };
        let mut found = Self { kind, rules: Vec::new(), budgets: Vec::new(), groups: Vec::new() };
        for denial in denials {
            match denial {
                Denial::Forbidden { rule, .. } => found.rules.push(rule.to_string()),
                Denial::Budget(denial) => found.budgets.push(denial.budget.clone()),
                Denial::NothingPermits { .. } => {}
            }
        }
        match verdict {
            Verdict::Permit(permit) => {
                found.rules.extend(permit.determining.iter().map(ToString::to_string));
                found.groups.extend(permit.groups.iter().cloned());
            }
            Verdict::NeedsApproval { groups, .. } => found.groups.extend(groups.iter().cloned()),
            Verdict::Fault(fault) => found.rules.extend(fault.rule.iter().map(ToString::to_string)),
            Verdict::Deny(_) => {}
        }
        for ids in [&mut found.rules, &mut found.budgets, &mut found.groups] {
            ids.sort();
            ids.dedup();
        }
        found
    }
}

impl Expected {
    /// As a test writes it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::NeedsApproval => "needs-approval",
            Self::Fault => "fault",
        }
    }
}

/// Why, a line for each reason.
pub(crate) fn words(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Permit(permit) => {
            let rules: Vec<_> = permit.determining.iter().map(ToString::to_string).collect();
            vec![format!("permitted by {}", rules.join(", "))]
        }
        Verdict::Deny(denials) | Verdict::NeedsApproval { denials, .. } => {
            denials.iter().map(ToString::to_string).collect()
        }
        Verdict::Fault(fault) => vec![fault.message.clone()],
    }
}

fn different<A: AsRef<str>, B: AsRef<str>>(what: &'static str, expected: &[A], found: &[B]) -> Difference {
    fn text<T: AsRef<str>>(ids: &[T]) -> String {
        let ids: Vec<_> = ids.iter().map(AsRef::as_ref).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    }
    Difference { what, expected: text(expected), found: text(found) }
}

/// How many tests each file has, by name: what `policy check` shows.
pub(super) fn count(bundle: &Bundle) -> BTreeMap<String, usize> {
    let files = bundle.files().of(Part::Tests);
    files.filter_map(|(file, contents)| Some((file.to_owned(), read(file, contents).ok()?.len()))).collect()
}
