//! Every message that has a shape to check, made of the same parts.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use vls_protocol::model::{Basepoints, DisclosedSecret, Sha256, Signature};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::psbt::{PsbtWrapper, StreamedPSBT};
use vls_protocol::serde_bolt::{Octets, WithSize};

use super::super::*;

/// What messages are made of; `Parts::honest` can be handled.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) number: u64,
    pub(super) point: PubKey,
    pub(super) secret: [u8; 32],
    pub(super) tx: Transaction,
    pub(super) psbt: Psbt,
    pub(super) input: u32,
    pub(super) htlcs: Vec<Htlc>,
    pub(super) htlc_signatures: usize,
    pub(super) value_sat: u64,
    pub(super) amount_msat: u64,
}

impl Parts {
    pub(super) fn honest() -> Self {
        let output = || TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() };
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default()],
            output: vec![output()],
        };
        let mut psbt = Psbt::from_unsigned_tx(tx.clone()).expect("unsigned");
        psbt.inputs[0].witness_utxo = Some(output());
        psbt.outputs[0].witness_script = Some(ScriptBuf::new());
        let (key, path) =
            (PublicKey::from_slice(&[2; 33]).expect("a point"), (Fingerprint::default(), DerivationPath::master()));
        psbt.outputs[0].bip32_derivation.insert(key, path);
        Self {
            number: (1 << 48) - 1,
            point: PubKey([2; 33]),
            secret: [1; 32],
            tx,
            psbt,
            input: 0,
            htlcs: vec![Htlc { side: 1, amount: 1_000_000, payment_hash: Sha256([1; 32]), ctlv_expiry: 100 }],
            htlc_signatures: 1,
            value_sat: 1_000,
            amount_msat: 1_000,
        }
    }

    /// All messages that are made of them, by name.
    pub(super) fn messages(self) -> Vec<(String, Message)> {
        let Self { number: commitment_number, point, secret, tx, psbt, input, htlcs, htlc_signatures, .. } = self;
        let (value_sat, amount_msat) = (self.value_sat, self.amount_msat);
        let point = || point.clone();
        let secret = || DisclosedSecret(secret);
        let wscript = || Octets::EMPTY;
        let one = |sighash| BitcoinSignature { signature: Signature([1; 64]), sighash };
        let htlc_signatures = || vec![one(0x83); htlc_signatures].into();
        let htlcs = || htlcs.clone().into();
        let streamed = || WithSize(StreamedPSBT::new(psbt.clone()));
        let psbt = || WithSize(PsbtWrapper::from(psbt.clone()));
        let tx = || WithSize(tx.clone());
        let (peer_id, dbid, feerate, option_anchors) = (PubKey([2; 33]), 1, 253, true);
        let peer_id = || peer_id.clone();
        let (remote_funding_key, signature, utxos) = (peer_id, || one(0x01), || Vec::new().into());
        let basepoints =
            || Basepoints { revocation: point(), payment: point(), htlc: point(), delayed_payment: point() };
        let messages: Vec<Box<dyn SerBolt>> = vec![
            Box::new(msgs::Ecdh { point: point() }),
            Box::new(msgs::PreapproveKeysend { destination: peer_id(), payment_hash: Sha256([1; 32]), amount_msat }),
            Box::new(msgs::SetupChannel {
                is_outbound: true,
                channel_value: value_sat,
                push_value: amount_msat,
                funding_txid: Txid::from_byte_array([1; 32]),
                funding_txout: 0,
                to_self_delay: 144,
                local_shutdown_script: wscript(),
                local_shutdown_wallet_index: None,
                remote_basepoints: basepoints(),
                remote_funding_pubkey: point(),
                remote_to_self_delay: 144,
                remote_shutdown_script: wscript(),
                channel_type: wscript(),
            }),
            Box::new(msgs::GetPerCommitmentPoint { commitment_number }),
            Box::new(msgs::GetPerCommitmentPoint2 { commitment_number }),
            Box::new(msgs::RevokeCommitmentTx { commitment_number }),
            Box::new(msgs::CheckFutureSecret { commitment_number, secret: secret() }),
            Box::new(msgs::SignLocalCommitmentTx2 { commitment_number }),
            Box::new(msgs::SignCommitmentTx {
                peer_id: peer_id(),
                dbid,
                tx: tx(),
                psbt: psbt(),
                remote_funding_key: remote_funding_key(),
                commitment_number,
            }),
            Box::new(msgs::SignMutualCloseTx { tx: tx(), psbt: psbt(), remote_funding_key: remote_funding_key() }),
            Box::new(msgs::SignRemoteCommitmentTx2 {
                remote_per_commitment_point: point(),
                commitment_number,
                feerate,
                to_local_value_sat: value_sat,
                to_remote_value_sat: 0,
                htlcs: htlcs(),
            }),
            Box::new(msgs::ValidateCommitmentTx2 {
                commitment_number,
                feerate,
                to_local_value_sat: 0,
                to_remote_value_sat: value_sat,
                htlcs: htlcs(),
                signature: signature(),
                htlc_signatures: htlc_signatures(),
            }),
            Box::new(msgs::SignRemoteCommitmentTx {
                tx: tx(),
                psbt: psbt(),
                remote_funding_key: remote_funding_key(),
                remote_per_commitment_point: point(),
                option_static_remotekey: true,
                commitment_number,
                htlcs: htlcs(),
                feerate,
            }),
            Box::new(msgs::ValidateCommitmentTx {
                tx: tx(),
                psbt: psbt(),
                htlcs: htlcs(),
                commitment_number,
                feerate,
                signature: signature(),
                htlc_signatures: htlc_signatures(),
            }),
            Box::new(msgs::ValidateRevocation { commitment_number, commitment_secret: secret() }),
            Box::new(msgs::SignPenaltyToUs { revocation_secret: secret(), tx: tx(), psbt: psbt(), wscript: wscript() }),
            Box::new(msgs::SignAnyPenaltyToUs {
                revocation_secret: secret(),
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                input,
                peer_id: peer_id(),
                dbid,
            }),
            Box::new(msgs::SignDelayedPaymentToUs { commitment_number, tx: tx(), psbt: psbt(), wscript: wscript() }),
            Box::new(msgs::SignAnyDelayedPaymentToUs {
                commitment_number,
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                input,
                peer_id: peer_id(),
                dbid,
            }),
            Box::new(msgs::SignLocalHtlcTx {
                commitment_number,
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                option_anchors,
            }),
            Box::new(msgs::SignAnyLocalHtlcTx {
                commitment_number,
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                option_anchors,
                input,
                peer_id: peer_id(),
                dbid,
            }),
            Box::new(msgs::SignRemoteHtlcTx {
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                remote_per_commitment_point: point(),
                option_anchors,
            }),
            Box::new(msgs::SignRemoteHtlcToUs {
                remote_per_commitment_point: point(),
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                option_anchors,
            }),
            Box::new(msgs::SignAnyRemoteHtlcToUs {
                remote_per_commitment_point: point(),
                tx: tx(),
                psbt: psbt(),
                wscript: wscript(),
                option_anchors,
                input,
                peer_id: peer_id(),
                dbid,
            }),
            Box::new(msgs::SignMutualCloseTx2 {
                to_local_value_sat: value_sat,
                to_remote_value_sat: 0,
                local_script: wscript(),
                remote_script: wscript(),
                local_wallet_path_hint: Vec::new().into(),
            }),
            Box::new(msgs::SignWithdrawal { utxos: utxos(), psbt: streamed() }),
            Box::new(msgs::SignHtlcTxMingle { peer_id: peer_id(), dbid, utxos: utxos(), psbt: streamed() }),
            Box::new(msgs::SignAnchorspend { peer_id: peer_id(), dbid, utxos: utxos(), psbt: streamed() }),
        ];
        let decoded = |message: &dyn SerBolt| msgs::from_vec(message.as_vec()).expect("it was just encoded");
        let mut messages: Vec<_> = messages.iter().map(|m| (m.name().to_owned(), decoded(&**m))).collect();
        // Its number means something else in the other dialect, which the decoder takes it for.
        let of_ldk = msgs::SignLocalHtlcTx2 {
            tx: tx(),
            input,
            per_commitment_number: commitment_number,
            offered: true,
            cltv_expiry: 100,
            htlc_amount_msat: amount_msat,
            payment_hash: Sha256([1; 32]),
        };
        messages.push(("SignLocalHtlcTx2".to_owned(), Message::SignLocalHtlcTx2(of_ldk)));
        messages
    }
}
