//! Who has to approve: groups, the roles they ask, and the people who hold them.
//!
//! ```toml
//! [roles]
//! treasurer = ["alice", "bob", "carol"]
//!
//! [approvals.treasury]
//! role = "treasurer"
//! of = 2
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::intent::{GrantKind, Intent, is_name, shortened};
use super::signers::Approvers;
use super::standing::Approval;
use crate::place::Place;

/// The most groups, the most roles, and the most people of one role.
pub const MAX_LISTED: usize = 64;

/// The `[roles]` of `policy.toml`: a role and its people.
pub type Roles = BTreeMap<Spanned<String>, Spanned<Vec<Spanned<String>>>>;
/// The `[approvals.GROUP]` of `policy.toml`.
pub type Groups = BTreeMap<Spanned<String>, GroupEntry>;

/// One `[approvals.GROUP]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    role: Spanned<String>,
    of: Spanned<u32>,
    #[serde(default)]
    break_glass: bool,
}

/// An approval group: `of` distinct people with `role`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The role that is asked.
    pub role: String,
    /// How many distinct people: at least one, at most as many as hold the role.
    pub of: u32,
    /// What it approves: break-glass grants if it is marked `break_glass = true`, else normal ones.
    pub kind: GrantKind,
}

/// The approval groups of a policy, with the people and keys behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    groups: BTreeMap<String, Group>,
    roles: BTreeMap<String, BTreeSet<String>>,
    approvers: Approvers,
}

/// What is wrong with `[roles]` or `[approvals]`, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct GroupError {
    /// In the file.
    pub place: Place,
    /// What is wrong.
    pub fault: GroupFault,
}

/// What is wrong with `[roles]` or `[approvals]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    /// Not a name of a role, group or person.
    #[error("'{0}' is not a name")]
    Name(String),
    /// More than [`MAX_LISTED`].
    #[error("more than {MAX_LISTED}")]
    TooMany,
    /// Listed twice in one role.
    #[error("'{0}' is listed twice")]
    Twice(String),
    /// The group asks a role that is not there.
    #[error("there is no role '{0}'")]
    NoRole(String),
    /// `of = 0`.
    #[error("a group that needs no approval")]
    NeedsNone,
    /// More approvals than people.
    #[error("{of} people of '{role}' have to approve, and {people} hold it")]
    TooFew {
        /// What the group asks.
        of: u32,
        /// The role.
        role: String,
        /// How many hold it.
        people: usize,
    },
    /// Somebody of a group's role cannot sign for it.
    #[error("'{person}' has no key in allowed_signers that may sign for '{namespace}'")]
    NoKey {
        /// Who.
        person: String,
        /// What the group's approvals are signed for.
        namespace: &'static str,
    },
}

impl GroupFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Name(_) => "Use a-z, 0-9, '-', '_', '.' and '@', starting with a letter or digit.".into(),
            Self::TooMany => "Join roles or groups that mean the same.".into(),
            Self::Twice(_) => "Leave one: approvals are counted by person.".into(),
            Self::NoRole(role) => format!("Add {role} = [\"…\"] to [roles], or correct the name."),
            Self::NeedsNone => "Use of = 1 or more; a rule that needs no approval has no unless_approved.".into(),
            Self::TooFew { .. } => "Give the role to more people, or ask fewer of them.".into(),
            Self::NoKey { person, .. } => format!("Add a line that begins with '{person}' to allowed_signers."),
        }
    }
}

