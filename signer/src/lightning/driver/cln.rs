//! Commitments as Core Lightning has them signed: the transaction itself, a PSBT with the scripts behind its outputs, and
//! one message for each of the peer's second-level transactions.

use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction, TxOut};
use lightning::ln::chan_utils::{
    self, ClosingTransaction, CommitmentTransaction, DirectedChannelTransactionParameters, HTLCOutputInCommitment,
};
use vls_protocol::model::PubKey;
use vls_protocol::msgs;
use vls_protocol::psbt::PsbtWrapper;
use vls_protocol::serde_bolt::WithSize;

use super::{Ask, Driver, DriverError, Holdings, Signed, call, public_key};
use crate::pipeline::ChannelRef;

pub(super) fn point(ask: &mut Ask<'_>, channel: ChannelRef, commitment_number: u64) -> Result<PublicKey, DriverError> {
    let message = msgs::GetPerCommitmentPoint { commitment_number };
    public_key(&call::<msgs::GetPerCommitmentPointReply>(ask, Some(channel), &message)?.point)
}

/// SignRemoteCommitmentTx, then SignRemoteHtlcTx for each HTLC.
pub(super) fn sign_remote(
    driver: &Driver,
    ask: &mut Ask<'_>,
    number: u64,
    holdings: &Holdings,
) -> Result<(), DriverError> {
    let (commitment, point) = driver.theirs(number, holdings)?;
    let remote_per_commitment_point = PubKey(point.serialize());
    let message = msgs::SignRemoteCommitmentTx {
        tx: WithSize(transaction(&commitment).clone()),
        psbt: psbt(driver, &commitment, &driver.of_peer()),
        remote_funding_key: PubKey(driver.parameters.holder_pubkeys.funding_pubkey.serialize()),
        remote_per_commitment_point: remote_per_commitment_point.clone(),
        option_static_remotekey: true,
        commitment_number: number,
        htlcs: driver.wire_htlcs(holdings).into(),
        feerate: driver.feerate_of(number),
    };
    call::<msgs::SignTxReply>(ask, Some(driver.channel), &message)?;
    for htlc in commitment.nondust_htlcs() {
        let (tx, script, psbt) = second_level(&commitment, htlc, &driver.of_peer());
        let message = msgs::SignRemoteHtlcTx {
            tx: WithSize(tx),
            psbt,
            wscript: script.into_bytes().into(),
            remote_per_commitment_point: remote_per_commitment_point.clone(),
            option_anchors: true,
        };
        call::<msgs::SignTxReply>(ask, Some(driver.channel), &message)?;
    }
    Ok(())
}

pub(super) fn validate(driver: &Driver, signed: Signed, holdings: &Holdings) -> msgs::ValidateCommitmentTx {
    msgs::ValidateCommitmentTx {
        tx: WithSize(transaction(&signed.commitment).clone()),
        psbt: psbt(driver, &signed.commitment, &driver.of_us()),
        htlcs: driver.wire_htlcs(holdings).into(),
        commitment_number: signed.number,
        feerate: driver.feerate_of(signed.number),
        signature: signed.signature,
        htlc_signatures: signed.htlc_signatures.into(),
    }
}

impl Driver {
    /// SignMutualCloseTx: `to_us_sat` to `ours`, the rest less `fee_sat` to `theirs`.
    pub fn mutual_close(
        &self,
        to_us_sat: u64,
        to_peer_sat: u64,
        ours: ScriptBuf,
        theirs: ScriptBuf,
    ) -> msgs::SignMutualCloseTx {
        let outpoint = bitcoin::OutPoint { txid: self.funding.compute_txid(), vout: 0 };
        let close = ClosingTransaction::new(to_us_sat, to_peer_sat, ours, theirs, outpoint);
        let tx = close.trust().built_transaction().clone();
        msgs::SignMutualCloseTx {
            psbt: self.funded_psbt(&tx, &[]),
            tx: WithSize(tx),
            remote_funding_key: PubKey(self.parameters.holder_pubkeys.funding_pubkey.serialize()),
        }
    }

