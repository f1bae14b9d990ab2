//! A write-ahead file: batches one after another, each with one write and one flush. A [`super::LoggedStore`] keeps here what
//! its tree does not have yet.
//!
//! The file has a fixed size and is written in full when it is made, so that a flush has no sizes or places to record. It is
//! filled in rounds, by turns in one half and in the other: the tree takes what one half holds while the other is filled.
//!
//! | bytes | hold |
//! |---|---|
//! | 0, 512 | the headers of even and of odd rounds: the one with the greater round counts |
//! | from 1024, and from the middle of the rest | frames of even and of odd rounds, each from a multiple of 512 |
//!
//! A header is `claviger ahead 2` ‖ round as u64 ‖ where the frames of the round before end, as u64, or 0 if the tree has
//! them ‖ check. A frame is check ‖ length of the body as u32 ‖ body. `check` is the first half of a SHA-256 over all the rest
//! and, in a frame, over the round and the place: what an earlier round left is no frame. A body is the puts, one after
//! another: length of the key as u32 ‖ key ‖ version as u64 ‖ 0 to delete, or 1 ‖ length as u32 ‖ bytes. All numbers are big
//! endian.
//!
//! A frame is written when the one before it is on stable storage. So the first of the last round that does not check is
//! where the power went, and was never acknowledged; unless a good one follows, which says that the file was damaged since.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::{StoreError, StoredPut};

const MAGIC: &[u8; 16] = b"claviger ahead 2";
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
    /// What the last header says.
    last: Header,
    /// Where the next frame goes.
    end: usize,
}

impl Wal {
    /// Opens the file, or makes it if it is new, with `size` bytes; with the batches that the tree may not have, in order.
    pub(super) fn open(disk: Box<dyn Disk>, size: usize) -> Result<(Self, Vec<Vec<StoredPut>>), StoreError> {
        let bytes = disk.read(size)?;
        let mut wal = Self { disk, size, last: Header { round: 0, before: 0 }, end: FRAMES };
        let headers = HEADERS.iter().filter_map(|at| Header::read(bytes.get(*at..at + SECTOR)?));
        let Some(last) = headers.max_by_key(|header| header.round) else {
            // A frame is written after the first header is on stable storage.
            if bytes.iter().skip(FRAMES).any(|byte| *byte != 0) {
                return Err(damaged("neither header checks"));
            }
            wal.make()?;
            return Ok((wal, Vec::new()));
        };
        if bytes.len() < size {
            return Err(damaged("it is cut off"));
        }
        let mut after = wal.half(last.round + 1).step_by(SECTOR);
        if after.any(|at| frame(&bytes, last.round + 1, at).is_some()) {
            return Err(damaged("a header does not check, and what was written after it does"));
        }
        let mut batches = Vec::new();
        if last.before > 0 && wal.read(&bytes, last.round - 1, &mut batches)? as u64 != last.before {
            return Err(damaged("the last frame of a full half does not check"));
        }
        let end = wal.read(&bytes, last.round, &mut batches)?;
        (wal.last, wal.end) = (last, end);
        Ok((wal, batches))
    }

    /// Writes the file in full, and the first header.
    fn make(&mut self) -> Result<(), StoreError> {
        for at in (0..self.size).step_by(PAGE) {
            self.disk.write(at as u64, &[0; PAGE][..PAGE.min(self.size - at)])?;
        }
        self.disk.sync()?;
        self.restart()
    }

    /// Adds the batches of `round` to `batches`; with where they end.
    fn read(&self, bytes: &[u8], round: u64, batches: &mut Vec<Vec<StoredPut>>) -> Result<usize, StoreError> {
        let half = self.half(round);
        let mut end = half.start;
        let bytes = &bytes[..half.end];
        while let Some(body) = frame(bytes, round, end) {
            batches.push(decode(body).ok_or_else(|| damaged("a frame checks and is no batch"))?);
            end += padded(HEAD + body.len());
        }
        if (end..bytes.len()).step_by(SECTOR).any(|at| frame(bytes, round, at).is_some()) {
            return Err(damaged("a frame does not check, and one that follows does"));
        }
        Ok(end)
    }

