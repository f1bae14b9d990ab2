//! The curves that device keys are on, and what is on them: public keys and signatures.

use std::fmt;
use std::sync::LazyLock;

use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{self, VerifyingKey};
use secp256k1::{Message, Secp256k1, VerifyOnly};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);
/// Before the point, in the text of a key.
const SECP256K1: &str = "secp256k1:";

/// A curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// That of FIPS 186-5, which all devices have.
    #[default]
    P256,
    /// Bitcoin's (SEC 2, 2.4.1), which some tokens have.
    Secp256k1,
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::Secp256k1 => "secp256k1",
        })
    }
}

/// A point of a curve, compressed (SEC 1, 2.3.3). As text it is its hex, with `secp256k1:` before it on that curve: the same bytes can be
/// a point of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    curve: Curve,
    point: [u8; 33],
}

impl PublicKey {
    /// The point of `curve` with this encoding, compressed or not.
    pub(crate) fn from_sec1(curve: Curve, point: &[u8]) -> Option<Self> {
        let point = match curve {
            Curve::P256 => {
                let key = VerifyingKey::from_sec1_bytes(point).ok()?;
                key.to_encoded_point(true).as_bytes().try_into().ok()?
            }
            Curve::Secp256k1 => secp256k1::PublicKey::from_slice(point).ok()?.serialize(),
        };
        Some(Self { curve, point })
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// Whether `signature` is this key's of SHA-256 of `message`.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        match self.curve {
            Curve::P256 => {
                let key = VerifyingKey::from_sec1_bytes(&self.point);
                let signature = ecdsa::Signature::from_slice(&signature.0);
                matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
            }
            Curve::Secp256k1 => {
                let key = secp256k1::PublicKey::from_slice(&self.point);
                let signature = secp256k1::ecdsa::Signature::from_compact(&signature.0);
                let digest = Message::from_digest(Sha256::digest(message).into());
                matches!((key, signature), (Ok(key), Ok(signature)) if SECP.verify_ecdsa(&digest, &signature, &key).is_ok())
            }
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let curve = match self.curve {
            Curve::P256 => "",
            Curve::Secp256k1 => SECP256K1,
        };
        write!(f, "{curve}{}", hex::encode(self.point))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (curve, hex) = match text.strip_prefix(SECP256K1) {
            Some(hex) => (Curve::Secp256k1, hex),
            None => (Curve::P256, &*text),
        };
        let mut point = [0; 33];
        hex::decode_to_slice(hex, &mut point)?;
        Ok(Self { curve, point })
    }
}

/// r and s, 32 bytes each, s in the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "crate::hexed")] [u8; 64]);

impl Signature {
    /// The signature on `curve` with these halves. Devices give either of the two that have the same r.
    pub(super) fn low(curve: Curve, rs: &[u8; 64]) -> Option<Self> {
        Some(Self(match curve {
            Curve::P256 => {
                let signature = ecdsa::Signature::from_slice(rs).ok()?;
                signature.normalize_s().unwrap_or(signature).to_bytes().into()
            }
            Curve::Secp256k1 => {
                let mut signature = secp256k1::ecdsa::Signature::from_compact(rs).ok()?;
                signature.normalize_s();
                signature.serialize_compact()
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use p256::ecdsa::signature::Signer;
    use secp256k1::{Scalar, SecretKey};

    use super::*;

    /// A key of each curve and its signature of `message`, as a device may give it.
    fn signed(curve: Curve, message: &[u8]) -> (PublicKey, [u8; 64]) {
        let secret = [7; 32];
        let (point, rs) = match curve {
            Curve::P256 => {
                let key = ecdsa::SigningKey::from_slice(&secret).unwrap();
                let signature: ecdsa::Signature = key.sign(message);
                (key.verifying_key().to_encoded_point(false).as_bytes().to_vec(), signature.to_bytes().into())
            }
            Curve::Secp256k1 => {
                let (secp, key) = (Secp256k1::new(), SecretKey::from_slice(&secret).unwrap());
                let digest = Message::from_digest(Sha256::digest(message).into());
                let signature = secp.sign_ecdsa(&digest, &key);
                (key.public_key(&secp).serialize_uncompressed().to_vec(), signature.serialize_compact())
            }
        };
        (PublicKey::from_sec1(curve, &point).unwrap(), rs)
    }

    #[test]
    fn a_signature_is_its_key_s_on_its_curve_alone() {
        for (curve, other) in [(Curve::P256, Curve::Secp256k1), (Curve::Secp256k1, Curve::P256)] {
            let (key, rs) = signed(curve, b"message");
            let signature = Signature::low(curve, &rs).unwrap();
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"another", &signature));
            assert!(!signed(other, b"message").0.verifies(b"message", &signature));
            assert!(!PublicKey { curve: other, ..key }.verifies(b"message", &signature));
        }
    }

    #[test]
    fn the_higher_s_becomes_the_lower_one_and_is_nobody_s_signature_on_secp256k1() {
        let (key, low) = signed(Curve::Secp256k1, b"message");
        let s = SecretKey::from_slice(&low[32..]).unwrap().negate();
        let high: [u8; 64] = [&low[..32], &Scalar::from(s).to_be_bytes()].concat().try_into().unwrap();
        assert!(!key.verifies(b"message", &Signature(high)));
        assert_eq!(Signature::low(Curve::Secp256k1, &high), Some(Signature(low)));
        assert!(key.verifies(b"message", &Signature::low(Curve::Secp256k1, &high).unwrap()));
    }

    #[test]
    fn a_key_s_text_names_its_curve_and_hostile_text_is_no_key() {
        for curve in [Curve::P256, Curve::Secp256k1] {
            let key = signed(curve, b"").0;
            let text = serde_json::to_string(&key).unwrap();
            assert_eq!(text, format!("\"{key}\""));
            assert_eq!(text.contains("secp256k1:"), curve == Curve::Secp256k1);
            assert_eq!(serde_json::from_str::<PublicKey>(&text).unwrap(), key);
        }
        let point = "02".repeat(33);
        assert!(
            PublicKey::try_from(format!("secp256k1:{point}")).is_ok() && PublicKey::try_from(point.clone()).is_ok()
        );
        for hostile in ["", "secp256k1:", "02", &format!("p384:{point}"), &format!("secp256k1:secp256k1:{point}")] {
            assert!(PublicKey::try_from(hostile.to_owned()).is_err(), "{hostile}");
        }
    }
}