    /// SignCommitmentTx: the signer's commitment in force, to be published.
    pub fn force_close(&self) -> msgs::SignCommitmentTx {
        let commitment = self.our_commitment();
        msgs::SignCommitmentTx {
            peer_id: PubKey(self.channel.peer_id),
            dbid: self.channel.dbid,
            tx: WithSize(transaction(&commitment).clone()),
            psbt: psbt(self, &commitment, &self.of_us()),
            remote_funding_key: PubKey(self.parameters.holder_pubkeys.funding_pubkey.serialize()),
            commitment_number: self.number,
        }
    }

    /// A PSBT that spends the funding output, with those of `scripts` that its outputs pay to.
    fn funded_psbt(&self, tx: &Transaction, scripts: &[ScriptBuf]) -> WithSize<PsbtWrapper> {
        let [ours, theirs] = self.funding_keys();
        let mut psbt = unsigned(tx);
        for input in &mut psbt.inputs {
            input.witness_utxo = self.funding.output.first().cloned();
            input.witness_script = Some(chan_utils::make_funding_redeemscript(&ours, &theirs));
        }
        for (output, txout) in psbt.outputs.iter_mut().zip(&tx.output) {
            output.witness_script = scripts.iter().find(|script| script.to_p2wsh() == txout.script_pubkey).cloned();
        }
        WithSize(PsbtWrapper::from(psbt))
    }
}

fn psbt(
    driver: &Driver,
    commitment: &CommitmentTransaction,
    parameters: &DirectedChannelTransactionParameters<'_>,
) -> WithSize<PsbtWrapper> {
    let (broadcaster, countersignatory) = (parameters.broadcaster_pubkeys(), parameters.countersignatory_pubkeys());
    let mut scripts = vec![
        to_broadcaster(commitment, parameters),
        chan_utils::get_to_countersigner_keyed_anchor_redeemscript(&countersignatory.payment_point),
        chan_utils::get_keyed_anchor_redeemscript(&broadcaster.funding_pubkey),
        chan_utils::get_keyed_anchor_redeemscript(&countersignatory.funding_pubkey),
    ];
    let (trusted, features) = (commitment.trust(), parameters.channel_type_features());
    let script = |htlc| chan_utils::get_htlc_redeemscript(htlc, features, trusted.keys());
    scripts.extend(commitment.nondust_htlcs().iter().map(script));
    driver.funded_psbt(transaction(commitment), &scripts)
}

/// The second-level transaction of `htlc`, the script that it meets, and its PSBT.
fn second_level(
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    parameters: &DirectedChannelTransactionParameters<'_>,
) -> (Transaction, ScriptBuf, WithSize<PsbtWrapper>) {
    let (trusted, features) = (commitment.trust(), parameters.channel_type_features());
    let keys = trusted.keys();
    let tx = chan_utils::build_htlc_transaction(
        &trusted.txid(),
        commitment.negotiated_feerate_per_kw(),
        parameters.contest_delay(),
        htlc,
        features,
        &keys.broadcaster_delayed_payment_key,
        &keys.revocation_key,
    );
    let script = chan_utils::get_htlc_redeemscript(htlc, features, keys);
    let mut psbt = unsigned(&tx);
    for input in &mut psbt.inputs {
        input.witness_utxo = Some(TxOut { value: htlc.to_bitcoin_amount(), script_pubkey: script.to_p2wsh() });
    }
    for output in &mut psbt.outputs {
        output.witness_script = Some(to_broadcaster(commitment, parameters));
    }
    (tx, script, WithSize(PsbtWrapper::from(psbt)))
}

/// What the owner of a commitment gets after the delay.
fn to_broadcaster(
    commitment: &CommitmentTransaction,
    parameters: &DirectedChannelTransactionParameters<'_>,
) -> ScriptBuf {
    let trusted = commitment.trust();
    let keys = trusted.keys();
    let (revocation, delayed) = (&keys.revocation_key, &keys.broadcaster_delayed_payment_key);
    chan_utils::get_revokeable_redeemscript(revocation, parameters.contest_delay(), delayed)
}

fn transaction(commitment: &CommitmentTransaction) -> &Transaction {
    &commitment.trust().built_transaction().transaction
}

fn unsigned(tx: &Transaction) -> Psbt {
    Psbt::from_unsigned_tx(tx.clone()).expect("no witness was added to it")
}