    /// Where the frames of `round` have their place.
    fn half(&self, round: u64) -> Range<usize> {
        let len = (self.size - FRAMES) / 2 / SECTOR * SECTOR;
        let start = FRAMES + (round % 2) as usize * len;
        start..start + len
    }

    /// Adds `batch`; on `Ok(true)` it is on stable storage. `Ok(false)`: there is no room for it in this round.
    pub(super) fn append(&mut self, batch: &[StoredPut]) -> Result<bool, StoreError> {
        let body = batch.iter().map(encoded_len).sum::<usize>();
        if padded(HEAD + body) > self.half(self.last.round).end - self.end {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(padded(HEAD + body));
        bytes.extend_from_slice(&[0; CHECK]);
        bytes.extend_from_slice(&(body as u32).to_be_bytes());
        batch.iter().for_each(|put| encode(put, &mut bytes));
        let check = check(self.last.round, self.end, &bytes[CHECK..]);
        bytes[..CHECK].copy_from_slice(&check);
        bytes.resize(padded(HEAD + body), 0);
        self.disk.write(self.end as u64, &bytes)?;
        self.disk.sync()?;
        self.end += bytes.len();
        Ok(true)
    }

    /// Whether the tree has all that it held.
    pub(super) fn is_empty(&self) -> bool {
        self.last.before == 0 && self.end == self.half(self.last.round).start
    }

    /// Goes on in the other half: what that one held is in the tree.
    pub(super) fn turn(&mut self) -> Result<(), StoreError> {
        self.begin(self.end as u64)
    }

    /// Begins anew: what both halves hold is in the tree.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.begin(0)
    }

    fn begin(&mut self, before: u64) -> Result<(), StoreError> {
        let next = Header { round: self.last.round + 1, before };
        // Beside the last one, which counts as long as this one does not.
        self.disk.write(HEADERS[(next.round % 2) as usize] as u64, &next.bytes())?;
        self.disk.sync()?;
        (self.end, self.last) = (self.half(next.round).start, next);
        Ok(())
    }
}

struct Header {
    round: u64,
    /// Where the frames of the round before end, or 0 if the tree has them.
    before: u64,
}

impl Header {
    const TEXT: usize = MAGIC.len() + 16;

    fn bytes(&self) -> [u8; SECTOR] {
        let text = [MAGIC.as_slice(), &self.round.to_be_bytes(), &self.before.to_be_bytes()].concat();
        let mut sector = [0; SECTOR];
        sector[..Self::TEXT].copy_from_slice(&text);
        sector[Self::TEXT..][..CHECK].copy_from_slice(&Sha256::digest(&text)[..CHECK]);
        sector
    }

    /// The header in a sector, if it checks.
    fn read(sector: &[u8]) -> Option<Self> {
        let (round, before) = sector.strip_prefix(MAGIC)?.get(..16)?.split_at(8);
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let header = Self { round: number(round)?, before: number(before)? };
        // There is a round before it, if only the one that a new file begins after, and one after it.
        ((1..u64::MAX).contains(&header.round) && sector == header.bytes()).then_some(header)
    }
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
    fn a_full_half_takes_no_more_and_is_there_until_the_one_after_the_next() {
        let disk = TornDisk::new(1);
        let (mut wal, _) = open(&disk).unwrap();
        let large = [StoredPut { key: "large".to_owned(), version: 1, value: Some(vec![1; 8 << 10]) }];
        let taken = (0..9).take_while(|_| wal.append(&large) == Ok(true)).count();
        assert_eq!(taken, 3);
        assert_eq!(wal.append(&batch(1)), Ok(true), "there is room for little");
        let found = || open(&disk).unwrap().1;
        assert_eq!(found().len(), 4);
        wal.turn().unwrap();
        assert_eq!(found().len(), 4);
        assert_eq!(wal.append(&batch(2)), Ok(true));
        assert_eq!(found()[3..], [batch(1), batch(2)]);
        wal.turn().unwrap();
        assert_eq!(wal.append(&batch(3)), Ok(true));
        assert_eq!(found(), [batch(2), batch(3)]);
    }