impl Approvals {
    /// Checks the `[roles]` and `[approvals]` of the file `text`, with the people of its `allowed_signers`.
    ///
    /// Returns every error that is found.
    pub fn define(text: &str, roles: &Roles, groups: &Groups, approvers: Approvers) -> Result<Self, Vec<GroupError>> {
        let mut checker = Checker { text, errors: Vec::new() };
        let roles: BTreeMap<_, _> = roles.iter().take(MAX_LISTED + 1).map(|role| checker.role(role)).collect();
        let found = groups.iter().take(MAX_LISTED + 1);
        let groups: BTreeMap<_, _> = found.map(|group| checker.group(group, &roles, &approvers)).collect();
        if roles.len().max(groups.len()) > MAX_LISTED {
            checker.errors.push(GroupError { place: Place { line: 1, column: 1 }, fault: GroupFault::TooMany });
        }
        if checker.errors.is_empty() { Ok(Self { groups, roles, approvers }) } else { Err(checker.errors) }
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// All groups by name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group))
    }

    /// The people with keys.
    pub fn approvers(&self) -> &Approvers {
        &self.approvers
    }

    /// All roles by name, with their people.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.roles.iter().map(|(name, people)| (name.as_str(), people))
    }

    /// Who holds `role`.
    pub fn people(&self, role: &str) -> impl Iterator<Item = &str> {
        self.roles.get(role).into_iter().flatten().map(String::as_str)
    }

    /// Whether the intent's group still means what the intent says that it means.
    pub(super) fn mean(&self, intent: &Intent) -> bool {
        let Intent { group, role, of, kind, .. } = intent;
        self.group(group).is_some_and(|known| known.role == *role && known.of == *of && known.kind == *kind)
    }

    /// Whether what `person` signed once still counts: the key is listed, may sign for this, and was valid then.
    pub(super) fn still_counts(&self, intent: &Intent, person: &str, approval: &Approval) -> bool {
        self.approvers.of(person).any(|known| {
            known.fingerprint == approval.fingerprint
                && known.signs_for(intent.kind.namespace())
                && known.is_valid(approval.at_ms)
        })
    }
}

struct Checker<'a> {
    text: &'a str,
    errors: Vec<GroupError>,
}

impl Checker<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, fault: GroupFault) {
        self.errors.push(GroupError { place: Place::of(self.text, at.span().start), fault });
    }

    fn name(&mut self, name: &Spanned<String>) -> String {
        if !is_name(name.get_ref()) {
            self.fault(name, GroupFault::Name(shortened(name.get_ref())));
        }
        name.get_ref().clone()
    }

    fn role(
        &mut self,
        (name, people): (&Spanned<String>, &Spanned<Vec<Spanned<String>>>),
    ) -> (String, BTreeSet<String>) {
        if people.get_ref().len() > MAX_LISTED {
            self.fault(people, GroupFault::TooMany);
        }
        let mut held_by = BTreeSet::new();
        for person in people.get_ref().iter().take(MAX_LISTED) {
            if !held_by.insert(self.name(person)) {
                self.fault(person, GroupFault::Twice(shortened(person.get_ref())));
            }
        }
        (self.name(name), held_by)
    }

    fn group(
        &mut self,
        (name, entry): (&Spanned<String>, &GroupEntry),
        roles: &BTreeMap<String, BTreeSet<String>>,
        approvers: &Approvers,
    ) -> (String, Group) {
        let kind = if entry.break_glass { GrantKind::BreakGlass } else { GrantKind::Normal };
        let group = Group { role: entry.role.get_ref().clone(), of: *entry.of.get_ref(), kind };
        if group.of == 0 {
            self.fault(&entry.of, GroupFault::NeedsNone);
        }
        match roles.get(&group.role) {
            None => self.fault(&entry.role, GroupFault::NoRole(shortened(&group.role))),
            Some(people) => {
                if people.len() < group.of as usize {
                    let (of, role) = (group.of, group.role.clone());
                    self.fault(&entry.of, GroupFault::TooFew { of, role, people: people.len() });
                }
                let namespace = kind.namespace();
                for person in people.iter().filter(|person| !approvers.can_sign(person, namespace)) {
                    self.fault(&entry.role, GroupFault::NoKey { person: person.clone(), namespace });
                }
            }
        }
        (self.name(name), group)
    }
}
