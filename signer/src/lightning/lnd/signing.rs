//! Signatures on what was judged. Deterministic, so that a repeated request gets the same bytes (P5); every nonce is made
//! here (P10).

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{All, Keypair, Message, PublicKey, Scalar, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{ScriptBuf, TxOut};

use super::keys::{KeyPath, Keys};
use super::psbt::{Input, Packet, Signature, SignatureKind};
use crate::reasons::{Reason, Refusal};

/// What lnd has done to a key before it signs.
#[derive(Clone, Copy)]
pub(super) enum Tweak {
    /// Nothing.
    None,
    /// BOLT 3, `localpubkey` and the like: this is added.
    Single([u8; 32]),
    /// BOLT 3, `revocationpubkey`: mixed with the secret of the revoked commitment.
    Double(SecretKey),
}

impl Tweak {
    /// The one that `input` names.
    pub(super) fn of(input: &Input) -> Result<Self, Refusal> {
        match (input.single_tweak, input.double_tweak) {
            (None, None) => Ok(Self::None),
            (Some(tweak), None) => Ok(Self::Single(tweak)),
            (None, Some(secret)) => SecretKey::from_slice(&secret).map(Self::Double).map_err(|_| impossible()),
            (Some(_), Some(_)) => Err(Refusal::new(Reason::KeyPurpose, "a key has one tweak at most")),
        }
    }

    /// The key that verifies what `key` signs.
    pub(super) fn public(&self, keys: &Keys, key: &PublicKey) -> Result<PublicKey, Refusal> {
        match self {
            Self::None => Ok(*key),
            Self::Single(tweak) => keys.tweaked(key, *tweak).map_err(|_| impossible()),
            Self::Double(secret) => revocation_key(keys.secp(), key, &secret.public_key(keys.secp())),
        }
    }

    fn secret(&self, keys: &Keys, key: SecretKey) -> Result<SecretKey, Refusal> {
        let tweaked = match self {
            Self::None => Ok(key),
            Self::Single(tweak) => key.add_tweak(&scalar(*tweak)?),
            Self::Double(secret) => {
                let (of_key, of_point) = mixing(&key.public_key(keys.secp()), &secret.public_key(keys.secp()))?;
                let ours = key.mul_tweak(&of_key);
                ours.and_then(|ours| ours.add_tweak(&Scalar::from(secret.mul_tweak(&of_point)?)))
            }
        };
        tweaked.map_err(|_| impossible())
    }
}

/// Signs input `index`, which spends `spent`, with the key that stands at `path`. `prevouts` is what all inputs spend, for taproot.
pub(super) fn sign(
    packet: &Packet,
    index: usize,
    (path, key): (KeyPath, PublicKey),
    keys: &Keys,
    spent: &TxOut,
    prevouts: impl FnOnce() -> Result<Vec<TxOut>, Refusal>,
) -> Result<Signature, Refusal> {
    let input = &packet.inputs[index];
    let (secp, mut cache) = (keys.secp(), SighashCache::new(&packet.tx));
    let unknown = |error: &dyn std::fmt::Display| Refusal::new(Reason::TransactionUnknown, error.to_string());
    if spent.script_pubkey.is_p2tr() {
        let sighash = if input.sighash == 0 { TapSighashType::Default } else { TapSighashType::All };
        let prevouts = prevouts()?;
        let digest = cache.taproot_key_spend_signature_hash(index, &Prevouts::All(&prevouts), sighash);
        let digest = Message::from_digest(digest.map_err(|error| unknown(&error))?.to_byte_array());
        let pair = Keypair::from_secret_key(secp, &keys.secret(path)).tap_tweak(secp, None).to_keypair();
        let mut signature = secp.sign_schnorr_no_aux_rand(&digest, &pair).serialize().to_vec();
        if sighash != TapSighashType::Default {
            signature.push(sighash as u8);
        }
        return Ok(Signature { input: index, kind: SignatureKind::TaprootKey(signature) });
    }
    let sighash = EcdsaSighashType::from_standard(input.sighash).map_err(|error| unknown(&error))?;
    let digest = match program(&spent.script_pubkey, input) {
        Some(program) => cache.p2wpkh_signature_hash(index, &program, spent.value, sighash).map_err(|e| unknown(&e))?,
        None => {
            let script = input.witness_script.as_ref().ok_or_else(|| unknown(&"there is no witness script"))?;
            cache.p2wsh_signature_hash(index, script, spent.value, sighash).map_err(|error| unknown(&error))?
        }
    };
    let tweak = Tweak::of(input)?;
    let secret = tweak.secret(keys, keys.secret(path))?;
    let signature = secp.sign_ecdsa(&Message::from_digest(digest.to_byte_array()), &secret);
    let value = [&signature.serialize_der()[..], &[sighash as u8]].concat();
    Ok(Signature { input: index, kind: SignatureKind::Ecdsa(tweak.public(keys, &key)?, value) })
}

/// The witness program of a P2WPKH output, plain or nested.
fn program(output: &ScriptBuf, input: &Input) -> Option<ScriptBuf> {
    if output.is_p2wpkh() {
        return Some(output.clone());
    }
    input.redeem_script.clone().filter(|redeem| redeem.is_p2wpkh() && redeem.to_p2sh() == *output)
}

/// BOLT 3, "`revocationpubkey` Derivation".
pub(super) fn revocation_key(
    secp: &Secp256k1<All>,
    basepoint: &PublicKey,
    point: &PublicKey,
) -> Result<PublicKey, Refusal> {
    let (of_key, of_point) = mixing(basepoint, point)?;
    let mixed = basepoint.mul_tweak(secp, &of_key).and_then(|key| key.combine(&point.mul_tweak(secp, &of_point)?));
    mixed.map_err(|_| impossible())
}

/// BOLT 3, "`revocationpubkey` Derivation": by what the key and the point are multiplied.
fn mixing(key: &PublicKey, point: &PublicKey) -> Result<(Scalar, Scalar), Refusal> {
    let hash = |first: &PublicKey, second: &PublicKey| {
        let mut engine = sha256::Hash::engine();
        engine.input(&first.serialize());
        engine.input(&second.serialize());
        scalar(sha256::Hash::from_engine(engine).to_byte_array())
    };
    Ok((hash(key, point)?, hash(point, key)?))
}

fn scalar(bytes: [u8; 32]) -> Result<Scalar, Refusal> {
    Scalar::from_be_bytes(bytes).map_err(|_| impossible())
}

fn impossible() -> Refusal {
    Refusal::new(Reason::KeyPurpose, "the tweak makes no key")
}
