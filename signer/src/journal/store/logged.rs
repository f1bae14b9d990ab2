//! The store of a single signer: a redb tree, and a write-ahead file for what the tree does not have yet.
//!
//! A batch is one write and one flush of the file. When a half of the file is full, the tree takes what it holds while the
//! other one is filled; all of it when the store is opened, and when it is closed. What the file holds is in memory, too,
//! and seen before the tree.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::redb::{create_file, forget_cached};
use super::wal::{Disk, Wal};
use super::{Effect, LAST_KEY, Order, RedbStore, Row, Store, StoreError, StoredPut, View, check_sizes, judge};

/// How large the write-ahead file is: a half holds some thousand batches. Part of the file's format.
const SIZE: usize = 8 << 20;

/// A [`Store`] in two files, mode 0600, locked against other processes while open.
pub struct LoggedStore {
    /// Opens the write-ahead file, anew after an error.
    reopen: Reopen,
    /// How many bytes the file has.
    size: usize,
    /// Not there after an error, until [`Store::recover`] has succeeded. One thread applies at a time.
    wal: Mutex<Option<Wal>>,
    rows: Arc<Rows>,
    settler: Settler,
}

type Reopen = Box<dyn Fn() -> Result<Box<dyn Disk>, StoreError> + Send + Sync>;

/// The tree and what is ahead of it.
struct Rows {
    tree: RedbStore,
    /// Views share it; a batch copies the newer of it while one is alive.
    ahead: Mutex<Ahead>,
    /// Held by who has the tree take something.
    settling: Mutex<()>,
}

/// What the write-ahead file holds.
#[derive(Clone, Default)]
struct Ahead {
    /// Of the half that is full: empty as soon as the tree has it.
    older: Arc<Half>,
    /// Of the half that is being filled.
    newer: Arc<Half>,
}

/// By key.
type Half = BTreeMap<Arc<str>, Newest>;

/// What a key came to.
#[derive(Clone)]
struct Newest {
    version: u64,
    /// None: it was deleted.
    value: Option<Arc<[u8]>>,
}

impl LoggedStore {
    /// Memory for cached pages, in bytes, unless the caller says otherwise.
    pub const DEFAULT_CACHE: usize = 64 << 20;

    /// Opens the tree at `path` and its write-ahead file beside it, or creates them; keeps at most `cache` bytes of the tree's
    /// pages in memory.
    pub fn open(path: &Path, cache: usize) -> Result<Self, StoreError> {
        let tree = RedbStore::open(path, cache)?; // and locks out others
        let path = path.with_extension("wal");
        create_file(&path)?;
        let reopen = move || {
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path)?;
            forget_cached(&file)?;
            Ok(Box::new(file) as Box<dyn Disk>)
        };
        Self::new(tree, Box::new(reopen), SIZE)
    }

    /// A store over `tree`, and over what `reopen` opens, which takes `size` bytes.
    pub(super) fn new(tree: RedbStore, reopen: Reopen, size: usize) -> Result<Self, StoreError> {
        let rows = Arc::new(Rows { tree, ahead: Mutex::default(), settling: Mutex::default() });
        let settler = Settler::start(rows.clone())?;
        let store = Self { reopen, size, wal: Mutex::default(), rows, settler };
        store.reread(&mut lock(&store.wal))?;
        Ok(store)
    }

    /// Takes what the write-ahead file holds into the tree.
    fn reread(&self, slot: &mut Option<Wal>) -> Result<(), StoreError> {
        let (mut wal, batches) = Wal::open((self.reopen)()?, self.size)?;
        let mut all = Half::new();
        batches.into_iter().flatten().for_each(|put| insert(&mut all, put));
        *lock(&self.rows.ahead) = Ahead { older: Arc::default(), newer: Arc::new(all) };
        self.settle(&mut wal).map_err(|error| match error {
            StoreError::Stale { .. } | StoreError::Conflict { .. } => {
                StoreError::Damaged("its two files are not of the same time".to_owned())
            }
            error => error,
        })?;
        *slot = Some(wal);
        Ok(())
    }

    /// Has the tree take what the write-ahead file holds, and the file begin anew.
    fn settle(&self, wal: &mut Wal) -> Result<(), StoreError> {
        if wal.is_empty() {
            return Ok(());
        }
        self.rows.settle_older()?;
        self.rows.turn();
        self.rows.settle_older()?;
        wal.restart()
    }

    /// Writes `batch`; in the tree itself if it is too large for the file, or the first one: a journal that lost its write-ahead file
    /// is an older journal, not a new one.
    fn write(&self, wal: &mut Wal, batch: Vec<StoredPut>) -> Result<(), StoreError> {
        if !self.rows.is_new()? {
            let fits = wal.append(&batch)? || {
                self.rows.settle_older()?; // as a rule it is settled long since
                wal.turn()?;
                self.rows.turn();
                self.settler.wake();
                wal.append(&batch)?
            };
            if fits {
                let mut ahead = lock(&self.rows.ahead);
                let newer = Arc::make_mut(&mut ahead.newer);
                batch.into_iter().for_each(|put| insert(newer, put));
                return Ok(());
            }
            self.settle(wal)?;
        }
        self.rows.tree.apply(&batch)
    }
}

