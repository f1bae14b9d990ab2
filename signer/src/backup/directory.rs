//! The segments in a directory, and that each continues the one before.
//!
//! `GENERATION-SEGMENT.segment`, six digits each: a new base begins a new generation. The generation before stays until the
//! new one is a whole.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::merge::Merge;
use super::segment::Position;
use super::{BackupError, Closed, Contents, Link};
use crate::journal::Verified;
use crate::journal::store::Row;
use crate::keys::data_key::DataKey;
use crate::keys::purpose::Purpose;

/// A file in which a segment is written before it has its name.
const ASIDE: &str = "next.partial";

/// The paths of the segments there are, by generation and number.
type Found = BTreeMap<(u32, u32), PathBuf>;

fn file_name(generation: u32, segment: u32) -> String {
    format!("{generation:06}-{segment:06}.segment")
}

fn find(dir: &Path) -> io::Result<Found> {
    let mut found = Found::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_suffix(".segment").and_then(|name| name.split_once('-'));
        if let Some((Ok(generation), Ok(segment))) = numbers.map(|(a, b)| (a.parse(), b.parse()))
            && name == file_name(generation, segment)
        {
            found.insert((generation, segment), path);
        }
    }
    Ok(found)
}

/// The segments of one base up to the latest one, each of which continues the one before. Nothing in them is believed yet.
pub struct Chain {
    segments: Vec<PathBuf>,
    last: Closed<BufReader<File>>,
}

impl Chain {
    /// Those in `dir`: of the latest base that is a whole, up to segment `until` if one is named.
    pub fn read(dir: &Path, until: Option<u32>) -> Result<Self, BackupError> {
        let found = find(dir)?;
        let mut generations: Vec<_> = found.keys().map(|(generation, _)| *generation).collect();
        generations.dedup();
        let mut unfinished = None;
        for generation in generations.into_iter().rev() {
            let up_to = |last| found.range((generation, 0)..=(generation, last));
            let last = |last| -> Result<_, BackupError> {
                let Some(((_, segment), path)) = up_to(last).next_back() else { return Err(BackupError::NoSegments) };
                let closed = closed(path).map_err(|error| error.of(*segment))?;
                let whole = closed.header().link.as_ref().is_none_or(|link| link.whole);
                if whole { Ok(closed) } else { Err(BackupError::Unfinished { last: *segment }) }
            };
            match last(u32::MAX) {
                // The one before it is still there.
                Err(error @ BackupError::Unfinished { .. }) => drop(unfinished.get_or_insert(error)),
                latest => {
                    let latest = latest?;
                    let latest = until.map_or(Ok(latest), last)?;
                    let segments = up_to(until.unwrap_or(u32::MAX));
                    let numbered = segments.map(|((_, segment), path)| (*segment, path.clone())).collect();
                    return Self::linked(numbered, latest);
                }
            }
        }
        Err(unfinished.unwrap_or(BackupError::NoSegments))
    }

    fn linked(numbered: Vec<(u32, PathBuf)>, last: Closed<BufReader<File>>) -> Result<Self, BackupError> {
        let mut before: Option<(Link, [u8; 32])> = None;
        for (segment, (found, path)) in (0..).zip(&numbered) {
            if *found != segment {
                return Err(BackupError::Missing { segment });
            }
            let closed = closed(path).map_err(|error| error.of(segment))?;
            let link = closed.header().link.clone().ok_or(BackupError::Unchained { segment })?;
            let (base, digest) = before.as_ref().map_or((link.base, [0; 32]), |(link, digest)| (link.base, *digest));
            if (link.segment, link.base, link.before) != (segment, base, digest) {
                return Err(BackupError::Unchained { segment });
            }
            before = Some((link, closed.digest()));
        }
        Ok(Self { segments: numbered.into_iter().map(|(_, path)| path).collect(), last })
    }

    /// The latest segment: its key slots open all of them.
    pub fn last(&self) -> &Closed<BufReader<File>> {
        &self.last
    }

    /// How many there are.
    pub fn segments(&self) -> u32 {
        self.segments.len() as u32
    }

    /// Reads all and checks all, as [`Opened::check`](super::Opened::check) does: what is handed to `take` are the rows of the
    /// last moment.
    pub fn check(
        &self,
        data_key: &DataKey,
        take: &mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>,
    ) -> Result<(Contents, Verified), BackupError> {
        let (seal, records) = (data_key.cipher(Purpose::Backup), data_key.cipher(Purpose::Records));
        let read = |segment: usize, take: &mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>| {
            let number = segment as u32;
            let closed = closed(&self.segments[segment]).map_err(|error| error.of(number))?;
            super::read::parts(closed, &seal, take).map_err(|error| error.of(number))
        };
        let mut base = 0;
        loop {
            let number = base as u32;
            let path = self.segments.get(base).ok_or(BackupError::Unfinished { last: number })?;
            let header = closed(path).map_err(|error| error.of(number))?.header().clone();
            base += 1;
            let position = header.link.as_ref().and_then(|link| Position::open(link, &seal));
            if position.ok_or(BackupError::Damaged { part: 0 }.of(number))?.is_past_base() {
                break;
            }
        }
        let mut merge = Merge::new(&records, take);
        for segment in base..self.segments.len() {
            read(segment, &mut |rows| merge.change(rows))?;
            merge.end_of_changes();
        }
        for segment in 0..base {
            read(segment, &mut |rows| merge.base(rows))?;
        }
        merge.end_of_base()?;
        for segment in base..self.segments.len() {
            // Read once more rather than kept.
            read(segment, &mut |rows| merge.decisions(rows))?;
        }
        let verified = merge.finish()?;
        Ok((Contents { rows: verified.records, bytes: self.bytes()? }, verified))
    }

