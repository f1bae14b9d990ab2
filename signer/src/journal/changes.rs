//! What changed since a moment: for backups that follow a journal without reading all of it again and again.
//!
//! Decisions and checkpoints are found by their numbers. Entries are written over and deleted, so once somebody follows,
//! the ledger remembers which keys its latest batches changed. Who asks for more than it remembers (after a start, or far
//! behind) is told every entry: those that are newer with their contents, the others by name, so that what is gone shows.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::COLD;
use super::error::JournalError;
use super::head::{Hash, Head};
use super::record::{self, CHECKPOINTS, ENTRIES, LOG, META};
use super::store::{LAST_KEY, Row, View, prefix_end, scan};

/// Where a journal was when something was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Number of the last batch.
    pub version: u64,
    /// Number of the last decision.
    pub decisions: u64,
    /// Chain hash of the last decision.
    #[serde(with = "hex::serde")]
    pub hash: Hash,
}

/// One difference to the journal of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'r> {
    /// This row is new, or has other contents.
    Row(&'r Row),
    /// There is no entry under this key any more.
    Gone(&'r str),
    /// All entries are named, except [`COLD`] ones that stayed: an entry that is not is gone. Comes first.
    Listed,
    /// The entry under this key stayed as it was.
    Kept(&'r str),
}

/// A journal at one moment, and which entries its latest batches changed.
pub struct Changes {
    pub(super) view: Box<dyn View>,
    pub(super) head: Head,
    pub(super) head_row: Row,
    /// Since the moment asked for, some more than once; none where nobody remembers.
    pub(super) keys: Option<Vec<String>>,
}

impl Changes {
    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark { version: self.head_row.version, decisions: self.head.seq, hash: self.head.hash }
    }

    /// The row `meta`, then `head`.
    pub fn beginning(&self) -> Result<[Row; 2], JournalError> {
        Ok([super::ledger::required(&*self.view, META)?, self.head_row.clone()])
    }

    /// The other rows after the row `after`, `""` at first, in the order of their keys, without decisions and checkpoints
    /// after decision `last`. Ends when `each` returns false, with that row's key, or after the last one.
    pub fn rows<E: From<JournalError>>(
        &self,
        after: &str,
        last: u64,
        each: &mut dyn FnMut(&Row) -> Result<bool, E>,
    ) -> Result<Option<String>, E> {
        let behind = |key: &str| format!("{key}\0"); // the smallest key after it
        // In the order of the keys.
        let ranges = [
            (CHECKPOINTS, behind(&record::checkpoint_key(last))),
            (ENTRIES, prefix_end(ENTRIES)),
            (LOG, behind(&record::log_key(last))),
        ];
        for (from, to) in ranges {
            for row in scan(&*self.view, &behind(after).max(from.to_owned()), &to) {
                let row = row.map_err(JournalError::from)?;
                if !each(&row)? {
                    return Ok(Some(row.key));
                }
            }
        }
        Ok(None)
    }

    /// What changed since `since`, with which [`Journal::changes`](super::Journal::changes) was asked.
    pub fn each<E: From<JournalError>>(
        &self,
        since: &Mark,
        each: &mut dyn FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error| E::from(JournalError::from(error));
        each(Change::Row(&self.head_row))?;
        // One may have been written after the last decision.
        for row in scan(&*self.view, &record::checkpoint_key(since.decisions), &prefix_end(CHECKPOINTS)) {
            let row = row.map_err(failed)?;
            if row.version > since.version {
                each(Change::Row(&row))?;
            }
        }
        match &self.keys {
            Some(keys) => {
                for key in &BTreeSet::from_iter(keys) {
                    match self.view.get(key).map_err(failed)? {
                        Some(row) => each(Change::Row(&row))?,
                        None => each(Change::Gone(key))?,
                    }
                }
            }
            None => {
                each(Change::Listed)?;
                for row in scan(&*self.view, ENTRIES, &prefix_end(ENTRIES)) {
                    let row = row.map_err(failed)?;
                    if row.version > since.version {
                        each(Change::Row(&row))?;
                    } else if is_listed(&row.key) {
                        each(Change::Kept(&row.key))?;
                    }
                }
            }
        }
        for row in scan(&*self.view, &record::log_key(since.decisions + 1), LAST_KEY) {
            let row = row.map_err(failed)?;
            if is_decision(&row.key) {
                each(Change::Row(&row))?;
            }
        }
        Ok(())
    }
}

/// Whether a row of this key is one of those that [`Change::Listed`] is about.
pub fn is_listed(key: &str) -> bool {
    let entry = key.strip_prefix(ENTRIES).and_then(|rest| rest.split_once('/'));
    entry.is_some_and(|(_, key)| !key.starts_with(COLD))
}

/// Whether a row of this key is a decision: written once, and the last ones in the order of keys.
pub fn is_decision(key: &str) -> bool {
    key.starts_with(LOG)
}

/// Which entries the latest batches changed.
pub(super) struct Feed {
    /// All batches after this one are remembered.
    from: u64,
    changed: VecDeque<(u64, String)>,
    bytes: usize,
}

impl Feed {
    /// What it remembers at most, in bytes.
    const LIMIT: usize = 8 << 20;

    /// Remembers what comes after batch `version`.
    pub(super) fn new(version: u64) -> Self {
        Self { from: version, changed: VecDeque::new(), bytes: 0 }
    }

    /// Batch `version` changed the row `key`.
    pub(super) fn push(&mut self, version: u64, key: String) {
        self.bytes += Self::cost(&key);
        self.changed.push_back((version, key));
        while self.bytes > Self::LIMIT
            && let Some((version, key)) = self.changed.pop_front()
        {
            self.bytes -= Self::cost(&key);
            self.from = version;
        }
    }

    /// The keys that batches after `version` changed, if all are remembered; each as often as it was changed.
    pub(super) fn since(&self, version: u64) -> Option<Vec<String>> {
        let first = self.changed.partition_point(|(changed, _)| *changed <= version);
        (version >= self.from).then(|| self.changed.range(first..).map(|(_, key)| key.clone()).collect())
    }

    fn cost(key: &str) -> usize {
        size_of::<(u64, String)>() + key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_remembers_the_latest_changes_and_knows_from_where_on() {
        let mut feed = Feed::new(7);
        for (version, key) in [(8, "a"), (9, "b"), (9, "c"), (10, "a")] {
            feed.push(version, key.to_owned());
        }
        let since = |feed: &Feed, version| feed.since(version).map(|keys| keys.join(""));
        assert_eq!(
            [6, 7, 8, 9, 10].map(|version| since(&feed, version)),
            [None, Some("abca".into()), Some("bca".into()), Some("a".into()), Some(String::new())]
        );
        let large = "d".repeat(Feed::LIMIT / 2);
        feed.push(11, large.clone());
        assert_eq!(since(&feed, 10), Some(large.clone()));
        feed.push(12, large.clone());
        assert_eq!((since(&feed, 10), since(&feed, 11)), (None, Some(large)));
    }

    #[test]
    fn entries_that_are_kept_for_ever_are_not_listed() {
        assert_eq!(
            ["entry/alice/channel/1", "entry/alice/cold/1", "entry/house/node/cold/", "log/1", "check/1", "head"]
                .map(is_listed),
            [true, false, true, false, false, false]
        );
    }
}
