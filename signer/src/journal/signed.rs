//! The end of the log, signed by a device key: what was decided up to a time, for whoever trusts the device and not everybody who has had
//! the data key since.

use claviger_hsm::KeyKind;
use claviger_hsm::device_key::{PublicKey, Signature};
use claviger_proto::v1::SignedCheckpoint;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"claviger signed head\0";

/// The house's entry [`SignedHead::KEY`], version 1, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    version: u8,
    /// What was signed.
    pub head: HeadAt,
    /// The device's kind.
    pub kind: KeyKind,
    /// Who signed.
    pub key: PublicKey,
    signature: Signature,
}

/// The end of the log at one time. The chain begins with a number drawn for this journal, so it is no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadAt {
    /// The last decision's number.
    pub seq: u64,
    /// Its chain hash.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The entry is not of this version, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry '{}' cannot be read", SignedHead::KEY)]
pub struct SignedHeadUnreadable;

impl HeadAt {
    /// The bytes that are signed: domain, number, hash, time; numbers big endian.
    pub fn message(&self) -> Vec<u8> {
        [DOMAIN, &self.seq.to_be_bytes(), &self.hash, &self.at_ms.to_be_bytes()].concat()
    }
}

impl SignedHead {
    /// The entry's key.
    pub const KEY: &str = "signed-head";

    /// `head` with its `signature`.
    pub fn new(head: HeadAt, kind: KeyKind, key: PublicKey, signature: Signature) -> Self {
        Self { version: VERSION, head, kind, key, signature }
    }

    /// Whether the signature is the key's.
    pub fn is_signed(&self) -> bool {
        self.key.verifies(&self.head.message(), &self.signature)
    }

    /// The entry's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and text always encode")
    }

    /// Reads an entry's value.
    pub fn decode(bytes: &[u8]) -> Result<Self, SignedHeadUnreadable> {
        let head: Self = serde_json::from_slice(bytes).map_err(|_| SignedHeadUnreadable)?;
        if head.version == VERSION { Ok(head) } else { Err(SignedHeadUnreadable) }
    }
}

impl From<SignedHead> for SignedCheckpoint {
    fn from(SignedHead { head, kind, key, .. }: SignedHead) -> Self {
        let (kind, key) = (kind.to_string(), key.to_string());
        Self { sequence: head.seq, hash: hex::encode(head.hash), at_ms: head.at_ms, kind, key }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use bitcoin::hashes::{Hash, sha256};
    use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
    use claviger_hsm::DeviceKey;
    use claviger_hsm::device_key::software::SoftwareKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_head_is_signed_as_it_is_and_no_other() {
        let record = SoftwareKey.create().unwrap();
        let head = HeadAt { seq: 7, hash: [5; 32], at_ms: 9 };
        let signature = SoftwareKey.sign(&record, &head.message()).unwrap();
        let signed = |head| SignedHead::new(head, KeyKind::Software, record.public, signature);
        assert!(signed(head).is_signed());
        for other in [HeadAt { seq: 8, ..head }, HeadAt { hash: [6; 32], ..head }, HeadAt { at_ms: 8, ..head }] {
            assert!(!signed(other).is_signed(), "{other:?}");
        }
        assert_eq!(SignedHead::decode(&signed(head).encode()), Ok(signed(head)));
        let newer = String::from_utf8(signed(head).encode()).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(SignedHead::decode(newer.as_bytes()), Err(SignedHeadUnreadable));
    }

    #[test]
    fn a_head_is_signed_by_a_key_on_secp256k1_as_such_and_not_as_one_on_another_curve() {
        let (secp, secret) = (Secp256k1::new(), SecretKey::from_slice(&[7; 32]).unwrap());
        let head = HeadAt { seq: 7, hash: [5; 32], at_ms: 9 };
        let digest = Message::from_digest(sha256::Hash::hash(&head.message()).to_byte_array());
        let signature = hex::encode(secp.sign_ecdsa(&digest, &secret).serialize_compact());
        let point = secret.public_key(&secp).to_string();
        let signed = |key: &str| {
            let entry = json!({ "version": 1, "head": head, "kind": "pkcs11", "key": key, "signature": signature });
            SignedHead::decode(entry.to_string().as_bytes()).unwrap()
        };
        let named = format!("secp256k1:{point}");
        assert!(signed(&named).is_signed());
        assert_eq!(SignedCheckpoint::from(signed(&named)).key, named, "as --signed-by takes it");
        assert!(!signed(&point).is_signed());
    }
}
