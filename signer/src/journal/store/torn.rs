//! A simulated disk under redb: it runs full, turns read-only, fails to flush, and loses or tears what was not flushed
//! when the power goes.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, Database, StorageBackend};

use super::{RedbStore, StoreError};

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
    /// Writes until the power goes.
    power: Option<u64>,
    random: u64,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

impl TornDisk {
    /// An empty disk; `seed` decides what a power cut leaves.
    pub(crate) fn new(seed: u64) -> Self {
        let (seen, flushed) = (Vec::new(), Vec::new());
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let disk = Disk { seen, flushed, unflushed: Vec::new(), fails: None, power: None, random };
        Self(Arc::new(Mutex::new(disk)))
    }

    /// A store on this disk.
    pub(crate) fn open(&self) -> std::result::Result<RedbStore, StoreError> {
        let disk = self.clone();
        let reopen = move || disk.database();
        RedbStore::new(reopen()?, Box::new(reopen))
    }

    fn database(&self) -> std::result::Result<Database, StoreError> {
        Ok(Builder::new().set_cache_size(1 << 20).create_with_backend(self.clone())?)
    }

    /// From now on, writes fail so; `None` repairs the disk.
    pub(crate) fn fail(&self, fails: Option<ErrorKind>) {
        self.disk().fails = fails;
    }

    /// The power goes after `writes` more writes: from then on everything fails.
    pub(crate) fn cut_power_after(&self, writes: u64) {
        self.disk().power = Some(writes);
    }

    /// The disk as found after the power came back: of the writes that were not flushed, any may be there, half there
    /// or missing.
    pub(crate) fn after_power_cut(&self) -> Self {
        let mut disk = self.disk();
        let mut found = disk.flushed.clone();
        for write in disk.unflushed.clone() {
            match (disk.random() % 3, write) {
                (0, _) => {}
                (1, Write::Bytes(at, bytes)) => {
                    let half = disk.random() as usize % (bytes.len() + 1);
                    Write::Bytes(at, bytes[..half].to_vec()).apply(&mut found);
                }
                (_, write) => write.apply(&mut found),
            }
        }
        let random = disk.random() | 1;
        let disk =
            Disk { seen: found.clone(), flushed: found, unflushed: Vec::new(), fails: None, power: None, random };
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Disk {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn write(&mut self, write: Write) -> Result<()> {
        self.check()?;
        if let Some(left) = &mut self.power {
            *left = left.saturating_sub(1);
        }
        write.apply(&mut self.seen);
        self.unflushed.push(write);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match (self.power, self.fails) {
            (Some(0), _) => Err(ErrorKind::BrokenPipe.into()),
            (_, Some(fails)) => Err(fails.into()),
            _ => Ok(()),
        }
    }
}

impl Write {
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
