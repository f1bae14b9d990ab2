//! The TPM 2.0 slot: the machine's TPM holds the key-encryption key and gives it out only in the state of the machine that
//! it was sealed to (platform configuration registers, PCRs), with a PIN if there is one. `chip` speaks to the TPM and is
//! part of builds with the feature `tpm`; every build understands the records, and says that it lacks the rest.

#[cfg(feature = "tpm")]
mod chip;
#[cfg(feature = "tpm")]
mod key;
#[cfg(feature = "tpm")]
mod nv;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tpm")]
pub use nv::{DEFAULT_INDEX, TpmCounter};

use crate::kek::Sealed;
use crate::slot::Tries;

/// The kernel's resource manager.
pub const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";
/// PCR 7, the state of Secure Boot: it stays as it is when firmware and kernels are updated within the same keys.
pub const DEFAULT_PCRS: &[u8] = &[7];
/// The longest PIN in bytes: it is an authorisation value, no longer than a SHA-256 digest.
pub const MAX_PIN_LEN: usize = 32;

/// A TPM and the state of the machine. `tcti` and `pcrs` are for wrapping; unwrapping takes those that were stored.
#[derive(Clone, Copy)]
pub struct TpmSlot<'a> {
    /// How to reach it: `device:/dev/tpmrm0`, or `swtpm:host=H,port=P`.
    pub tcti: &'a str,
    /// The registers to seal to, in their state of now.
    pub pcrs: &'a [u8],
    /// The PIN, if there is one.
    pub pin: Option<&'a [u8]>,
    /// Who tries it.
    pub tries: Tries,
}

impl<'a> TpmSlot<'a> {
    /// What unwraps, with `pin` if the slot has one.
    pub fn stored(pin: Option<&'a [u8]>, tries: Tries) -> Self {
        Self { tcti: "", pcrs: &[], pin, tries }
    }
}

#[cfg(not(feature = "tpm"))]
crate::missing::not_built!(TpmSlot, Tpm);

/// What is stored for a TPM slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// How to reach the TPM.
    tcti: String,
    /// The name of the TPM's storage key: another TPM, or the same one after it was cleared, has another one.
    #[serde(with = "crate::hexed")]
    parent: [u8; 34],
    pin: bool,
    pcrs: Vec<Pcr>,
    /// The sealed key-encryption key, as the TPM gave it.
    #[serde(with = "hex::serde")]
    public: Vec<u8>,
    #[serde(with = "hex::serde")]
    private: Vec<u8>,
    sealed: Sealed,
}

/// A register of the SHA-256 bank and its value when the slot was sealed. The TPM checks the values itself; they stand here
/// so that a difference can be named before a PIN is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pcr {
    index: u8,
    #[serde(with = "crate::hexed")]
    value: [u8; 32],
}

impl Record {
    /// How to reach the TPM.
    pub fn tcti(&self) -> &str {
        &self.tcti
    }

    /// The registers that the slot is sealed to.
    pub fn pcrs(&self) -> Vec<u8> {
        self.pcrs.iter().map(|pcr| pcr.index).collect()
    }

    /// Whether the slot wants a PIN.
    pub fn has_pin(&self) -> bool {
        self.pin
    }
}

/// A TPM that keeps signing keys. `tcti` is for making one; signing takes the one that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmKey<'a> {
    /// How to reach it, as for `TpmSlot`.
    pub tcti: &'a str,
}

#[cfg(not(feature = "tpm"))]
crate::missing::no_device_keys!(TpmKey, Tpm);

/// Where a signing key of a TPM is: under the storage key of that TPM, outside of which it means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHome {
    tcti: String,
    /// The name of the TPM's storage key.
    #[serde(with = "crate::hexed")]
    parent: [u8; 34],
    /// The key as the TPM gave it.
    #[serde(with = "hex::serde")]
    public: Vec<u8>,
    #[serde(with = "hex::serde")]
    private: Vec<u8>,
}

impl KeyHome {
    /// How to reach the TPM.
    pub fn tcti(&self) -> &str {
        &self.tcti
    }
}

