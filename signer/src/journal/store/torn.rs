//! A simulated disk under redb: it runs full, turns read-only, fails to flush, and loses or tears what was not flushed
//! when the power goes.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, Database, StorageBackend};

use super::wal;
use super::{LoggedStore, RedbStore, StoreError};

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct TornDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    /// What reads see.
    seen: Vec<u8>,
    /// What was flushed, and the writes since.
    flushed: Vec<u8>,
    unflushed: Vec<Write>,
    fails: Option<ErrorKind>,
    /// It cannot grow.
    full: bool,
    power: Power,
    random: fastrand::Rng,
}

/// Writes until the power goes, on all disks that it feeds.
type Power = Arc<Mutex<Option<u64>>>;

#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

impl TornDisk {
    /// An empty disk; `seed` decides what a power cut leaves.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(Disk::new(Vec::new(), fastrand::Rng::with_seed(seed)))
    }

    fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }

    /// A store on this disk.
    pub(super) fn open(&self) -> std::result::Result<RedbStore, StoreError> {
        let disk = self.clone();
        let reopen = move || disk.database();
        RedbStore::new(reopen()?, Box::new(reopen))
    }

    fn database(&self) -> std::result::Result<Database, StoreError> {
        Ok(Builder::new().set_cache_size(1 << 20).create_with_backend(self.clone())?)
    }

    /// The same bytes on a disk of their own.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.disk();
        let (seen, unflushed) = (disk.seen.clone(), disk.unflushed.clone());
        Self::of(Disk { seen, unflushed, ..Disk::new(disk.flushed.clone(), disk.random.clone()) })
    }

    /// From now on, writes fail so; `None` repairs the disk.
    pub(crate) fn fail(&self, fails: Option<ErrorKind>) {
        self.disk().fails = fails;
    }

    /// The power goes after `writes` more writes: from then on everything fails.
    fn cut_power_after(&self, writes: u64) {
        *self.disk().power.lock().unwrap() = Some(writes);
    }

    /// The disk as found after the power came back: of the writes that were not flushed, any may be there, half there
    /// or missing.
    fn after_power_cut(&self) -> Self {
        let mut disk = self.disk();
        let mut found = disk.flushed.clone();
        for write in disk.unflushed.clone() {
            match (disk.random.u8(..3), write) {
                (0, _) => {}
                (1, Write::Bytes(at, bytes)) => {
                    let half = disk.random.usize(..=bytes.len());
                    Write::Bytes(at, bytes[..half].to_vec()).apply(&mut found);
                }
                (_, write) => write.apply(&mut found),
            }
        }
        Self::of(Disk::new(found, disk.random.fork()))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Disk {
    /// A sound disk with power of its own, on which are `flushed`.
    fn new(flushed: Vec<u8>, random: fastrand::Rng) -> Self {
        let (seen, unflushed, power) = (flushed.clone(), Vec::new(), Power::default());
        Self { seen, flushed, unflushed, fails: None, full: false, power, random }
    }

    fn write(&mut self, write: Write) -> Result<()> {
        self.check()?;
        if self.full && write.end() > self.seen.len() as u64 {
            return Err(ErrorKind::StorageFull.into());
        }
        if let Some(left) = &mut *self.power.lock().unwrap() {
            *left = left.saturating_sub(1);
        }
        write.apply(&mut self.seen);
        self.unflushed.push(write);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match (*self.power.lock().unwrap(), self.fails) {
            (Some(0), _) => Err(ErrorKind::BrokenPipe.into()),
            (_, Some(fails)) => Err(fails.into()),
            _ => Ok(()),
        }
    }
}

impl Write {
    /// How long the file is at least, after it.
    fn end(&self) -> u64 {
        match self {
            Self::Length(length) => *length,
            Self::Bytes(at, bytes) => at + bytes.len() as u64,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Bytes(at, new) => {
                let at = *at as usize;
                if bytes.len() < at + new.len() {
                    bytes.resize(at + new.len(), 0);
                }
                bytes[at..at + new.len()].copy_from_slice(new);
            }
        }
    }
}

/// The two disks of a [`LoggedStore`], fed by the same power.
pub(crate) struct TornDisks {
    tree: TornDisk,
    wal: TornDisk,
}

impl TornDisks {
    pub(crate) fn new(seed: u64) -> Self {
        Self::fed(TornDisk::new(seed), TornDisk::new(seed ^ 0x5555))
    }

    fn fed(tree: TornDisk, wal: TornDisk) -> Self {
        let power = tree.disk().power.clone();
        wal.disk().power = power;
        Self { tree, wal }
    }

    /// A store on them.
    pub(crate) fn open(&self) -> std::result::Result<LoggedStore, StoreError> {
        let wal = self.wal.clone();
        let reopen = move || Ok(Box::new(wal.clone()) as Box<dyn wal::Disk>);
        LoggedStore::new(self.tree.open()?, Box::new(reopen), 64 << 10) // is full often
    }

    /// The tree of these and the write-ahead file of `other`, as they are now.
    pub(crate) fn mixed(&self, other: &Self) -> Self {
        Self::fed(self.tree.copy(), other.wal.copy())
    }

    /// See [`TornDisk::fail`].
    pub(crate) fn fail(&self, fails: Option<ErrorKind>) {
        self.tree.fail(fails);
        self.wal.fail(fails);
    }

    /// From now on there is no room for the tree to grow, or there is again.
    pub(crate) fn fill(&self, full: bool) {
        self.tree.disk().full = full;
    }

    /// The power goes after `writes` more writes to either: from then on everything fails.
    pub(crate) fn cut_power_after(&self, writes: u64) {
        self.tree.cut_power_after(writes);
    }

    /// See [`TornDisk::after_power_cut`].
    pub(crate) fn after_power_cut(&self) -> Self {
        Self::fed(self.tree.after_power_cut(), self.wal.after_power_cut())
    }
}

impl wal::Disk for TornDisk {
    fn read(&self, most: usize) -> Result<Vec<u8>> {
        let disk = self.disk();
        Ok(disk.seen[..disk.seen.len().min(most)].to_vec())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        StorageBackend::write(self, at, bytes)
    }

    fn sync(&self) -> Result<()> {
        self.sync_data()
    }
}

impl StorageBackend for TornDisk {
    fn len(&self) -> Result<u64> {
        Ok(self.disk().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let (disk, at) = (self.disk(), offset as usize);
        let found = disk.seen.get(at..at + out.len()).ok_or(Error::from(ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk().write(Write::Length(len))
    }

    fn sync_data(&self) -> Result<()> {
        let mut disk = self.disk();
        disk.check()?;
        disk.unflushed.clear();
        disk.flushed = disk.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk().write(Write::Bytes(offset, data.to_vec()))
    }
}
