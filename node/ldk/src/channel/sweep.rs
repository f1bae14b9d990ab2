//! Taking what is ours from a commitment the peer broadcast. The signer signs only towards its own wallet, so each
//! request names the wallet path of the output.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, Psbt, ScriptBuf, Transaction, TxOut};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, HTLCOutputInCommitment, TxCreationKeys, get_htlc_redeemscript,
    get_revokeable_redeemscript,
};
use vls_protocol::model::{DisclosedSecret, PubKey};
use vls_protocol::msgs::{SignAnyPenaltyToUs, SignAnyRemoteHtlcToUs};
use vls_protocol::psbt::PsbtWrapper;
use vls_protocol::serde_bolt::WithSize;

use super::ClavigerSigner;
use super::sign::unsigned;

impl ClavigerSigner {
    /// A revoked output or HTLC: `SignAnyPenaltyToUs`.
    pub(super) fn sign_penalty(
        &self,
        tx: &Transaction,
        input: usize,
        amount_sat: u64,
        per_commitment_key: &SecretKey,
        script: ScriptBuf,
    ) -> Result<Signature, ()> {
        let request = SignAnyPenaltyToUs {
            revocation_secret: DisclosedSecret(per_commitment_key.secret_bytes()),
            tx: WithSize(unsigned(tx)),
            psbt: WithSize(self.sweep_psbt(tx, input, amount_sat, &script)?),
            wscript: script.into_bytes().into(),
            input: u32::try_from(input).map_err(|_| ())?,
            peer_id: PubKey(self.channel.peer_id),
            dbid: self.channel.dbid,
        };
        self.sign(None, &request)
    }

    /// An HTLC on the peer's current commitment, by preimage or by timeout: `SignAnyRemoteHtlcToUs`.
    pub(super) fn sign_htlc_claim(
        &self,
        tx: &Transaction,
        input: usize,
        amount_sat: u64,
        per_commitment_point: &PublicKey,
        script: ScriptBuf,
    ) -> Result<Signature, ()> {
        let request = SignAnyRemoteHtlcToUs {
            remote_per_commitment_point: PubKey(per_commitment_point.serialize()),
            tx: WithSize(unsigned(tx)),
            psbt: WithSize(self.sweep_psbt(tx, input, amount_sat, &script)?),
            wscript: script.into_bytes().into(),
            option_anchors: true, // not read: the signer knows the channel's type
            input: u32::try_from(input).map_err(|_| ())?,
            peer_id: PubKey(self.channel.peer_id),
            dbid: self.channel.dbid,
        };
        self.sign(None, &request)
    }

    /// The `to_local` script of a commitment the peer revoked (BOLT 3).
    pub(super) fn revoked_to_local_script(
        &self,
        parameters: &ChannelTransactionParameters,
        per_commitment_key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<ScriptBuf, ()> {
        let point = PublicKey::from_secret_key(secp, per_commitment_key);
        let keys = counterparty_keys(parameters, &point, secp)?;
        let delay = parameters.holder_selected_contest_delay;
        Ok(get_revokeable_redeemscript(&keys.revocation_key, delay, &keys.broadcaster_delayed_payment_key))
    }

    /// The script of an HTLC output on a commitment of the peer (BOLT 3).
    pub(super) fn counterparty_htlc_script(
        &self,
        parameters: &ChannelTransactionParameters,
        per_commitment_point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<ScriptBuf, ()> {
        let keys = counterparty_keys(parameters, per_commitment_point, secp)?;
        Ok(get_htlc_redeemscript(htlc, &parameters.channel_type_features, &keys))
    }

    fn sweep_psbt(
        &self,
        tx: &Transaction,
        input: usize,
        amount_sat: u64,
        script: &ScriptBuf,
    ) -> Result<PsbtWrapper, ()> {
        let mut psbt = Psbt::from_unsigned_tx(unsigned(tx)).map_err(|_| ())?;
        let spent = TxOut { value: Amount::from_sat(amount_sat), script_pubkey: script.to_p2wsh() };
        psbt.inputs.get_mut(input).ok_or(())?.witness_utxo = Some(spent);
        self.wallet.name_outputs(&mut psbt);
        Ok(psbt.into())
    }
}

fn counterparty_keys(
    parameters: &ChannelTransactionParameters,
    per_commitment_point: &PublicKey,
    secp: &Secp256k1<All>,
) -> Result<TxCreationKeys, ()> {
    let counterparty = &parameters.counterparty_parameters.as_ref().ok_or(())?.pubkeys;
    Ok(TxCreationKeys::from_channel_static_keys(per_commitment_point, counterparty, &parameters.holder_pubkeys, secp))
}
