//! Transactions that spend the wallet's coins and what channels left to it.

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use lightning::sign::{OutputSpender, SpendableOutputDescriptor};
use vls_protocol::model::{CloseInfo, PubKey, Utxo};
use vls_protocol::msgs::{SignWithdrawal, SignWithdrawalReply};
use vls_protocol::psbt::StreamedPSBT;
use vls_protocol::serde_bolt::{Octets, WithSize};

use super::coins::{Coins, SATISFACTION_WEIGHT};
use super::{Wallet, WalletError};
use crate::call::Caller;
use crate::keys::ClavigerKeys;
use crate::transport::ChannelRef;

/// P2WPKH outputs below this are not relayed.
const DUST_SAT: u64 = 294;
/// BIP 68 and BIP 125: no relative lock, replaceable.
const SEQUENCE: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

impl Wallet {
    /// Completes a PSBT with what the wallet knows of its inputs and outputs, and lists the inputs it can sign.
    pub(crate) fn describe(&self, psbt: &mut Psbt) -> Vec<Utxo> {
        self.name_outputs(psbt);
        let coins = self.coins();
        let mut utxos = Vec::new();
        for (input, txin) in psbt.inputs.iter_mut().zip(&psbt.unsigned_tx.input) {
            let Some(coin) = coins.get(&txin.previous_output) else { continue };
            input.witness_utxo = Some(coin.output.clone());
            input.non_witness_utxo = Some((*coin.transaction).clone());
            utxos.push(Utxo {
                txid: txin.previous_output.txid,
                outnum: txin.previous_output.vout,
                amount: coin.output.value.to_sat(),
                keyindex: coin.index,
                is_p2sh: false,
                script: Octets::EMPTY,
                close_info: None,
                is_in_coinbase: coin.transaction.is_coinbase(),
            });
        }
        utxos
    }

    /// Tells the signer which outputs are its own: the path goes into the PSBT, the signer derives and compares.
    pub(crate) fn name_outputs(&self, psbt: &mut Psbt) {
        for (output, txout) in psbt.outputs.iter_mut().zip(&psbt.unsigned_tx.output) {
            let Some(index) = self.addresses.index_of(&txout.script_pubkey) else { continue };
            let Some(key) = self.addresses.key(index) else { continue };
            let path = DerivationPath::from(vec![ChildNumber::Normal { index }]);
            output.bip32_derivation.insert(key, (Fingerprint::default(), path));
        }
    }

    /// Shows the signer the transactions that made the wallet's coins: it takes no amounts on our word.
    fn prove(&self, psbt: &mut Psbt) {
        let coins = self.coins();
        for (input, txin) in psbt.inputs.iter_mut().zip(&psbt.unsigned_tx.input) {
            input.non_witness_utxo = coins.get(&txin.previous_output).map(|coin| (*coin.transaction).clone());
        }
    }

    /// The input of a PSBT that spends what a channel left to us.
    fn utxo(&self, descriptor: &SpendableOutputDescriptor, channel: impl Fn(&[u8; 32]) -> ChannelRef) -> Option<Utxo> {
        let close_info = |channel: ChannelRef, commitment_point, csv| CloseInfo {
            channel_id: channel.dbid,
            peer_id: PubKey(channel.peer_id),
            commitment_point,
            is_anchors: true, // not read: the signer knows the channel's type
            csv,
        };
        let (output, keyindex, close_info) = match descriptor {
            SpendableOutputDescriptor::StaticOutput { output, .. } => {
                (output, self.index_of(&output.script_pubkey)?, None)
            }
            SpendableOutputDescriptor::DelayedPaymentOutput(delayed) => {
                let point = PubKey(delayed.per_commitment_point.serialize());
                let csv = u32::from(delayed.to_self_delay);
                (&delayed.output, 0, Some(close_info(channel(&delayed.channel_keys_id), Some(point), csv)))
            }
            SpendableOutputDescriptor::StaticPaymentOutput(payment) => {
                (&payment.output, 0, Some(close_info(channel(&payment.channel_keys_id), None, 0)))
            }
        };
        let outpoint = descriptor.spendable_outpoint().into_bitcoin_outpoint();
        Some(Utxo {
            txid: outpoint.txid,
            outnum: outpoint.vout,
            amount: output.value.to_sat(),
            keyindex,
            is_p2sh: false,
            script: Octets::EMPTY,
            close_info,
            is_in_coinbase: false,
        })
    }
}

