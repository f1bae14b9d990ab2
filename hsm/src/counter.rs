//! Monotonic counters: numbers that only go up, kept apart from the state whose age they tell (P7).
//!
//! Whoever keeps state writes a `Reading` into it when it increments the counter. State that was set back brings an older
//! reading than the counter gives now. A counter that was deleted and made anew never passes for the one before.

pub mod file;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::slot::Absent;
use crate::tpm::TpmError;

/// A counter on some device.
pub trait Counter {
    /// Makes it. Refuses to touch one that is there: `Exists`.
    fn create(&self) -> Result<Reading, CounterError>;

    /// Reads it and changes nothing.
    fn read(&self) -> Result<Reading, CounterError>;

    /// Adds one, for good: when this returns, no restart and no loss of power takes it back. Devices wear out and slow down by
    /// it: for checkpoints, not for signatures.
    fn increment(&self) -> Result<Reading, CounterError>;
}

/// What a counter said at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Random, of the making of this counter on this device.
    #[serde(with = "crate::hexed")]
    pub id: [u8; 16],
    /// How far it is.
    pub value: u64,
}

/// What a state's reading says against the counter's of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Nothing was counted since.
    Latest,
    /// The state is older: so many increments came after it.
    Older {
        /// How many.
        by: u64,
    },
    /// The counter is behind the state: the counter was set back.
    CounterSetBack,
    /// It is another counter: of another device, or made anew.
    OtherCounter,
}

impl Reading {
    /// How old a state with this reading is when the counter says `now`.
    pub fn age(&self, now: &Self) -> Age {
        if self.id != now.id {
            return Age::OtherCounter;
        }
        match now.value.checked_sub(self.value) {
            Some(0) => Age::Latest,
            Some(by) => Age::Older { by },
            None => Age::CounterSetBack,
        }
    }
}

/// Why a counter did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CounterError {
    /// There is no such counter, or it was deleted.
    #[error("there is no counter at {0}")]
    Missing(String),
    /// There is one already.
    #[error("there is a counter at {0} already")]
    Exists(String),
    /// What is there is no counter of Claviger's.
    #[error("what is at {0} is no counter of Claviger's")]
    Damaged(String),
    /// The device asks to slow down.
    #[error("the counter at {0} was incremented too often for its device")]
    TooFast(String),
    /// It cannot go any further.
    #[error("the counter at {0} is at its end")]
    AtItsEnd(String),
    /// The file cannot be read or written.
    #[error("cannot use {}: {kind}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[serde(with = "crate::cause")]
        kind: io::ErrorKind,
    },
    /// See `TpmError`.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// See `Absent`.
    #[error(transparent)]
    Absent(#[from] Absent),
}

impl CounterError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => "If it was deleted, state may have been set back: decide before making a new one.",
            Self::Exists(_) => "Use it, or choose another place.",
            Self::Damaged(_) => "Choose another place; what is there is left alone.",
            Self::TooFast(_) => "Wait some seconds; have checkpoints less often.",
            Self::AtItsEnd(_) => "Make a counter at another place.",
            Self::File { .. } => "Check the directory, its owner and its free space.",
            Self::Tpm(error) => error.hint(),
            Self::Absent(absent) => absent.hint(),
        }
    }
}
