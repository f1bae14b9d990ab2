//! What lnd's calls ask of the spending policy: actions and their facts, from what was parsed.
//!
//! | action | when it is asked |
//! |---|---|
//! | `OpenChannel` | a funding output of the wallet's is signed for, and again with the channel's first commitment |
//! | `UpdateChannel` | a later commitment of the counterparty's is signed |
//! | `SignHtlc` | the counterparty may claim an HTLC of such a commitment |
//! | `ForceClose` | a commitment of ours is signed, but for the first one, which lnd tries when a channel opens |
//! | `CloseChannel`, `Sweep` | the transaction is signed; what pays the wallet itself does not leave |
//! | `Withdraw`, `BumpFee` | coins of the wallet are spent; an anchor is |
//! | `IssueInvoice`, `SignMessage`, `Gossip`, `Ecdh` | the signature or secret is asked for |
//!
//! lnd names a peer only when it announces the channel, or in the backup that a channel was taken over from: until then, and
//! of private channels, the peer is "unknown", and always in an `OpenChannel`. The secrets of a channel's commitments are
//! shared with nobody and not asked about. Penalties are not either, nor what a counterparty's commitment pays us, which may
//! be part of one, as long as it comes home (P3).

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, TxOut};
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::request::Request;

use super::channel::{Asked, Side};
use super::channels::Judged;
use super::messages::{Kind, shown};
use super::transactions::{AskedHtlc, Class};
use super::wallet::Spending;
use crate::lightning::counter::Counter;
use crate::policy::Ends;
use crate::reasons::Refusal;

/// lnd did not tell who a channel's peer is.
const UNKNOWN: &str = "unknown";

/// A channel as a request names it: its funding output, and the peer, if it was told.
type Known<'a> = (&'a OutPoint, Option<PublicKey>);

/// A commitment is about to be signed. `is_funded` tells whether the channel's money is the wallet's.
pub(super) fn commitment(
    counter: &Counter,
    commitment: &Asked,
    judged: &Judged,
    is_funded: bool,
) -> Result<(), Refusal> {
    let funding = commitment.funding;
    if judged.is_new {
        let sat = if is_funded { (commitment.capacity_sat, judged.given_sat) } else { (0, 0) };
        return open(counter, funding, sat, None);
    }
    match judged.side {
        Side::Holder if judged.closes => {
            let key = format!("force-close:{funding}");
            ask(counter, Action::ForceClose, key, |request| of(request, (&funding, judged.peer)))
        }
        Side::Holder => Ok(()),
        Side::Counterparty | Side::Either => {
            // lnd may ask for another commitment with the same number: what that takes counts, too.
            let key = format!("commitment:{}", commitment.txid);
            // One of them is the counterparty's balance.
            let htlcs = commitment.others.len().saturating_sub(1) as u64;
            ask(counter, Action::UpdateChannel, key, |request| {
                let request = of(request, (&funding, judged.peer))
                    .with(FactId::Htlcs, htlcs)
                    .with(FactId::DecreaseMsat, msat(judged.decrease_sat));
                judged.unproven_states.into_iter().fold(request, |request, n| request.with(FactId::UnprovenStates, n))
            })
        }
    }
}

/// The counterparty may go on with an HTLC of its commitment, which is the last one of `channel`, if that was signed before.
/// `height` is the chain's, if it is seen.
pub(super) fn htlc(
    counter: &Counter,
    htlc: &AskedHtlc,
    channel: Option<Known<'_>>,
    height: Option<u32>,
) -> Result<(), Refusal> {
    ask(counter, Action::SignHtlc, format!("htlc:{}", htlc.output), |request| {
        let request = request
            .with(FactId::HtlcMsat, msat(htlc.sat))
            .with(FactId::Direction, htlc.direction())
            .with(FactId::ExpiryHeight, u64::from(htlc.expiry_height))
            .with(FactId::PaymentHash160, hex::encode(htlc.payment_hash160));
        let request = channel.into_iter().fold(request, of);
        let expires_in = height.map(|height| htlc.expiry_height.saturating_sub(height));
        expires_in.into_iter().fold(request, |request, blocks| request.with(FactId::ExpiresInBlocks, u64::from(blocks)))
    })
}

/// A mutual close is about to be signed; `leaving` are outputs of ours that do not pay the wallet.
pub(super) fn close<'a>(
    counter: &Counter,
    channel: Known<'_>,
    leaving: impl Iterator<Item = &'a TxOut> + Clone,
) -> Result<(), Refusal> {
    ask(counter, Action::CloseChannel, format!("close:{}", channel.0), |request| {
        paying(counter, of(request, channel), leaving, 0)
    })
}

