//! Backups: the whole appliance in one encrypted file that describes itself, or in a directory of such files that follow the
//! journal. The format is `docs/backup.md`.
//!
//! ```text
//! mod.rs       the format, and why a file is refused
//! write.rs     a journal as it is at one moment, turned into the file's bytes
//! read.rs      the file's rows, in order and complete, once a key slot in it was opened
//! segment.rs   what changed since the segment before, turned into the next one
//! directory.rs the segments in a directory, and that each continues the one before
//! merge.rs     the rows of a directory: those of its base, with what changed since
//! ```

mod directory;
mod merge;
mod read;
mod segment;
mod write;

#[cfg(test)]
mod tests;

use std::io;

use claviger_hsm::EnvelopeError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal::JournalError;

pub use directory::{Chain, Directory, Segment};
pub use read::{Closed, Opened};
pub use segment::{BASE_SEGMENT, Sent, segment};
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
    /// Of a segment, its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// The place of a segment. It is part of the header, which every part of the file is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Drawn at random with each base: what follows it bears the same.
    #[serde(with = "hex::serde")]
    pub base: [u8; 16],
    /// Its number, from 0.
    pub segment: u32,
    /// The digest of everything in front of the first part of the segment before; of the first segment, zeros.
    #[serde(with = "hex::serde")]
    pub before: [u8; 32],
    /// Whether it makes the ones before it a whole. False while the base is being written.
    pub whole: bool,
    /// How far the journal is in the directory, sealed: where the next segment begins.
    #[serde(with = "hex::serde")]
    pub position: Vec<u8>,
}

impl Link {
    /// What the position is bound to.
    fn place(&self) -> Vec<u8> {
        [b"claviger position\0".as_slice(), &self.base, &self.segment.to_be_bytes(), &self.before].concat()
    }
}

/// A row of version 0 is none: its value, one byte, says what is the matter with the entry of its key.
mod mark {
    /// It was deleted.
    pub(super) const GONE: u8 = 0;
    /// All entries but cold ones that stayed are named in this segment; one that is not was deleted. Without a key.
    pub(super) const LISTED: u8 = 1;
    /// It stayed as it was.
    pub(super) const KEPT: u8 = 2;
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
    /// The file is a segment, which is nothing by itself.
    #[error("this is segment {segment} of a directory")]
    OneSegment {
        /// Its number.
        segment: u32,
    },
    /// The directory has no segment.
    #[error("there is no backup in this directory")]
    NoSegments,
    /// The base was not finished, or was asked for without its end.
    #[error("the base is not finished: segments 0 to {last} are not a whole")]
    Unfinished {
        /// Number of the last segment.
        last: u32,
    },
    /// There are later segments, but not this one.
    #[error("segment {segment} is missing")]
    Missing {
        /// Its number.
        segment: u32,
    },
    /// It is another one than its name says, or follows another one than the one before it.
    #[error("segment {segment} does not continue the one before it: it was moved, or taken from another directory")]
    Unchained {
        /// Its number.
        segment: u32,
    },
    /// Something is wrong with one of the segments.
    #[error("segment {segment}: {error}")]
    Segment {
        /// Its number.
        segment: u32,
        /// What.
        error: Box<BackupError>,
    },
    /// The directory is that of another installation.
    #[error("the directory has the backups of another signer")]
    OtherSigner,
    /// Somebody else writes into the directory.
    #[error("another process writes into this directory")]
    InUse,
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
            Self::OneSegment { .. } => "Name the directory that it is in.",
            Self::NoSegments => "Name a directory that `claviger backup create --follow` wrote.",
            Self::Unfinished { .. } => {
                "Let `claviger backup create --follow` finish it: it goes on where it stopped. Otherwise use another backup."
            }
            Self::Missing { .. } | Self::Unchained { .. } => {
                "Copy the directory again from where it is kept, or use what is before that segment: --until N."
            }
            Self::Segment { segment: 1.., error } if error.is_damage() => {
                "Copy the directory again from where it is kept, or use what is before that segment: --until N."
            }
            Self::Segment { error, .. } => error.hint(),
            Self::OtherSigner => "Give each signer a directory of its own.",
            Self::InUse => "One `claviger backup create --follow` for each directory is enough.",
            Self::Slots(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Io(_) => "Check the disk, its free space and the permissions along the path.",
            Self::Interrupted => "Run it again while the signer is unsealed.",
        }
    }
}

impl BackupError {
    /// The same, of segment `segment`.
    fn of(self, segment: u32) -> Self {
        match self {
            Self::Journal(_) | Self::Io(_) | Self::Interrupted | Self::Slots(_) => self,
            error => Self::Segment { segment, error: Box::new(error) },
        }
    }

    fn is_damage(&self) -> bool {
        matches!(self, Self::NotABackup | Self::Truncated { .. } | Self::Damaged { .. } | Self::TooLong)
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
