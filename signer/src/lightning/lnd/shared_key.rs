//! `DeriveSharedKey`: Diffie–Hellman, for the purposes that lnd has and no other (P10).
//!
//! | key | with | for |
//! |---|---|---|
//! | the node's, {6, 0} | anybody's | handshakes and onions |
//! | a revocation root, {5, i} | our own funding key of one channel | the secrets of that channel's commitments |
//! | a tower session, {8, i}; a tower's id, {9, 0} | a tower's, a client's | handshakes with watchtowers |
//!
//! The keys of channels answer nobody: what they would tell about a point of the caller's choice gives their signatures'
//! counterparts away.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, SecretKey, ecdh};
use claviger_proto::signrpc::{KeyLocator, SharedKeyRequest};

use super::keys::{Family, KeyPath, Keys};
use crate::reasons::{Reason, Refusal};

/// Sessions with towers: an index above is no counter's.
const MAX_INDEX: u32 = 1 << 24;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Our key.
    pub family: Family,
    /// Its index.
    pub index: u32,
    /// The other side's.
    pub point: PublicKey,
}

impl Question {
    /// Reads a request, by lnd's own rules for the ways to name a key.
    ///
    /// Refuses with `malformed`, or with `secret-purpose` a key that answers nobody.
    pub(super) fn parse(request: &SharedKeyRequest, keys: &Keys) -> Result<Self, Refusal> {
        let malformed = |detail: &str| Refusal::new(Reason::Malformed, detail);
        if request.ephemeral_pubkey.is_empty() {
            return Err(malformed("must provide ephemeral pubkey"));
        }
        let point = compressed(&request.ephemeral_pubkey).ok_or_else(|| malformed("the ephemeral pubkey is no key"))?;
        let (locator, raw) = match (&request.key_loc, &request.key_desc) {
            (Some(_), Some(_)) => return Err(malformed("use either key_desc or key_loc")),
            (Some(locator), None) => (Some(*locator), &[][..]),
            (None, Some(descriptor)) => {
                let locator = descriptor.key_loc.ok_or_else(|| malformed("key_desc without key_loc"))?;
                (Some(locator), &descriptor.raw_key_bytes[..])
            }
            (None, None) => (None, &[][..]),
        };
        let locator = locator.unwrap_or(KeyLocator { key_family: Family::NodeKey as i32, key_index: 0 });
        let (family, index) = located(&locator)?;
        if !raw.is_empty() {
            let raw = compressed(raw).ok_or_else(|| malformed("raw_key_bytes is no key"))?;
            // lnd names a key with index 0 by itself.
            if index != 0 {
                return Err(malformed("use either raw_key_bytes or key_index"));
            }
            if raw != keys.public(KeyPath::Channel(family, index)) {
                return Err(Refusal::new(Reason::SecretPurpose, "raw_key_bytes is not the family's key with index 0"));
            }
        }
        let has_purpose = match family {
            Family::NodeKey | Family::TowerId => index == 0,
            Family::RevocationRoot | Family::TowerSession => index <= MAX_INDEX,
            _ => false,
        };
        if !has_purpose {
            let path = KeyPath::Channel(family, index);
            return Err(Refusal::new(Reason::SecretPurpose, format!("no secret is shared with {path} ({family:?})")));
        }
        Ok(Self { family, index, point })
    }

    /// The answer.
    pub(super) fn answer(&self, keys: &Keys) -> [u8; 32] {
        shared(&self.point, &keys.secret(KeyPath::Channel(self.family, self.index)))
    }
}

/// A family and an index that exist.
///
/// Refuses with `malformed`, or with `key-purpose` families without a purpose.
pub(super) fn located(locator: &KeyLocator) -> Result<(Family, u32), Refusal> {
    let number =
        |value: i32| u32::try_from(value).map_err(|_| Refusal::new(Reason::Malformed, "a key's number is negative"));
    let (family, index) = (number(locator.key_family)?, number(locator.key_index)?);
    let purpose = || Refusal::new(Reason::KeyPurpose, format!("key family {family} has no purpose here"));
    Ok((Family::by_number(family).ok_or_else(purpose)?, index))
}

/// SHA-256 of the compressed product.
pub(super) fn shared(point: &PublicKey, key: &SecretKey) -> [u8; 32] {
    let product = ecdh::shared_secret_point(point, key);
    let mut compressed = [0; 33];
    compressed[0] = 2 | (product[63] & 1);
    compressed[1..].copy_from_slice(&product[..32]);
    sha256::Hash::hash(&compressed).to_byte_array()
}

fn compressed(bytes: &[u8]) -> Option<PublicKey> {
    (bytes.len() == 33).then(|| PublicKey::from_slice(bytes).ok()).flatten()
}
