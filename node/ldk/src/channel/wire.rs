//! Between LDK's types and those of the hsmd messages.

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::sighash::EcdsaSighashType;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, CommitmentTransaction, HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::types::features::ChannelTypeFeatures;
use vls_protocol::model::{self, Basepoints, BitcoinSignature, Htlc, PubKey};
use vls_protocol::msgs::{GetChannelBasepointsReply, SignRemoteCommitmentTx2, ValidateCommitmentTx2};
use vls_protocol::serde_bolt::Array;

use crate::transport::LinkError;

/// LDK counts commitments down from here, BOLT 3 up from 0.
const FIRST_INDEX: u64 = (1 << 48) - 1;

pub(super) fn commitment_number(index: u64) -> u64 {
    FIRST_INDEX.saturating_sub(index)
}

pub(super) fn public_key(key: &PubKey) -> Result<PublicKey, LinkError> {
    PublicKey::from_slice(&key.0).map_err(|e| LinkError::Protocol(format!("not a public key: {e}")))
}

pub(super) fn channel_public_keys(reply: &GetChannelBasepointsReply) -> Result<ChannelPublicKeys, LinkError> {
    let points = &reply.basepoints;
    Ok(ChannelPublicKeys {
        funding_pubkey: public_key(&reply.funding)?,
        revocation_basepoint: RevocationBasepoint(public_key(&points.revocation)?),
        payment_point: public_key(&points.payment)?,
        delayed_payment_basepoint: DelayedPaymentBasepoint(public_key(&points.delayed_payment)?),
        htlc_basepoint: HtlcBasepoint(public_key(&points.htlc)?),
    })
}

/// A point whose discrete logarithm nobody knows (BIP 341), for each key.
pub(super) fn keys_of_nobody() -> ChannelPublicKeys {
    const POINT: [u8; 33] = [
        0x02, 0x50, 0x92, 0x9b, 0x74, 0xc1, 0xa0, 0x49, 0x54, 0xb7, 0x8b, 0x4b, 0x60, 0x35, 0xe9, 0x7a, 0x5e, 0x07,
        0x8a, 0x5a, 0x0f, 0x28, 0xec, 0x96, 0xd5, 0x47, 0xbf, 0xee, 0x9a, 0xce, 0x80, 0x3a, 0xc0,
    ];
    let point = PublicKey::from_slice(&POINT).expect("a constant point of the curve");
    ChannelPublicKeys {
        funding_pubkey: point,
        revocation_basepoint: RevocationBasepoint(point),
        payment_point: point,
        delayed_payment_basepoint: DelayedPaymentBasepoint(point),
        htlc_basepoint: HtlcBasepoint(point),
    }
}

pub(super) fn basepoints(keys: &ChannelPublicKeys) -> Basepoints {
    Basepoints {
        revocation: PubKey(keys.revocation_basepoint.0.serialize()),
        payment: PubKey(keys.payment_point.serialize()),
        htlc: PubKey(keys.htlc_basepoint.0.serialize()),
        delayed_payment: PubKey(keys.delayed_payment_basepoint.0.serialize()),
    }
}

/// The channel type as BOLT 2 writes it: big endian.
pub(super) fn channel_type(features: &ChannelTypeFeatures) -> Vec<u8> {
    features.le_flags().iter().rev().copied().collect()
}

pub(super) fn signature(signature: &model::Signature) -> Result<Signature, ()> {
    Signature::from_compact(&signature.0).map_err(|_| ())
}

fn bitcoin_signature(signature: &Signature) -> BitcoinSignature {
    BitcoinSignature {
        signature: model::Signature(signature.serialize_compact()),
        sighash: EcdsaSighashType::All as u8,
    }
}

/// Ours to validate: `local` is the broadcaster of the commitment.
pub(super) fn validate_commitment(holder_tx: &HolderCommitmentTransaction) -> ValidateCommitmentTx2 {
    ValidateCommitmentTx2 {
        commitment_number: commitment_number(holder_tx.commitment_number()),
        feerate: holder_tx.negotiated_feerate_per_kw(),
        to_local_value_sat: holder_tx.to_broadcaster_value_sat(),
        to_remote_value_sat: holder_tx.to_countersignatory_value_sat(),
        htlcs: htlcs(holder_tx.nondust_htlcs(), true),
        signature: bitcoin_signature(&holder_tx.counterparty_sig),
        htlc_signatures: Array(holder_tx.counterparty_htlc_sigs.iter().map(bitcoin_signature).collect()),
    }
}

/// Theirs to sign: `local` is still us, the countersignatory.
pub(super) fn sign_remote_commitment(commitment_tx: &CommitmentTransaction) -> SignRemoteCommitmentTx2 {
    SignRemoteCommitmentTx2 {
        remote_per_commitment_point: PubKey(commitment_tx.per_commitment_point().serialize()),
        commitment_number: commitment_number(commitment_tx.commitment_number()),
        feerate: commitment_tx.negotiated_feerate_per_kw(),
        to_local_value_sat: commitment_tx.to_countersignatory_value_sat(),
        to_remote_value_sat: commitment_tx.to_broadcaster_value_sat(),
        htlcs: htlcs(commitment_tx.nondust_htlcs(), false),
    }
}

/// LDK marks an HTLC as offered by the broadcaster, the message as offered by us.
fn htlcs(htlcs: &[HTLCOutputInCommitment], we_broadcast: bool) -> Array<Htlc> {
    let side = |offered| if offered == we_broadcast { Htlc::LOCAL } else { Htlc::REMOTE };
    let htlc = |h: &HTLCOutputInCommitment| Htlc {
        side: side(h.offered),
        amount: h.amount_msat,
        payment_hash: model::Sha256(h.payment_hash.0),
        ctlv_expiry: h.cltv_expiry,
    };
    Array(htlcs.iter().map(htlc).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commitments_are_counted_upwards_from_zero() {
        assert_eq!(commitment_number(FIRST_INDEX), 0);
        assert_eq!(commitment_number(FIRST_INDEX - 3), 3);
    }

    #[test]
    fn a_channel_type_is_written_big_endian() {
        // option_static_remotekey is bit 12, option_anchors_zero_fee_htlc_tx bit 22.
        assert_eq!(channel_type(&ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()), [0x40, 0x10, 0x00]);
        assert_eq!(channel_type(&ChannelTypeFeatures::only_static_remote_key()), [0x10, 0x00]);
    }
}