/// What a channel left is about to be claimed; `leaving` are outputs that neither pay the wallet nor go on.
pub(super) fn claim<'a>(
    counter: &Counter,
    class: Class,
    tx: &Transaction,
    leaving: impl Iterator<Item = &'a TxOut> + Clone,
    fee_sat: u64,
) -> Result<(), Refusal> {
    match class {
        Class::Justice => Ok(()),
        Class::ToRemoteSweep if leaving.clone().next().is_none() => Ok(()),
        Class::AnchorSpend if leaving.clone().next().is_none() => bump(counter, tx, fee_sat),
        _ => ask(counter, Action::Sweep, format!("sweep:{}", tx.compute_txid()), |request| {
            paying(counter, request, leaving, 0)
        }),
    }
}

/// Coins of the wallet are about to be spent. `given_sat` tells what a channel gave its counterparty, if it is known.
pub(super) fn spend(
    counter: &Counter,
    tx: &Transaction,
    spending: &Spending,
    given_sat: impl Fn(&OutPoint) -> u64,
) -> Result<(), Refusal> {
    let Spending { leaving, funding, onchain, feerate_sat_per_kw } = spending;
    let at = |request: Request| match feerate_sat_per_kw {
        Some(feerate) => request.with(FactId::FeerateSatPerKw, *feerate),
        None => request,
    };
    let leaving = leaving.iter().map(|at| &tx.output[*at]);
    let leaving_sat: u64 = leaving.clone().map(|out| out.value.to_sat()).sum();
    let is_withdrawal = leaving_sat > onchain.foreign_sat;
    let txid = tx.compute_txid();
    if is_withdrawal {
        ask(counter, Action::Withdraw, format!("withdraw:{txid}"), |request| {
            let request = at(request).with(FactId::FeeMsat, msat(onchain.fee_sat));
            paying(counter, request, leaving, onchain.foreign_sat)
        })?;
    } else if funding.is_empty() {
        return bump(counter, tx, onchain.fee_sat);
    }
    // The fee is counted once.
    let mut fee_sat = (!is_withdrawal).then_some(onchain.fee_sat);
    for at in funding {
        let outpoint = OutPoint { txid, vout: *at as u32 };
        let sat = (tx.output[*at].value.to_sat(), given_sat(&outpoint));
        open(counter, outpoint, sat, fee_sat.take())?;
    }
    Ok(())
}

/// A message is about to be signed.
pub(super) fn message(counter: &Counter, kind: &Kind, bytes: &[u8]) -> Result<(), Refusal> {
    match kind {
        Kind::NodeAnnouncement | Kind::ChannelUpdate | Kind::ChannelAnnouncement(_) => {
            counter.gossip(kind.name(), bytes)
        }
        Kind::Invoice(invoice) => counter.invoice(&invoice.payment_hash, invoice.amount_msat),
        Kind::Text => counter.text(shown(bytes)),
    }
}

/// A channel puts `puts_in` of the wallet's into its funding output and gives the counterparty `gives` of it, in sat.
fn open(
    counter: &Counter,
    funding: OutPoint,
    (puts_in_sat, gives_sat): (u64, u64),
    fee_sat: Option<u64>,
) -> Result<(), Refusal> {
    ask(counter, Action::OpenChannel, format!("open:{funding}"), |request| {
        let request = request
            .with(FactId::Peer, UNKNOWN)
            .with(FactId::AmountMsat, msat(puts_in_sat))
            .with(FactId::PushMsat, msat(gives_sat));
        fee_sat.into_iter().fold(request, |request, fee_sat| request.with(FactId::FeeMsat, msat(fee_sat)))
    })
}

fn bump(counter: &Counter, tx: &Transaction, fee_sat: u64) -> Result<(), Refusal> {
    ask(counter, Action::BumpFee, format!("bump:{}", tx.compute_txid()), |request| {
        request.with(FactId::FeeMsat, msat(fee_sat))
    })
}

fn ask(counter: &Counter, action: Action, key: String, facts: impl FnOnce(Request) -> Request) -> Result<(), Refusal> {
    counter.request(action).map_or(Ok(()), |request| counter.ask(facts(request), key, Ends::AtOnce))
}

fn of(request: Request, (funding, peer): Known<'_>) -> Request {
    let peer = peer.map_or_else(|| UNKNOWN.to_owned(), |peer| peer.to_string());
    request.with(FactId::Channel, funding.to_string()).with(FactId::Peer, peer)
}

/// What leaves, less what others bring in, and where to.
fn paying<'a>(
    counter: &Counter,
    request: Request,
    leaving: impl Iterator<Item = &'a TxOut> + Clone,
    foreign_sat: u64,
) -> Request {
    let sat: u64 = leaving.clone().map(|out| out.value.to_sat()).sum();
    request
        .with(FactId::AmountMsat, msat(sat.saturating_sub(foreign_sat)))
        .paying_to(counter.destinations(leaving.map(|out| &out.script_pubkey)))
}

fn msat(sat: u64) -> u64 {
    sat.saturating_mul(1_000)
}
