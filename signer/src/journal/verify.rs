//! Checks a whole journal and names the first bad record.
//!
//! One pass over all rows in the order of their keys: checkpoints, entries, head, decisions. Works on a damaged store;
//! needs memory for the checkpoints only.

use std::collections::VecDeque;

use crate::keys::cipher::RecordCipher;

use super::HOUSE;
use super::error::{Damage, DamageKind, JournalError};
use super::head::{Head, Meta};
use super::ledger::{open_head, open_meta, read_head};
use super::log::LogRecord;
use super::record::{self, BadRecord, CHECKPOINTS, ENTRIES, HEAD, LOG, META};
use super::signed::SignedHead;
use super::store::{LAST_KEY, Row, Store, StoreError, scan};
use super::tally::Tally;

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries and decisions checked.
    pub done: u64,
    /// Entries and decisions to check.
    pub total: u64,
}

/// A journal without fault.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Records checked: decisions, entries, checkpoints, and the two at the start.
    pub records: u64,
    /// Decisions in the chain.
    pub decisions: u64,
    /// Live entries.
    pub entries: u64,
    /// Checkpoints that match the chain.
    pub checkpoints: u64,
    /// Chain hash of the last decision, hex: note it elsewhere to prove later that the log only grew.
    pub head: String,
    /// The latest checkpoint that a device key signed: the log up to there is what it was then.
    pub signed: Option<SignedHead>,
}

/// Checks every record in `store`: each authenticates in its place, decisions form one chain without gaps that ends
/// where the head says, checkpoints match it, and the entries are the last state. `progress` is told now and then; the
/// check ends as `Interrupted` when it returns false.
pub fn verify(
    store: &dyn Store,
    cipher: &RecordCipher,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Verified, JournalError> {
    const TELL_EVERY: u64 = 1024;
    let view = store.view()?;
    let (meta, head, _) = read_head(&*view, cipher)?;
    let total = head.seq.saturating_add(head.state.count);
    let mut walk = Walk::new(meta, head, cipher);
    let mut last_key = String::new();
    let mut records = 0;
    for row in scan(&*view, "", LAST_KEY) {
        let row = match row {
            Ok(row) => row,
            Err(error @ StoreError::Damaged(_)) => {
                return Err(Damage::new(last_key, DamageKind::Unreadable(error)).into());
            }
            Err(error) => return Err(error.into()),
        };
        walk.row(&row)?;
        last_key = row.key;
        records += 1;
        if records % TELL_EVERY == 0 && !progress(Progress { done: walk.done(), total }) {
            return Err(JournalError::Interrupted);
        }
    }
    let verified = walk.finish(records)?;
    progress(Progress { done: total, total });
    Ok(verified)
}

/// The same check over rows that come from elsewhere than a store, as [`Journal::rows`](super::Journal::rows) hands them out.
pub struct Check<'c> {
    cipher: &'c RecordCipher,
    meta: Option<Meta>,
    walk: Option<Walk<'c>>,
    last_key: String,
    records: u64,
}

impl<'c> Check<'c> {
    /// Before the first row.
    pub fn new(cipher: &'c RecordCipher) -> Self {
        Self { cipher, meta: None, walk: None, last_key: String::new(), records: 0 }
    }

    /// Checks the next row: `meta`, `head`, then the others in the order of their keys, none twice.
    pub fn row(&mut self, row: &Row) -> Result<(), JournalError> {
        self.records += 1;
        if let Some(walk) = &mut self.walk {
            if row.key <= self.last_key || row.key == META || row.key == HEAD {
                return Err(Damage::new(&*row.key, DamageKind::Unexpected).into());
            }
            walk.row(row)?;
            self.last_key.clone_from(&row.key);
            return Ok(());
        }
        match self.meta.take() {
            None if row.key == META => self.meta = Some(open_meta(row.clone(), self.cipher)?),
            Some(meta) if row.key == HEAD => {
                self.walk = Some(Walk::new(meta, open_head(row, self.cipher)?, self.cipher));
            }
            None => return Err(Damage::new(META, DamageKind::Missing).into()),
            Some(_) => return Err(Damage::new(HEAD, DamageKind::Missing).into()),
        }
        Ok(())
    }

    /// After the last row: nothing is missing.
    pub fn finish(self) -> Result<Verified, JournalError> {
        let missing = if self.meta.is_none() { META } else { HEAD };
        let walk = self.walk.ok_or_else(|| Damage::new(missing, DamageKind::Missing))?;
        Ok(walk.finish(self.records)?)
    }
}

struct Walk<'c> {
    cipher: &'c RecordCipher,
    meta: Meta,
    /// Where everything must end.
    head: Head,
    /// Where the walk is: `seq` and `hash` of the last decision, entries and digest so far, and the last checkpoint.
    at: Head,
    /// Checkpoints that the chain has not reached yet.
    ahead: VecDeque<Head>,
    checkpoints: u64,
    /// What a device key signed, and whether the chain has come past it as it was.
    signed: Option<(SignedHead, bool)>,
}

