//! What is wrong with a bundle: each error with its file, line and column, and the next step.

use std::fmt;

use serde::Serialize;

use super::FilesError;
use crate::place::Place;
use crate::tooling::CaseError;

/// The most errors that are told at once.
pub const MAX_ERRORS: usize = 100;

/// One thing that is wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BundleError {
    /// Below the bundle's directory.
    pub file: String,
    /// Where in the file; absent if it is about the file as such.
    pub place: Option<Place>,
    /// What is wrong.
    pub fault: BundleFault,
    /// What to do about it.
    pub hint: String,
}

/// What is wrong. Faults of a room of its own come as that room words them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "fault", content = "detail")]
pub enum BundleFault {
    /// Not within the bounds of a bundle, or not one of its files.
    #[error("{0}")]
    File(String),
    /// There is no `policy.toml`.
    #[error("there is no policy.toml")]
    NoPolicy,
    /// Not UTF-8.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// Not TOML, an unknown key, or a value of another type.
    #[error("{0}")]
    Syntax(String),
    /// Versions begin with 1.
    #[error("the version is 0")]
    VersionZero,
    /// A number of the preset: its name, unit or range.
    #[error("{0}")]
    Preset(String),
    /// A rule.
    #[error("{0}")]
    Rule(String),
    /// A number of `[limits]`: its name or range.
    #[error("{0}")]
    Limit(String),
    /// A budget.
    #[error("{0}")]
    Budget(String),
    /// A list.
    #[error("{0}")]
    List(String),
    /// A role or an approval group.
    #[error("{0}")]
    Group(String),
    /// A test.
    #[error("{0}")]
    Test(String),
    /// A line of `allowed_signers`.
    #[error("{0}")]
    AllowedSigners(String),
    /// `unless_approved` names no group.
    #[error("there is no approval group '{0}'")]
    NoSuchGroup(String),
    /// `[signing]` names no role.
    #[error("there is no role '{0}'")]
    NoSuchRole(String),
    /// `[signing]` asks for fewer than one.
    #[error("signing needs at least 1 of the role, not {0}")]
    SigningNeedsNone(u32),
    /// `[signing]` asks for more people than there are with a key that may sign.
    #[error("signing needs {of} of '{role}', who are {people} with a key for it")]
    SigningNeverMet {
        /// The role.
        role: String,
        /// How many must sign.
        of: u32,
        /// How many could.
        people: u32,
    },
}

impl BundleError {
    /// A file that is not UTF-8, at its first bad byte.
    pub(crate) fn not_text(file: &str, contents: &[u8], good: usize) -> Self {
        let readable = std::str::from_utf8(&contents[..good]).unwrap_or_default();
        Self::new(file, Place::of(readable, readable.len()), BundleFault::NotText, "Save the file as UTF-8.")
    }

    /// An error in a file of tests.
    pub(crate) fn of_case(file: &str, error: CaseError) -> Self {
        let hint = error.fault.hint();
        Self::new(file, error.place, BundleFault::Test(error.fault.to_string()), hint)
    }

    pub(super) fn new(
        file: &str,
        place: impl Into<Option<Place>>,
        fault: BundleFault,
        hint: impl Into<String>,
    ) -> Self {
        Self { file: file.to_owned(), place: place.into(), fault, hint: hint.into() }
    }
}

impl From<FilesError> for BundleError {
    fn from(error: FilesError) -> Self {
        Self::new(error.file(), None, BundleFault::File(error.to_string()), error.hint())
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}:{place}: {}", self.file, self.fault),
            None => write!(f, "{}: {}", self.file, self.fault),
        }
    }
}

impl std::error::Error for BundleError {}