    fn bytes(&self) -> Result<u64, BackupError> {
        self.segments.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
    }
}

fn closed(path: &Path) -> Result<Closed<BufReader<File>>, BackupError> {
    Closed::read(BufReader::new(File::open(path)?))
}

/// A segment that has its place in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which base it belongs to, from 1.
    pub generation: u32,
    /// Its number, from 0.
    pub segment: u32,
}

/// A directory that segments are written into, by one process at a time.
pub struct Directory {
    path: PathBuf,
    lock: File,
    /// Of the latest base; 0 before the first.
    generation: u32,
    /// The latest segment's place, and its beginning: where the next one goes on.
    last: Option<Link>,
    after: Vec<u8>,
    /// Bytes of the base and of what follows it.
    base: u64,
    changes: u64,
}

impl Directory {
    /// What follows a base may be as large as this, however small the base is.
    const SMALL: u64 = 64 << 20;
    /// What follows a base may be so many segments.
    const MANY: u32 = 20_000;

    /// Takes `path` for this process; makes the directory (mode 0700; its parent must exist) if there is none. What was left
    /// half written is removed. If `new_base`, what is there is not looked at, and stays until the new base is a whole.
    pub fn open(path: &Path, new_base: bool) -> Result<Self, BackupError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => File::open(path.join(".."))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let lock = File::open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let found = find(path)?;
        let generation = found.last_key_value().map_or(0, |((generation, _), _)| *generation);
        let (last, after) = (None, Vec::new());
        let mut directory = Self { path: path.to_owned(), lock, generation, last, after, base: 0, changes: 0 };
        match fs::remove_file(directory.aside()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if new_base {
            return Ok(directory);
        }
        for (segment, ((_, number), path)) in (0..).zip(found.range((generation, 0)..)) {
            if *number != segment {
                return Err(BackupError::Missing { segment });
            }
            let closed = closed(path).map_err(|error| error.of(segment))?;
            let link = closed.header().link.clone().filter(|link| link.segment == segment);
            let link = link.ok_or(BackupError::Unchained { segment })?;
            directory.adopt(link, closed.beginning().to_vec(), fs::metadata(path)?.len());
        }
        directory.prune()?;
        Ok(directory)
    }

    /// The beginning of the latest segment; empty before the first.
    pub fn after(&self) -> &[u8] {
        &self.after
    }

    /// Whether what follows the base has outgrown it.
    pub fn is_outgrown(&self) -> bool {
        let many = self.last.as_ref().is_some_and(|last| last.segment >= Self::MANY);
        many || self.changes > self.base.max(Self::SMALL)
    }

    /// A file for the next segment, whose bytes are written by whoever asked.
    pub fn begin(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.aside())
    }

    /// Gives `written`, which [`Directory::begin`] made and which is complete, its place; it is durable then. Once a new base is
    /// a whole, the ones before are removed.
    pub fn end(&mut self, written: &File) -> Result<Segment, BackupError> {
        written.sync_all()?;
        let closed = closed(&self.aside())?;
        let link = closed.header().link.clone().ok_or(BackupError::NotABackup)?;
        let follows = |last: &Link| (link.segment, link.base) == (last.segment + 1, last.base);
        let generation = match &self.last {
            _ if link.segment == 0 => self.generation + 1,
            Some(last) if follows(last) => self.generation,
            _ => return Err(BackupError::Unchained { segment: link.segment }),
        };
        let place = Segment { generation, segment: link.segment };
        fs::rename(self.aside(), self.path.join(file_name(generation, link.segment)))?;
        self.lock.sync_all()?;
        self.generation = generation;
        self.adopt(link, closed.beginning().to_vec(), written.metadata()?.len());
        self.prune()?;
        Ok(place)
    }

    /// Removes what [`Directory::begin`] made.
    pub fn give_up(&self) {
        let _ = fs::remove_file(self.aside()); // the next one writes over it
    }

    fn adopt(&mut self, link: Link, beginning: Vec<u8>, bytes: u64) {
        if link.segment == 0 {
            (self.base, self.changes) = (0, 0);
        }
        // What is not a whole, and what makes it one, is the base's.
        let base = link.segment == 0 || self.last.as_ref().is_some_and(|before| !before.whole);
        if base {
            self.base += bytes
        } else {
            self.changes += bytes
        }
        (self.last, self.after) = (Some(link), beginning);
    }

    fn prune(&self) -> Result<(), BackupError> {
        if self.last.as_ref().is_some_and(|last| last.whole) {
            for path in find(&self.path)?.range(..(self.generation, 0)).map(|(_, path)| path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn aside(&self) -> PathBuf {
        self.path.join(ASIDE)
    }
}
