//! The journal's rows: what each is called and how it is sealed.
//!
//! | key | holds |
//! |---|---|
//! | `meta` | the format, and what was drawn at random when the journal was made |
//! | `head` | the end of the chain and the digest of all entries; part of every batch |
//! | `entry/<tenant>/<key>` | one entry |
//! | `log/<number>` | one decision |
//! | `check/<number>` | a checkpoint: the head as it was after decision `<number>` |
//!
//! Keys, versions and sizes are in the clear; values are sealed and bound to key and version.

use crate::keys::cipher::RecordCipher;

use super::store::{Row, StoredPut};

/// The row that names the format.
pub const META: &str = "meta";
/// The row that every batch rewrites.
pub const HEAD: &str = "head";
/// Where entries start.
pub(super) const ENTRIES: &str = "entry/";
/// Where decisions start.
pub(super) const LOG: &str = "log/";
/// Where checkpoints start.
pub(super) const CHECKPOINTS: &str = "check/";

/// First byte of each record: how the rest is laid out.
const LAYOUT: u8 = 1;
const AAD_DOMAIN: &[u8] = b"claviger record\0";

/// The row of an entry. A tenant's name holds no `/`, so the parts cannot be confused.
pub(super) fn entry_key(tenant: &str, key: &str) -> String {
    format!("{ENTRIES}{tenant}/{key}")
}

/// The tenant in a key made by [`entry_key`].
pub(super) fn tenant_of(key: &str) -> Option<&str> {
    key.strip_prefix(ENTRIES)?.split_once('/').map(|(tenant, _)| tenant)
}

/// The row of decision number `seq`; sorts by number.
pub(super) fn log_key(seq: u64) -> String {
    format!("{LOG}{seq:020}")
}

/// The row of the checkpoint after decision `seq`.
pub(super) fn checkpoint_key(seq: u64) -> String {
    format!("{CHECKPOINTS}{seq:020}")
}

/// The number in a key made by [`log_key`] or [`checkpoint_key`].
pub(super) fn number_of(key: &str) -> Option<u64> {
    let (_, digits) = key.split_once('/')?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Why a row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Changed, moved from another key or version, or sealed under another data key.
    #[error("it does not authenticate under the data key")]
    Authentication,
    /// The first byte names a layout this version does not know.
    #[error("its layout {0} is not known to this version")]
    Layout(u8),
    /// It authenticates but does not have the expected shape.
    #[error("its contents are not understood")]
    Contents,
}

/// Seals `plain` for its place.
pub(super) fn seal(cipher: &RecordCipher, key: String, version: u64, plain: &[u8]) -> StoredPut {
    let mut value = cipher.seal(&aad(&key, version), plain);
    value.insert(0, LAYOUT);
    StoredPut { key, version, value: Some(value) }
}

/// Opens what `seal` made.
pub(super) fn open(cipher: &RecordCipher, row: &Row) -> Result<Vec<u8>, BadRecord> {
    match row.value.split_first() {
        Some((&LAYOUT, sealed)) => {
            cipher.open(&aad(&row.key, row.version), sealed).map_err(|_| BadRecord::Authentication)
        }
        Some((&other, _)) => Err(BadRecord::Layout(other)),
        None => Err(BadRecord::Authentication),
    }
}

/// What a row holds, if only the previous data key opens it.
pub(super) fn open_outdated(cipher: &RecordCipher, row: &Row) -> Result<Option<Vec<u8>>, BadRecord> {
    let sealed = row.value.get(1..).unwrap_or_default();
    if cipher.is_outdated(&aad(&row.key, row.version), sealed) { open(cipher, row).map(Some) } else { Ok(None) }
}

/// What a record is bound to: tenant and key (both in `key`) and version.
fn aad(key: &str, version: u64) -> Vec<u8> {
    [AAD_DOMAIN, &version.to_be_bytes(), key.as_bytes()].concat()
}
