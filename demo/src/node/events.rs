//! What the node does when LDK tells it something.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, Psbt, TxOut};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::transaction::OutPoint;
use lightning::events::bump_transaction::sync::WalletSourceSync;
use lightning::events::{Event, ReplayEvent};
use lightning::sign::{OutputSpender, SpendableOutputDescriptor};
use lightning::util::ser::{Readable, Writeable};

use super::payments::held_name;
use super::{AnyKeys, AnyWallet, Inner};

/// Prefixes of names in the store.
const FUNDING: &str = "funding-";
const SWEEP: &str = "sweep-";

impl Inner {
    /// `Err` has LDK bring the event again.
    pub(super) fn handle(self: &Arc<Self>, event: Event) -> Result<(), ReplayEvent> {
        self.log.note(format!("event {event:?}"));
        self.store.history().note(&event);
        let done = match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let accepted =
                    self.channels.accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None);
                accepted.map_err(|e| format!("{e:?}"))
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let output = TxOut { value: Amount::from_sat(channel_value_satoshis), script_pubkey: output_script };
                let funded = self.fund(output).and_then(|funding| {
                    self.channels
                        .unsafe_manual_funding_transaction_generated(
                            temporary_channel_id,
                            counterparty_node_id,
                            funding,
                        )
                        .map_err(|e| format!("{e:?}"))
                });
                if funded.is_err() {
                    let reason = "no coins".to_string();
                    let _ = self.channels.force_close_broadcasting_latest_txn(
                        &temporary_channel_id,
                        &counterparty_node_id,
                        reason,
                    );
                }
                funded
            }
            Event::FundingTxBroadcastSafe { funding_txo, .. } => {
                return self.broadcast_funding(&funding_txo.txid.to_string()).map_err(|error| {
                    self.log.note(error);
                    ReplayEvent()
                });
            }
            Event::PaymentClaimable { payment_hash, purpose, .. } => {
                match purpose.preimage() {
                    Some(preimage) if self.holding.load(Ordering::SeqCst) => {
                        self.store.put(&held_name(&payment_hash), preimage.0.to_vec());
                    }
                    Some(preimage) => self.channels.claim_funds(preimage),
                    None => self.channels.fail_htlc_backwards(&payment_hash),
                }
                Ok(())
            }
            Event::InvoiceReceived { payment_id, invoice, context, .. } => {
                let approved = match &*self.keys {
                    AnyKeys::Local(_) => true,
                    AnyKeys::Remote(keys) => keys.preapprove_bolt12_invoice(&invoice).unwrap_or(false),
                };
                if approved {
                    self.channels
                        .send_payment_for_bolt12_invoice(&invoice, context.as_ref())
                        .map_err(|e| format!("{e:?}"))
                } else {
                    self.channels.abandon_payment(payment_id);
                    Ok(())
                }
            }
            Event::BumpTransaction(event) => {
                self.bump.handle_event(&event);
                Ok(())
            }
            Event::SpendableOutputs { outputs, .. } => {
                for output in outputs {
                    let name = format!("{SWEEP}{}", output.spendable_outpoint());
                    self.store.put(&name, output.encode());
                }
                self.sweep();
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = done {
            self.log.note(error);
        }
        Ok(())
    }

    /// Makes the funding transaction and keeps it until LDK says that broadcasting is safe.
    fn fund(&self, output: TxOut) -> Result<OutPoint, String> {
        let funding = self.wallet.fund(output, self.fees.get(), |coin| self.chain.is_in_flight(coin))?;
        let name = format!("{FUNDING}{}", funding.outpoint.txid);
        self.store.put(&name, funding.psbt.serialize());
        // A funding transaction pays its channel first.
        Ok(OutPoint { txid: funding.outpoint.txid, index: 0 })
    }

    fn broadcast_funding(&self, txid: &str) -> Result<(), String> {
        let bytes = self.store.get(&format!("{FUNDING}{txid}")).ok_or("the funding transaction is not there")?;
        let psbt = Psbt::deserialize(&bytes).map_err(|e| e.to_string())?;
        let tx = match &*self.wallet {
            AnyWallet::Remote(wallet) => wallet.sign(psbt).map_err(|e| e.to_string())?,
            AnyWallet::Local(wallet) => wallet.sign_psbt(psbt).map_err(|()| "not signed")?,
        };
        self.broadcaster.broadcast_transactions(&[&tx]);
        Ok(())
    }

    /// Sends what channels left to us to the wallet, again with each block until it is confirmed.
    pub(super) fn sweep(&self) {
        for bytes in self.store.with_prefix(SWEEP) {
            let Ok(output) = SpendableOutputDescriptor::read(&mut Cursor::new(&bytes)) else {
                continue;
            };
            let outpoint = output.spendable_outpoint();
            // The signer's wallet spends this as a coin.
            let is_coin = matches!(
                (&output, &*self.wallet),
                (SpendableOutputDescriptor::StaticOutput { .. }, AnyWallet::Remote(_))
            );
            if is_coin || !self.chain.is_unspent(&outpoint.into_bitcoin_outpoint()) {
                continue;
            }
            if let Err(error) = self.sweep_one(&output) {
                self.log.note(format!("sweep {outpoint}: {error}"));
            }
        }
    }

    fn sweep_one(&self, output: &SpendableOutputDescriptor) -> Result<(), &'static str> {
        let secp = Secp256k1::new();
        let height = LockTime::from_height(self.channels.current_best_block().height).map_err(|_| "bad height")?;
        let tx = self
            .keys
            .spend_spendable_outputs(&[output], vec![], self.wallet.script(), self.fees.get(), Some(height), &secp)
            .map_err(|()| "not signed, or worth less than its fee")?;
        self.broadcaster.broadcast_transactions(&[&tx]);
        Ok(())
    }
}
