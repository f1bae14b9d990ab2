//! Where the journal's records rest: an ordered map with versions, written in atomic and durable batches.
//!
//! The version rule fences a second writer and makes a repeated batch harmless. For each put of a batch, against the
//! row that is stored under the same key:
//!
//! | stored | put | delete |
//! |---|---|---|
//! | nothing | written | nothing to do |
//! | smaller version | replaced | removed |
//! | equal version | identical bytes: nothing to do; else [`StoreError::Conflict`] | [`StoreError::Conflict`] |
//! | greater version | [`StoreError::Stale`] | [`StoreError::Stale`] |
//!
//! One violation refuses the whole batch; the first one is reported. The keys of a batch are distinct. Deleted keys leave nothing behind: the journal writes its head record, whose
//! version grows with every batch, into each batch, so an outdated writer is refused by the head.

mod delay;
mod logged;
mod memory;
mod redb;
mod wal;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
pub(crate) mod torn;

pub use delay::DelayStore;
pub use logged::LoggedStore;
pub use memory::MemoryStore;
use redb::RedbStore;

/// The largest value a store takes, in bytes.
pub const MAX_ROW: usize = 32 << 20;

/// One row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPut {
    /// The row's key.
    pub key: String,
    /// Compared with the stored row's version.
    pub version: u64,
    /// The row's bytes, or `None` to delete it.
    pub value: Option<Vec<u8>>,
}

/// One row as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: String,
    /// The version it was written with.
    pub version: u64,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// Which end of a range a page starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Greatest key first.
    Descending,
}

/// A store of rows.
pub trait Store: Send + Sync {
    /// Writes all of `batch` or nothing; on `Ok` it is on stable storage. After an error that is not
    /// [`StoreError::refuses_batch`] the outcome is unknown until [`Store::recover`] has succeeded.
    fn apply(&self, batch: &[StoredPut]) -> Result<(), StoreError>;

    /// A consistent view of the rows as they are now; later batches do not show in it.
    fn view(&self) -> Result<Box<dyn View>, StoreError>;

    /// After a failed [`Store::apply`]: makes what is read what is on stable storage.
    fn recover(&self) -> Result<(), StoreError>;
}

/// Rows as they were when the view was taken.
pub trait View: Send {
    /// The row under `key`.
    fn get(&self, key: &str) -> Result<Option<Row>, StoreError>;

    /// The version of the row under `key`.
    fn version(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// At most `limit` rows with `from <= key < to`, in `order`.
    fn page(&self, from: &str, to: &str, order: Order, limit: usize) -> Result<Vec<Row>, StoreError>;
}

/// Why a store did not do as told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space, or a quota or file size limit was reached.
    #[error("the disk is full")]
    Full,
    /// The file system or the file is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Any other I/O error.
    #[error("input/output error: {0}")]
    Io(String),
    /// The stored row is newer than the put.
    #[error("'{key}' is stored with version {stored}, newer than {offered}")]
    Stale {
        /// The row's key.
        key: String,
        /// Its version in the store.
        stored: u64,
        /// The version of the put.
        offered: u64,
    },
    /// The stored row has the same version and other bytes.
    #[error("'{key}' is stored with version {version} and other contents")]
    Conflict {
        /// The row's key.
        key: String,
        /// The version of both.
        version: u64,
    },
    /// The row exceeds [`MAX_ROW`].
    #[error("'{key}' has {bytes} bytes, more than a row may have")]
    TooLarge {
        /// The row's key.
        key: String,
        /// Its size.
        bytes: usize,
    },
    /// The file is not what this store wrote.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    InUse,
    /// The operating system does not permit opening the file.
    #[error("no permission to open the store")]
    NotPermitted,
}

impl StoreError {
    /// Whether the store refused the batch before writing anything.
    pub fn refuses_batch(&self) -> bool {
        matches!(self, Self::Stale { .. } | Self::Conflict { .. } | Self::TooLarge { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full => "Free space on the disk of the data directory; signing resumes by itself.",
            Self::ReadOnly => {
                "Make the data directory writable again (see `mount` and `dmesg`); signing resumes by itself."
            }
            Self::Io(_) => "Check the disk (`dmesg`); signing resumes by itself when writing works again.",
            Self::Stale { .. } | Self::Conflict { .. } => "Make sure that only one signer uses this store.",
            Self::TooLarge { .. } => "Report this: no record should be this large.",
            Self::Damaged(_) => "Keep a copy of the file, run `claviger journal verify`, and restore from a backup.",
            Self::InUse => "Stop the other signer that uses this data directory.",
            Self::NotPermitted => "Run as the owner of the data directory.",
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::PermissionDenied => Self::NotPermitted,
            ErrorKind::WouldBlock => Self::InUse,
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

/// What a put does to the stored row, by the version rule above.
enum Effect {
    Write,
    Nothing,
}

/// Applies the version rule to one put; `stored` is the row's version and bytes.
fn judge(put: &StoredPut, stored: Option<(u64, &[u8])>) -> Result<Effect, StoreError> {
    let Some((version, bytes)) = stored else {
        return Ok(if put.value.is_some() { Effect::Write } else { Effect::Nothing });
    };
    match put.version.cmp(&version) {
        std::cmp::Ordering::Greater => Ok(Effect::Write),
        std::cmp::Ordering::Equal if put.value.as_deref() == Some(bytes) => Ok(Effect::Nothing),
        std::cmp::Ordering::Equal => Err(StoreError::Conflict { key: put.key.clone(), version }),
        std::cmp::Ordering::Less => {
            Err(StoreError::Stale { key: put.key.clone(), stored: version, offered: put.version })
        }
    }
}

/// Refuses rows above [`MAX_ROW`] before anything is written.
fn check_sizes(batch: &[StoredPut]) -> Result<(), StoreError> {
    match batch.iter().find(|put| put.value.as_ref().is_some_and(|value| value.len() > MAX_ROW)) {
        Some(put) => Err(StoreError::TooLarge { key: put.key.clone(), bytes: put.value.as_ref().map_or(0, Vec::len) }),
        None => Ok(()),
    }
}

/// Greater than every key: no text comes after it.
pub const LAST_KEY: &str = "\u{10ffff}";

/// The rows of `view` with `from <= key < to` in ascending order, read page by page.
pub fn scan<'v>(view: &'v dyn View, from: &str, to: &str) -> Scan<'v> {
    Scan { view, from: from.to_owned(), to: to.to_owned(), page: Vec::new().into_iter(), finished: false }
}

/// The first key after all keys that start with `prefix`, which ends in an ASCII character.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    if let Some(last) = end.pop() {
        end.push(char::from(last as u8 + 1));
    }
    end
}

/// See [`scan`].
pub struct Scan<'v> {
    view: &'v dyn View,
    from: String,
    to: String,
    page: std::vec::IntoIter<Row>,
    finished: bool,
}

impl Iterator for Scan<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        const PAGE: usize = 128;
        if let Some(row) = self.page.next() {
            return Some(Ok(row));
        }
        if self.finished {
            return None;
        }
        match self.view.page(&self.from, &self.to, Order::Ascending, PAGE) {
            Ok(rows) => {
                self.finished = rows.len() < PAGE;
                if let Some(last) = rows.last() {
                    self.from = format!("{}\0", last.key); // the smallest key after it
                }
                self.page = rows.into_iter();
                self.page.next().map(Ok)
            }
            Err(error) => {
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}