impl Rows {
    /// Has the tree take what the full half holds, if it does not have it.
    fn settle_older(&self) -> Result<(), StoreError> {
        let _settling = lock(&self.settling);
        let older = lock(&self.ahead).older.clone();
        if older.is_empty() {
            return Ok(());
        }
        let put = |(key, newest): (&Arc<str>, &Newest)| StoredPut {
            key: key.to_string(),
            version: newest.version,
            value: newest.value.as_ref().map(|value| value.to_vec()),
        };
        let taken = self.tree.apply(&older.iter().map(put).collect::<Vec<_>>());
        match &taken {
            Ok(()) => lock(&self.ahead).older = Arc::default(),
            Err(error) if error.refuses_batch() => {}
            // After an error the tree gives nothing that it has to read, until it is opened again.
            Err(_) => drop(self.tree.recover()),
        }
        taken
    }

    /// What is being filled is full now. The tree has what was full before.
    fn turn(&self) {
        let mut ahead = lock(&self.ahead);
        debug_assert!(ahead.older.is_empty());
        ahead.older = std::mem::take(&mut ahead.newer);
    }

    /// Whether there is no row at all.
    fn is_new(&self) -> Result<bool, StoreError> {
        let ahead = lock(&self.ahead).clone();
        let nothing_ahead = ahead.older.is_empty() && ahead.newer.is_empty();
        Ok(nothing_ahead && self.tree.view()?.page("", LAST_KEY, Order::Ascending, 1)?.is_empty())
    }

    /// Both, at one moment.
    fn seen(&self) -> Result<LoggedView, StoreError> {
        let ahead = lock(&self.ahead);
        // Within the lock: what leaves `ahead` is in the tree before.
        Ok(LoggedView { tree: self.tree.view()?, ahead: ahead.clone() })
    }
}

/// The thread that has the tree take what a full half holds, while the other one is filled.
struct Settler {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Settler {
    fn start(rows: Arc<Rows>) -> Result<Self, StoreError> {
        let (wake, woken) = sync_channel(1);
        let work = move || {
            while woken.recv().is_ok() {
                if let Err(error) = rows.settle_older() {
                    // Whoever needs the half next tries again, and fails if that does.
                    tracing::warn!(%error, "the journal's tree did not take what its write-ahead file holds");
                }
            }
        };
        let thread = std::thread::Builder::new().name("journal-tree".to_owned()).spawn(work)?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(()); // it is awake if there is no room
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic
        }
    }
}

