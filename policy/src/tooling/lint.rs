//! What is odd about a bundle that is right in form: findings, each with its place and the next step.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::shape::{Effect, Shape};
use crate::actions::Action;
use crate::bundle::Bundle;
use crate::decide::Policy;
use crate::engine::Rule;
use crate::facts::{FactId, Kind};
use crate::place::Place;

/// The most findings that are told at once.
pub const MAX_FINDINGS: usize = 100;

/// One oddity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Where; of a ready-made rule, the preset.
    pub file: String,
    /// Where in the file; absent if it is about the policy as such.
    pub place: Option<Place>,
    /// What.
    #[serde(flatten)]
    pub lint: Lint,
}

/// What can be odd. The tag is the lint's stable id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "lint", rename_all = "kebab-case")]
pub enum Lint {
    /// Money may leave without any bound.
    #[error("'{rule}' permits {action} without a bound on how much, or to whom")]
    UnboundedAmount {
        /// The rule.
        rule: String,
        /// The action.
        action: Action,
    },
    /// No request meets the rule.
    #[error("no request ever meets '{rule}'")]
    Unreachable {
        /// The rule.
        rule: String,
    },
    /// The rule permits what another always forbids.
    #[error("'{rule}' permits only what '{by}' forbids")]
    Overridden {
        /// The rule.
        rule: String,
        /// The one that forbids.
        by: String,
    },
    /// Another rule of the same effect meets all that this one does.
    #[error("'{rule}' adds nothing to '{by}'")]
    Redundant {
        /// The rule.
        rule: String,
        /// The one that does it all.
        by: String,
    },
    /// A rule asks for a list that is not there, so that it never finds anything in it.
    #[error("'{rule}' asks whether {fact} has '{list}', and there is no such list")]
    UnknownList {
        /// The rule.
        rule: String,
        /// The fact.
        fact: &'static str,
        /// The list.
        list: String,
    },
    /// No rule permits anything that the budget counts.
    #[error("the budget '{budget}' counts nothing: no rule permits its actions")]
    UnusedBudget {
        /// The budget.
        budget: String,
    },
    /// Nothing asks for the group's approval.
    #[error("nothing asks for the approval group '{group}'")]
    UnusedGroup {
        /// The group.
        group: String,
    },
    /// Everybody of the role is needed, so that none of them may ask.
    #[error("'{group}' needs all {of} people of '{role}': what one of them asks for can never be approved")]
    NeverMetFromWithin {
        /// The group.
        group: String,
        /// Its role.
        role: String,
        /// How many are needed.
        of: u32,
    },
    /// Too few people of the role have a key that may sign for it.
    #[error("'{group}' needs {of} of '{role}', of whom {people} have a key for it: it can never be met")]
    NeverMet {
        /// The group.
        group: String,
        /// Its role.
        role: String,
        /// How many are needed.
        of: u32,
        /// How many could.
        people: u32,
    },
    /// One name for several things.
    #[error("'{name}' is the name of {first} and of {second}")]
    NameReused {
        /// The name.
        name: String,
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Nothing is permitted at all.
    #[error("no rule permits anything")]
    PermitsNothing,
}

impl Lint {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnboundedAmount { .. } => {
                "Add `context.amount_msat <= N` to the rule, a forbid above N, or a [[budget]] over amount_msat."
            }
            Self::Unreachable { .. } => "Correct its bounds, or take it out.",
            Self::Overridden { .. } => "Take one of the two out, or give the forbid an @unless_approved group.",
            Self::Redundant { .. } => "Take it out, or narrow the other.",
            Self::UnknownList { .. } => "Add lists/NAME.toml, or correct the name.",
            Self::UnusedBudget { .. } => "Take it out, or permit what it counts.",
            Self::UnusedGroup { .. } => {
                "Name it in @unless_approved of a forbid or unless_approved of a budget, or take it out."
            }
            Self::NeverMetFromWithin { .. } => "Ask one fewer, or add a person: who asks never approves.",
            Self::NeverMet { .. } => "Add people to the role, with keys in allowed_signers for the group's namespace.",
            Self::NameReused { .. } => "Give each its own name: explanations and approvals name things by it.",
            Self::PermitsNothing => "Choose a preset, or write a permit: what no rule permits is refused.",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}:{place}: {}", self.file, self.lint),
            None => write!(f, "{}: {}", self.file, self.lint),
        }
    }
}

/// The findings of a bundle, sorted by place, at most [`MAX_FINDINGS`].
pub fn lint(bundle: &Bundle) -> Vec<Finding> {
    let policy = bundle.policy();
    let rules: Vec<_> = policy.rules.iter().filter_map(|rule| Some((Shape::of(&rule.json()?), rule))).collect();
    let mut findings = Vec::new();
    let mut find = |rule: Rule<'_>, lint| {
        findings.push(Finding { file: rule.file().to_owned(), place: Some(rule.place()), lint });
    };
    for (index, (shape, rule)) in rules.iter().enumerate() {
        let named = || rule.id().to_string();
        if shape.is_never() {
            find(*rule, Lint::Unreachable { rule: named() });
            continue;
        }
        if let Some(by) = overriding(&rules, shape) {
            find(*rule, Lint::Overridden { rule: named(), by });
        }
        if let Some(by) = repeating(&rules, index) {
            find(*rule, Lint::Redundant { rule: named(), by });
        }
        for action in unbounded(policy, &rules, shape) {
            find(*rule, Lint::UnboundedAmount { rule: named(), action });
        }
        for (fact, list) in unknown_lists(policy, shape) {
            find(*rule, Lint::UnknownList { rule: named(), fact, list });
        }
    }
    findings.extend(of_policy(bundle, &rules).into_iter().map(|lint| Finding {
        file: "policy.toml".to_owned(),
        place: None,
        lint,
    }));
    findings.sort();
    findings.dedup();
    findings.truncate(MAX_FINDINGS);
    findings
}

