//! A signing key without a device: for machines that have none. It proves less, as whoever has the data key has it too.

use std::fmt;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature as Raw, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Curve, DeviceKey, DeviceKeyError, KeyHome, KeyKind, KeyRecord, PublicKey, Signature};
use crate::kek::random;

/// This process, for want of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareKey;

/// The key itself. Forgotten when it is dropped, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey(#[serde(with = "crate::hexed")] [u8; 32]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl DeviceKey for SoftwareKey {
    fn kind(&self) -> KeyKind {
        KeyKind::Software
    }

    fn create(&self) -> Result<KeyRecord, DeviceKeyError> {
        loop {
            let secret = Zeroizing::new(random::<32>());
            // All but one in 2^32 are scalars.
            let Ok(key) = SigningKey::from_slice(&*secret) else { continue };
            let public = PublicKey::from_sec1(Curve::P256, key.verifying_key().to_encoded_point(true).as_bytes());
            let public = public.ok_or(DeviceKeyError::Faulty)?;
            return Ok(KeyRecord { public, home: KeyHome::Software(SecretKey(*secret)) });
        }
    }

    fn sign(&self, record: &KeyRecord, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        let KeyHome::Software(secret) = &record.home else { return Err(DeviceKeyError::OtherKind(record.kind())) };
        let key = SigningKey::from_slice(&secret.0).map_err(|_| DeviceKeyError::Faulty)?;
        let signature: Raw = key.sign(message);
        record.checked(Some(signature.to_bytes().into()), message)
    }
}