impl OutputSpender for ClavigerKeys {
    /// One request signs all inputs, of whatever kind. The signer accepts its own wallet as destination, and others as
    /// far as the operator allows.
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change_destination_script: ScriptBuf,
        feerate_sat_per_1000_weight: u32,
        locktime: Option<LockTime>,
        secp_ctx: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        let (mut psbt, _) = SpendableOutputDescriptor::create_spendable_outputs_psbt(
            secp_ctx,
            descriptors,
            outputs,
            change_destination_script,
            feerate_sat_per_1000_weight,
            locktime,
        )?;
        let wallet = self.wallet();
        wallet.name_outputs(&mut psbt);
        wallet.prove(&mut psbt);
        let utxo = |descriptor: &&SpendableOutputDescriptor| wallet.utxo(descriptor, |id| self.channel_ref(id));
        let utxos = descriptors.iter().map(utxo).collect::<Option<Vec<_>>>().ok_or(())?;
        let tx = sign(&wallet.caller, psbt, utxos)
            .map_err(|error| tracing::warn!(%error, "spendable outputs were not signed"))?;
        if tx.input.iter().any(|input| input.witness.is_empty()) { Err(()) } else { Ok(tx) }
    }
}

/// `SignWithdrawal` for `utxos`; inputs that are not listed stay unsigned.
pub(super) fn sign(caller: &Caller, psbt: Psbt, utxos: Vec<Utxo>) -> Result<Transaction, WalletError> {
    let mut tx = psbt.unsigned_tx.clone();
    let request = SignWithdrawal { utxos: utxos.into(), psbt: WithSize(StreamedPSBT::new(psbt)) };
    let reply: SignWithdrawalReply = caller.call(None, &request)?;
    for (txin, signed) in tx.input.iter_mut().zip(reply.psbt.0.inner.inputs) {
        txin.witness = signed.final_script_witness.unwrap_or_else(Witness::new);
    }
    Ok(tx)
}

/// Pays `output` from the largest coins that are not `is_spent` first, with change to `change` if it is worth an output.
/// The coins are reserved.
pub(super) fn build(
    coins: &mut Coins,
    output: TxOut,
    change: ScriptBuf,
    feerate_sat_per_1000_weight: u32,
    is_spent: impl Fn(&OutPoint) -> bool,
) -> Result<Psbt, WalletError> {
    let fee = |weight: u64| (weight * u64::from(feerate_sat_per_1000_weight)).div_ceil(1000);
    let mut tx =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: vec![output] };
    let free = coins.spendable().filter(|(outpoint, _)| !is_spent(outpoint));
    let mut candidates: Vec<_> = free.map(|(outpoint, coin)| (coin.output.value, *outpoint)).collect();
    candidates.sort();
    let available_sat = candidates.iter().map(|(value, _)| value.to_sat()).sum();

    let paid_sat = tx.output[0].value.to_sat();
    let mut spent_sat = 0;
    let needed_sat = loop {
        // The segwit marker and flag weigh 2.
        let weight = tx.weight().to_wu() + 2 + SATISFACTION_WEIGHT * tx.input.len() as u64;
        let needed_sat = paid_sat + fee(weight);
        if !tx.input.is_empty() && spent_sat >= needed_sat {
            break needed_sat;
        }
        let Some((value, previous_output)) = candidates.pop() else {
            return Err(WalletError::Funds { needed_sat, available_sat });
        };
        spent_sat += value.to_sat();
        tx.input.push(TxIn { previous_output, sequence: SEQUENCE, ..TxIn::default() });
    };

    let change = TxOut { value: Amount::ZERO, script_pubkey: change };
    let change_sat = (spent_sat - needed_sat).saturating_sub(fee(change.weight().to_wu()));
    if change_sat >= DUST_SAT {
        tx.output.push(TxOut { value: Amount::from_sat(change_sat), ..change });
    }
    coins.reserve(&tx);
    Psbt::from_unsigned_tx(tx).map_err(|e| WalletError::Build(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coin(sat: u64) -> Transaction {
        let output = TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() };
        let input = TxIn { previous_output: OutPoint { vout: 0, ..OutPoint::null() }, ..TxIn::default() };
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
    }

    #[test]
    fn a_coin_that_a_waiting_transaction_spends_funds_nothing() {
        let (large, small) = (coin(100_000), coin(50_000));
        let in_flight = |outpoint: &OutPoint| outpoint.txid == large.compute_txid();
        let mut coins = Coins::default();
        for tx in [&large, &small] {
            coins.add(tx, 1, |_| Some(0));
        }
        let pay = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() };

        let short = build(&mut coins, pay(60_000), ScriptBuf::new(), 1000, in_flight);
        assert!(matches!(short, Err(WalletError::Funds { available_sat: 50_000, .. })), "{short:?}");
        let psbt = build(&mut coins, pay(40_000), ScriptBuf::new(), 1000, in_flight).unwrap();
        let spent: Vec<_> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output.txid).collect();
        assert_eq!(spent, [small.compute_txid()]);
    }
}
