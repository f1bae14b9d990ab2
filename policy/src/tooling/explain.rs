//! Why a request got its verdict: the facts, the rules, what is left of budgets, what would have passed, the nearest grants.

use std::fmt;

use serde::Serialize;

use super::case::Expected;
use super::suite::{Found, words};
use crate::actions::Action;
use crate::budget::Standing;
use crate::decide::{Inputs, Policy};
use crate::facts::{FactId, Unit};
use crate::grant::Grants;
use crate::request::Request;
use crate::time;
use crate::verdict::{Compared, Denial, Passes, Verdict};

/// A verdict with all that explains it (P11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whose.
    pub node: String,
    /// What was asked.
    pub action: Action,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The verdict's kind.
    pub verdict: Expected,
    /// The reason's stable id; `None` for a permit.
    pub reason: Option<&'static str>,
    /// Why, a line for each reason.
    pub because: Vec<String>,
    /// What the request carried.
    pub facts: Vec<ExplainedFact>,
    /// What was left of each budget that counts it.
    pub budgets: Vec<ExplainedBudget>,
    /// What would have passed, a line for each thing that would have to be otherwise.
    pub passes: Vec<String>,
    /// Groups whose approval lifts every denial; empty if nothing does.
    pub approvals: Vec<String>,
    /// Grants in force for such requests, and why each does not cover this one.
    pub near_grants: Vec<NearGrant>,
    /// The next step.
    pub hint: Option<&'static str>,
}

/// One fact, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedFact {
    /// Its id.
    pub fact: FactId,
    /// Its value.
    pub value: String,
    /// Its unit; empty if it has none.
    pub unit: &'static str,
    /// Whether it is proved, or only claimed by the node.
    pub source: &'static str,
}

/// One budget, as the request met it. Amounts are in the budget's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedBudget {
    /// Its name.
    pub budget: String,
    /// What the request adds.
    pub asked: u64,
    /// What was left without it.
    pub left: u64,
    /// What there is in the whole window.
    pub limit: u64,
    /// The unit; empty for counts.
    pub unit: &'static str,
    /// When the request fits, if nothing else is spent; in milliseconds since the Unix epoch.
    pub fits_at_ms: Option<u64>,
    /// Whether it refused.
    pub refuses: bool,
}

/// A grant that does not cover the request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearGrant {
    /// The grant.
    pub grant: String,
    /// What is otherwise.
    pub mismatch: String,
}

/// Explains `verdict`, which `policy` gave `request` with `inputs`. `grants`, if they are at hand, tell which are near.
pub fn explain(
    policy: &Policy,
    request: &Request,
    inputs: &Inputs,
    verdict: &Verdict,
    grants: Option<&Grants>,
) -> Explanation {
    let near = grants.into_iter().flat_map(|grants| grants.near(&policy.approvals, request, request.time_ms));
    let denials: &[Denial] = match verdict {
        Verdict::Deny(denials) | Verdict::NeedsApproval { denials, .. } => denials,
        Verdict::Permit(_) | Verdict::Fault(_) => &[],
    };
    Explanation {
        node: request.node.clone(),
        action: request.action,
        at_ms: request.time_ms,
        verdict: Found::of(verdict).kind,
        reason: verdict.reason().map(|reason| reason.id()),
        because: words(verdict),
        facts: request.facts().iter().map(|(fact, value)| fact_of(request, *fact, value.to_string())).collect(),
        budgets: inputs.standings.iter().map(budget).collect(),
        passes: denials.iter().flat_map(passes).collect(),
        approvals: match verdict {
            Verdict::NeedsApproval { groups, .. } => groups.clone(),
            _ => Vec::new(),
        },
        near_grants: match verdict {
            Verdict::Permit(_) => Vec::new(),
            _ => near
                .map(|(grant, mismatch)| NearGrant { grant: grant.to_string(), mismatch: mismatch.to_string() })
                .collect(),
        },
        hint: verdict.reason().map(|reason| reason.hint()),
    }
}

fn fact_of(request: &Request, fact: FactId, value: String) -> ExplainedFact {
    let unit = fact.unit().map_or("", Unit::text);
    ExplainedFact { fact, value, unit, source: fact.source(request.action).id() }
}

fn budget(standing: &Standing) -> ExplainedBudget {
    ExplainedBudget {
        budget: standing.budget.clone(),
        asked: standing.asked,
        left: standing.left,
        limit: standing.limit,
        unit: standing.fact.and_then(FactId::unit).map_or("", Unit::text),
        fits_at_ms: standing.fits_at_ms,
        refuses: standing.refuses(),
    }
}

/// What would have to be otherwise for this denial not to be.
fn passes(denial: &Denial) -> Vec<String> {
    let plain = |compared: &[Compared]| -> Vec<String> { compared.iter().filter_map(bound).collect() };
    match denial {
        Denial::Forbidden { rule, compared, .. } => match plain(compared) {
            bounds if bounds.is_empty() => vec![format!("what rule {rule} does not forbid")],
            bounds => bounds,
        },
        Denial::NothingPermits { closest } => {
            let closest =
                closest.iter().find(|closest| closest.compared.iter().any(|compared| compared.passes.is_some()));
            closest.map(|closest| plain(&closest.compared)).unwrap_or_default()
        }
        Denial::Budget(denial) => match &denial.room {
            crate::verdict::BudgetRoom::Exceeded { fact, left, fits_at_ms, .. } => {
                let later =
                    fits_at_ms.map(|at_ms| format!(", or the same from {} on", time::print(at_ms.div_ceil(1_000))));
                vec![format!("{fact} at most {left} (budget {}){}", denial.budget, later.unwrap_or_default())]
            }
            _ => Vec::new(),
        },
    }
}

fn bound(compared: &Compared) -> Option<String> {
    let unit = compared.fact.unit().map_or("", Unit::text);
    let bound = match compared.passes.as_ref()? {
        Passes::AtMost(limit) => format!("at most {limit}"),
        Passes::AtLeast(limit) => format!("at least {limit}"),
        Passes::Exactly(wanted) => format!("exactly {wanted}"),
    };
    Some(format!("{} {bound} {unit}", compared.fact.id()).trim_end().to_owned())
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by node {}, {}", self.action, self.node, time::print(self.at_ms / 1_000))?;
        let mut say = |name: &str, what: String| write!(f, "\n  {name:<11} {}", what.trim_end());
        say("verdict", format!("{} {}", self.verdict.id(), self.reason.unwrap_or_default()))?;
        for because in &self.because {
            say("because", because.clone())?;
        }
        for ExplainedFact { fact, value, unit, source } in &self.facts {
            let source = if *source == "claimed" { "  (the node's word)" } else { "" };
            say("fact", format!("{} = {value} {unit}{source}", fact.id()))?;
        }
        for ExplainedBudget { budget, asked, left, limit, unit, .. } in &self.budgets {
            say("budget", format!("{budget}: asked {asked}, left {left} of {limit} {unit}"))?;
        }
        for passes in &self.passes {
            say("passes", passes.clone())?;
        }
        if !self.approvals.is_empty() {
            say("approval", self.approvals.join(", "))?;
        }
        for NearGrant { grant, mismatch } in &self.near_grants {
            say("near grant", format!("{grant}: {mismatch}"))?;
        }
        self.hint.map_or(Ok(()), |hint| say("next step", hint.to_owned()))
    }
}
