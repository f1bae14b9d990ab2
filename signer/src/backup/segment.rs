//! What changed since the segment before, turned into the next one.
//!
//! The first segments are the *base*: all rows in the order of their keys, in pieces, each of its own moment. So an
//! interrupted base goes on with the piece that is missing. The next segment has what changed since the base was begun,
//! which makes the whole of one moment again; the ones after it have what changed since.

use serde::{Deserialize, Serialize};

use claviger_hsm::Envelope;

use super::write::Frames;
use super::{BackupError, Closed, Contents, Header, Link, mark};
use crate::journal::store::Row;
use crate::journal::{Change, Changes, Journal, Mark};
use crate::keys::cipher::RecordCipher;

/// How many bytes of rows a segment of a base has: what an interruption costs.
pub const BASE_SEGMENT: u64 = 64 << 20;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What is in the segment.
    pub contents: Contents,
    /// Whether the directory is not a whole before the next one.
    pub more: bool,
}

/// How far a directory is. Sealed in its last segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// What changed since is not in it.
    since: Mark,
    /// The row that the base goes on after; none once it is finished.
    scanned: Option<String>,
    /// The last batch that the base may have rows of.
    newest: u64,
}

impl Position {
    /// Opens that of `link`. Fails under another data key.
    pub(super) fn open(link: &Link, cipher: &RecordCipher) -> Option<Self> {
        serde_json::from_slice(&cipher.open(&link.place(), &link.position).ok()?).ok()
    }

    fn seal(&self, link: &Link, cipher: &RecordCipher) -> Vec<u8> {
        cipher.seal(&link.place(), &serde_json::to_vec(self).expect("numbers and text always encode"))
    }

    /// Whether the base has ended.
    pub(super) fn is_past_base(&self) -> bool {
        self.scanned.is_none()
    }

    fn is_whole(&self) -> bool {
        self.scanned.is_none() && self.newest <= self.since.version
    }
}

/// Hands the bytes of the segment after the one that begins with the bytes `after` to `out`, piece by piece, until it returns
/// false; nothing if nothing changed. It is the first one of a new base if there is none before it, or if the data key was
/// replaced since. `header` is that of now, without a link; `cipher` is that of
/// [`Purpose::Backup`](crate::keys::purpose::Purpose::Backup); segments of a base have about `base_segment` bytes.
pub fn segment(
    journal: &Journal,
    header: Header,
    cipher: &RecordCipher,
    after: &[u8],
    base_segment: u64,
    out: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<Option<Sent>, BackupError> {
    let before = if after.is_empty() { None } else { before(&Closed::read(after)?, &header, cipher)? };
    let Some((mut link, before)) = before else {
        let mut base = [0; 16];
        getrandom::fill(&mut base).expect("the operating system provides randomness");
        let link = Link { base, segment: 0, before: [0; 32], whole: false, position: Vec::new() };
        let changes = journal.changes(None)?;
        let (since, newest) = (changes.mark(), changes.mark().version);
        let scanned = end_of_piece(&changes, "", since.decisions, base_segment)?;
        let position = Position { since, scanned, newest };
        let of = Piece { header, link, position: &position, cipher };
        return of.send(out, |frames| {
            changes.beginning()?.iter().try_for_each(|row| frames.row(row))?;
            piece(&changes, "", &position, frames)
        });
    };
    link.segment += 1;
    let changes = journal.changes(Some(&before.since))?;
    let now = changes.mark();
    if let Some(after) = &before.scanned {
        let scanned = end_of_piece(&changes, after, before.since.decisions, base_segment)?;
        let position = Position { scanned, newest: now.version.max(before.newest), ..before.clone() };
        let of = Piece { header, link, position: &position, cipher };
        return of.send(out, |frames| piece(&changes, after, &position, frames));
    }
    if now.version == before.since.version {
        return Ok(None);
    }
    let position = Position { since: now, ..before.clone() };
    Piece { header, link, position: &position, cipher }.send(out, |frames| {
        changes.each(&before.since, &mut |change| {
            let none = |key: &str, what| Row { key: key.to_owned(), version: 0, value: vec![what] };
            match change {
                Change::Row(row) => frames.row(row),
                Change::Gone(key) => frames.row(&none(key, mark::GONE)),
                Change::Listed => frames.row(&none("", mark::LISTED)),
                Change::Kept(key) => frames.row(&none(key, mark::KEPT)),
            }
        })
    })
}

/// The link to continue, but for its number, and how far it was; none where a new base is due.
fn before(last: &Closed<&[u8]>, now: &Header, cipher: &RecordCipher) -> Result<Option<(Link, Position)>, BackupError> {
    let envelope = Envelope::decode(now.keyslots.as_bytes())?;
    if last.envelope().installation() != envelope.installation() {
        return Err(BackupError::OtherSigner);
    }
    let link = last.header().link.as_ref().ok_or(BackupError::NotABackup)?;
    // Rows of the base may be sealed with a data key that the key slots forget once all else is sealed anew.
    if last.envelope().previous() != envelope.previous() {
        return Ok(None);
    }
    let position = Position::open(link, cipher);
    Ok(position.map(|position| (Link { before: last.digest(), ..link.clone() }, position)))
}

/// The last row of the piece of a base that begins after the row `after`; none if the base ends with it.
fn end_of_piece(changes: &Changes, after: &str, last: u64, bytes: u64) -> Result<Option<String>, BackupError> {
    let mut size = 0;
    changes.rows(after, last, &mut |row| {
        size += (row.key.len() + row.value.len()) as u64;
        Ok(size < bytes)
    })
}

/// Writes the piece of a base that begins after the row `after`.
fn piece(changes: &Changes, after: &str, position: &Position, frames: &mut Frames<'_>) -> Result<(), BackupError> {
    let end = position.scanned.as_deref();
    let written = changes.rows(after, position.since.decisions, &mut |row| {
        frames.row(row)?;
        Ok(end != Some(&row.key))
    });
    written.map(drop)
}

/// A segment about to be written.
struct Piece<'a> {
    header: Header,
    link: Link,
    position: &'a Position,
    cipher: &'a RecordCipher,
}

impl Piece<'_> {
    fn send(
        self,
        out: &mut dyn FnMut(Vec<u8>) -> bool,
        fill: impl FnOnce(&mut Frames<'_>) -> Result<(), BackupError>,
    ) -> Result<Option<Sent>, BackupError> {
        let Self { header, mut link, position, cipher } = self;
        link.whole = position.is_whole();
        link.position = position.seal(&link, cipher);
        let more = !link.whole;
        let mut frames = Frames::begin(&Header { link: Some(link), ..header }, cipher, out)?;
        fill(&mut frames)?;
        Ok(Some(Sent { contents: frames.finish()?, more }))
    }
}
