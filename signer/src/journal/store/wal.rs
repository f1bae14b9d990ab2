//! A write-ahead file: batches one after another, each with one write and one flush. A [`super::LoggedStore`] keeps here what
//! its tree does not have yet.
//!
//! The file has a fixed size and is written in full when it is made, so that a flush has no sizes or places to record.
//!
//! | bytes | hold |
//! |---|---|
//! | 0, 512 | two headers: the one with the greater round counts |
//! | from 1024 | frames, each from a multiple of 512 |
//!
//! A header is `claviger ahead 1` ‖ round as u64 ‖ check. A frame is check ‖ length of the body as u32 ‖ body. `check` is the
//! first half of a SHA-256 over all the rest and, in a frame, over the round and the place: what an earlier round left is no
//! frame. A body is the puts, one after another: length of the key as u32 ‖ key ‖ version as u64 ‖ 0 to delete, or 1 ‖ length as
//! u32 ‖ bytes. All numbers are big endian.
//!
//! A frame is written when the one before it is on stable storage. So the first that does not check is where the power went, and
//! was never acknowledged; unless a good one follows, which says that the file was damaged since.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::{StoreError, StoredPut};

const MAGIC: &[u8; 16] = b"claviger ahead 1";
const SECTOR: usize = 512;
/// By so many bytes the file is made: what a file system is given at once it may keep in one piece, and go through all of it
/// for each later write.
const PAGE: usize = 4096;
const HEADERS: [usize; 2] = [0, SECTOR];
const FRAMES: usize = 2 * SECTOR;
const CHECK: usize = 16;
const HEAD: usize = CHECK + 4;

