//! What an account asks of the spending policy: actions and their facts, from what was parsed.
//!
//! | action | when it is asked | known by |
//! |---|---|---|
//! | `PayInvoice` | the call that pays it is signed | its payment hash |
//! | `Withdraw` | the call that requests it is signed; an L1 transaction pays somebody whom no such call named | the call; the transaction |
//!
//! What is permitted counts as spent: what became of a payment, Lightspark tells by nothing that is signed.

use bitcoin::{ScriptBuf, TxOut, Txid};
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::value::Value;
use lightning_signer::invoice::{Invoice, InvoiceAttributes};

use crate::lightning::counter::{Counter, payment_key};
use crate::policy::Ends;
use crate::reasons::Refusal;

/// An invoice is about to be paid.
pub(super) fn payment(
    counter: &Counter,
    invoice: &Invoice,
    amount_msat: u64,
    max_fee_msat: u64,
) -> Result<(), Refusal> {
    let Some(request) = counter.request(Action::PayInvoice) else { return Ok(()) };
    let hash = hex::encode(invoice.payment_hash().0);
    let ends_s = invoice.duration_since_epoch().saturating_add(invoice.expiry_duration()).as_secs();
    let expires_in_s = ends_s.saturating_sub(request.time_ms / 1_000);
    let request = request
        .with(FactId::Payee, invoice.payee_pub_key().to_string())
        .with(FactId::PaymentHash, hash.clone())
        .with(FactId::AmountMsat, amount_msat)
        .with(FactId::FeeMsat, max_fee_msat)
        .with(FactId::ExpiresInS, expires_in_s);
    let request = match invoice.description() {
        Some(text) if text.len() <= Value::MAX_TEXT => request.with(FactId::Description, text),
        _ => request,
    };
    counter.ask(request, payment_key(&hash), Ends::AtOnce)
}

/// A withdrawal is about to be requested under `key`. Its fee shows with the transaction, and is bounded there.
pub(super) fn withdrawal(
    counter: &Counter,
    key: &str,
    to: &ScriptBuf,
    amount_sat: u64,
    max_fee_sat: u64,
) -> Result<(), Refusal> {
    let Some(request) = counter.request(Action::Withdraw) else { return Ok(()) };
    let request = request
        .with(FactId::FeeMsat, max_fee_sat.saturating_mul(1_000))
        .with(FactId::AmountMsat, amount_sat.saturating_mul(1_000))
        .paying_to(counter.destinations([to].into_iter()));
    counter.ask(request, format!("withdrawal:{key}"), Ends::AtOnce)
}

/// Coins of the wallet are about to pay `leaving`, none of which a withdrawal has asked for.
pub(super) fn spend(counter: &Counter, txid: &Txid, leaving: &[&TxOut], fee_sat: u64) -> Result<(), Refusal> {
    let Some(request) = counter.request(Action::Withdraw) else { return Ok(()) };
    let sat = leaving.iter().fold(0u64, |sum, out| sum.saturating_add(out.value.to_sat()));
    let request = request
        .with(FactId::FeeMsat, fee_sat.saturating_mul(1_000))
        .with(FactId::AmountMsat, sat.saturating_mul(1_000))
        .paying_to(counter.destinations(leaving.iter().map(|out| &out.script_pubkey)));
    counter.ask(request, format!("withdraw:{txid}"), Ends::AtOnce)
}
