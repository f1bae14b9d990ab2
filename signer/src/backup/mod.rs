//! Backups: the whole appliance in one encrypted file that describes itself. The format is `docs/backup.md`.
//!
//! ```text
//! mod.rs     the format, and why a file is refused
//! write.rs   a journal as it is at one moment, turned into the file's bytes
//! read.rs    the file's rows, in order and complete, once a key slot in it was opened
//! ```

mod read;
mod write;

#[cfg(test)]
mod tests;

use std::io;

use claviger_hsm::EnvelopeError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal::JournalError;

pub use read::{Closed, Opened};
pub use write::write;

/// First bytes of every backup, in front of its version.
const MAGIC: &[u8; 16] = b"claviger backup\n";
/// The version this program writes, and the newest it reads.
const VERSION: u16 = 1;
/// The longest header: key slots and settings, with room to spare.
const MAX_HEADER: usize = 1 << 20;
/// Rows are gathered into a frame until it has so many bytes.
const FRAME: usize = 256 << 10;
/// The longest frame: one that was almost full, and the largest row.
const MAX_FRAME: usize = FRAME + crate::journal::store::MAX_ROW + MAX_ROW_KEY + 64;
/// The longest key of a row.
const MAX_ROW_KEY: usize = 1024;

/// What a backup tells before it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// The file `keyslots` as it was then: any of its slots opens the backup.
    pub keyslots: String,
    /// The settings, `claviger.toml`.
    pub config: String,
}

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows of the journal.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why a backup cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The file is something else.
    #[error("this is not a backup of Claviger")]
    NotABackup,
    /// Written by a newer Claviger.
    #[error("the backup has format version {found}, this program knows version {VERSION}")]
    NewerVersion {
        /// The version in the file.
        found: u16,
    },
    /// The file ends too early.
    #[error("the backup is cut off: it ends in part {part}")]
    Truncated {
        /// Which part, from 1; 0 is the header.
        part: u64,
    },
    /// A part is not what was written, or not where it was written.
    #[error("part {part} of the backup was changed since it was made")]
    Damaged {
        /// Which part, from 1; 0 is the header.
        part: u64,
    },
    /// Something follows the last part.
    #[error("something was added to the backup since it was made")]
    TooLong,
    /// Its key slots cannot be read or opened.
    #[error("the backup's key slots: {0}")]
    Slots(#[from] EnvelopeError),
    /// The journal in it, or the one to be saved, is not whole.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operating system refused.
    #[error("input/output error: {0}")]
    Io(io::ErrorKind),
    /// The reader left, or the signer closes.
    #[error("the backup was interrupted")]
    Interrupted,
}

impl BackupError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotABackup => "Name a file that `claviger backup create` wrote.",
            Self::NewerVersion { .. } => "Use the version of Claviger that made it, or a newer one.",
            Self::Truncated { .. } | Self::Damaged { .. } | Self::TooLong => {
                "Copy the file again from where it is kept, or use another backup."
            }
            Self::Slots(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Io(_) => "Check the disk, its free space and the permissions along the path.",
            Self::Interrupted => "Run it again while the signer is unsealed.",
        }
    }
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Binds a frame to the file's beginning and its place in it. Only the last one is `last`, so none can be left out,
/// moved, or taken from another backup.
fn place(beginning: &[u8; 32], part: u64, last: bool) -> Vec<u8> {
    [b"claviger backup\0".as_slice(), beginning, &part.to_be_bytes(), &[u8::from(last)]].concat()
}

/// The digest of everything in front of the first frame.
fn digest(beginning: &[u8]) -> [u8; 32] {
    Sha256::digest(beginning).into()
}
