//! The rows of a backup, in order and complete, once one of its key slots was opened.

use std::io::{ErrorKind, Read};

use claviger_hsm::Envelope;

use super::{BackupError, Contents, Header, Link, MAGIC, MAX_FRAME, MAX_HEADER, MAX_ROW_KEY, VERSION, digest, place};
use crate::journal::store::{MAX_ROW, Row};
use crate::journal::{Check, Verified};
use crate::keys::cipher::{OVERHEAD, RecordCipher};
use crate::keys::data_key::DataKey;
use crate::keys::purpose::Purpose;

/// A backup of which nothing is believed yet: its header is as it stands in the file.
#[derive(Debug)]
pub struct Closed<R> {
    input: R,
    header: Header,
    envelope: Envelope,
    /// Everything in front of the first part.
    beginning: Vec<u8>,
}

/// A backup whose data key is known.
pub struct Opened<R> {
    closed: Closed<R>,
    seal: RecordCipher,
    records: RecordCipher,
}

impl<R: Read> Closed<R> {
    /// Reads the beginning of a backup.
    pub fn read(mut input: R) -> Result<Self, BackupError> {
        let mut beginning = vec![0; MAGIC.len() + 6];
        match input.read_exact(&mut beginning) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(BackupError::NotABackup),
            read => read?,
        }
        let fixed = beginning.strip_prefix(MAGIC.as_slice()).ok_or(BackupError::NotABackup)?;
        let (version, length) = fixed.split_first_chunk().ok_or(BackupError::NotABackup)?;
        let found = u16::from_be_bytes(*version);
        if found > VERSION {
            return Err(BackupError::NewerVersion { found });
        }
        let length = length.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
        let length = length.filter(|length| found == VERSION && *length <= MAX_HEADER);
        let text = exactly(&mut input, length.ok_or(BackupError::Damaged { part: 0 })?, 0)?;
        beginning.extend_from_slice(&text);
        let header: Header = serde_json::from_slice(&text).map_err(|_| BackupError::Damaged { part: 0 })?;
        let envelope = Envelope::decode(header.keyslots.as_bytes())?;
        Ok(Self { input, header, envelope, beginning })
    }

    /// The header, as it stands there.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Everything in front of the first part.
    pub fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// What every part is bound to, and the segment after it.
    pub(super) fn digest(&self) -> [u8; 32] {
        digest(&self.beginning)
    }

    /// The key slots, one of which opens it.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The same, with the data key of one of its slots.
    pub fn open(self, data_key: &DataKey) -> Opened<R> {
        let (seal, records) = (data_key.cipher(Purpose::Backup), data_key.cipher(Purpose::Records));
        Opened { closed: self, seal, records }
    }
}

impl<R: Read> Opened<R> {
    /// The header. It authenticates with the first part, so believe it only once [`Opened::check`] has passed.
    pub fn header(&self) -> &Header {
        &self.closed.header
    }

    /// Reads the rest and checks all of it: that each part is where it was written and none is missing, and that the journal
    /// is whole, record by record, as `journal verify` does. Each part's rows are handed to `take` as soon as they
    /// authenticate, before the whole is known to be good.
    pub fn check(
        self,
        take: &mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>,
    ) -> Result<(Contents, Verified), BackupError> {
        if let Some(Link { segment, .. }) = self.closed.header.link {
            return Err(BackupError::OneSegment { segment });
        }
        let Self { closed, seal, records } = self;
        let mut check = Check::new(&records);
        let contents = parts(closed, &seal, &mut |rows| {
            rows.iter().try_for_each(|row| check.row(row))?;
            take(rows)
        })?;
        Ok((contents, check.finish()?))
    }
}

impl<R: Read> Closed<R> {
    fn array<const N: usize>(&mut self, part: u64) -> Result<[u8; N], BackupError> {
        let bytes = exactly(&mut self.input, N, part)?;
        bytes.try_into().map_err(|_| BackupError::Truncated { part })
    }
}

/// Reads the rest of a file: each part is where it was written, and none is missing. Each part's rows are handed to `take` as
/// soon as they authenticate.
pub(super) fn parts<R: Read>(
    mut closed: Closed<R>,
    seal: &RecordCipher,
    take: &mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>,
) -> Result<Contents, BackupError> {
    let beginning = closed.digest();
    let mut contents = Contents { rows: 0, bytes: closed.beginning.len() as u64 };
    for part in 1.. {
        let [last, length @ ..] = closed.array::<5>(part)?;
        let length = u32::from_be_bytes(length) as usize;
        if last > 1 || length > MAX_FRAME + OVERHEAD {
            return Err(BackupError::Damaged { part });
        }
        let sealed = exactly(&mut closed.input, length, part)?;
        contents.bytes += 5 + sealed.len() as u64;
        let plain = seal.open(&place(&beginning, part, last == 1), &sealed);
        let rows = plain.ok().and_then(|plain| rows(&plain)).ok_or(BackupError::Damaged { part })?;
        contents.rows += rows.iter().filter(|row| row.version > 0).count() as u64;
        take(rows)?;
        if last == 1 {
            break;
        }
    }
    if closed.input.read(&mut [0])? != 0 {
        return Err(BackupError::TooLong);
    }
    Ok(contents)
}

/// Reads `length` bytes of part `part`; memory is taken as they come, not as the file says.
fn exactly(input: &mut impl Read, length: usize, part: u64) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    input.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(BackupError::Truncated { part }) }
}

/// The rows in an opened part.
fn rows(mut plain: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !plain.is_empty() {
        let key = text(&mut plain, MAX_ROW_KEY)?;
        let (version, rest) = plain.split_first_chunk()?;
        plain = rest;
        let value = text(&mut plain, MAX_ROW)?.to_vec();
        let key = std::str::from_utf8(key).ok()?.to_owned();
        rows.push(Row { key, version: u64::from_be_bytes(*version), value });
    }
    Some(rows)
}

/// A length and as many bytes, at most `limit`.
fn text<'p>(plain: &mut &'p [u8], limit: usize) -> Option<&'p [u8]> {
    let (length, rest) = plain.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= limit)?;
    let (text, rest) = rest.split_at_checked(length)?;
    *plain = rest;
    Some(text)
}