impl Store for LoggedStore {
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        check_sizes(batch)?;
        let mut slot = lock(&self.wal);
        let Some(wal) = slot.as_mut() else {
            return Err(StoreError::Io("the write-ahead file is closed after an error".to_owned()));
        };
        let seen = self.rows.seen()?;
        let mut effective = Vec::with_capacity(batch.len());
        let mut comes_back = false;
        for put in batch {
            let newest = seen.ahead.get(&put.key).map(|(_, newest)| newest);
            // The tree may still have a row that this one, with its smaller version, would not replace.
            comes_back |= newest.is_some_and(|newest| newest.value.is_none() && newest.version >= put.version);
            let effect = match newest {
                Some(Newest { version, value }) => judge(put, value.as_deref().map(|value| (*version, value)))?,
                // The bytes matter only if the version is the same.
                None => match seen.tree.version(&put.key)? {
                    None => judge(put, None)?,
                    Some(version) if version != put.version => judge(put, Some((version, &[])))?,
                    Some(_) => {
                        let row = seen.tree.get(&put.key)?;
                        judge(put, row.as_ref().map(|row| (row.version, row.value.as_slice())))?
                    }
                },
            };
            if let Effect::Write = effect {
                effective.push(put.clone());
            }
        }
        drop(seen);
        if effective.is_empty() {
            return Ok(());
        }
        let deleted = if comes_back { self.settle(wal) } else { Ok(()) };
        let written = deleted.and_then(|()| self.write(wal, effective));
        if written.is_err() {
            *slot = None; // what it holds is found out by opening it again
        }
        written
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        Ok(Box::new(self.rows.seen()?))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let mut slot = lock(&self.wal);
        *slot = None;
        self.rows.tree.recover()?;
        self.reread(&mut slot)
    }
}

impl Drop for LoggedStore {
    /// Leaves a tree that has everything.
    fn drop(&mut self) {
        if let Some(mut wal) = lock(&self.wal).take()
            && let Err(error) = self.settle(&mut wal)
        {
            tracing::warn!(%error, "the journal's write-ahead file is taken into its tree when it is opened next");
        }
    }
}

impl Ahead {
    fn get(&self, key: &str) -> Option<(&Arc<str>, &Newest)> {
        self.newer.get_key_value(key).or_else(|| self.older.get_key_value(key))
    }

    /// What it has with `from <= key < to`, the newer of a key after the older.
    fn range(&self, from: &str, to: &str) -> impl Iterator<Item = (&Arc<str>, &Newest)> + Clone {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.older.range::<str, _>(bounds).chain(self.newer.range::<str, _>(bounds))
    }
}

/// The tree, and before it what was ahead of it.
struct LoggedView {
    tree: Box<dyn View>,
    ahead: Ahead,
}

impl View for LoggedView {
    fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        match self.ahead.get(key) {
            Some(found) => Ok(row(found)),
            None => self.tree.get(key),
        }
    }

    fn version(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.ahead.get(key) {
            Some((_, newest)) => Ok(newest.value.as_ref().map(|_| newest.version)),
            None => self.tree.version(key),
        }
    }

    fn page(&self, from: &str, to: &str, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let ahead = self.ahead.range(from, to);
        // Each one that was deleted may stand for a row of the tree: without as many more the page would fall short.
        let deleted = ahead.clone().filter(|(_, newest)| newest.value.is_none()).count();
        let tree = self.tree.page(from, to, order, limit.saturating_add(deleted))?;
        // By key; none where the row is ahead, so that only those of the page are copied.
        let mut keys: BTreeMap<&str, Option<&Row>> = tree.iter().map(|row| (row.key.as_str(), Some(row))).collect();
        keys.extend(ahead.map(|(key, _)| (&**key, None)));
        let found = |(key, of_tree): (&str, Option<&Row>)| match of_tree {
            Some(row) => Some(row.clone()),
            None => row(self.ahead.get(key)?),
        };
        let rows = keys.into_iter();
        Ok(match order {
            Order::Ascending => rows.filter_map(found).take(limit).collect(),
            Order::Descending => rows.rev().filter_map(found).take(limit).collect(),
        })
    }
}

fn insert(half: &mut Half, put: StoredPut) {
    half.insert(put.key.into(), Newest { version: put.version, value: put.value.map(Arc::from) });
}

fn row((key, newest): (&Arc<str>, &Newest)) -> Option<Row> {
    Some(Row { key: key.to_string(), version: newest.version, value: newest.value.as_ref()?.to_vec() })
}

/// The locks guard what is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
