//! What a key slot is: something that can wrap the data key for storage, and unwrap it again.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{helper, passphrase, pkcs11, shares, tpm};

/// Number of a slot within its envelope.
pub type SlotId = u16;

/// Wraps and unwraps the data key with what it was made with: a passphrase, shares, a PIN, nothing for a helper.
pub trait KeySlot {
    /// Which records this slot makes and understands.
    fn kind(&self) -> SlotKind;

    /// Wraps `data_key` so that it can be unwrapped only under the same `binding`.
    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError>;

    /// Writes the data key that `wrap` was given into `data_key`, which stays as it is on failure.
    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError>;

    /// Whether the device behind `wrapped` answers. Needs no secret and tries none.
    fn health(&self, wrapped: &Wrapped) -> Result<(), SlotError>;
}

/// Whether a person stands behind a PIN that its device counts. Only a person may go on after mistakes; the last try before
/// the device locks is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tries {
    /// Somebody entered it now.
    Deliberate,
    /// It comes from a file or a credential.
    Automatic,
}

/// The table of kinds: variant, name (in files, commands and tests), what opens it in words, the first envelope version
/// that has it, its documentation. One row adds a kind to `SlotKind` and `Wrapped`.
macro_rules! kinds {
    ($($variant:ident, $module:ident, $name:literal, $secret:literal, $since:literal, $doc:literal;)*) => {
        /// The kinds of slots. One backend is one name: here, in the file, in commands and in tests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum SlotKind {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
        }

        /// What the envelope stores for a slot.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum Wrapped {
            $(#[doc = $doc] #[serde(rename = $name)] $variant($module::Record),)*
        }

        impl SlotKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of the kind.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What opens a slot of the kind, in words.
            pub const fn secret(self) -> &'static str {
                match self { $(Self::$variant => $secret,)* }
            }

            /// The first version of the envelope that has the kind.
            pub const fn since(self) -> u16 {
                match self { $(Self::$variant => $since,)* }
            }
        }

        impl Wrapped {
            /// The kind of slot that made it.
            pub const fn kind(&self) -> SlotKind {
                match self { $(Self::$variant(_) => SlotKind::$variant,)* }
            }
        }
    };
}

kinds! {
    Passphrase, passphrase, "passphrase", "passphrase", 1, "A passphrase, stretched with Argon2id.";
    Shares, shares, "shares", "shares", 2, "Shares of a key, m of n people's.";
    Helper, helper, "helper", "helper's key", 2, "A program of the operator's: a cloud KMS, Vault, age.";
    Pkcs11, pkcs11, "pkcs11", "token's key", 2, "A key inside a PKCS#11 token.";
    Tpm, tpm, "tpm", "TPM", 2, "The TPM of the machine, in the state that it was sealed to.";
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The place a wrapped key belongs to. It goes into the authentication, so that a wrapped key moved to another
/// installation, slot, kind or envelope version does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The version of the envelope's format.
    pub version: u16,
    /// The random id of the installation.
    pub installation: [u8; 16],
    /// The slot.
    pub slot: SlotId,
    /// The slot's kind.
    pub kind: SlotKind,
}

impl Binding {
    /// The associated data: a tag, then the fields in order, integers big-endian, the kind's name last.
    pub fn associated_data(&self) -> Vec<u8> {
        [
            b"claviger-keyslot",
            &self.version.to_be_bytes()[..],
            &self.installation,
            &self.slot.to_be_bytes(),
            self.kind.name().as_bytes(),
        ]
        .concat()
    }
}

/// Why a slot could not wrap or unwrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SlotError {
    /// The wrapped key does not open with this slot's secret under this binding.
    #[error("the secret does not open this key slot")]
    WrongSecret,
    /// The record is of another kind than the slot.
    #[error("this is a {0} slot")]
    OtherKind(SlotKind),
    /// This build cannot speak to what is behind the slot.
    #[error("this program is built without {0} slots")]
    NotBuilt(SlotKind),
    /// The parameters are outside what is accepted, so nothing was tried.
    #[error("the {0} of the key slot is outside its limits")]
    Parameters(Cow<'static, str>),
    /// The memory that the parameters ask for is not to be had.
    #[error("there are not {0} KiB of memory for the key slot's key derivation")]
    OutOfMemory(u32),
    /// See `ShareError`.
    #[error(transparent)]
    Shares(#[from] shares::ShareError),
    /// See `HelperError`.
    #[error(transparent)]
    Helper(#[from] helper::HelperError),
    /// See `Pkcs11Error`.
    #[error(transparent)]
    Pkcs11(#[from] pkcs11::Pkcs11Error),
    /// See `TpmError`.
    #[error(transparent)]
    Tpm(#[from] tpm::TpmError),
    /// See `Absent`.
    #[error(transparent)]
    Absent(#[from] Absent),
}

impl SlotError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::WrongSecret => "Try again, or use another slot: `claviger slots list`.",
            Self::OtherKind(_) => "See which slots there are: `claviger slots list`.",
            Self::NotBuilt(_) => {
                "Use the packaged claviger (cargo build --features packaged); other slots still open with this one."
            }
            Self::Parameters(_) => {
                "Use the key slot file as Claviger wrote it; restore it from a backup if it was edited."
            }
            Self::OutOfMemory(_) => "Give the process more memory, or add a slot with a lower cost.",
            Self::Shares(error) => error.hint(),
            Self::Helper(error) => error.failure.hint(),
            Self::Pkcs11(error) => error.hint(),
            Self::Tpm(error) => error.hint(),
            Self::Absent(absent) => absent.hint(),
        }
    }
}

/// A device that is asked by another process, and that process gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Absent {
    /// It takes longer than anybody waits for.
    #[error("the device gave no answer within {limit_s} s")]
    TimedOut {
        /// The limit.
        limit_s: u64,
    },
    /// The process ended.
    #[error("the process that asks the device ended without an answer")]
    Gone,
    /// The process speaks to those devices only that were known when the signer started.
    #[error("the device was not among the signer's when it started")]
    Unknown,
}

impl Absent {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "See what the device waits for; other slots still open.",
            Self::Gone => "Restart the signer; its log says why. Other slots still open.",
            Self::Unknown => {
                "Restart the signer: what it may ask is settled before it holds keys. Other slots still open."
            }
        }
    }
}
