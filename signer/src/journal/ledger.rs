//! The writing half without threads: turns commits into one batch, and knows what the store must hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::keys::cipher::RecordCipher;

use super::changes::{Changes, Feed};
use super::commit::{Commit, CommitError, InvalidCommit, MAX_DECISION, Tenant};
use super::error::{Damage, DamageKind, JournalError};
use super::head::{FORMAT, Head, Meta};
use super::log::LogRecord;
use super::record::{self, BadRecord, ENTRIES, HEAD, META};
use super::store::{LAST_KEY, Order, Row, Store, StoreError, StoredPut, View};
use super::tally::Tally;

/// Versions, chain and tallies of one journal. A row's version is the number of the batch that wrote it.
pub(super) struct Ledger {
    store: Arc<dyn Store>,
    cipher: Arc<RecordCipher>,
    meta: Arc<Meta>,
    /// What the store holds.
    head: Head,
    head_row: Row,
    tenants: Tenants,
    /// What the store may hold instead: a batch whose outcome is unknown.
    unsettled: Option<Written>,
    /// Kept once somebody follows.
    feed: Option<Feed>,
    checkpoint_every: u64,
}

/// The entries of each tenant that has or had some.
type Tenants = HashMap<Tenant, Tally>;

/// What a batch makes of the journal.
struct Written {
    head: Head,
    head_row: Row,
    /// Those it changes.
    tenants: Tenants,
}

/// A tenant's entries, to be read from a view at leisure, and what they must be.
pub(super) struct Loading {
    pub(super) view: Box<dyn View>,
    pub(super) expected: Tally,
}

/// How far the journal is sealed with the current data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// The last row that was looked at; none at the end.
    pub last: Option<String>,
    /// How many rows were looked at now.
    pub rows: u64,
    /// About how many there are.
    pub total: u64,
}

/// Commits on their way into the store.
pub(super) struct Batch {
    version: u64,
    head: Head,
    entries: BTreeMap<String, Option<Vec<u8>>>,
    log: Vec<StoredPut>,
}

impl Ledger {
    /// Opens the journal in `store`; writes a new one if the store is empty.
    pub(super) fn open(
        store: Arc<dyn Store>,
        cipher: Arc<RecordCipher>,
        checkpoint_every: u64,
    ) -> Result<Self, JournalError> {
        let view = store.view()?;
        if view.page("", LAST_KEY, Order::Ascending, 1)?.is_empty() {
            return Ok(Self::create(store, cipher, checkpoint_every)?);
        }
        let (meta, head, head_row) = read_head(&*view, &cipher)?;
        let tenants = check_state(&*view, &meta, &head)?;
        let meta = Arc::new(meta);
        Ok(Self { store, cipher, meta, head, head_row, tenants, unsettled: None, feed: None, checkpoint_every })
    }

    fn create(store: Arc<dyn Store>, cipher: Arc<RecordCipher>, checkpoint_every: u64) -> Result<Self, StoreError> {
        let (meta, plain) = Meta::random();
        let meta_row = seal_meta(&cipher, 1, &plain);
        let head = Head::new(meta.genesis);
        let head_put = record::seal(&cipher, HEAD.to_owned(), 1, &head.encode());
        store.apply(&[meta_row, head_put.clone()])?;
        let (meta, head_row, tenants) = (Arc::new(meta), row(head_put), HashMap::new());
        Ok(Self { store, cipher, meta, head, head_row, tenants, unsettled: None, feed: None, checkpoint_every })
    }

    /// An empty batch. Written without commits, it proves that the store can be written.
    pub(super) fn begin(&self) -> Batch {
        let version = self.head_row.version + 1;
        Batch { version, head: self.head, entries: BTreeMap::new(), log: Vec::new() }
    }

    /// Adds `commit` to `batch`, or nothing of it.
    pub(super) fn add(&self, batch: &mut Batch, commit: Commit) -> Result<(), InvalidCommit> {
        commit.check()?;
        if let Some(decision) = &commit.decision {
            let seq = batch.head.seq + 1;
            let too_large = |bytes| InvalidCommit::TooLarge { what: "decision".to_owned(), bytes, limit: MAX_DECISION };
            let record = LogRecord::new(&batch.head.hash, seq, &commit.tenant, decision).map_err(|_| too_large(0))?;
            if record.body_len() > MAX_DECISION {
                return Err(too_large(record.body_len()));
            }
            batch.log.push(record::seal(&self.cipher, record::log_key(seq), batch.version, &record.encode()));
            (batch.head.seq, batch.head.hash) = (seq, record.hash);
        }
        for put in commit.puts {
            batch.entries.insert(record::entry_key(&commit.tenant, &put.key), put.value);
        }
        Ok(())
    }

