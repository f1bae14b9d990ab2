//! Payments for a driver to announce and invoices for it to have signed.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::types::payment::PaymentSecret;
use lightning_invoice::{Currency, InvoiceBuilder, RawBolt11Invoice};
use vls_protocol::model::{PubKey, Sha256};
use vls_protocol::msgs::{PreapproveInvoice, PreapproveKeysend, SerBolt, SignInvoice};
use vls_protocol::serde_bolt::WireString;

/// PreapproveKeysend of `amount_msat`, with a payment hash made from `n`.
pub fn keysend(n: u64, amount_msat: u64) -> Vec<u8> {
    let destination = PubKey(payee().1.serialize());
    PreapproveKeysend { destination, payment_hash: Sha256(hash(n).to_byte_array()), amount_msat }.as_vec()
}

/// PreapproveInvoice for an invoice of another node, valid for a day.
pub fn invoice_to_pay(n: u64, amount_msat: u64) -> Vec<u8> {
    invoice_to_pay_within(n, amount_msat, DAY)
}

/// The same for an invoice that is valid for `expiry`.
pub fn invoice_to_pay_within(n: u64, amount_msat: u64, expiry: Duration) -> Vec<u8> {
    let (secp, invoice) = (Secp256k1::new(), raw_invoice(n, amount_msat, expiry));
    let signed = invoice.sign::<_, Infallible>(|digest| Ok(secp.sign_ecdsa_recoverable(digest, &payee().0)));
    let Ok(signed) = signed;
    PreapproveInvoice { invstring: WireString(signed.to_string().into_bytes()) }.as_vec()
}

/// SignInvoice for an invoice of the node, valid for a day.
pub fn invoice_to_sign(n: u64, amount_msat: u64) -> Vec<u8> {
    invoice_to_sign_within(n, amount_msat, DAY)
}

/// The same for an invoice that is valid for `expiry`.
pub fn invoice_to_sign_within(n: u64, amount_msat: u64, expiry: Duration) -> Vec<u8> {
    let (hrp, data) = raw_invoice(n, amount_msat, expiry).to_raw();
    let u5bytes: Vec<u8> = data.iter().map(|fe| fe.to_u8()).collect();
    SignInvoice { u5bytes: u5bytes.into(), hrp: hrp.into_bytes().into() }.as_vec()
}

const DAY: Duration = Duration::from_secs(86_400);

fn raw_invoice(n: u64, amount_msat: u64, expiry: Duration) -> RawBolt11Invoice {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    InvoiceBuilder::new(Currency::Regtest)
        .description(String::new())
        .payment_hash(hash(n))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(now)
        .min_final_cltv_expiry_delta(144)
        .amount_milli_satoshis(amount_msat)
        .expiry_time(expiry)
        .build_raw()
        .expect("the fields are complete")
}

fn hash(n: u64) -> sha256::Hash {
    sha256::Hash::hash(&n.to_be_bytes())
}

fn payee() -> (SecretKey, PublicKey) {
    let secret = SecretKey::from_slice(&[0x21; 32]).expect("a small number is a secret key");
    (secret, secret.public_key(&Secp256k1::new()))
}
