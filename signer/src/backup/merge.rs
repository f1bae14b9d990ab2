//! The rows of a directory: those of its base, with what changed since.
//!
//! In memory is what changed but decisions, each row once; the base and decisions pass through.

use std::collections::{BTreeMap, BTreeSet};

use super::{BackupError, mark};
use crate::journal::store::Row;
use crate::journal::{Check, HEAD, META, Verified, is_decision, is_listed};
use crate::keys::cipher::RecordCipher;

/// Takes all changes, then the base, then all changes again for the decisions in them, and hands on rows in the order in which
/// [`Check`] wants them.
pub(super) struct Merge<'a> {
    check: Check<'a>,
    take: &'a mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>,
    head: Option<Row>,
    /// What became of rows; nothing, if they are gone.
    changed: BTreeMap<String, Option<Row>>,
    /// The entries of the base that stayed, if they were ever listed.
    kept: Option<BTreeSet<String>>,
    /// The keys in the changes at hand, once they list all.
    listed: Option<BTreeSet<String>>,
    stayed: BTreeSet<String>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(records: &'a RecordCipher, take: &'a mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>) -> Self {
        let (changed, stayed) = (BTreeMap::new(), BTreeSet::new());
        Self { check: Check::new(records), take, head: None, changed, kept: None, listed: None, stayed }
    }

    /// Changes; an earlier segment's come first.
    pub(super) fn change(&mut self, rows: Vec<Row>) -> Result<(), BackupError> {
        for row in rows {
            match (row.version, &row.value[..]) {
                (0, [mark::LISTED]) => self.listed = Some(BTreeSet::new()),
                (0, [mark::KEPT]) => drop(self.stayed.insert(row.key)),
                (0, [mark::GONE]) => drop(self.changed.insert(row.key, None)),
                (0, _) => return Err(BackupError::Damaged { part: 0 }),
                _ if row.key == HEAD => self.head = Some(row),
                _ if is_decision(&row.key) => {}
                _ => {
                    if let Some(listed) = &mut self.listed {
                        listed.insert(row.key.clone());
                    }
                    self.changed.insert(row.key.clone(), Some(row));
                }
            }
        }
        Ok(())
    }

    /// After the changes of one segment.
    pub(super) fn end_of_changes(&mut self) {
        let stayed = std::mem::take(&mut self.stayed);
        let Some(listed) = self.listed.take() else { return };
        for (key, row) in &mut self.changed {
            if is_listed(key) && !listed.contains(key) && !stayed.contains(key) {
                *row = None;
            }
        }
        self.kept = Some(match self.kept.take() {
            Some(kept) => kept.intersection(&stayed).cloned().collect(),
            None => stayed,
        });
    }

    /// Rows of the base.
    pub(super) fn base(&mut self, rows: Vec<Row>) -> Result<(), BackupError> {
        let mut merged = Vec::with_capacity(rows.len());
        for row in rows {
            // These two come first.
            if row.key == META || row.key == HEAD {
                merged.push(if row.key == HEAD { self.head.take().unwrap_or(row) } else { row });
                continue;
            }
            self.changed_before(Some(&row.key), &mut merged);
            let stayed = !is_listed(&row.key) || self.kept.as_ref().is_none_or(|kept| kept.contains(&row.key));
            match self.changed.remove(&row.key) {
                Some(changed) => merged.extend(changed),
                None if stayed => merged.push(row),
                None => {}
            }
        }
        self.hand_on(merged)
    }

    /// After the base.
    pub(super) fn end_of_base(&mut self) -> Result<(), BackupError> {
        let mut merged = Vec::new();
        self.changed_before(None, &mut merged);
        self.hand_on(merged)
    }

    /// The same changes again.
    pub(super) fn decisions(&mut self, rows: Vec<Row>) -> Result<(), BackupError> {
        self.hand_on(rows.into_iter().filter(|row| is_decision(&row.key)).collect())
    }

    /// After all of it: nothing is missing.
    pub(super) fn finish(self) -> Result<Verified, BackupError> {
        Ok(self.check.finish()?)
    }

    /// Takes what changed in front of the row `key`, or all of it.
    fn changed_before(&mut self, key: Option<&str>, merged: &mut Vec<Row>) {
        while let Some(first) = self.changed.first_entry() {
            if key.is_some_and(|key| first.key().as_str() >= key) {
                break;
            }
            merged.extend(first.remove());
        }
    }

    fn hand_on(&mut self, rows: Vec<Row>) -> Result<(), BackupError> {
        rows.iter().try_for_each(|row| self.check.row(row))?;
        (self.take)(rows)
    }
}
