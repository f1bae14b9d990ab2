//! Why the journal cannot be opened or read, and what is wrong with a damaged one.

use super::commit::{CommitError, InvalidCommit};
use super::head::FORMAT;
use super::record::BadRecord;
use super::store::StoreError;

/// The journal cannot be opened or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The store under it failed.
    #[error("the journal's store failed: {0}")]
    Store(#[from] StoreError),
    /// Written by a newer version of Claviger.
    #[error("the journal has format {found}; this version knows formats up to {FORMAT}")]
    NewerFormat {
        /// The format it names.
        found: u16,
    },
    /// The first record does not open.
    #[error("the data key does not open this journal, or its first record is damaged")]
    WrongKey,
    /// A record is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Commits fail, so no state is handed out that may not be what the disk holds.
    #[error("the journal is not available: {0}")]
    Unavailable(CommitError),
    /// It was asked for what changed since a moment that it has not been through.
    #[error("the journal is older than what followed it, or has gone on from an older copy")]
    Diverged,
    /// A check was ended by who asked for it.
    #[error("the check was interrupted")]
    Interrupted,
    /// Not a tenant's name.
    #[error(transparent)]
    Name(#[from] InvalidCommit),
}

impl JournalError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(error) => error.hint(),
            Self::NewerFormat { .. } => "Start the version of Claviger that wrote this data directory, or a newer one.",
            Self::WrongKey => {
                "Check that key slots and journal belong to the same data directory; else restore both from one backup."
            }
            Self::Damaged(_) => {
                "Keep a copy of the file, stop signing with it, and restore from a backup. `claviger journal verify --offline` names the first bad record."
            }
            Self::Unavailable(error) => error.hint(),
            Self::Diverged => {
                "Find out which state is the latest before anything is signed (docs/rollback.md); if it is this one, follow it into another directory."
            }
            Self::Interrupted => "Run it again.",
            Self::Name(_) => "Use 1–64 of a-z, 0-9 and '-'.",
        }
    }
}

/// The first bad record that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal's record '{key}': {what}")]
pub struct Damage {
    /// The record's key in the store.
    pub key: String,
    /// What is wrong with it.
    pub what: DamageKind,
}

impl Damage {
    pub(super) fn new(key: impl Into<String>, what: DamageKind) -> Self {
        Self { key: key.into(), what }
    }

    /// The number of the decision or checkpoint, where the record is one.
    pub fn seq(&self) -> Option<u64> {
        super::record::number_of(&self.key)
    }
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// It cannot be opened.
    #[error("{0}")]
    Record(#[from] BadRecord),
    /// It must exist and does not.
    #[error("it is missing")]
    Missing,
    /// It stands beyond the end of the chain, or under a key that the journal does not use.
    #[error("it should not be there")]
    Unexpected,
    /// Its hash does not follow from the decision before it.
    #[error("it does not continue the chain of decisions")]
    Chain,
    /// The decision it names has another hash, or the checkpoint before it is gone.
    #[error("it does not match the chain of decisions")]
    Checkpoint,
    /// The checkpoint that a device key signed has another signature.
    #[error("its signature is not the device key's")]
    Signature,
    /// The log was written anew since.
    #[error("it is not the decision that the device key signed")]
    OtherThanSigned,
    /// Entries were removed, added or rolled back to older contents: each one authenticates, together they are not
    /// the last state.
    #[error(
        "the entries are not those of the last state: {found} found, {expected} counted, or an older version of one"
    )]
    State {
        /// Entries found.
        found: u64,
        /// Entries the head counts.
        expected: u64,
    },
    /// The store cannot read what follows this record.
    #[error("what follows it cannot be read: {0}")]
    Unreadable(StoreError),
}
