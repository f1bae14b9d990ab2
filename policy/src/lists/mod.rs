//! Allow-lists: destinations, payees and peers by name, as data that rules refer to. docs/policy/lists.md
//!
//! A list says what something is, not what may be done with it: that is for rules, which see the lists' names as facts.

mod fault;
mod file;
mod script;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use bitcoin::{Script, ScriptBuf};

pub use self::fault::{ListError, ListFault};
pub use self::file::{MAX_ENTRIES, MAX_ERRORS, MAX_FILE_BYTES};
pub use self::script::{DEFAULT_ADDRESSES, MAX_ADDRESSES};

/// The most scripts, payees and peers of all lists together.
pub const MAX_LISTED: usize = 200_000;

/// One file of a bundle, parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    name: String,
    entries: Vec<Entry>,
    /// What is looked up, each with the index of its entry.
    scripts: Vec<(ScriptBuf, usize)>,
    nodes: Vec<((Kind, String), usize)>,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Where coins are sent.
    Destination,
    /// Who is paid over Lightning.
    Payee,
    /// Whom channels are opened with.
    Peer,
}

/// One line of a list, as it is shown and compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The list's name.
    pub list: String,
    /// What it is about.
    pub kind: Kind,
    /// Who or what it is, in the operator's words.
    pub label: String,
    /// The address, descriptor, extended key or node id as it was written, and of keys how many addresses.
    pub subject: String,
    /// When it begins to count, in milliseconds since the Unix epoch: 0 for at once.
    pub effective_from_ms: u64,
}

/// What is found of something that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The list's name.
    pub list: &'a str,
    /// Its label there.
    pub label: &'a str,
}

/// All lists of a policy, ready to look things up in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    entries: Vec<Entry>,
    scripts: HashMap<ScriptBuf, Vec<usize>>,
    nodes: HashMap<Kind, HashMap<String, Vec<usize>>>,
}

/// The lists cannot be used together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListsError {
    /// Two lists have the same name.
    #[error("there are two lists '{0}'")]
    NameTaken(String),
    /// More than [`MAX_LISTED`].
    #[error("the lists have {0} addresses, payees and peers, more than {MAX_LISTED}")]
    TooMany(usize),
}

impl ListsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NameTaken(_) => "Rename one of the files.",
            Self::TooMany(_) => "List fewer addresses of each key, or leave out what is not used.",
        }
    }
}

impl Lists {
    /// Puts lists together. The same thing may stand in several of them.
    pub fn new(lists: Vec<List>) -> Result<Self, ListsError> {
        let listed = lists.iter().map(|list| list.scripts.len() + list.nodes.len()).sum();
        if listed > MAX_LISTED {
            return Err(ListsError::TooMany(listed));
        }
        let (mut all, mut names) = (Self::default(), HashSet::new());
        for list in lists {
            if !names.insert(list.name.clone()) {
                return Err(ListsError::NameTaken(list.name));
            }
            let first = all.entries.len();
            for (script, index) in list.scripts {
                all.scripts.entry(script).or_default().push(first + index);
            }
            for ((kind, node_id), index) in list.nodes {
                all.nodes.entry(kind).or_default().entry(node_id).or_default().push(first + index);
            }
            all.entries.extend(list.entries);
        }
        Ok(all)
    }

    /// The lists that have this output as a destination at `now_ms`; none: it is unknown. Whether it is the node's own
    /// is for the caller to know.
    pub fn destination(&self, script: &Script, now_ms: u64) -> impl Iterator<Item = Listed<'_>> {
        self.effective(self.scripts.get(script), now_ms)
    }

    /// The lists that have this node id (33 bytes in hex) as a payee at `now_ms`; none: it is unknown.
    pub fn payee(&self, node_id: &str, now_ms: u64) -> impl Iterator<Item = Listed<'_>> {
        self.node(Kind::Payee, node_id, now_ms)
    }

    /// The lists that have this node id (33 bytes in hex) as a peer at `now_ms`; none: it is unknown.
    pub fn peer(&self, node_id: &str, now_ms: u64) -> impl Iterator<Item = Listed<'_>> {
        self.node(Kind::Peer, node_id, now_ms)
    }

    /// All entries, in the order of the lists.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Entries that `before` did not have, or not as early: what a change adds.
    pub fn additions(&self, before: &Self) -> impl Iterator<Item = &Entry> {
        let mut known: HashMap<(&str, Kind, &str), u64> = HashMap::new();
        for entry in &before.entries {
            let from_ms = known.entry(entry.name()).or_insert(entry.effective_from_ms);
            *from_ms = entry.effective_from_ms.min(*from_ms);
        }
        let is_known =
            move |entry: &&Entry| known.get(&entry.name()).is_some_and(|from_ms| *from_ms <= entry.effective_from_ms);
        self.entries.iter().filter(move |entry| !is_known(entry))
    }

    fn node(&self, kind: Kind, node_id: &str, now_ms: u64) -> impl Iterator<Item = Listed<'_>> {
        self.effective(self.nodes.get(&kind).and_then(|nodes| nodes.get(node_id)), now_ms)
    }

    fn effective<'a>(&'a self, found: Option<&'a Vec<usize>>, now_ms: u64) -> impl Iterator<Item = Listed<'a>> {
        let entries = found.into_iter().flatten().filter_map(|index| self.entries.get(*index));
        let effective = entries.filter(move |entry| entry.effective_from_ms <= now_ms);
        effective.map(|entry| Listed { list: &entry.list, label: &entry.label })
    }
}

impl Entry {
    fn name(&self) -> (&str, Kind, &str) {
        (&self.list, self.kind, &self.subject)
    }
}
