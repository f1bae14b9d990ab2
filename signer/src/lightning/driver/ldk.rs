//! Commitments in the messages that the VLS protocol has for LDK: amounts, of which the signer makes the transaction.

use bitcoin::secp256k1::PublicKey;
use vls_protocol::model::PubKey;
use vls_protocol::msgs;

use super::{Ask, Driver, DriverError, Holdings, Signed, call, public_key};
use crate::pipeline::ChannelRef;

pub(super) fn point(ask: &mut Ask<'_>, channel: ChannelRef, commitment_number: u64) -> Result<PublicKey, DriverError> {
    let message = msgs::GetPerCommitmentPoint2 { commitment_number };
    public_key(&call::<msgs::GetPerCommitmentPoint2Reply>(ask, Some(channel), &message)?.point)
}

pub(super) fn sign_remote(
    driver: &Driver,
    ask: &mut Ask<'_>,
    number: u64,
    holdings: &Holdings,
) -> Result<(), DriverError> {
    let message = msgs::SignRemoteCommitmentTx2 {
        remote_per_commitment_point: PubKey(driver.peer_point(number)?.serialize()),
        commitment_number: number,
        feerate: driver.feerate_of(number),
        to_local_value_sat: holdings.to_us_sat,
        to_remote_value_sat: driver.to_peer_in(number, holdings),
        htlcs: driver.wire_htlcs(holdings).into(),
    };
    call::<msgs::SignCommitmentTxWithHtlcsReply>(ask, Some(driver.channel), &message).map(drop)
}

pub(super) fn validate(driver: &Driver, signed: Signed, holdings: &Holdings) -> msgs::ValidateCommitmentTx2 {
    msgs::ValidateCommitmentTx2 {
        commitment_number: signed.number,
        feerate: driver.feerate_of(signed.number),
        to_local_value_sat: holdings.to_us_sat,
        to_remote_value_sat: driver.to_peer_in(signed.number, holdings),
        htlcs: driver.wire_htlcs(holdings).into(),
        signature: signed.signature,
        htlc_signatures: signed.htlc_signatures.into(),
    }
}