    #[test]
    fn the_end_of_a_full_half_is_known() {
        let disk = TornDisk::new(1);
        filled(&disk);
        let (mut wal, _) = open(&disk).unwrap();
        let (last, end) = (wal.end, wal.end + (wal.end - wal.half(1).start) / 3);
        assert_eq!(wal.append(&batch(4)), Ok(true));
        assert_eq!(wal.end, end);
        wal.turn().unwrap();
        disk.write(last as u64, b"damaged").unwrap();
        assert!(matches!(open(&disk), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn a_torn_last_frame_is_none_and_a_damaged_one_before_it_is_named() {
        let disk = TornDisk::new(1);
        filled(&disk);
        let first = open(&disk).unwrap().0.half(1).start;
        let second = first + padded(HEAD + batch(1).iter().map(encoded_len).sum::<usize>());
        let third = second + (second - first);
        let flipped = |at: usize| {
            let disk = disk.copy();
            let byte = disk.read(64 << 10).unwrap()[at];
            disk.write(at as u64, &[byte ^ 1]).unwrap();
            open(&disk).map(|(_, batches)| batches.len())
        };
        for at in third..third + HEAD + 700 {
            assert_eq!(flipped(at), Ok(2), "{at}");
        }
        for at in (first..third).filter(|at| at % 97 == 0) {
            // What pads a frame says nothing.
            let found = flipped(at);
            assert!(found == Ok(3) || matches!(found, Err(StoreError::Damaged(_))), "{at}: {found:?}");
        }
        assert!(matches!(flipped(second), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn the_last_header_is_enough_and_what_follows_a_damaged_one_is_damage() {
        let torn = TornDisk::new(1);
        filled(&torn);
        open(&torn).unwrap().0.restart().unwrap(); // both are there now
        let disk = torn.copy();
        torn.write(0, b"torn").unwrap();
        assert_eq!(open(&torn).unwrap().1, [batch(1), batch(2), batch(3)], "the power went while it was written");

        let mut wal = open(&disk).unwrap().0;
        let first = wal.end as u64;
        wal.append(&batch(4)).unwrap();
        wal.append(&batch(5)).unwrap();
        let damaged = |places: &[u64]| {
            let disk = disk.copy();
            places.iter().for_each(|at| disk.write(*at, b"damaged").unwrap());
            open(&disk).map(|(_, batches)| batches.len())
        };
        assert_eq!(damaged(&[SECTOR as u64]), Ok(2), "the header of the round before");
        for places in [&[0][..], &[0, SECTOR as u64], &[0, first], &[first]] {
            assert!(matches!(damaged(places), Err(StoreError::Damaged(_))), "{places:?}");
        }
    }

    #[test]
    fn a_file_that_was_begun_is_made_and_one_that_lost_a_part_is_damaged() {
        let disk = TornDisk::new(1);
        for round in [0, u64::MAX] {
            disk.write(0, &Header { round, before: 1 }.bytes()).unwrap(); // of no file
        }
        disk.write(SECTOR as u64, &MAGIC[..9]).unwrap(); // the power went while the first header was written
        filled(&disk);
        let size = disk.read(usize::MAX).unwrap().len();
        let lost = |part: Range<usize>| {
            let disk = disk.copy();
            disk.write(part.start as u64, &vec![0; part.len()]).unwrap();
            open(&disk).map(|(_, batches)| batches.len())
        };
        assert!(matches!(lost(0..PAGE), Err(StoreError::Damaged(_))));
        assert!(matches!(lost(0..FRAMES), Err(StoreError::Damaged(_))));
        assert_eq!(lost(FRAMES..size / 2), Ok(3), "the half that holds nothing");
        redb::StorageBackend::set_len(&disk, size as u64 - 1).unwrap();
        assert!(matches!(open(&disk), Err(StoreError::Damaged(_))));
    }
}