/// Where the bytes are.
pub(super) trait Disk: Send {
    /// All bytes, if there are no more than `most`; else so many.
    fn read(&self, most: usize) -> io::Result<Vec<u8>>;
    /// Writes `bytes` from `at` on.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written is on stable storage.
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn read(&self, most: usize) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.metadata()?.len()).map_or(most, |len| len.min(most));
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0).map(|()| bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The open file. After an error it is opened again, which tells what is in it.
pub(super) struct Wal {
    disk: Box<dyn Disk>,
    size: usize,
    round: u64,
    /// Where the next frame goes.
    end: usize,
}

impl Wal {
    /// Opens the file, or makes it if it is new, with `size` bytes; with the batches in it, in order.
    pub(super) fn open(disk: Box<dyn Disk>, size: usize) -> Result<(Self, Vec<Vec<StoredPut>>), StoreError> {
        let bytes = disk.read(size)?;
        let headers = bytes.get(..FRAMES).unwrap_or(&bytes);
        // Made in this order: as long as no header is there, nothing else is.
        if headers.iter().all(|byte| *byte == 0) {
            let mut wal = Self { disk, size, round: 0, end: FRAMES };
            for at in (0..size).step_by(PAGE) {
                wal.disk.write(at as u64, &[0; PAGE][..PAGE.min(size - at)])?;
            }
            wal.disk.sync()?;
            wal.restart()?;
            return Ok((wal, Vec::new()));
        }
        let rounds = HEADERS.iter().filter_map(|at| round(bytes.get(*at..at + SECTOR)?));
        let round = rounds.max().ok_or_else(|| damaged("neither header checks"))?;
        let (mut end, mut batches) = (FRAMES, Vec::new());
        while let Some(body) = frame(&bytes, round, end) {
            batches.push(decode(body).ok_or_else(|| damaged("a frame checks and is no batch"))?);
            end += padded(HEAD + body.len());
        }
        if (end..bytes.len()).step_by(SECTOR).any(|at| frame(&bytes, round, at).is_some()) {
            return Err(damaged("a frame does not check, and one that follows does"));
        }
        Ok((Self { disk, size, round, end }, batches))
    }

    /// Adds `batch`; on `Ok(true)` it is on stable storage. `Ok(false)`: there is no room for it.
    pub(super) fn append(&mut self, batch: &[StoredPut]) -> Result<bool, StoreError> {
        let body = batch.iter().map(encoded_len).sum::<usize>();
        if padded(HEAD + body) > self.size - self.end {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(padded(HEAD + body));
        bytes.extend_from_slice(&[0; CHECK]);
        bytes.extend_from_slice(&(body as u32).to_be_bytes());
        batch.iter().for_each(|put| encode(put, &mut bytes));
        let check = check(self.round, self.end, &bytes[CHECK..]);
        bytes[..CHECK].copy_from_slice(&check);
        bytes.resize(padded(HEAD + body), 0);
        self.disk.write(self.end as u64, &bytes)?;
        self.disk.sync()?;
        self.end += bytes.len();
        Ok(true)
    }

    /// Begins anew: what it holds is in the tree.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        let round = self.round + 1;
        let mut header = [MAGIC.as_slice(), &round.to_be_bytes()].concat();
        let check = Sha256::digest(&header);
        header.extend_from_slice(&check[..CHECK]);
        header.resize(SECTOR, 0);
        // Beside the other one, which counts as long as this one does not.
        self.disk.write(HEADERS[(round % 2) as usize] as u64, &header)?;
        self.disk.sync()?;
        (self.round, self.end) = (round, FRAMES);
        Ok(())
    }
}

/// The round that a header names, if it checks.
fn round(header: &[u8]) -> Option<u64> {
    let (text, rest) = header.split_at_checked(MAGIC.len() + 8)?;
    let round = text.strip_prefix(MAGIC)?.try_into().ok()?;
    rest.starts_with(&Sha256::digest(text)[..CHECK]).then(|| u64::from_be_bytes(round))
}

/// The body of the frame at `at`, if it checks.
fn frame(bytes: &[u8], round: u64, at: usize) -> Option<&[u8]> {
    let (stated, rest) = bytes.get(at..)?.split_first_chunk::<CHECK>()?;
    let (len, body) = rest.split_first_chunk::<4>()?;
    let body = body.get(..u32::from_be_bytes(*len) as usize)?;
    (*stated == check(round, at, &rest[..4 + body.len()])).then_some(body)
}

fn check(round: u64, at: usize, bytes: &[u8]) -> [u8; CHECK] {
    let hash: [u8; 32] = Sha256::new_with_prefix(MAGIC)
        .chain_update(round.to_be_bytes())
        .chain_update((at as u64).to_be_bytes())
        .chain_update(bytes)
        .finalize()
        .into();
    *hash.first_chunk().expect("half of it")
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(SECTOR)
}

fn encoded_len(put: &StoredPut) -> usize {
    4 + put.key.len() + 8 + 1 + put.value.as_ref().map_or(0, |value| 4 + value.len())
}

fn encode(put: &StoredPut, out: &mut Vec<u8>) {
    out.extend_from_slice(&(put.key.len() as u32).to_be_bytes());
    out.extend_from_slice(put.key.as_bytes());
    out.extend_from_slice(&put.version.to_be_bytes());
    match &put.value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

fn decode(mut body: &[u8]) -> Option<Vec<StoredPut>> {
    let mut batch = Vec::new();
    while !body.is_empty() {
        let key = std::str::from_utf8(part(&mut body)?).ok()?.to_owned();
        let (version, rest) = body.split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        body = rest;
        let value = match kind {
            0 => None,
            1 => Some(part(&mut body)?.to_vec()),
            _ => return None,
        };
        batch.push(StoredPut { key, version: u64::from_be_bytes(*version), value });
    }
    Some(batch)
}

/// Takes bytes that their length stands before.
fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *bytes = rest;
    Some(part)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the write-ahead file: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::store::torn::TornDisk;

    fn batch(n: u8) -> Vec<StoredPut> {
        let put = |key: &str, value| StoredPut { key: key.to_owned(), version: n.into(), value };
        vec![put("a", Some(vec![n; 700])), put("gone", None), put("empty", Some(Vec::new()))]
    }

    fn open(disk: &TornDisk) -> Result<(Wal, Vec<Vec<StoredPut>>), StoreError> {
        Wal::open(Box::new(disk.clone()), 64 << 10)
    }

    /// A file with three batches.
    fn filled(disk: &TornDisk) {
        let (mut wal, _) = open(disk).unwrap();
        for n in 1..=3 {
            assert_eq!(wal.append(&batch(n)), Ok(true));
        }
    }

    #[test]
    fn batches_come_back_in_order_and_a_new_round_has_none_of_the_old() {
        let disk = TornDisk::new(1);
        filled(&disk);
        let (mut wal, batches) = open(&disk).unwrap();
        assert_eq!(batches, [batch(1), batch(2), batch(3)]);
        wal.restart().unwrap();
        assert_eq!(open(&disk).unwrap().1, Vec::<Vec<_>>::new());
        wal.append(&batch(4)).unwrap();
        assert_eq!(open(&disk).unwrap().1, [batch(4)]);
    }

    #[test]
    fn a_full_file_takes_no_more_and_loses_nothing() {
        let disk = TornDisk::new(1);
        let (mut wal, _) = open(&disk).unwrap();
        let large = [StoredPut { key: "large".to_owned(), version: 1, value: Some(vec![1; 16 << 10]) }];
        let taken = (0..9).take_while(|_| wal.append(&large) == Ok(true)).count();
        assert_eq!(taken, 3);
        assert_eq!(wal.append(&batch(1)), Ok(true), "there is room for little");
        assert_eq!(open(&disk).unwrap().1.len(), 4);
    }

    #[test]
    fn a_torn_last_frame_is_none_and_a_damaged_one_before_it_is_named() {
        let disk = TornDisk::new(1);
        filled(&disk);
        let second = FRAMES + padded(HEAD + batch(1).iter().map(encoded_len).sum::<usize>());
        let third = second + (second - FRAMES);
        let flipped = |at: usize| {
            let disk = disk.copy();
            let byte = disk.read(64 << 10).unwrap()[at];
            disk.write(at as u64, &[byte ^ 1]).unwrap();
            open(&disk).map(|(_, batches)| batches.len())
        };
        for at in third..third + HEAD + 700 {
            assert_eq!(flipped(at), Ok(2), "{at}");
        }
        for at in (FRAMES..third).filter(|at| at % 97 == 0) {
            // What pads a frame says nothing.
            let found = flipped(at);
            assert!(found == Ok(3) || matches!(found, Err(StoreError::Damaged(_))), "{at}: {found:?}");
        }
        assert!(matches!(flipped(second), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn one_header_is_enough_and_none_is_damage() {
        let disk = TornDisk::new(1);
        filled(&disk);
        open(&disk).unwrap().0.restart().unwrap(); // both are there now
        open(&disk).unwrap().0.append(&batch(4)).unwrap();
        disk.write(SECTOR as u64, b"damaged").unwrap();
        assert_eq!(open(&disk).unwrap().1, [batch(4)]);
        disk.write(0, b"damaged").unwrap();
        assert!(matches!(open(&disk), Err(StoreError::Damaged(_))));
    }
}
