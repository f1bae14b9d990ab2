//! RSA keys that sign, of accounts whose service knows no other.

use std::fmt;

use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PSS_SHA256;
use zeroize::Zeroizing;

/// An RSA key of 2048 to 4096 bits.
pub struct RsaKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: KeyPair,
}

/// Not an RSA private key of 2048 to 4096 bits in PKCS #8 (RFC 5208).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no RSA key of 2048 to 4096 bits in PKCS #8")]
pub struct BadRsaKey;

/// Nothing of it is shown (P8).
impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaKey").finish_non_exhaustive()
    }
}

impl RsaKey {
    /// The key in `pkcs8`, in DER.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, BadRsaKey> {
        let pair = KeyPair::from_pkcs8(&pkcs8).map_err(|_| BadRsaKey)?;
        Ok(Self { pkcs8, pair })
    }

    /// As it was made, to be sealed.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key: an RSAPublicKey in DER (RFC 8017, A.1.1).
    pub fn public_key(&self) -> &[u8] {
        self.pair.public().as_ref()
    }

    /// Bits of its modulus.
    pub fn bits(&self) -> usize {
        self.pair.public().modulus_len() * 8
    }

    /// RSASSA-PSS with SHA-256, MGF1 over SHA-256 and a random salt of 32 bytes: another signature each time.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let signed = self.pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.expect("the buffer has the length of the modulus, and the system has randomness");
        signature
    }
}
