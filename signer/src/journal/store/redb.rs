//! Rows in one redb file: the tree of a [`super::LoggedStore`].
//!
//! A batch is one transaction with one flush. redb checks pages by checksums when it opens a file that was not closed,
//! and falls back to the previous batch if the last one is torn; our own records are authenticated on top of that.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{AccessGuard, Builder, Database, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{Order, Row, Store, StoreError, StoredPut, View, check_sizes, judge};

/// Key → version (8 bytes, big endian), then the row's bytes.
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

/// A [`Store`] in one file, mode 0600, locked against other processes while open.
pub(super) struct RedbStore {
    /// Opens the file again after an error.
    reopen: Reopen,
    /// Empty after a failed [`Store::recover`].
    database: RwLock<Option<Database>>,
}

type Reopen = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

impl RedbStore {
    /// Opens the file at `path`, or creates it; keeps at most `cache` bytes of pages in memory.
    pub(super) fn open(path: &Path, cache: usize) -> Result<Self, StoreError> {
        create_file(path)?;
        let database = guarded(|| Ok(Builder::new().set_cache_size(cache).create(path)?))?;
        let path: PathBuf = path.to_owned();
        let reopen = move || {
            forget_cached(&File::open(&path)?)?;
            Ok(Builder::new().set_cache_size(cache).open(&path)?)
        };
        Self::new(database, Box::new(reopen))
    }

    /// A store over `database`, which `reopen` opens anew after it failed.
    pub(super) fn new(database: Database, reopen: Reopen) -> Result<Self, StoreError> {
        guarded(|| {
            let write = database.begin_write()?;
            write.open_table(ROWS)?;
            Ok(write.commit()?)
        })?;
        Ok(Self { reopen, database: RwLock::new(Some(database)) })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let slot: RwLockReadGuard<'_, _> = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(database) => guarded(|| work(database)),
            None => Err(StoreError::Io("the file is closed after an error".to_owned())),
        }
    }
}

impl Store for RedbStore {
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError> {
        check_sizes(batch)?;
        self.with(|database| {
            let write = database.begin_write()?; // dropped without commit, it changes nothing
            {
                let mut table = write.open_table(ROWS)?;
                let mut bytes = Vec::new();
                for put in batch {
                    let key = put.key.as_bytes();
                    let Some(value) = &put.value else {
                        if let Some(stored) = table.remove(key)? {
                            judge(put, Some(split(&stored)?))?;
                        }
                        continue;
                    };
                    bytes.clear();
                    bytes.extend_from_slice(&put.version.to_be_bytes());
                    bytes.extend_from_slice(value);
                    // Written first and judged after: one descent of the tree instead of two. An equal row is
                    // overwritten with the same bytes.
                    if let Some(stored) = table.insert(key, bytes.as_slice())? {
                        judge(put, Some(split(&stored)?))?;
                    }
                }
            }
            Ok(write.commit()?)
        })
    }

    fn view(&self) -> Result<Box<dyn View>, StoreError> {
        self.with(|database| Ok(Box::new(RedbView(database.begin_read()?.open_table(ROWS)?)) as Box<dyn View>))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        guarded(|| {
            drop(slot.take()); // releases the lock on the file
            Ok(())
        })?;
        *slot = Some(guarded(&self.reopen)?);
        Ok(())
    }
}

struct RedbView(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl View for RedbView {
    fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        guarded(|| {
            let Some(stored) = self.0.get(key.as_bytes())? else { return Ok(None) };
            let (version, value) = split(&stored)?;
            Ok(Some(Row { key: key.to_owned(), version, value: value.to_vec() }))
        })
    }

    fn version(&self, key: &str) -> Result<Option<u64>, StoreError> {
        guarded(|| match self.0.get(key.as_bytes())? {
            Some(stored) => Ok(Some(split(&stored)?.0)),
            None => Ok(None),
        })
    }

    fn page(&self, from: &str, to: &str, order: Order, limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        guarded(|| {
            let mut range = self.0.range(from.as_bytes()..to.as_bytes())?;
            let next = || match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            std::iter::from_fn(next)
                .take(limit)
                .map(|found| {
                    let (key, stored) = found?;
                    let key = std::str::from_utf8(key.value())
                        .map_err(|_| StoreError::Damaged(format!("a key is not text: {}", hex::encode(key.value()))))?;
                    let (version, value) = split(&stored)?;
                    Ok(Row { key: key.to_owned(), version, value: value.to_vec() })
                })
                .collect()
        })
    }
}

/// A row's version and bytes.
fn split<'a>(stored: &'a AccessGuard<'_, &[u8]>) -> Result<(u64, &'a [u8]), StoreError> {
    match stored.value().split_first_chunk::<8>() {
        Some((version, value)) => Ok((u64::from_be_bytes(*version), value)),
        None => Err(StoreError::Damaged("a row is too short".to_owned())),
    }
}

/// After a failed flush the page cache may hold what the disk does not: `file` is read from the disk.
pub(super) fn forget_cached(file: &File) -> Result<(), StoreError> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).map_err(std::io::Error::from)?)
}

/// Creates an empty file that only its owner can read, and makes its directory entry durable.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(File::open(parent)?.sync_all()?)
        }
    }
}

/// redb panics on some damaged files: that is an error of the file here, not the end of the process (P6).
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged("its pages are not consistent".to_owned())))
}

/// All of redb's errors in our words.
fn translate(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::InUse,
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Io(error.to_string()),
        other => StoreError::Damaged(other.to_string()),
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => { $(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                translate(error.into())
            }
        }
    )* };
}
from_redb!(redb::CommitError, redb::DatabaseError, redb::StorageError, redb::TableError, redb::TransactionError);
