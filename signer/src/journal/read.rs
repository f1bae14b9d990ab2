//! The reading half: entries and decisions from the store, each authenticated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::keys::cipher::RecordCipher;

use super::COLD;
use super::changes::{Changes, Mark};
use super::error::{Damage, JournalError};
use super::head::Meta;
use super::ledger::{Loading, required};
use super::log::{LogLine, LogRecord};
use super::record::{self, HEAD, LOG, META};
use super::store::{self, LAST_KEY, Order, Row, Store};
use super::tally::Tally;
use super::verify::{Progress, Verified, verify};

/// How many decisions `explain` looks back.
pub const EXPLAIN_REACH: u64 = 1_000_000;

/// Decisions read from the store at once.
const PAGE: usize = 128;

/// Reads a journal; shares nothing with the committer but the store.
pub(super) struct Reader {
    store: Arc<dyn Store>,
    cipher: Arc<RecordCipher>,
    meta: Arc<Meta>,
}

impl Reader {
    pub(super) fn new(store: Arc<dyn Store>, cipher: Arc<RecordCipher>, meta: Arc<Meta>) -> Self {
        Self { store, cipher, meta }
    }

    /// What everything is sealed with.
    pub(super) fn cipher(&self) -> &RecordCipher {
        &self.cipher
    }

    /// The entries of `tenant`: each as it was sealed, and all together those that were recorded last (P7).
    pub(super) fn entries(&self, tenant: &str, loading: &Loading) -> Result<BTreeMap<String, Vec<u8>>, JournalError> {
        let prefix = record::entry_key(tenant, "");
        let mut found = Tally::default();
        let entries = store::scan(&*loading.view, &prefix, &store::prefix_end(&prefix))
            .filter_map(|row| {
                let entry = |row: Row| {
                    found.add(&Tally::change(&self.meta.digest_key, &row.key, None, Some(row.version)));
                    let key = &row.key[prefix.len()..];
                    // Counted, but not read: whoever needs it asks for it.
                    if key.starts_with(COLD) {
                        return Ok(None);
                    }
                    Ok(Some((key.to_owned(), open(&self.cipher, &row)?)))
                };
                row.map_err(JournalError::from).and_then(entry).transpose()
            })
            .collect::<Result<_, JournalError>>()?;
        found.compare(&loading.expected, &prefix)?;
        Ok(entries)
    }

    pub(super) fn entry(&self, tenant: &str, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        match self.store.view()?.get(&record::entry_key(tenant, key))? {
            Some(row) => Ok(Some(open(&self.cipher, &row)?)),
            None => Ok(None),
        }
    }

    pub(super) fn decisions(&self, from: u64, limit: usize) -> Result<Vec<LogLine>, JournalError> {
        let view = self.store.view()?;
        let rows = view.page(&record::log_key(from), &store::prefix_end(LOG), Order::Ascending, limit)?;
        rows.iter().map(|row| line(&self.cipher, row)).collect()
    }

    pub(super) fn tail(&self, count: usize) -> Result<Vec<LogLine>, JournalError> {
        let rows = self.store.view()?.page(LOG, &store::prefix_end(LOG), Order::Descending, count)?;
        rows.iter().rev().map(|row| line(&self.cipher, row)).collect()
    }

    pub(super) fn explain(&self, request: &str) -> Result<Option<LogLine>, JournalError> {
        let view = self.store.view()?;
        let mut end = store::prefix_end(LOG);
        let mut seen = 0;
        while seen < EXPLAIN_REACH {
            let rows = view.page(LOG, &end, Order::Descending, PAGE)?;
            let Some(oldest) = rows.last() else { break };
            for row in &rows {
                let line = line(&self.cipher, row)?;
                if line.decision.request == request {
                    return Ok(Some(line));
                }
            }
            seen += rows.len() as u64;
            end.clone_from(&oldest.key);
        }
        Ok(None)
    }

    pub(super) fn rows<E: From<JournalError>>(&self, each: &mut dyn FnMut(&Row) -> Result<(), E>) -> Result<u64, E> {
        let view = self.store.view().map_err(JournalError::from)?;
        for key in [META, HEAD] {
            each(&required(&*view, key)?)?;
        }
        let mut count = 2;
        for row in store::scan(&*view, "", LAST_KEY) {
            let row = row.map_err(JournalError::from)?;
            if row.key != META && row.key != HEAD {
                each(&row)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether the journal went through `past`: its last decision then is still the one of its number, and what was decided
    /// next came later.
    pub(super) fn require_past(&self, now: &Changes, past: &Mark) -> Result<(), JournalError> {
        let head = now.mark();
        if past.version > head.version || past.decisions > head.decisions {
            return Err(JournalError::Diverged);
        }
        let rows = now.view.page(&record::log_key(past.decisions), LAST_KEY, Order::Ascending, 2)?;
        let mut rows = rows.iter().filter(|row| row.key.starts_with(LOG));
        let hash = match past.decisions {
            0 => self.meta.genesis,
            seq => {
                let row = rows.next().filter(|row| row.key == record::log_key(seq));
                let row = row.ok_or_else(|| Damage::new(record::log_key(seq), super::DamageKind::Missing))?;
                let opened = LogRecord::decode(&open(&self.cipher, row)?);
                opened.map_err(|bad| Damage::new(&*row.key, bad.into()))?.hash
            }
        };
        let later = rows.next().is_none_or(|next| next.version > past.version);
        if hash == past.hash && later { Ok(()) } else { Err(JournalError::Diverged) }
    }

    pub(super) fn verify(&self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<Verified, JournalError> {
        verify(&*self.store, &self.cipher, progress)
    }
}

fn open(cipher: &RecordCipher, row: &Row) -> Result<Vec<u8>, Damage> {
    record::open(cipher, row).map_err(|bad| Damage::new(&*row.key, bad.into()))
}

fn line(cipher: &RecordCipher, row: &Row) -> Result<LogLine, JournalError> {
    let bad = |bad: record::BadRecord| Damage::new(&*row.key, bad.into());
    let seq = record::number_of(&row.key).ok_or_else(|| bad(record::BadRecord::Contents))?;
    let plain = open(cipher, row)?;
    Ok(LogRecord::decode(&plain).and_then(|record| record.line(seq)).map_err(bad)?)
}
