//! How bundles, and which one is in force, are kept in the journal: so that a verdict of long ago can be replayed with the
//! very bundle that gave it.
//!
//! | key | holds |
//! |---|---|
//! | `policy/bundle/<hash>` | the files of a bundle that was in force or will be |
//! | `policy/in-force` | which one is, was and will be |
//!
//! A value's first byte is its layout; the rest is CBOR. A bundle is never rewritten.

use serde::{Deserialize, Serialize};

use super::{BundleHash, Files, InForce};
use crate::budget::Change;

const BUNDLE: &str = "policy/bundle/";
const IN_FORCE: &str = "policy/in-force";
const LAYOUT: u8 = 1;

/// Why an entry cannot be read. No policy is in force then: nothing is signed (P4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleUnreadable {
    /// The first byte names a layout that this version does not know.
    #[error("'{0}' has a layout that is not known to this version")]
    Layout(String),
    /// Not of the expected shape, or beyond the bounds of a bundle.
    #[error("the contents of '{0}' are not understood")]
    Contents(String),
    /// The files are not those that the key names.
    #[error("'{key}' holds the bundle {found}")]
    Hash {
        /// The entry.
        key: String,
        /// What it holds.
        found: BundleHash,
    },
}

impl BundleUnreadable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Layout(_) => "Start the version that wrote it, or a newer one.",
            Self::Contents(_) | Self::Hash { .. } => "Run `claviger journal verify`, and restore a backup.",
        }
    }
}

impl Files {
    /// The key of the entry that keeps the bundle with this hash.
    pub fn key(hash: BundleHash) -> String {
        format!("{BUNDLE}{hash}")
    }

    /// The entry that keeps the files.
    pub(super) fn change(&self) -> Change {
        let files: Vec<_> = self.iter().map(|(name, bytes)| (name, serde_bytes::Bytes::new(bytes))).collect();
        Change { key: Self::key(self.hash()), value: Some(encode(&files)) }
    }

    /// Reads what is kept under `key`.
    pub fn read(key: &str, value: &[u8]) -> Result<Self, BundleUnreadable> {
        let stored: Vec<(String, serde_bytes::ByteBuf)> = decode(key, value)?;
        let mut files = Self::default();
        for (name, bytes) in stored {
            files.add(&name, bytes.into_vec()).map_err(|_| BundleUnreadable::Contents(key.to_owned()))?;
        }
        let found = files.hash();
        if Self::key(found) == key { Ok(files) } else { Err(BundleUnreadable::Hash { key: key.to_owned(), found }) }
    }
}

impl InForce {
    /// The key of its entry.
    pub const KEY: &str = IN_FORCE;

    pub(super) fn change(&self) -> Change {
        Change { key: IN_FORCE.to_owned(), value: Some(encode(self)) }
    }

    /// Reads what is kept under [`InForce::KEY`].
    pub fn read(value: &[u8]) -> Result<Self, BundleUnreadable> {
        decode(IN_FORCE, value)
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![LAYOUT];
    ciborium::into_writer(value, &mut bytes).expect("a vector takes what is written, and the types have a CBOR form");
    bytes
}

/// Reads what [`encode`] wrote, and nothing else: of two encodings of one value, only one was written here.
fn decode<T: for<'a> Deserialize<'a> + Serialize>(key: &str, value: &[u8]) -> Result<T, BundleUnreadable> {
    let contents = || BundleUnreadable::Contents(key.to_owned());
    match value.split_first() {
        Some((&LAYOUT, cbor)) => {
            let read: T = ciborium::from_reader(cbor).map_err(|_| contents())?;
            if encode(&read) == value { Ok(read) } else { Err(contents()) }
        }
        Some(_) => Err(BundleUnreadable::Layout(key.to_owned())),
        None => Err(contents()),
    }
}
