//! What a key slot is: something that can wrap the data key for storage, and unwrap it again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::passphrase;

/// Number of a slot within its envelope.
pub type SlotId = u16;

/// Wraps and unwraps the data key with one secret: the one given to it when it was made.
pub trait KeySlot {
    /// Which records this slot makes and understands.
    fn kind(&self) -> SlotKind;

    /// Wraps `data_key` so that it can be unwrapped only under the same `binding`.
    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError>;

    /// Writes the data key that `wrap` was given into `data_key`, which stays as it is on failure.
    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError>;
}

/// The kinds of slots. One backend is one name: here, in the file, in commands and in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A passphrase, stretched with Argon2id.
    Passphrase,
}

impl SlotKind {
    /// The name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
        }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the envelope stores for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wrapped {
    /// See `SlotKind::Passphrase`.
    Passphrase(passphrase::Record),
}

impl Wrapped {
    /// The kind of slot that made it.
    pub const fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
        }
    }
}

/// The place a wrapped key belongs to. It goes into the authentication, so that a wrapped key moved to another
/// installation, slot, kind or envelope version does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The wrapped key does not open with this slot's secret under this binding.
    #[error("the secret does not open this key slot")]
    WrongSecret,
    /// The parameters are outside what is accepted, so nothing was tried.
    #[error("the {0} of the key slot is outside its limits")]
    Parameters(&'static str),
    /// The memory that the parameters ask for is not to be had.
    #[error("there are not {0} KiB of memory for the key slot's key derivation")]
    OutOfMemory(u32),
}
