//! A journal as it is at one moment, turned into the bytes of a backup.

use super::{BackupError, Contents, FRAME, Header, MAGIC, MAX_HEADER, VERSION, digest, place};
use crate::journal::Journal;
use crate::journal::store::Row;
use crate::keys::cipher::RecordCipher;

/// Hands the bytes of a backup of `journal` to `out`, piece by piece, until it returns false. `cipher` is that of
/// [`Purpose::Backup`](crate::keys::purpose::Purpose::Backup). What is committed meanwhile is not in it, and waits for nothing.
pub fn write(
    journal: &Journal,
    header: &Header,
    cipher: &RecordCipher,
    out: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<Contents, BackupError> {
    let mut frames = Frames::begin(header, cipher, out)?;
    journal.rows(&mut |row| frames.row(row))?;
    frames.finish()
}

/// Takes rows, and hands on the bytes of a file.
pub(super) struct Frames<'a> {
    cipher: &'a RecordCipher,
    beginning: [u8; 32],
    /// Of the last frame that was handed over.
    part: u64,
    gathered: Vec<u8>,
    contents: Contents,
    out: &'a mut dyn FnMut(Vec<u8>) -> bool,
}

impl<'a> Frames<'a> {
    /// Begins a file with `header`.
    pub(super) fn begin(
        header: &Header,
        cipher: &'a RecordCipher,
        out: &'a mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<Self, BackupError> {
        let text = serde_json::to_vec(header).expect("numbers and text always encode");
        let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= MAX_HEADER);
        let length = length.ok_or(BackupError::Damaged { part: 0 })?;
        let beginning = [MAGIC.as_slice(), &VERSION.to_be_bytes(), &length.to_be_bytes(), &text].concat();
        let contents = Contents::default();
        let mut frames = Self { cipher, beginning: digest(&beginning), part: 0, gathered: Vec::new(), contents, out };
        frames.put(beginning)?;
        Ok(frames)
    }

    /// Takes a row: length and text of the key, version, length and bytes of the value.
    pub(super) fn row(&mut self, row: &Row) -> Result<(), BackupError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| BackupError::Damaged { part: self.part });
        let (key, value) = (length(row.key.as_bytes())?, length(&row.value)?);
        self.gathered.extend_from_slice(&key.to_be_bytes());
        self.gathered.extend_from_slice(row.key.as_bytes());
        self.gathered.extend_from_slice(&row.version.to_be_bytes());
        self.gathered.extend_from_slice(&value.to_be_bytes());
        self.gathered.extend_from_slice(&row.value);
        self.contents.rows += u64::from(row.version > 0);
        if self.gathered.len() < FRAME { Ok(()) } else { self.frame(false) }
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<Contents, BackupError> {
        self.frame(true)?;
        Ok(self.contents)
    }

    fn frame(&mut self, last: bool) -> Result<(), BackupError> {
        self.part += 1;
        let sealed = self.cipher.seal(&place(&self.beginning, self.part, last), &self.gathered);
        self.gathered.clear();
        let length = u32::try_from(sealed.len()).map_err(|_| BackupError::Damaged { part: self.part })?;
        let mut frame = Vec::with_capacity(5 + sealed.len());
        frame.push(u8::from(last));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&sealed);
        self.put(frame)
    }

    fn put(&mut self, bytes: Vec<u8>) -> Result<(), BackupError> {
        self.contents.bytes += bytes.len() as u64;
        if (self.out)(bytes) { Ok(()) } else { Err(BackupError::Interrupted) }
    }
}
