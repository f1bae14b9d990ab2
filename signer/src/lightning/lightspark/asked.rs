//! What an account asks of the spending policy: actions and their facts, from what was parsed.
//!
//! | action | when it is asked | known by |
//! |---|---|---|
//! | `PayInvoice` | the call that pays it is signed | its payment hash |
//! | `ForceClose`, `Sweep` | a channel of a recovery kit is signed | its funding; the transactions that collect |
//! | `UpdateChannel` | a commitment of the counterparty's is signed, or an HTLC of it; where the policy looks at what no call asked for | the commitment; the HTLC |
//! | `Withdraw` | the call that requests it is signed; an L1 transaction pays somebody whom no such call named | the call; the transaction |
//!
//! What is permitted counts as spent: what became of a payment, Lightspark tells by nothing that is signed.

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::request::Request;
use lightning_signer::invoice::Invoice;

use super::channel::Newest;
use crate::lightning::asked::paying;
use crate::lightning::counter::Counter;
use crate::policy::Ends;
use crate::reasons::Refusal;

/// An invoice is about to be paid.
pub(super) fn payment(
    counter: &Counter,
    invoice: &Invoice,
    amount_msat: u64,
    max_fee_msat: u64,
    cleared: Option<&str>,
) -> Result<(), Refusal> {
    let Some(request) = counter.request(Action::PayInvoice) else { return Ok(()) };
    let (request, key) = paying(request, invoice, amount_msat);
    counter.ask(with_clearance(request.with(FactId::FeeMsat, max_fee_msat), cleared), key, Ends::AtOnce)
}

/// A withdrawal is about to be requested under `key`. Its fee shows with the transaction, and is bounded there.
pub(super) fn withdrawal(
    counter: &Counter,
    key: &str,
    asked: &Withdrawal<'_>,
    max_fee_sat: u64,
) -> Result<(), Refusal> {
    let Withdrawal { to, amount_sat, cleared } = *asked;
    let more = |request| with_clearance(request, cleared);
    withdraw(counter, format!("withdrawal:{key}"), [to].into_iter(), (amount_sat, max_fee_sat), more)
}

/// What a call withdraws.
pub(super) struct Withdrawal<'a> {
    /// Where it goes.
    pub(super) to: &'a ScriptBuf,
    /// How much.
    pub(super) amount_sat: u64,
    /// The id of its clearance.
    pub(super) cleared: Option<&'a str>,
}

fn with_clearance(request: Request, cleared: Option<&str>) -> Request {
    cleared.into_iter().fold(request, |request, id| request.with(FactId::Clearance, id))
}

/// Coins of the wallet are about to pay `leaving`, none of which a withdrawal has asked for.
pub(super) fn spend(counter: &Counter, txid: &Txid, leaving: &[&TxOut], fee_sat: u64) -> Result<(), Refusal> {
    let sat = leaving.iter().fold(0u64, |sum, out| sum.saturating_add(out.value.to_sat()));
    let (to, count) = (leaving.iter().map(|out| &out.script_pubkey), leaving.len() as u64);
    let more = |request: Request| request.with(FactId::Unrequested, count);
    withdraw(counter, format!("withdraw:{txid}"), to, (sat, fee_sat), more)
}

/// A commitment of the counterparty's is about to be signed, or HTLCs of it that show only now; `unrequested_sat` of what leaves
/// belong to no payment that a signed call asked for. Payments begin elsewhere, too: asked only where the policy looks at that.
pub(super) fn update(
    counter: &Counter,
    funding: OutPoint,
    before: &Newest,
    newest: &Newest,
    unrequested_sat: u64,
) -> Result<(), Refusal> {
    if !counter.looks_at(FactId::UnrequestedMsat, Action::UpdateChannel) {
        return Ok(());
    }
    let Some(request) = counter.request(Action::UpdateChannel) else { return Ok(()) };
    let outgoing_sat = newest.htlcs.iter().filter(|htlc| htlc.outgoing).map(|htlc| htlc.amount_sat);
    let request = request
        .with(FactId::Channel, funding.to_string())
        .with(FactId::Htlcs, newest.htlcs.len() as u64)
        .with(FactId::OutgoingMsat, msat(outgoing_sat.fold(0, u64::saturating_add)))
        .with(FactId::DecreaseMsat, msat(before.ours_sat.saturating_sub(newest.ours_sat)))
        .with(FactId::UnrequestedMsat, msat(unrequested_sat));
    let key = match before.txid == newest.txid {
        true => format!("htlcs:{}:{}", newest.txid, newest.htlcs.len()),
        false => format!("commitment:{}", newest.txid),
    };
    counter.ask(request, key, Ends::AtOnce)
}

fn msat(sat: u64) -> u64 {
    sat.saturating_mul(1_000)
}

/// A channel is about to be closed by a commitment of ours, and what it pays collected in `collected`: each output beside its
/// transaction.
pub(super) fn recovery(
    counter: &Counter,
    funding: OutPoint,
    collected: &[(&Transaction, &TxOut)],
) -> Result<(), Refusal> {
    let Some(closing) = counter.request(Action::ForceClose) else { return Ok(()) };
    let closing = closing.with(FactId::Channel, funding.to_string());
    counter.ask(closing, format!("force-close:{funding}"), Ends::AtOnce)?;
    for (tx, output) in collected {
        let Some(sweep) = counter.request(Action::Sweep) else { return Ok(()) };
        let sweep = sweep
            .with(FactId::AmountMsat, msat(output.value.to_sat()))
            .paying_to(counter.destinations([&output.script_pubkey].into_iter()));
        counter.ask(sweep, format!("sweep:{}:{:x}", tx.compute_txid(), output.script_pubkey), Ends::AtOnce)?;
    }
    Ok(())
}

fn withdraw<'a>(
    counter: &Counter,
    key: String,
    to: impl Iterator<Item = &'a ScriptBuf>,
    (amount_sat, fee_sat): (u64, u64),
    more: impl FnOnce(Request) -> Request,
) -> Result<(), Refusal> {
    let Some(request) = counter.request(Action::Withdraw) else { return Ok(()) };
    let request = more(request)
        .with(FactId::FeeMsat, msat(fee_sat))
        .with(FactId::AmountMsat, msat(amount_sat))
        .paying_to(counter.destinations(to));
    counter.ask(request, key, Ends::AtOnce)
}