    /// Writes `batch`; on `Ok` it is on stable storage.
    pub(super) fn write(&mut self, batch: Batch) -> Result<(), CommitError> {
        let Batch { version, mut head, entries, log: mut puts } = batch;
        let view = self.store.view().map_err(CommitError::Store)?;
        let mut tenants = Tenants::new();
        for (key, value) in entries {
            let old = view.version(&key).map_err(CommitError::Store)?;
            let change = Tally::change(&self.meta.digest_key, &key, old, value.is_some().then_some(version));
            head.state.add(&change);
            let tenant = record::tenant_of(&key).unwrap_or_default();
            match tenants.get_mut(tenant) {
                Some(tally) => tally.add(&change),
                None => drop(tenants.insert(tenant.to_owned(), self.tenant(tenant).and(&change))),
            }
            match value {
                Some(plain) => puts.push(record::seal(&self.cipher, key, version, &plain)),
                None => puts.push(StoredPut { key, version, value: None }),
            }
        }
        drop(view);
        if head.seq - head.checkpoint >= self.checkpoint_every {
            puts.push(record::seal(&self.cipher, record::checkpoint_key(head.seq), version, &head.encode()));
            head.checkpoint = head.seq;
        }
        let head_put = record::seal(&self.cipher, HEAD.to_owned(), version, &head.encode());
        puts.insert(0, head_put.clone()); // judged first: its version alone decides whether this writer is outdated
        let written = Written { head, head_row: row(head_put), tenants };
        match self.store.apply(&puts) {
            Ok(()) => {
                self.adopt(written);
                if let Some(feed) = &mut self.feed {
                    let changed = puts.into_iter().map(|put| put.key).filter(|key| key.starts_with(ENTRIES));
                    changed.for_each(|key| feed.push(version, key));
                }
                Ok(())
            }
            Err(StoreError::Stale { key, .. } | StoreError::Conflict { key, .. }) if key == HEAD => {
                Err(CommitError::Fenced)
            }
            Err(error) => {
                if !error.refuses_batch() {
                    self.unsettled = Some(written);
                }
                Err(CommitError::Store(error))
            }
        }
    }

    /// After a failed write: finds out what the store holds, then proves that it can be written again.
    pub(super) fn resume(&mut self) -> Result<(), CommitError> {
        self.store.recover().map_err(CommitError::Store)?;
        let stored = self.store.view().and_then(|view| view.get(HEAD)).map_err(CommitError::Store)?;
        match self.unsettled.take() {
            Some(written) if stored.as_ref() == Some(&written.head_row) => {
                self.adopt(written);
                // What it changed is not at hand any more.
                self.feed = self.feed.as_ref().map(|_| Feed::new(self.head_row.version));
            }
            _ if stored.as_ref() == Some(&self.head_row) => {}
            _ => return Err(CommitError::Fenced),
        }
        self.write(self.begin())
    }

    /// Seals anew what the previous data key sealed among the next rows after `after`, as one batch.
    pub(super) fn reseal(&mut self, after: &str) -> Result<Resealed, JournalError> {
        /// Rows looked at and bytes sealed at once: commits wait meanwhile.
        const ROWS: usize = 32;
        const BYTES: usize = 1 << 20;
        let view = self.store.view()?;
        let rows = view.page(&format!("{after}\0"), LAST_KEY, Order::Ascending, ROWS)?;
        let mut batch = self.begin();
        let (mut bytes, mut seen) = (0, 0);
        for row in &rows {
            seen += 1;
            bytes += self.reseal_row(&mut batch, row)?;
            if bytes > BYTES {
                break;
            }
        }
        drop(view);
        if bytes > 0 {
            self.write(batch).map_err(JournalError::Unavailable)?;
        }
        let ended = seen == rows.len() && rows.len() < ROWS;
        let total = self.head.seq.saturating_add(self.head.state.count);
        Ok(Resealed {
            last: rows[..seen].last().filter(|_| !ended).map(|row| row.key.clone()),
            rows: seen as u64,
            total,
        })
    }

    /// Adds `row` to `batch` if only the previous data key opens it; returns how many bytes that makes.
    fn reseal_row(&self, batch: &mut Batch, row: &Row) -> Result<usize, JournalError> {
        let bad = |what: BadRecord| Damage::new(&*row.key, what.into());
        match &*row.key {
            HEAD => return Ok(0), // in every batch
            META => {
                let (_, sealed) = Meta::split(&row.value).ok_or_else(|| bad(BadRecord::Contents))?;
                let sealed = Row { value: sealed.to_vec(), ..row.clone() };
                let Some(plain) = record::open_outdated(&self.cipher, &sealed).map_err(bad)? else { return Ok(0) };
                batch.log.push(seal_meta(&self.cipher, batch.version, &Zeroizing::new(plain)));
            }
            key => {
                let Some(plain) = record::open_outdated(&self.cipher, row).map_err(bad)? else { return Ok(0) };
                if key.starts_with(ENTRIES) {
                    batch.entries.insert(row.key.clone(), Some(plain));
                } else {
                    batch.log.push(record::seal(&self.cipher, row.key.clone(), batch.version, &plain));
                }
            }
        }
        Ok(row.value.len())
    }

