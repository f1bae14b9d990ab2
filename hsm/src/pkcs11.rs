//! The PKCS#11 slot: an AES key that never leaves a token wraps a random key-encryption key. `token` speaks to the token
//! and is part of builds with the feature `pkcs11`; every build understands the records, and says that it lacks the rest.

#[cfg(feature = "pkcs11")]
mod key;
#[cfg(feature = "pkcs11")]
mod token;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::device_key::Curve;
use crate::kek::Sealed;
use crate::slot::Tries;

/// A token and its PIN. `module` and `token` are for wrapping; unwrapping takes those that were stored.
#[derive(Clone, Copy)]
pub struct Pkcs11Slot<'a> {
    /// The vendor's module, by its absolute path.
    pub module: &'a Path,
    /// The token's label.
    pub token: &'a str,
    /// The user's PIN.
    pub pin: &'a [u8],
    /// Who tries it.
    pub tries: Tries,
}

impl<'a> Pkcs11Slot<'a> {
    /// What unwraps with `pin`.
    pub fn stored(pin: &'a [u8], tries: Tries) -> Self {
        Self { module: Path::new(""), token: "", pin, tries }
    }
}

#[cfg(not(feature = "pkcs11"))]
crate::missing::not_built!(Pkcs11Slot, Pkcs11);

/// What is stored for a PKCS#11 slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The vendor's module.
    module: PathBuf,
    /// The token's label and serial number.
    token: String,
    serial: String,
    /// The key's CKA_ID.
    #[serde(with = "crate::hexed")]
    key_id: [u8; 16],
    #[serde(with = "crate::hexed")]
    iv: [u8; 12],
    /// The key-encryption key under AES-256-GCM, with its tag.
    #[serde(with = "crate::hexed")]
    wrapped_kek: [u8; 48],
    sealed: Sealed,
}

impl Record {
    /// The vendor's module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The token's label.
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// A token that keeps signing keys, and its PIN. `module`, `token` and `curve` are for making one; signing takes those that were stored.
#[derive(Clone, Copy)]
pub struct Pkcs11Key<'a> {
    /// The vendor's module, by its absolute path.
    pub module: &'a Path,
    /// The token's label.
    pub token: &'a str,
    /// What the key shall be on, if the token has it.
    pub curve: Curve,
    /// The user's PIN.
    pub pin: &'a [u8],
    /// Who tries it.
    pub tries: Tries,
}

#[cfg(not(feature = "pkcs11"))]
crate::missing::no_device_keys!(Pkcs11Key, Pkcs11);

/// Where a signing key of a token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHome {
    module: PathBuf,
    token: String,
    serial: String,
    /// The key's CKA_ID.
    #[serde(with = "crate::hexed")]
    key_id: [u8; 16],
}

impl KeyHome {
    /// The vendor's module.
    pub fn module(&self) -> &Path {
        &self.module
    }
}

/// Why a token did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Pkcs11Error {
    /// The module is not named by an absolute path, or cannot be loaded.
    #[error("the PKCS#11 module {} cannot be used", .0.display())]
    Module(PathBuf),
    /// There is no such token, or it was taken out.
    #[error("the token '{0}' is not there")]
    NoToken(String),
    /// Several tokens have the label.
    #[error("there are several tokens '{0}'")]
    SeveralTokens(String),
    /// The PIN is wrong.
    #[error("the token '{0}' says that the PIN is wrong")]
    WrongPin(String),
    /// A wrong PIN was entered since the last right one, and nobody is there to say that this one is right.
    #[error("a wrong PIN was entered at the token '{0}'; it is not tried by itself again")]
    PinCountLow(String),
    /// One more wrong PIN would lock the token.
    #[error("the token '{0}' has one try left; it is not used up here")]
    FinalTry(String),
    /// Too many wrong PINs were entered.
    #[error("the PIN of the token '{0}' is locked")]
    PinLocked(String),
    /// The key is not on the token any more.
    #[error("the token '{0}' does not hold the key of this slot")]
    NoKey(String),
    /// The token failed otherwise, or went away meanwhile.
    #[error("the token '{token}' failed: {function} returned {code}")]
    Failed {
        /// Its label.
        token: String,
        /// The function of PKCS#11.
        function: String,
        /// Its return value.
        code: String,
    },
}

impl Pkcs11Error {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Module(_) => "Give --module the whole path of the vendor's library, e.g. libsofthsm2.so.",
            Self::NoToken(_) => {
                "Put the token in and check its label (pkcs11-tool --list-slots); other slots still open."
            }
            Self::SeveralTokens(_) => "Give each token a label of its own.",
            Self::WrongPin(_) => "Try again with the right PIN; other slots still open and do not count against it.",
            Self::PinCountLow(_) => "Enter the PIN yourself: `claviger slots test --slot N`.",
            Self::FinalTry(_) => "Log in once with the vendor's tool, which resets the count, or use another slot.",
            Self::PinLocked(_) => "Have the token's security officer set a new PIN, or use another slot.",
            Self::NoKey(_) => "Use the token that the slot was added with, or another slot.",
            Self::Failed { .. } => "Check the token with the vendor's tool; other slots still open.",
        }
    }
}
