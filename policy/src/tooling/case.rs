//! Tests of a policy, as `NAME.test.toml` writes them: given these facts, at this time, with so much spent, this verdict.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use crate::actions::Action;
use crate::facts::{FactId, Kind};
use crate::place::Place;
use crate::request::Request;
use crate::time;
use crate::value::Value;

/// The most tests of a file.
pub const MAX_CASES: usize = 1_000;

/// When nothing is said: a Monday at noon.
const DEFAULT_AT_S: u64 = 1_767_614_400;
const DEFAULT_NODE: &str = "node";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    given: Given,
    #[serde(default)]
    test: Vec<Spanned<Entry>>,
}

/// What all tests of the file begin with.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    node: Option<String>,
    at: Option<Spanned<Datetime>>,
    #[serde(default)]
    facts: Facts,
}

type Facts = BTreeMap<Spanned<String>, Spanned<Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    action: Spanned<String>,
    node: Option<String>,
    at: Option<Spanned<Datetime>>,
    #[serde(default)]
    facts: Facts,
    #[serde(default)]
    spent: BTreeMap<String, u64>,
    #[serde(default)]
    approved: Vec<String>,
    expect: Expected,
    rules: Option<Vec<String>>,
    budgets: Option<Vec<String>>,
    groups: Option<Vec<String>>,
}

/// The kind of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// May be signed.
    Permit,
    /// Refused.
    Deny,
    /// Refused until approved.
    NeedsApproval,
    /// Could not be judged.
    Fault,
}

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Where it begins.
    pub place: Place,
    /// What it says of the policy. Unique in its file.
    pub name: String,
    /// What is asked.
    pub request: Request,
    /// What was spent of budgets within the window that ends now, in each budget's unit.
    pub spent: BTreeMap<String, u64>,
    /// Groups whose approval is at hand.
    pub approved: Vec<String>,
    /// The verdict.
    pub expect: Expected,
    /// Exactly the rules that decide; `None`: whichever.
    pub rules: Option<Vec<String>>,
    /// Exactly the budgets that refuse.
    pub budgets: Option<Vec<String>>,
    /// Exactly the groups that are asked.
    pub groups: Option<Vec<String>>,
}

/// What is wrong with a file of tests, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct CaseError {
    /// In the file.
    pub place: Place,
    /// What is wrong.
    pub fault: CaseFault,
}

/// What is wrong with a test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaseFault {
    /// Not TOML, an unknown key, or a value of another type.
    #[error("{0}")]
    Syntax(String),
    /// More than [`MAX_CASES`].
    #[error("{0} tests, more than {MAX_CASES}")]
    TooMany(usize),
    /// A file of tests that tests nothing.
    #[error("no [[test]]")]
    None,
    /// Two tests of one name.
    #[error("there is a test '{0}' already")]
    NameTaken(String),
    /// Not in the table.
    #[error("'{0}' is not an action")]
    Action(String),
    /// Not in the table.
    #[error("'{0}' is not a fact")]
    Fact(String),
    /// Of another kind than the fact.
    #[error("{fact} is {kind}")]
    Kind {
        /// The fact.
        fact: &'static str,
        /// What it should be.
        kind: &'static str,
    },
    /// No such request comes from a node.
    #[error("no node asks this: {0}")]
    Request(String),
    /// Not a time.
    #[error("not a time in UTC to the second")]
    Time,
}

impl CaseFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Syntax(_) => {
                "A test has name, action, expect, and perhaps node, at, facts, spent, approved, rules, budgets, groups."
                    .into()
            }
            Self::TooMany(_) => "Split the file.".into(),
            Self::None => "Add a [[test]], or remove the file.".into(),
            Self::NameTaken(_) => "Say in the name what this one shows.".into(),
            Self::Action(_) => {
                let ids: Vec<_> = Action::ALL.iter().map(|action| action.id()).collect();
                format!("Use one of: {}.", ids.join(", "))
            }
            Self::Fact(name) => match nearest(name) {
                Some(fact) => format!("Did you mean {fact}?"),
                None => "docs/policy/facts.md lists the facts.".into(),
            },
            Self::Kind { .. } | Self::Request(_) => {
                "docs/policy/facts.md says what each action carries, always or sometimes, and in which unit.".into()
            }
            Self::Time => "Write it as 2026-12-01T09:00:00Z.".into(),
        }
    }
}

