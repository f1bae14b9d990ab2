//! What changes in meaning from one bundle to another: actions, bounds, numbers, budgets, groups, people, lists. Order, blanks
//! and comments mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::shape::{Effect, Shape};
use crate::budget::Budget;
use crate::bundle::Bundle;
use crate::lists::Kind;

/// What changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyDiff {
    /// Sorted by subject and name.
    pub changes: Vec<Change>,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Of what.
    pub subject: Subject,
    /// Which, by name; empty where there is only one.
    pub name: String,
    /// What of it; empty if all of it came or went.
    pub what: String,
    /// Before; `None`: it was not there.
    pub before: Option<String>,
    /// After; `None`: it is no longer there.
    pub after: Option<String>,
}

/// What a change is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A rule, by its `@id`.
    Rule,
    /// A budget.
    Budget,
    /// An approval group.
    Group,
    /// Who holds a role.
    Role,
    /// Keys of `allowed_signers`.
    Keys,
    /// An entry of a list.
    List,
    /// A number of the channel rules.
    Limit,
    /// Preset and its numbers.
    Preset,
    /// Who signs the next bundle.
    Signing,
}

impl Subject {
    /// As reports name it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Budget => "budget",
            Self::Group => "group",
            Self::Role => "role",
            Self::Keys => "keys",
            Self::List => "list",
            Self::Limit => "limit",
            Self::Preset => "preset",
            Self::Signing => "signing",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (&self.before, &self.after) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        write!(f, "{sign} {}", self.subject.id())?;
        for part in [&self.name, &self.what].into_iter().filter(|part| !part.is_empty()) {
            write!(f, " {part}")?;
        }
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, ": {before} -> {after}"),
            (Some(only), None) | (None, Some(only)) => write!(f, ": {only}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("nothing changes in meaning");
        }
        for (index, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// What changes in meaning from `before` to `after`. Without `before` everything is new.
pub fn diff(before: Option<&Bundle>, after: &Bundle) -> PolicyDiff {
    let mut changes = BTreeSet::new();
    let sides = [before.map(Meaning::of).unwrap_or_default(), Meaning::of(after)];
    let names: BTreeSet<_> = sides.iter().flat_map(|side| side.things.keys()).collect();
    for (subject, name) in names {
        let thing = (*subject, name.clone());
        let [was, is] = sides.each_ref().map(|side| side.things.get(&thing));
        let mut change = |what: &str, before: Option<String>, after: Option<String>| {
            changes.insert(Change { subject: *subject, name: name.clone(), what: what.to_owned(), before, after });
        };
        match (was, is) {
            (Some(was), Some(is)) => {
                let aspects: BTreeSet<_> = was.keys().chain(is.keys()).collect();
                for aspect in aspects.into_iter().filter(|aspect| was.get(*aspect) != is.get(*aspect)) {
                    change(aspect, was.get(aspect).cloned(), is.get(aspect).cloned());
                }
            }
            (was, is) => change("", was.map(all), is.map(all)),
        }
    }
    PolicyDiff { changes: changes.into_iter().collect() }
}

/// What a thing means, aspect by aspect.
type Aspects = BTreeMap<String, String>;

fn all(aspects: &Aspects) -> String {
    let texts: Vec<_> = aspects
        .iter()
        .map(|(aspect, text)| if aspect.is_empty() { text.clone() } else { format!("{aspect} {text}") })
        .collect();
    texts.join(", ")
}

#[derive(Default)]
struct Meaning {
    things: BTreeMap<(Subject, String), Aspects>,
}

impl Meaning {
    fn of(bundle: &Bundle) -> Self {
        let mut meaning = Self::default();
        let policy = bundle.policy();
        for rule in policy.rules.iter() {
            let mut aspects = rule.json().map(|json| rule_aspects(&Shape::of(&json))).unwrap_or_default();
            aspects.extend(rule.unless_approved().map(|group| ("unless approved by".to_owned(), group.to_owned())));
            meaning.put(Subject::Rule, rule.id().as_str(), aspects);
        }
        for budget in &policy.budgets {
            meaning.put(Subject::Budget, &budget.name, budget_aspects(budget));
        }
        for (name, group) in policy.approvals.groups() {
            let of = [("of", group.of.to_string()), ("role", group.role.clone()), ("kind", group.kind.id().to_owned())];
            meaning.put(Subject::Group, name, named(of));
        }
        for (role, people) in policy.approvals.roles() {
            let people = people.iter().map(|person| (person.clone(), "holds it".to_owned())).collect();
            meaning.put(Subject::Role, role, people);
        }
        let mut keys: BTreeMap<&str, Aspects> = BTreeMap::new();
        for (person, fingerprint, options) in policy.approvals.approvers().keys() {
            keys.entry(person).or_default().insert(fingerprint.to_owned(), options.to_owned());
        }
        for (person, aspects) in keys {
            meaning.put(Subject::Keys, person, aspects);
        }
        for entry in policy.lists.entries() {
            let kind = match entry.kind {
                Kind::Destination => "destination",
                Kind::Payee => "payee",
                Kind::Peer => "peer",
            };
            let from = [("label", entry.label.clone()), ("from", from(entry.effective_from_ms))];
            meaning.put(Subject::List, &format!("{} {kind} {}", entry.list, entry.subject), named(from));
        }
        for (limit, number) in &policy.limits {
            meaning.put(Subject::Limit, limit.id(), named([("", number.to_string())]));
        }
        if let Some(preset) = bundle.preset() {
            let mut aspects = named([("name", preset.to_owned())]);
            aspects.extend(bundle.numbers().iter().map(|(name, number)| (name.clone(), number.to_string())));
            meaning.put(Subject::Preset, "", aspects);
        }
        if let Some(signing) = bundle.signing() {
            let of = [("of", signing.of.to_string()), ("role", signing.role.clone())];
            meaning.put(Subject::Signing, "", named(of));
        }
        meaning
    }

    fn put(&mut self, subject: Subject, name: &str, aspects: Aspects) {
        self.things.insert((subject, name.to_owned()), aspects);
    }
}

fn named<const N: usize>(aspects: [(&str, String); N]) -> Aspects {
    aspects.into_iter().map(|(aspect, text)| (aspect.to_owned(), text)).collect()
}

fn rule_aspects(shape: &Shape) -> Aspects {
    let effect = if shape.effect == Effect::Permit { "permit" } else { "forbid" };
    let mut aspects = named([("effect", effect.to_owned()), ("scope", shape.scope_text())]);
    let actions: Vec<_> = shape.actions.iter().map(|action| action.id()).collect();
    aspects.insert("actions".to_owned(), actions.join(", "));
    for (fact, range) in &shape.bounds {
        aspects.insert(format!("where {fact}"), range.to_string());
    }
    for fact in shape.has.iter().filter(|fact| !shape.bounds.contains_key(*fact)) {
        aspects.insert(format!("where {fact}"), "known".to_owned());
    }
    if !shape.opaque.is_empty() {
        aspects.insert("condition".to_owned(), shape.opaque.join(" and "));
    }
    aspects
}

fn budget_aspects(budget: &Budget) -> Aspects {
    let list = |ids: Vec<&'static str>| ids.join(", ");
    let mut aspects = named([
        ("actions", list(budget.actions.iter().map(|action| action.id()).collect())),
        ("fact", budget.fact.map_or("count", |fact| fact.id()).to_owned()),
        ("scope", list(budget.scope.iter().map(|scope| scope.id()).collect())),
        ("window_s", budget.window_s.to_string()),
        ("limit", budget.limit.to_string()),
    ]);
    aspects.extend(budget.unless_approved.clone().map(|group| ("unless approved by".to_owned(), group)));
    aspects
}

fn from(effective_from_ms: u64) -> String {
    match effective_from_ms {
        0 => "at once".to_owned(),
        from_ms => crate::time::print(from_ms / 1_000),
    }
}
