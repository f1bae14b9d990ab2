//! Keys that sign inside a device: ECDSA over SHA-256, on P-256, which tokens and TPMs have in common (FIPS 186-5), or on secp256k1. Whoever
//! has the public key checks what they signed, without the device.

mod curve;
pub mod software;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::curve::{Curve, PublicKey, Signature};
use crate::pkcs11::{self, Pkcs11Error};
use crate::slot::{Absent, SlotError};
use crate::tpm::{self, TpmError};

/// A device that keeps signing keys.
pub trait DeviceKey {
    /// Its kind.
    fn kind(&self) -> KeyKind;

    /// Makes a key that the device never tells, and says how to find it again.
    fn create(&self) -> Result<KeyRecord, DeviceKeyError>;

    /// Signs `message` with the key of `record`. What comes back was checked against the record's public key: a device that was
    /// disturbed tells nothing about its key by a wrong signature.
    fn sign(&self, record: &KeyRecord, message: &[u8]) -> Result<Signature, DeviceKeyError>;
}

/// The kinds of devices that keep signing keys; the names are those of key slots where there are such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// No device: the key is in the process's memory while it is used.
    Software,
    /// The machine's TPM 2.0.
    Tpm,
    /// A PKCS#11 token.
    Pkcs11,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
        })
    }
}

/// How to find a key again. That of a software key *is* the key: store it sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// What checks its signatures.
    pub public: PublicKey,
    /// Where it is.
    pub home: KeyHome,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyHome {
    /// See [`software`].
    Software(software::SecretKey),
    /// See [`tpm`].
    Tpm(tpm::KeyHome),
    /// See [`pkcs11`].
    Pkcs11(pkcs11::KeyHome),
}

impl KeyRecord {
    /// The device's kind.
    pub fn kind(&self) -> KeyKind {
        match self.home {
            KeyHome::Software(_) => KeyKind::Software,
            KeyHome::Tpm(_) => KeyKind::Tpm,
            KeyHome::Pkcs11(_) => KeyKind::Pkcs11,
        }
    }

    /// The signature with these halves, if it is this key's of `message`.
    pub(crate) fn checked(&self, rs: Option<[u8; 64]>, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        let signature = rs.and_then(|rs| Signature::low(self.public.curve(), &rs));
        signature.filter(|signature| self.public.verifies(message, signature)).ok_or(DeviceKeyError::Faulty)
    }
}

/// Why a device did not sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeviceKeyError {
    /// The key is of another kind of device.
    #[error("the key is in a device of the kind {0}")]
    OtherKind(KeyKind),
    /// This build has no such devices.
    #[error("this program cannot use keys of the kind {0}")]
    NotBuilt(KeyKind),
    /// What the device gave is no signature of its key.
    #[error("the device gave what is no signature of its key")]
    Faulty,
    /// See `TpmError`.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// See `Pkcs11Error`.
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    /// See `Absent`.
    #[error(transparent)]
    Absent(#[from] Absent),
}

impl DeviceKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OtherKind(_) => "Report this: keys are asked of their own devices only.",
            Self::NotBuilt(_) => "Use the packaged build, or keys of another kind.",
            Self::Faulty => "Do not use this device any more.",
            Self::Tpm(error) => error.hint(),
            Self::Pkcs11(error) => error.hint(),
            Self::Absent(absent) => absent.hint(),
        }
    }
}

impl From<SlotError> for DeviceKeyError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Tpm(error) => error.into(),
            SlotError::Pkcs11(error) => error.into(),
            SlotError::Absent(absent) => absent.into(),
            _ => Self::Faulty,
        }
    }
}
