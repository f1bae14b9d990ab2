//! What the signer and a worker say to each other: one task, one answer, each as its length (u32, big endian) and JSON.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Write};
use std::path::PathBuf;

use claviger_hsm::device_key::Signature;
use claviger_hsm::{Binding, CounterError, Curve, DeviceKeyError, KeyRecord, Reading, SlotError, Tries, Wrapped};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A wrapped key of the largest kind in hex, with room around it.
const MAX: usize = 64 << 10;

/// What a worker is to do.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    /// Have a device unwrap the data key.
    Unwrap { binding: Binding, wrapped: Wrapped, pin: Option<Text>, tries: Option<Tries> },
    /// Use a TPM's counter.
    Count { tcti: String, step: Step },
    /// Make a signing key in a device.
    MakeKey { new: NewKey, pin: Option<Text> },
    /// Sign with one.
    Sign {
        key: KeyRecord,
        pin: Option<Text>,
        #[serde(with = "hex::serde")]
        message: Vec<u8>,
    },
}

/// Where a signing key shall be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewKey {
    /// In a TPM.
    Tpm {
        /// How it is reached.
        tcti: String,
    },
    /// In a token.
    Pkcs11 {
        /// The vendor's module, by its absolute path.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// What the key is on.
        curve: Curve,
    },
}

/// A PIN's bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct Text(#[serde(with = "hex::serde")] pub(super) Vec<u8>);

impl Drop for Text {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What to do with a counter.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Step {
    Create,
    Read,
    Increment,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Key(#[serde(with = "hex::serde")] [u8; 32]),
    Reading(Reading),
    Made(KeyRecord),
    Signature(Signature),
    Slot(SlotError),
    Counter(CounterError),
    DeviceKey(DeviceKeyError),
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task { .. }")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer { .. }")
    }
}

pub(super) fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), Error> {
    let text = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(text.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&text)
}

pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, Error> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