/// Why a TPM did not do its work. Every `String` is how the TPM was to be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TpmError {
    /// The TPM is not named in a way that is understood.
    #[error("'{0}' names no TPM")]
    BadTcti(String),
    /// No TPM answers, or it went away meanwhile.
    #[error("no TPM answers at {0}")]
    Away(String),
    /// The slot was made by another TPM, or this one was cleared since.
    #[error("the TPM at {0} is not the one that the slot was made with, or it was cleared since")]
    OtherTpm(String),
    /// The machine is not in the state that the slot was sealed to. The registers that differ; none, if they changed just now.
    #[error("the machine has changed: PCR {} is not what the slot was sealed to", list(.0))]
    PcrsDiffer(Vec<u8>),
    /// The TPM has no such register in its SHA-256 bank.
    #[error("the TPM has no PCR {0} of SHA-256")]
    NoPcr(u8),
    /// The slot has a PIN, and none was given.
    #[error("this slot wants a PIN")]
    PinMissing,
    /// The PIN is wrong.
    #[error("the TPM says that the PIN is wrong")]
    WrongPin,
    /// Half of the tries before the lock-out are used up, and nobody is there to say that this PIN is right.
    #[error("the TPM counts {failed} wrong tries of {limit}; a PIN from a file is not tried by itself any more")]
    TriesLow {
        /// Wrong tries, of any user of the TPM.
        failed: u32,
        /// How many lock it.
        limit: u32,
    },
    /// One more wrong PIN would lock the TPM.
    #[error("the TPM has one try left before it locks; it is not used up here")]
    FinalTry,
    /// The TPM tries no PIN for some time.
    #[error("the TPM is locked after wrong tries; it forgets one of them every {recovery_s} s")]
    LockedOut {
        /// How long it takes to forget one wrong try, in seconds.
        recovery_s: u32,
    },
    /// The TPM's owner has set a password, without which no key is made.
    #[error("the TPM's owner hierarchy has a password")]
    OwnerPassword,
    /// The record was altered since the TPM made it.
    #[error("the TPM did not make what is stored for this slot")]
    Altered,
    /// Other programs hold all its room for keys and sessions.
    #[error("the TPM at {0} has no room for another key or session")]
    Full(String),
    /// The TPM failed otherwise.
    #[error("the TPM at {tcti} failed to {operation}: {code}")]
    Failed {
        /// How it was reached.
        tcti: String,
        /// What it was asked for.
        operation: Cow<'static, str>,
        /// Its answer.
        code: String,
    },
}

impl TpmError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadTcti(_) => "Name it as device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321.",
            Self::Away(_) => "Check that /dev/tpmrm0 is there and may be opened (group tss); other slots still open.",
            Self::OtherTpm(_) => "Open with another slot, then make this one anew: `claviger slots reseal N`.",
            Self::PcrsDiffer(_) => {
                "After an update that you know of: `claviger slots reseal N --slot M`, opening with another slot M. \
                 Otherwise find out first what changed."
            }
            Self::NoPcr(_) => "Choose registers that the TPM has (tpm2_pcrread sha256), or switch on its SHA-256 bank.",
            Self::PinMissing => "Pass the PIN where a passphrase would be: --passphrase-fd or --passphrase-credential.",
            Self::WrongPin => "Try again with the right PIN; other slots still open and do not count against it.",
            Self::TriesLow { .. } => "Enter the PIN yourself: `claviger slots test --slot N`.",
            Self::FinalTry => "Wait until the TPM forgets a wrong try, or use another slot.",
            Self::LockedOut { .. } => {
                "Wait, reset it with the lock-out password (tpm2_dictionarylockout -c), or use another slot."
            }
            Self::OwnerPassword => "Claviger needs the owner hierarchy without a password; other slots still open.",
            Self::Altered => {
                "Restore the key slot file from a backup, or make the slot anew: `claviger slots reseal N`."
            }
            Self::Full(_) => "Use device:/dev/tpmrm0, which shares the room, or end what holds it.",
            Self::Failed { .. } => "Check the TPM (tpm2_getcap properties-variable); other slots still open.",
        }
    }
}

fn list(pcrs: &[u8]) -> String {
    pcrs.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}
