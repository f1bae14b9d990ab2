//! Paying and being paid: invoices, offers, keysend, and incoming payments that wait.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use claviger_ldk::LinkError;
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, PaymentId, RecipientOnionFields, Retry};
use lightning::offers::offer::Offer;
use lightning::routing::router::{PaymentParameters, RouteParameters, RouteParametersConfig};
use lightning::sign::EntropySource;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};

use super::{AnyKeys, LdkNode, NodeError, Payment};

const HOUR: Duration = Duration::from_secs(3_600);

impl LdkNode {
    /// A BOLT 11 invoice over `amount_msat`, valid for an hour.
    pub fn invoice(&self, amount_msat: u64, description: &str) -> Result<Bolt11Invoice, NodeError> {
        self.invoice_within(Some(amount_msat), HOUR, description)
    }

    /// The same that leaves the amount to the payer if there is none, and is valid for `expiry`, counted in seconds.
    pub fn invoice_within(
        &self,
        amount_msat: Option<u64>,
        expiry: Duration,
        description: &str,
    ) -> Result<Bolt11Invoice, NodeError> {
        let description = Description::new(description.into()).map_err(|e| NodeError::Ldk(e.to_string()))?;
        let parameters = Bolt11InvoiceParameters {
            amount_msats: amount_msat,
            invoice_expiry_delta_secs: Some(expiry.as_secs() as u32),
            description: Bolt11InvoiceDescription::Direct(description),
            ..Default::default()
        };
        self.inner.channels.create_bolt11_invoice(parameters).map_err(|e| NodeError::Ldk(e.to_string()))
    }

    /// Pays a BOLT 11 invoice, after asking the signer.
    pub fn pay(&self, invoice: &Bolt11Invoice) -> Result<PaymentHash, NodeError> {
        self.approve(invoice)?;
        self.send(invoice, None)
    }

    /// Pays an invoice that names no amount, after asking the signer.
    pub fn pay_amount(&self, invoice: &Bolt11Invoice, amount_msat: u64) -> Result<PaymentHash, NodeError> {
        if let AnyKeys::Remote(keys) = &*self.inner.keys {
            approved(keys.preapprove_amount(invoice, amount_msat))?;
        }
        self.send(invoice, Some(amount_msat))
    }

    /// Has the signer approve an invoice, for now or for later.
    pub fn approve(&self, invoice: &Bolt11Invoice) -> Result<(), NodeError> {
        match &*self.inner.keys {
            AnyKeys::Remote(keys) => approved(keys.preapprove_invoice(invoice)),
            AnyKeys::Local(_) => Ok(()),
        }
    }

    fn send(&self, invoice: &Bolt11Invoice, amount_msat: Option<u64>) -> Result<PaymentHash, NodeError> {
        let hash = self.begin(payment_hash(invoice));
        let limits = RouteParametersConfig::default();
        self.inner
            .channels
            .pay_for_bolt11_invoice(invoice, PaymentId(hash.0), amount_msat, limits, Retry::Attempts(5))
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))?;
        Ok(hash)
    }

    /// How an earlier attempt at a payment ended is not how this one does.
    pub(super) fn begin(&self, hash: PaymentHash) -> PaymentHash {
        self.inner.store.history().payments.retain(|known, payment| *known != hash || *payment != Payment::Failed);
        hash
    }

    /// Pays without an invoice, after asking the signer.
    pub fn keysend(&self, payee: PublicKey, amount_msat: u64) -> Result<PaymentHash, NodeError> {
        let preimage = PaymentPreimage(self.inner.keys.get_secure_random_bytes());
        let hash = PaymentHash::from(preimage);
        if let AnyKeys::Remote(keys) = &*self.inner.keys {
            approved(keys.preapprove_keysend(&payee, hash, amount_msat))?;
        }
        let payment = PaymentParameters::for_keysend(payee, 40, false);
        let route = RouteParameters::from_payment_params_and_value(payment, amount_msat);
        let onion = RecipientOnionFields::spontaneous_empty();
        self.inner
            .channels
            .send_spontaneous_payment(Some(preimage), onion, PaymentId(hash.0), route, Retry::Attempts(5))
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// A BOLT 12 offer over `amount_msat`.
    pub fn offer(&self, amount_msat: u64) -> Result<Offer, NodeError> {
        let builder = self.inner.channels.create_offer_builder().map_err(|e| NodeError::Ldk(format!("{e:?}")))?;
        builder.amount_msats(amount_msat).build().map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// Asks for an invoice for `offer` and pays it, after asking the signer.
    pub fn pay_offer(&self, offer: &Offer) -> Result<(), NodeError> {
        let id = PaymentId(self.inner.keys.get_secure_random_bytes());
        self.inner
            .channels
            .pay_for_offer(offer, None, id, Default::default())
            .map_err(|e| NodeError::Ldk(format!("{e:?}")))
    }

    /// Whether incoming payments wait for [`claim`](Self::claim) or [`reject`](Self::reject).
    pub fn hold_payments(&self, hold: bool) {
        self.inner.holding.store(hold, Ordering::SeqCst);
    }

    /// Incoming payments that wait.
    pub fn held(&self) -> Vec<PaymentHash> {
        let hash = |name: &String| Some(PaymentHash(parse_hex(name)?));
        self.inner.store.names(HELD).iter().filter_map(hash).collect()
    }

    /// Takes an incoming payment that waits.
    pub fn claim(&self, hash: &PaymentHash) {
        let preimage = self.inner.store.take(&held_name(hash)).and_then(|bytes| bytes.try_into().ok());
        if let Some(preimage) = preimage {
            self.inner.channels.claim_funds(PaymentPreimage(preimage));
        }
    }

    /// Returns an incoming payment that waits.
    pub fn reject(&self, hash: &PaymentHash) {
        if self.inner.store.take(&held_name(hash)).is_some() {
            self.inner.channels.fail_htlc_backwards(hash);
        }
    }
}

/// The payment hash of an invoice, as LDK writes it.
pub fn payment_hash(invoice: &Bolt11Invoice) -> PaymentHash {
    PaymentHash(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()))
}

/// Prefix of the names of incoming payments that wait.
const HELD: &str = "held-";

pub(super) fn held_name(hash: &PaymentHash) -> String {
    format!("{HELD}{hash}")
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn approved(answer: Result<bool, LinkError>) -> Result<(), NodeError> {
    if answer? { Ok(()) } else { Err(NodeError::NotApproved) }
}
