//! The data key under a key-encryption key: AES-256-GCM, bound to its place in the envelope.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use serde::{Deserialize, Serialize};

use crate::slot::{Binding, SlotError};

/// A data key, encrypted. Bytes are written in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    #[serde(with = "crate::hexed")]
    pub(crate) nonce: [u8; 12],
    #[serde(with = "crate::hexed")]
    pub(crate) wrapped_key: [u8; 32],
    #[serde(with = "crate::hexed")]
    pub(crate) tag: [u8; 16],
}

impl Sealed {
    /// Encrypts `data_key` with `kek`, which must encrypt nothing else.
    pub(crate) fn seal(kek: &[u8; 32], binding: &Binding, data_key: &[u8; 32]) -> Self {
        let mut sealed = Self { nonce: random(), wrapped_key: [0; 32], tag: [0; 16] };
        let buffer = InOutBuf::new(&data_key[..], &mut sealed.wrapped_key).expect("both are 32 bytes");
        sealed.tag = Aes256Gcm::new(kek.into())
            .encrypt_inout_detached(&Nonce::from(sealed.nonce), &binding.associated_data(), buffer)
            .expect("32 bytes are below GCM's length limit")
            .into();
        sealed
    }

    /// Writes the data key that was sealed into `data_key`, which stays as it is if anything differs: `WrongSecret`.
    pub(crate) fn open(&self, kek: &[u8; 32], binding: &Binding, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let buffer = InOutBuf::new(&self.wrapped_key[..], data_key).expect("both are 32 bytes");
        let (nonce, tag) = (Nonce::from(self.nonce), Tag::from(self.tag));
        Aes256Gcm::new(kek.into())
            .decrypt_inout_detached(&nonce, &binding.associated_data(), buffer, &tag)
            .map_err(|_| SlotError::WrongSecret)
    }
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}
