//! Authenticated encryption of records.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

use super::memory::Secret;

/// Seals and opens records under one key. `aad` binds a record to its place: tenant, key and version.
#[derive(Debug)]
pub struct RecordCipher {
    key: Secret<32>,
}

/// The record was not sealed by this key for this place, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record does not authenticate")]
pub struct OpenError;

impl RecordCipher {
    /// A cipher under `key`.
    pub fn new(key: Secret<32>) -> Self {
        Self { key }
    }

    /// Encrypts `plain`, bound to `aad`. The result is a few dozen bytes longer.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0u8; 12];
        getrandom::fill(&mut nonce).expect("the operating system provides randomness");
        let cipher = self.key.expose(|key| Aes256Gcm::new(key.into()));
        let mut sealed = nonce.to_vec();
        let payload = Payload { msg: plain, aad };
        sealed.extend(cipher.encrypt(&Nonce::from(nonce), payload).expect("records are far below GCM's length limit"));
        sealed
    }

    /// Decrypts what `seal` made with the same key and `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (nonce, body) = sealed.split_first_chunk::<12>().ok_or(OpenError)?;
        let cipher = self.key.expose(|key| Aes256Gcm::new(key.into()));
        cipher.decrypt(&Nonce::from(*nonce), Payload { msg: body, aad }).map_err(|_| OpenError)
    }
}
