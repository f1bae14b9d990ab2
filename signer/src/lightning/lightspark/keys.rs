//! Lightspark's keys: BIP 32 from the account's seed. Every derivation here is one that Lightspark's own signer makes.

use bitcoin::Network;
use bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{All, PublicKey, Scalar, Secp256k1, SecretKey};
use hmac::{Hmac, KeyInit, Mac};
use lightning::ln::chan_utils::build_commitment_secret;
use sha2::Sha512;
use zeroize::Zeroizing;

use super::paths::{ChannelKey, KeyPath};
use crate::keys::memory::{Secret, scrubbed};

/// An account's keys.
pub(super) struct Keys {
    key: Secret<32>,
    chain_code: Secret<32>,
    network: Network,
    secp: Secp256k1<All>,
}

impl Keys {
    /// Those of the account with this BIP 32 master key.
    pub(super) fn new(key: &Secret<32>, chain_code: &Secret<32>, network: Network) -> Self {
        let copy = |secret: &Secret<32>| Secret::init(|out| secret.expose(|bytes| out.copy_from_slice(bytes)));
        Self { key: copy(key), chain_code: copy(chain_code), network, secp: Secp256k1::new() }
    }

    /// Precomputed tables.
    pub(super) fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// The node's identity, which signs nothing here.
    pub(super) fn node_id(&self) -> PublicKey {
        self.at(&[ChildNumber::from(0)]).public_key(&self.secp)
    }

    /// The private key at `path`.
    pub(super) fn secret(&self, path: KeyPath) -> SecretKey {
        self.at(&path.children(self.network))
    }

    /// The public key at `path`.
    pub(super) fn public(&self, path: KeyPath) -> PublicKey {
        self.secret(path).public_key(&self.secp)
    }

    /// The operation signing key.
    pub(super) fn operations(&self) -> SecretKey {
        self.at(&[ChildNumber::from(5)])
    }

    /// BOLT 3's per-commitment secret of a channel. Indices count down.
    pub(super) fn per_commitment_secret(&self, channel: u32, index: u64) -> Zeroizing<[u8; 32]> {
        scrubbed(|| {
            let mut key = self.secret(KeyPath::Channel(channel));
            let seed = sha256::Hash::hash(&key.secret_bytes());
            key.non_secure_erase();
            let mut engine = sha256::Hash::engine();
            engine.input(&seed.to_byte_array());
            engine.input(b"commitment seed");
            let seed = sha256::Hash::from_engine(engine).to_byte_array();
            Zeroizing::new(build_commitment_secret(&seed, index))
        })
    }

    /// The point of that secret.
    pub(super) fn per_commitment_point(&self, channel: u32, index: u64) -> PublicKey {
        let secret = self.per_commitment_secret(channel, index);
        SecretKey::from_slice(&*secret).expect("a hash is a scalar but for 1 in 2^127").public_key(&self.secp)
    }

    /// The preimage that belongs to `nonce`.
    pub(super) fn preimage(&self, nonce: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        self.invoice_code(b"invoice preimage", nonce)
    }

    /// The hash of that preimage.
    pub(super) fn payment_hash(&self, nonce: &[u8; 32]) -> [u8; 32] {
        sha256::Hash::hash(&*self.preimage(nonce)).to_byte_array()
    }

    /// The one nonce of an invoice, for ever: it follows from the invoice's id, so that none has to be kept.
    pub(super) fn invoice_nonce(&self, invoice: &str) -> [u8; 32] {
        *self.invoice_code(b"claviger invoice nonce", invoice.as_bytes())
    }

    fn invoice_code(&self, label: &[u8], of: &[u8]) -> Zeroizing<[u8; 32]> {
        scrubbed(|| {
            let mut key = self.at(&[ChildNumber::from(4 | 1 << 31)]);
            let mut mac = Hmac::<Sha512>::new_from_slice(&key.secret_bytes()).expect("any length is a key");
            key.non_secure_erase();
            mac.update(label);
            mac.update(of);
            let code = mac.finalize().into_bytes();
            Zeroizing::new(*code.first_chunk().expect("64 bytes"))
        })
    }

    /// What BOLT 3 adds to a basepoint of a channel for the commitment with this point.
    pub(super) fn add_tweak(&self, channel: u32, key: ChannelKey, point: &PublicKey) -> [u8; 32] {
        hash_of(point, &self.public(KeyPath::ChannelKey(channel, key)))
    }

    /// What BOLT 3 makes of the revocation basepoint once the counterparty's `secret` is known: what to multiply it
    /// with, and what to add then.
    pub(super) fn revocation_tweaks(&self, channel: u32, secret: &[u8; 32]) -> Option<([u8; 32], [u8; 32])> {
        let secret = SecretKey::from_slice(secret).ok()?;
        let base = self.public(KeyPath::ChannelKey(channel, ChannelKey::RevocationBase));
        let point = secret.public_key(&self.secp);
        let of_point = Scalar::from_be_bytes(hash_of(&point, &base)).ok()?;
        Some((hash_of(&base, &point), secret.mul_tweak(&of_point).ok()?.secret_bytes()))
    }

    fn at(&self, path: &[ChildNumber]) -> SecretKey {
        scrubbed(|| {
            let private_key = self.key.expose(|key| SecretKey::from_slice(key)).expect("it was made from one");
            let mut master = Xpriv {
                network: self.network.into(),
                depth: 0,
                parent_fingerprint: Fingerprint::default(),
                child_number: ChildNumber::from(0),
                private_key,
                chain_code: ChainCode::from(self.chain_code.expose(|code| *code)),
            };
            let mut key = master.derive_priv(&self.secp, &path).expect("fails 1 in 2^127");
            master.private_key.non_secure_erase();
            let secret = key.private_key;
            key.private_key.non_secure_erase();
            secret
        })
    }
}

/// SHA256 of both points, compressed.
pub(super) fn hash_of(first: &PublicKey, second: &PublicKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// `key` times `mul`, plus `add`.
pub(super) fn tweaked(key: SecretKey, mul: Option<&[u8; 32]>, add: Option<&[u8; 32]>) -> Option<SecretKey> {
    let scalar = |bytes: &[u8; 32]| Scalar::from_be_bytes(*bytes).ok();
    let key = match mul {
        Some(mul) => key.mul_tweak(&scalar(mul)?).ok()?,
        None => key,
    };
    match add {
        Some(add) => key.add_tweak(&scalar(add)?).ok(),
        None => Some(key),
    }
}

#[cfg(test)]
mod tests;