impl<'c> Walk<'c> {
    fn new(meta: Meta, head: Head, cipher: &'c RecordCipher) -> Self {
        let at = Head::new(meta.genesis);
        Self { cipher, meta, head, at, ahead: VecDeque::new(), checkpoints: 0, signed: None }
    }

    /// Entries and decisions so far.
    fn done(&self) -> u64 {
        self.at.seq.saturating_add(self.at.state.count)
    }

    /// Checks one row; rows come in the order of their keys.
    fn row(&mut self, row: &Row) -> Result<(), Damage> {
        let damage = |what: DamageKind| Damage::new(&*row.key, what);
        if row.key == META || row.key == HEAD {
            return Ok(()); // already read
        }
        let is_entry = row.key.starts_with(ENTRIES);
        let number = record::number_of(&row.key);
        if !is_entry && number.is_none() {
            return Err(damage(DamageKind::Unexpected));
        }
        if number.is_some_and(|seq| seq == 0 || seq > self.head.seq) && !is_entry {
            return Err(damage(DamageKind::Unexpected));
        }
        let plain = record::open(self.cipher, row).map_err(|bad| damage(bad.into()))?;
        match number {
            _ if is_entry => {
                if row.key == record::entry_key(HOUSE, SignedHead::KEY) {
                    self.signed_head(&plain).map_err(damage)?;
                }
                self.at.state.add(&Tally::change(&self.meta.digest_key, &row.key, None, Some(row.version)))
            }
            Some(seq) if row.key.starts_with(CHECKPOINTS) => self.checkpoint(seq, &plain).map_err(damage)?,
            Some(seq) if row.key.starts_with(LOG) => {
                // A gap: name the record that is gone, not the one after it.
                if seq != self.at.seq + 1 {
                    return Err(Damage::new(record::log_key(self.at.seq + 1), DamageKind::Missing));
                }
                self.decision(seq, &plain).map_err(damage)?;
                self.compare_checkpoint()?;
                self.compare_signed_head()?;
            }
            _ => return Err(damage(DamageKind::Unexpected)),
        }
        Ok(())
    }

    /// Each checkpoint names the one before it, so none can be removed.
    fn checkpoint(&mut self, seq: u64, plain: &[u8]) -> Result<(), DamageKind> {
        let checkpoint = Head::decode(plain)?;
        if checkpoint.seq != seq || checkpoint.checkpoint != self.at.checkpoint {
            return Err(DamageKind::Checkpoint);
        }
        self.at.checkpoint = seq;
        self.checkpoints += 1;
        self.ahead.push_back(checkpoint);
        Ok(())
    }

    /// Entries come before decisions: what is signed is met when the chain comes to it.
    fn signed_head(&mut self, plain: &[u8]) -> Result<(), DamageKind> {
        let signed = SignedHead::decode(plain).map_err(|_| BadRecord::Contents)?;
        if !signed.is_signed() {
            return Err(DamageKind::Signature);
        }
        self.signed = Some((signed, false));
        Ok(())
    }

    fn compare_signed_head(&mut self) -> Result<(), Damage> {
        match &mut self.signed {
            Some((signed, met)) if signed.head.seq == self.at.seq => {
                *met = signed.head.hash == self.at.hash;
                if *met { Ok(()) } else { Err(Damage::new(record::log_key(self.at.seq), DamageKind::OtherThanSigned)) }
            }
            _ => Ok(()),
        }
    }

    fn decision(&mut self, seq: u64, plain: &[u8]) -> Result<(), DamageKind> {
        let record = LogRecord::decode(plain)?;
        if !record.follows(&self.at.hash, seq) {
            return Err(DamageKind::Chain);
        }
        record.line(seq)?;
        (self.at.seq, self.at.hash) = (seq, record.hash);
        Ok(())
    }

    fn compare_checkpoint(&mut self) -> Result<(), Damage> {
        match self.ahead.front() {
            Some(checkpoint) if checkpoint.seq == self.at.seq => {
                if checkpoint.hash != self.at.hash {
                    return Err(Damage::new(record::checkpoint_key(self.at.seq), DamageKind::Checkpoint));
                }
                self.ahead.pop_front();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Everything was seen, `records` in all: did it end where the head says?
    fn finish(&self, records: u64) -> Result<Verified, Damage> {
        if self.at.checkpoint != self.head.checkpoint {
            return Err(Damage::new(record::checkpoint_key(self.head.checkpoint), DamageKind::Missing));
        }
        self.at.state.compare(&self.head.state, HEAD)?;
        if self.at.seq != self.head.seq {
            return Err(Damage::new(record::log_key(self.at.seq + 1), DamageKind::Missing));
        }
        if self.at.hash != self.head.hash {
            return Err(Damage::new(HEAD, BadRecord::Contents.into()));
        }
        let signed = match &self.signed {
            Some((signed, true)) => Some(signed.clone()),
            Some((signed, false)) => return Err(Damage::new(record::log_key(signed.head.seq), DamageKind::Missing)),
            None => None,
        };
        let (decisions, entries, head) = (self.head.seq, self.head.state.count, hex::encode(self.head.hash));
        Ok(Verified { records, decisions, entries, checkpoints: self.checkpoints, head, signed })
    }
}