type Shaped<'a> = (Shape, Rule<'a>);

/// A forbid that no approval lifts, and that meets all that the permit does.
fn overriding(rules: &[Shaped<'_>], permit: &Shape) -> Option<String> {
    let mut forbids =
        rules.iter().filter(|(shape, rule)| shape.effect == Effect::Forbid && rule.unless_approved().is_none());
    let by = forbids.find(|(forbid, _)| permit.effect == Effect::Permit && forbid.covers(permit));
    by.map(|(_, rule)| rule.id().to_string())
}

/// Another rule with the same effect and approval that does all that rule `index` does. Of two that are equal, the second
/// repeats the first.
fn repeating(rules: &[Shaped<'_>], index: usize) -> Option<String> {
    let (shape, rule) = &rules[index];
    let same =
        |(other, of): &Shaped<'_>| other.effect == shape.effect && of.unless_approved() == rule.unless_approved();
    let mut others = rules.iter().enumerate().filter(|(at, other)| *at != index && same(other));
    let by = others
        .find(|(at, (other, _))| !other.is_never() && other.covers(shape) && (*at < index || !shape.covers(other)));
    by.map(|(_, (_, rule))| rule.id().to_string())
}

/// What bounds how much leaves, or to whom.
const BOUNDING: &[FactId] = &[
    FactId::AmountMsat,
    FactId::Destination,
    FactId::DestinationLists,
    FactId::Destinations,
    FactId::Payee,
    FactId::PayeeLists,
    FactId::UnknownDestinations,
];

/// Actions that carry an amount and that the permit lets pass however large it is and wherever it goes. A condition that is
/// not a plain comparison counts as a bound: it cannot be told.
fn unbounded(policy: &Policy, rules: &[Shaped<'_>], permit: &Shape) -> Vec<Action> {
    let bounds = |shape: &Shape| BOUNDING.iter().any(|fact| shape.mentions.contains(fact.id()));
    if permit.effect != Effect::Permit || bounds(permit) {
        return Vec::new();
    }
    let amount = FactId::AmountMsat;
    let is_bounded = |action: &Action| {
        let by_budget =
            policy.budgets.iter().any(|budget| budget.fact == Some(amount) && budget.actions.contains(action));
        let forbids = |(forbid, _): &Shaped<'_>| {
            forbid.effect == Effect::Forbid && forbid.actions.contains(action) && bounds(forbid)
        };
        by_budget || rules.iter().any(forbids)
    };
    let carries = |action: &&Action| FactId::of(**action).contains(&amount);
    permit.actions.iter().filter(carries).filter(|action| !is_bounded(action)).copied().collect()
}

fn unknown_lists(policy: &Policy, shape: &Shape) -> Vec<(&'static str, String)> {
    let lists = [FactId::DestinationLists, FactId::PayeeLists, FactId::PeerLists];
    let asked = shape.texts.iter().filter_map(|(fact, list)| {
        let fact = lists.iter().find(|known| known.id() == fact && known.kind() == Kind::Texts)?;
        Some((fact.id(), list))
    });
    let is_known = |list: &str| policy.lists.entries().any(|entry| entry.list == list);
    asked.filter(|(_, list)| !is_known(list)).map(|(fact, list)| (fact, list.clone())).collect()
}

fn of_policy(bundle: &Bundle, rules: &[Shaped<'_>]) -> Vec<Lint> {
    let policy = bundle.policy();
    let mut lints = Vec::new();
    let permits = |action: &Action| {
        rules
            .iter()
            .any(|(shape, _)| shape.effect == Effect::Permit && !shape.is_never() && shape.actions.contains(action))
    };
    if !Action::ALL.iter().any(permits) {
        lints.push(Lint::PermitsNothing);
    }
    for budget in policy.budgets.iter().filter(|budget| !budget.actions.iter().any(permits)) {
        lints.push(Lint::UnusedBudget { budget: budget.name.clone() });
    }
    for (name, group) in policy.approvals.groups() {
        let asks = rules.iter().filter_map(|(_, rule)| rule.unless_approved());
        let mut asks = asks.chain(policy.budgets.iter().filter_map(|budget| budget.unless_approved.as_deref()));
        let is_normal = group.kind == crate::grant::GrantKind::Normal;
        if is_normal && !asks.any(|asked| asked == name) {
            lints.push(Lint::UnusedGroup { group: name.to_owned() });
        }
        let namespace = group.kind.namespace();
        let approvers = policy.approvals.approvers();
        let people =
            policy.approvals.people(&group.role).filter(|person| approvers.can_sign(person, namespace)).count();
        let people = u32::try_from(people).unwrap_or(u32::MAX);
        let (group, role, of) = (name.to_owned(), group.role.clone(), group.of);
        if people < of {
            lints.push(Lint::NeverMet { group, role, of, people });
        } else if people == of {
            lints.push(Lint::NeverMetFromWithin { group, role, of });
        }
    }
    let budgets = policy.budgets.iter().map(|budget| (budget.name.as_str(), "a budget"));
    let groups = policy.approvals.groups().map(|(name, _)| (name, "an approval group"));
    let lists = policy.lists.entries().map(|entry| (entry.list.as_str(), "a list"));
    let mut names: BTreeMap<&str, &'static str> = BTreeMap::new();
    for (name, what) in budgets.chain(groups).chain(lists) {
        let first = *names.entry(name).or_insert(what);
        if first != what {
            lints.push(Lint::NameReused { name: name.to_owned(), first, second: what });
        }
    }
    lints
}