    /// Writes a checkpoint at the end of the chain, unless there is one.
    pub(super) fn close(&mut self) -> Result<(), CommitError> {
        if self.head.seq == self.head.checkpoint {
            return Ok(());
        }
        self.checkpoint_every = 1;
        self.write(self.begin())
    }

    fn adopt(&mut self, written: Written) {
        (self.head, self.head_row) = (written.head, written.head_row);
        self.tenants.extend(written.tenants);
    }

    fn tenant(&self, tenant: &str) -> Tally {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// The entries of `tenant` as they are now.
    pub(super) fn load(&self, tenant: &str) -> Result<Loading, CommitError> {
        let view = self.store.view().map_err(CommitError::Store)?;
        Ok(Loading { view, expected: self.tenant(tenant) })
    }

    /// The journal as it is now, and the entries that batches after `since` changed, as far as it is remembered: from the
    /// first call on.
    pub(super) fn changes(&mut self, since: Option<u64>) -> Result<Changes, CommitError> {
        let view = self.store.view().map_err(CommitError::Store)?;
        let feed = self.feed.get_or_insert_with(|| Feed::new(self.head_row.version));
        let keys = since.and_then(|since| feed.since(since));
        Ok(Changes { view, head: self.head, head_row: self.head_row.clone(), keys })
    }

    /// What was drawn when the journal was made.
    pub(super) fn meta(&self) -> Arc<Meta> {
        self.meta.clone()
    }

    /// Number of the last decision.
    pub(super) fn seq(&self) -> u64 {
        self.head.seq
    }
}

fn seal_meta(cipher: &RecordCipher, version: u64, plain: &[u8]) -> StoredPut {
    let mut row = record::seal(cipher, META.to_owned(), version, plain);
    if let Some(sealed) = &mut row.value {
        sealed.splice(..0, Meta::clear_prefix());
    }
    row
}

/// Reads and authenticates `meta` and `head`.
pub(super) fn read_head(view: &dyn View, cipher: &RecordCipher) -> Result<(Meta, Head, Row), JournalError> {
    let meta = open_meta(required(view, META)?, cipher)?;
    let head_row = required(view, HEAD)?;
    let head = open_head(&head_row, cipher)?;
    Ok((meta, head, head_row))
}

/// A row without which there is no journal.
pub(super) fn required(view: &dyn View, key: &str) -> Result<Row, JournalError> {
    Ok(view.get(key)?.ok_or_else(|| Damage::new(key, DamageKind::Missing))?)
}

/// Authenticates a `meta` row.
pub(super) fn open_meta(mut row: Row, cipher: &RecordCipher) -> Result<Meta, JournalError> {
    let bad = |what: BadRecord| Damage::new(META, what.into());
    let (format, sealed) = Meta::split(&row.value).ok_or_else(|| bad(BadRecord::Contents))?;
    if format > FORMAT {
        return Err(JournalError::NewerFormat { found: format });
    }
    row.value = sealed.to_vec();
    let plain = Zeroizing::new(record::open(cipher, &row).map_err(|_| JournalError::WrongKey)?);
    Ok(Meta::decode(&plain).map_err(bad)?)
}

/// Authenticates a `head` row.
pub(super) fn open_head(row: &Row, cipher: &RecordCipher) -> Result<Head, JournalError> {
    let head = record::open(cipher, row).and_then(|plain| Head::decode(&plain));
    Ok(head.map_err(|what| Damage::new(HEAD, what.into()))?)
}

/// Compares the versions of all entries with the head's tally: an entry that was removed, added or rolled back shows.
fn check_state(view: &dyn View, meta: &Meta, head: &Head) -> Result<Tenants, JournalError> {
    let (mut found, mut tenants) = (Tally::default(), Tenants::new());
    for entry in super::store::scan(view, ENTRIES, &super::store::prefix_end(ENTRIES)) {
        let entry = entry?;
        let change = Tally::change(&meta.digest_key, &entry.key, None, Some(entry.version));
        found.add(&change);
        tenants.entry(record::tenant_of(&entry.key).unwrap_or_default().to_owned()).or_default().add(&change);
    }
    found.compare(&head.state, HEAD)?;
    Ok(tenants)
}

/// The row that `put`, which is no deletion, leaves in the store.
fn row(put: StoredPut) -> Row {
    Row { key: put.key, version: put.version, value: put.value.unwrap_or_default() }
}
