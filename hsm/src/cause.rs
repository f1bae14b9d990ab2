//! What the operating system said, as the name that Rust has for it: for errors that go from one process to another.

use std::io::ErrorKind;

use serde::{Deserialize, Deserializer, Serializer};

/// Those that opening, starting and writing come to. Others arrive as `Other`.
const NAMED: [ErrorKind; 12] = [
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::AlreadyExists,
    ErrorKind::NotADirectory,
    ErrorKind::IsADirectory,
    ErrorKind::ReadOnlyFilesystem,
    ErrorKind::StorageFull,
    ErrorKind::ExecutableFileBusy,
    ErrorKind::ArgumentListTooLong,
    ErrorKind::OutOfMemory,
    ErrorKind::WouldBlock,
    ErrorKind::InvalidInput,
];

pub(crate) fn serialize<S: Serializer>(kind: &ErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{kind:?}"))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorKind, D::Error> {
    let name = String::deserialize(deserializer)?;
    Ok(NAMED.into_iter().find(|kind| format!("{kind:?}") == name).unwrap_or(ErrorKind::Other))
}
