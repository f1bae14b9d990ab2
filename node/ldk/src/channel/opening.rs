//! From a numbered channel to one the signer knows in full.
//!
//! The signer takes a channel's parameters once, with `SetupChannel`, before it validates or signs anything. LDK shows
//! them with the first signature it asks for. For a channel we fund that is early enough. For a channel the peer funds,
//! LDK has our first commitment validated a moment before: that one validation is kept and sent right after the
//! parameters. Later commitments never meet this page, also after a restart.

use std::sync::PoisonError;

use lightning::ln::chan_utils::{ChannelTransactionParameters, CommitmentTransaction, HolderCommitmentTransaction};
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{SetupChannel, SetupChannelReply, ValidateCommitmentTx2, ValidateCommitmentTxReply};
use vls_protocol::serde_bolt::Octets;

use super::{ClavigerSigner, wire};
use crate::transport::LinkError;

/// What this process has told the signer about the channel.
#[derive(Default)]
pub(super) enum Opening {
    /// Nothing. After a restart the signer may still know everything.
    #[default]
    Untold,
    /// Nothing, and our first commitment waits for its validation.
    Deferred(Box<ValidateCommitmentTx2>),
    /// The parameters, and the validation if there was one to send.
    Told,
}

impl ClavigerSigner {
    /// Takes the validation of our first commitment: sends it, or keeps it until the parameters are known.
    pub(super) fn validate_first_commitment(&self, validation: ValidateCommitmentTx2) -> Result<(), ()> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        match *opening {
            Opening::Told => self.send_first_validation(&validation).map_err(|_| ()),
            Opening::Untold | Opening::Deferred(_) => {
                *opening = Opening::Deferred(Box::new(validation));
                Ok(())
            }
        }
    }

    /// Called before the first commitment of the peer is signed.
    pub(super) fn open(
        &self,
        parameters: &ChannelTransactionParameters,
        counterparty_tx: &CommitmentTransaction,
    ) -> Result<(), ()> {
        let pushed_sat = if parameters.is_outbound_from_holder {
            counterparty_tx.to_broadcaster_value_sat()
        } else {
            counterparty_tx.to_countersignatory_value_sat()
        };
        self.tell(parameters, pushed_sat, None)
    }

    /// Called before our first commitment is signed: the channel closes before it was ever used, perhaps in a process
    /// that did not see it open.
    pub(super) fn open_for_close(
        &self,
        parameters: &ChannelTransactionParameters,
        holder_tx: &HolderCommitmentTransaction,
    ) -> Result<(), ()> {
        let pushed_sat = if parameters.is_outbound_from_holder {
            holder_tx.to_countersignatory_value_sat()
        } else {
            holder_tx.to_broadcaster_value_sat()
        };
        self.tell(parameters, pushed_sat, Some(wire::validate_commitment(holder_tx)))
    }

    fn tell(
        &self,
        parameters: &ChannelTransactionParameters,
        pushed_sat: u64,
        at_close: Option<ValidateCommitmentTx2>,
    ) -> Result<(), ()> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*opening, Opening::Told) && at_close.is_none() {
            return Ok(());
        }
        // Repeated after a failure or a restart: the signer accepts the same parameters again.
        let setup = setup_channel(parameters, pushed_sat)?;
        let _: SetupChannelReply = self.caller.call(Some(self.channel), &setup).map_err(|_| ())?;
        match (&*opening, at_close) {
            (Opening::Deferred(validation), _) => self.send_first_validation(validation).map_err(|_| ())?,
            // Most likely it was validated long ago. If not, and it is not valid, the signer will not sign it.
            (_, Some(validation)) => match self.send_first_validation(&validation) {
                Err(error) if error.retry() => return Err(()),
                _ => {}
            },
            // We fund: LDK asks for the validation later, and keeps no channel that did not get it.
            (_, None) if parameters.is_outbound_from_holder => {}
            // The peer funds, and the process that kept the validation is gone. It never signed for the peer, so the
            // peer did not fund the channel, and dropped it when the connection was lost.
            (_, None) => return Err(()),
        }
        *opening = Opening::Told;
        Ok(())
    }

    fn send_first_validation(&self, validation: &ValidateCommitmentTx2) -> Result<(), LinkError> {
        self.caller.call_patiently(Some(self.channel), validation).map(|_: ValidateCommitmentTxReply| ())
    }
}

/// `push_msat` is what the first commitment gives to the side that does not fund. LDK does not tell a signer the
/// shutdown scripts: they stay empty, and the signer then pays a close to its own wallet only, which is stricter.
fn setup_channel(parameters: &ChannelTransactionParameters, pushed_sat: u64) -> Result<SetupChannel, ()> {
    let funding = parameters.funding_outpoint.ok_or(())?;
    let counterparty = parameters.counterparty_parameters.as_ref().ok_or(())?;
    let features = &parameters.channel_type_features;
    if features.supports_anchor_zero_fee_commitments() || !features.supports_static_remote_key() {
        tracing::error!(channel_type = %features, "the signer does not support this channel type");
        return Err(());
    }
    Ok(SetupChannel {
        is_outbound: parameters.is_outbound_from_holder,
        channel_value: parameters.channel_value_satoshis,
        push_value: pushed_sat * 1000,
        funding_txid: funding.txid,
        funding_txout: funding.index,
        to_self_delay: parameters.holder_selected_contest_delay,
        local_shutdown_script: Octets::EMPTY,
        local_shutdown_wallet_index: None,
        remote_basepoints: wire::basepoints(&counterparty.pubkeys),
        remote_funding_pubkey: PubKey(counterparty.pubkeys.funding_pubkey.serialize()),
        remote_to_self_delay: counterparty.selected_contest_delay,
        remote_shutdown_script: Octets::EMPTY,
        channel_type: wire::channel_type(features).into(),
    })
}
