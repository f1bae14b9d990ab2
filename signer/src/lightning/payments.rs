//! What a message says of the payment it brings in.

use std::str::FromStr;
use std::time::Duration;

use lightning_signer::invoice::{Invoice, InvoiceAttributes};
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::lightning::types::payment::PaymentHash;
use lightning_signer::lightning_invoice::RawBolt11Invoice;
use vls_protocol::msgs::Message;

use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// The longest time an invoice may be valid. BOLT 11 has room for 2^64 seconds, which no clock can be added to; what is
/// remembered of an invoice is pruned when it expires.
const MAX_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The payment hash `message` brings in, if it does; those of commitments are seen by the persister. What cannot be
/// read is left to the state machine to refuse.
///
/// Refuses with `malformed` an invoice that does not expire within [`MAX_EXPIRY`].
pub(super) fn hash(message: &Message) -> Result<Option<PaymentHash>, Refusal> {
    Ok(match message {
        Message::PreapproveKeysend(m) => Some(PaymentHash(m.payment_hash.0)),
        Message::PreapproveInvoice(m) => {
            let invoice = std::str::from_utf8(&m.invstring.0).ok().and_then(|text| Invoice::from_str(text).ok());
            invoice.map(|invoice| expires(invoice.expiry_duration()).map(|()| invoice.payment_hash())).transpose()?
        }
        Message::SignInvoice(m) => match bolt11(&m.hrp, &m.u5bytes) {
            Some(invoice) => {
                expires(invoice.expiry_time().map(|expiry| *expiry.as_duration()).unwrap_or_default())?;
                invoice.payment_hash().map(|hash| PaymentHash(bitcoin::hashes::Hash::to_byte_array(hash.0)))
            }
            None => None,
        },
        // BOLT 12 has 32 bits for the expiry.
        Message::SignBolt12Invoice(m) => {
            UnsignedBolt12Invoice::try_from(m.invoice_bytes.0.clone()).ok().map(|invoice| invoice.payment_hash())
        }
        _ => None,
    })
}

fn expires(after: Duration) -> Result<(), Refusal> {
    if after <= MAX_EXPIRY {
        return Ok(());
    }
    let detail = format!("the invoice is valid for {} s; at most {} s are", after.as_secs(), MAX_EXPIRY.as_secs());
    let fact = Fact::number("expiry", after.as_secs(), Unit::Seconds).at_most(MAX_EXPIRY.as_secs());
    Err(Refusal::new(Reason::Malformed, detail).with_fact(fact))
}

/// The BOLT 11 invoice with these parts, if they are one.
pub(super) fn bolt11(hrp: &[u8], u5bytes: &[u8]) -> Option<RawBolt11Invoice> {
    let data: Vec<_> = u5bytes.iter().map(|u5| bitcoin::bech32::Fe32::try_from(*u5)).collect::<Result<_, _>>().ok()?;
    RawBolt11Invoice::from_raw(std::str::from_utf8(hrp).ok()?, &data).ok()
}