impl Case {
    /// The tests of a file.
    ///
    /// Returns every error that is found; the file's form first.
    pub fn parse(text: &str) -> Result<Vec<Self>, Vec<CaseError>> {
        let at = |offset| Place::of(text, offset);
        let file: File = toml::from_str(text).map_err(|error| {
            let place = at(error.span().map_or(0, |span| span.start));
            vec![CaseError { place, fault: CaseFault::Syntax(error.message().to_owned()) }]
        })?;
        let form = match file.test.len() {
            0 => Some(CaseFault::None),
            tests if tests > MAX_CASES => Some(CaseFault::TooMany(tests)),
            _ => None,
        };
        if let Some(fault) = form {
            return Err(vec![CaseError { place: at(0), fault }]);
        }
        let (mut cases, mut errors) = (Vec::<Self>::new(), Vec::new());
        for entry in &file.test {
            let place = at(entry.span().start);
            let name = &entry.get_ref().name;
            if cases.iter().any(|known| known.name == *name.get_ref()) {
                let fault = CaseFault::NameTaken(name.get_ref().clone());
                errors.push(CaseError { place: at(name.span().start), fault });
            }
            match case(place, entry.get_ref(), &file.given) {
                Ok(case) => cases.push(case),
                Err(faults) => {
                    errors.extend(
                        faults.into_iter().map(|(offset, fault)| CaseError { place: offset.map_or(place, at), fault }),
                    );
                }
            }
        }
        if errors.is_empty() { Ok(cases) } else { Err(errors) }
    }
}

/// Where, if not at the test as such, and what.
type Found = (Option<usize>, CaseFault);

fn case(place: Place, entry: &Entry, given: &Given) -> Result<Case, Vec<Found>> {
    let mut faults = Vec::new();
    let Some(action) = Action::by_id(entry.action.get_ref()) else {
        return Err(vec![(Some(entry.action.span().start), CaseFault::Action(entry.action.get_ref().clone()))]);
    };
    let at_s = match entry.at.as_ref().or(given.at.as_ref()) {
        None => DEFAULT_AT_S,
        Some(at) => time::parse(&at.get_ref().to_string()).unwrap_or_else(|| {
            faults.push((Some(at.span().start), CaseFault::Time));
            0
        }),
    };
    let node = entry.node.as_ref().or(given.node.as_ref()).map_or(DEFAULT_NODE, String::as_str);
    let mut request = Request::new(node, action, at_s * 1_000);
    let common = given
        .facts
        .iter()
        .filter(|(name, _)| FactId::by_id(name.get_ref()).is_none_or(|fact| FactId::of(action).contains(&fact)));
    for (name, value) in common.chain(&entry.facts) {
        let Some(fact) = FactId::by_id(name.get_ref()) else {
            faults.push((Some(name.span().start), CaseFault::Fact(name.get_ref().clone())));
            continue;
        };
        if !fact.kind().holds(value.get_ref()) {
            let kind = CaseFault::Kind { fact: fact.id(), kind: kind(fact.kind()) };
            faults.push((Some(value.span().start), kind));
            continue;
        }
        request = match (fact, value.get_ref()) {
            (FactId::Destinations, Value::Texts(addresses)) => request.paying_to(addresses.clone()),
            (fact, value) => request.with(fact, value.clone()),
        };
    }
    if faults.is_empty()
        && let Err(error) = request.check()
    {
        faults.push((None, CaseFault::Request(error.to_string())));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Case {
        place,
        name: entry.name.get_ref().clone(),
        request,
        spent: entry.spent.clone(),
        approved: entry.approved.clone(),
        expect: entry.expect,
        rules: entry.rules.clone(),
        budgets: entry.budgets.clone(),
        groups: entry.groups.clone(),
    })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Number(_) => "a number, in the unit that its name ends with",
        Kind::Text => "a text",
        Kind::Flag => "true or false",
        Kind::Texts => "a list of texts",
    }
}

/// The fact whose id is most like `name`, if one is much like it.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |id: &str| {
        let mut row: Vec<usize> = (0..=id.len()).collect();
        for (i, a) in name.bytes().take(64).enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, b) in id.bytes().enumerate() {
                let replaced = diagonal + usize::from(a != b);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
            }
        }
        row[id.len()]
    };
    let best = FactId::ALL.iter().map(|fact| (distance(fact.id()), fact.id())).min()?;
    (best.0 <= 3).then_some(best.1)
}
