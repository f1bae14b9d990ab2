//! Asking before paying. LDK adds an outgoing HTLC without asking the signer first, so the application asks: a payment
//! that was not approved makes its channel wait at the next commitment, an approved one does not.

use bitcoin::bech32::{Hrp, NoChecksum, encode_lower};
use bitcoin::secp256k1::PublicKey;
use lightning::offers::invoice::Bolt12Invoice;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::Writeable;
use lightning_invoice::Bolt11Invoice;
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{PreapproveInvoice, PreapproveInvoiceReply, PreapproveKeysend, PreapproveKeysendReply};
use vls_protocol::serde_bolt::WireString;

use super::ClavigerKeys;
use crate::transport::LinkError;

impl ClavigerKeys {
    /// Whether the signer will sign the payment of a BOLT 11 invoice. To be asked before `pay_for_bolt11_invoice`, and
    /// worth asking again before a later retry.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with reason `limit`: the operator's limits say no, and which. Any other [`LinkError`]: the
    /// signer cannot be reached or does not decide.
    pub fn preapprove_invoice(&self, invoice: &Bolt11Invoice) -> Result<bool, LinkError> {
        self.preapprove(invoice.to_string())
    }

    /// The same for a BOLT 11 invoice that leaves the amount to the payer: the signer approves `amount_msat` for its
    /// payment hash and payee.
    ///
    /// # Errors
    /// As [`preapprove_invoice`](Self::preapprove_invoice).
    pub fn preapprove_amount(&self, invoice: &Bolt11Invoice, amount_msat: u64) -> Result<bool, LinkError> {
        let hash = PaymentHash(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()));
        self.preapprove_keysend(&invoice.get_payee_pub_key(), hash, amount_msat)
    }

    /// The same for a BOLT 12 invoice. With `UserConfig::manually_handle_bolt12_invoices`, ask on
    /// `Event::InvoiceReceived` before `send_payment_for_bolt12_invoice`.
    ///
    /// # Errors
    /// As [`preapprove_invoice`](Self::preapprove_invoice).
    pub fn preapprove_bolt12_invoice(&self, invoice: &Bolt12Invoice) -> Result<bool, LinkError> {
        let text = encode_lower::<NoChecksum>(Hrp::parse_unchecked("lni"), &invoice.encode())
            .map_err(|e| LinkError::Protocol(format!("the invoice is too long to write: {e}")))?;
        self.preapprove(text)
    }

    /// Whether the signer will sign a spontaneous payment of `amount_msat` with `payment_hash` to `payee`.
    ///
    /// # Errors
    /// As [`preapprove_invoice`](Self::preapprove_invoice).
    pub fn preapprove_keysend(
        &self,
        payee: &PublicKey,
        payment_hash: PaymentHash,
        amount_msat: u64,
    ) -> Result<bool, LinkError> {
        let request = PreapproveKeysend {
            destination: PubKey(payee.serialize()),
            payment_hash: Sha256(payment_hash.0),
            amount_msat,
        };
        self.caller.call::<PreapproveKeysendReply>(None, &request).map(|reply| reply.result)
    }

    fn preapprove(&self, invoice: String) -> Result<bool, LinkError> {
        let request = PreapproveInvoice { invstring: WireString(invoice.into_bytes()) };
        self.caller.call::<PreapproveInvoiceReply>(None, &request).map(|reply| reply.result)
    }
}
