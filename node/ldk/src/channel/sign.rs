//! `EcdsaChannelSigner`. A method that returns `Err(())` is "signer pending" for LDK: it asks again after
//! `signer_unblocked`, on the next block, or when the peer reconnects.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, EcdsaSighashType, Psbt, Transaction, TxOut};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction, get_keyed_anchor_redeemscript,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::sign::HTLCDescriptor;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::types::payment::PaymentPreimage;
use lightning::util::ser::Writeable;
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{
    SignAnchorspend, SignAnchorspendReply, SignChannelAnnouncement, SignChannelAnnouncementReply,
    SignCommitmentTxReply, SignCommitmentTxWithHtlcsReply, SignLocalCommitmentTx2, SignLocalHtlcTx2,
    SignMutualCloseTx2,
};
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::WithSize;

use super::{ClavigerSigner, wire};

/// The signer expects the announcement as it goes over the wire: type, four signatures (still zero), body (BOLT 7).
const CHANNEL_ANNOUNCEMENT: u16 = 256;
const UNSIGNED_PREFIX: usize = 2 + 4 * 64;
/// BOLT 3.
const ANCHOR: Amount = Amount::from_sat(330);

impl EcdsaChannelSigner for ClavigerSigner {
    fn sign_counterparty_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment_tx: &CommitmentTransaction,
        inbound_htlc_preimages: Vec<PaymentPreimage>,
        outbound_htlc_preimages: Vec<PaymentPreimage>,
        _: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        refuse_splice(parameters)?;
        let request = wire::sign_remote_commitment(commitment_tx);
        if request.commitment_number == 0 {
            self.open(parameters, commitment_tx)?;
        }
        self.tell_preimages(inbound_htlc_preimages.into_iter().chain(outbound_htlc_preimages), false)?;
        let reply: SignCommitmentTxWithHtlcsReply = self.caller.call(Some(self.channel), &request).map_err(|_| ())?;
        let htlc_signatures = reply.htlc_signatures.iter().map(|s| wire::signature(&s.signature));
        Ok((wire::signature(&reply.signature.signature)?, htlc_signatures.collect::<Result<_, _>>()?))
    }

    fn sign_holder_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment_tx: &HolderCommitmentTransaction,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        refuse_splice(parameters)?;
        let commitment_number = wire::commitment_number(commitment_tx.commitment_number());
        if commitment_number == 0 {
            self.open_for_close(parameters, commitment_tx)?;
        }
        let request = SignLocalCommitmentTx2 { commitment_number };
        let reply: SignCommitmentTxReply = self.caller.call(Some(self.channel), &request).map_err(|_| ())?;
        wire::signature(&reply.signature.signature)
    }

    /// Never: it would sign a revoked commitment, and the signer keeps none. The method exists because vls-core, in the
    /// same dependency tree, turns on lightning's feature `unsafe_revoked_tx_signing`.
    fn unsafe_sign_holder_commitment(
        &self,
        _: &ChannelTransactionParameters,
        _: &HolderCommitmentTransaction,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        Err(())
    }

    fn sign_justice_revoked_output(
        &self,
        parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let script = self.revoked_to_local_script(parameters, per_commitment_key, secp)?;
        self.sign_penalty(justice_tx, input, amount, per_commitment_key, script)
    }

    fn sign_justice_revoked_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let point = PublicKey::from_secret_key(secp, per_commitment_key);
        let script = self.counterparty_htlc_script(parameters, &point, htlc, secp)?;
        self.sign_penalty(justice_tx, input, amount, per_commitment_key, script)
    }

    /// Message 20 is `SignLocalHtlcTx2` when an LDK node sends it: the signer knows what kind of node is calling.
    fn sign_holder_htlc_transaction(
        &self,
        htlc_tx: &Transaction,
        input: usize,
        descriptor: &HTLCDescriptor,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let htlc = &descriptor.htlc;
        let request = SignLocalHtlcTx2 {
            tx: WithSize(htlc_tx.clone()),
            input: u32::try_from(input).map_err(|_| ())?,
            per_commitment_number: wire::commitment_number(descriptor.per_commitment_number),
            offered: htlc.offered,
            cltv_expiry: htlc.cltv_expiry,
            htlc_amount_msat: htlc.amount_msat,
            payment_hash: Sha256(htlc.payment_hash.0),
        };
        self.sign(Some(self.channel), &request)
    }

    fn sign_counterparty_htlc_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        htlc_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let script = self.counterparty_htlc_script(parameters, per_commitment_point, htlc, secp)?;
        self.sign_htlc_claim(htlc_tx, input, amount, per_commitment_point, script)
    }

    fn sign_closing_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        closing_tx: &ClosingTransaction,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        refuse_splice(parameters)?;
        let local_script = closing_tx.to_holder_script().to_owned();
        let request = SignMutualCloseTx2 {
            to_local_value_sat: closing_tx.to_holder_value_sat(),
            to_remote_value_sat: closing_tx.to_counterparty_value_sat(),
            local_script: local_script.to_bytes().into(),
            remote_script: closing_tx.to_counterparty_script().to_bytes().into(),
            local_wallet_path_hint: self.wallet.index_of(&local_script).into_iter().collect::<Vec<_>>().into(),
        };
        self.sign(Some(self.channel), &request)
    }

    /// The signer wants to see what it pays for: the other inputs must be coins of [`Wallet`](crate::Wallet).
    fn sign_holder_keyed_anchor_input(
        &self,
        parameters: &ChannelTransactionParameters,
        anchor_tx: &Transaction,
        input: usize,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let script = get_keyed_anchor_redeemscript(&parameters.holder_pubkeys.funding_pubkey);
        let anchor = TxOut { value: ANCHOR, script_pubkey: script.to_p2wsh() };
        let mut psbt = Psbt::from_unsigned_tx(unsigned(anchor_tx)).map_err(|_| ())?;
        psbt.inputs.get_mut(input).ok_or(())?.witness_utxo = Some(anchor);
        let utxos = self.wallet.describe(&mut psbt);
        if psbt.inputs.iter().any(|i| i.witness_utxo.is_none()) {
            tracing::error!("the anchor spend has an input that is no coin of the signer's wallet");
            return Err(());
        }
        let request = SignAnchorspend {
            peer_id: PubKey(self.channel.peer_id),
            dbid: self.channel.dbid,
            utxos: utxos.into(),
            psbt: WithSize(StreamedPSBT::new(psbt)),
        };
        let reply: SignAnchorspendReply = self.caller.call(None, &request).map_err(|_| ())?;
        let signed = reply.psbt.0.inner.inputs.get(input).and_then(|i| i.final_script_witness.as_ref()).ok_or(())?;
        // <signature> <sighash type> as script carries it.
        let (sighash, der) = signed.nth(0).and_then(<[u8]>::split_last).ok_or(())?;
        if *sighash != EcdsaSighashType::All as u8 {
            return Err(());
        }
        Signature::from_der(der).map_err(|_| ())
    }

    /// Waits for a signer that is away: LDK does not ask again.
    fn sign_channel_announcement_with_funding_key(
        &self,
        parameters: &ChannelTransactionParameters,
        message: &UnsignedChannelAnnouncement,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        refuse_splice(parameters)?;
        let mut announcement = vec![0; UNSIGNED_PREFIX];
        announcement[..2].copy_from_slice(&CHANNEL_ANNOUNCEMENT.to_be_bytes());
        announcement.extend(message.encode());
        let request = SignChannelAnnouncement { announcement: announcement.into() };
        let reply: SignChannelAnnouncementReply =
            self.caller.call_patiently(Some(self.channel), &request).map_err(|_| ())?;
        wire::signature(&reply.bitcoin_signature)
    }

    /// The signer does not splice, and LDK does not get here: the new commitment was not signed, see
    /// [`new_funding_pubkey`](lightning::sign::ChannelSigner::new_funding_pubkey). The method cannot fail, so it returns a signature that
    /// verifies for nothing.
    fn sign_splice_shared_input(
        &self,
        _: &ChannelTransactionParameters,
        _: &Transaction,
        _: usize,
        _: &Secp256k1<All>,
    ) -> Signature {
        tracing::error!("a splice was to be signed; the signer does not splice");
        invalid_signature()
    }
}

/// The channel's funding changed: the signer knows nothing of the new one.
fn refuse_splice(parameters: &ChannelTransactionParameters) -> Result<(), ()> {
    if parameters.splice_parent_funding_txid.is_some() {
        tracing::error!("a spliced channel was to be signed; the signer does not splice");
        return Err(());
    }
    Ok(())
}

pub(super) fn unsigned(tx: &Transaction) -> Transaction {
    let mut tx = tx.clone();
    for input in &mut tx.input {
        input.script_sig = Default::default();
        input.witness = Default::default();
    }
    tx
}

/// `r = s = 1` is well formed; nobody knows the message and key it would fit.
#[allow(clippy::expect_used)] // a constant
fn invalid_signature() -> Signature {
    let mut compact = [0; 64];
    compact[31] = 1;
    compact[63] = 1;
    Signature::from_compact(&compact).expect("r and s are below the order of the curve")
}
