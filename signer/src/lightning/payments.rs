//! What a message says of the payment it brings in.

use std::str::FromStr;

use lightning_signer::invoice::{Invoice, InvoiceAttributes};
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::lightning::types::payment::PaymentHash;
use lightning_signer::lightning_invoice::{RawBolt11Invoice, TaggedField};
use vls_protocol::msgs::Message;

/// The payment hashes a message brings in; those of commitments are seen by the persister.
pub(super) fn hashes(message: &Message) -> Vec<PaymentHash> {
    let hash = match message {
        Message::PreapproveKeysend(m) => Some(PaymentHash(m.payment_hash.0)),
        Message::PreapproveInvoice(m) => std::str::from_utf8(&m.invstring.0)
            .ok()
            .and_then(|text| Invoice::from_str(text).ok())
            .map(|invoice| invoice.payment_hash()),
        Message::SignInvoice(m) => bolt11_hash(&m.hrp, &m.u5bytes),
        Message::SignBolt12Invoice(m) => {
            UnsignedBolt12Invoice::try_from(m.invoice_bytes.0.clone()).ok().map(|invoice| invoice.payment_hash())
        }
        _ => None,
    };
    hash.into_iter().collect()
}

fn bolt11_hash(hrp: &[u8], u5bytes: &[u8]) -> Option<PaymentHash> {
    let data: Vec<_> = u5bytes.iter().map(|u5| bitcoin::bech32::Fe32::try_from(*u5)).collect::<Result<_, _>>().ok()?;
    let invoice = RawBolt11Invoice::from_raw(std::str::from_utf8(hrp).ok()?, &data).ok()?;
    let mut fields = invoice.known_tagged_fields();
    fields.find_map(|field| match field {
        TaggedField::PaymentHash(hash) => Some(PaymentHash(bitcoin::hashes::Hash::to_byte_array(hash.0))),
        _ => None,
    })
}
