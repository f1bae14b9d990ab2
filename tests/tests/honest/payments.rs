//! Payments of every kind, each begun and then left to itself.

use std::time::{Duration, Instant};

use claviger_demo::node::{LdkNode, NodeError, Payment, payment_hash};
use claviger_demo::world::PATIENCE;
use fastrand::Rng;
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;
use lightning_invoice::Bolt11Invoice;

use crate::pick;
use crate::town::Town;

/// Below every dust limit: on no commitment transaction.
const DUST_MSAT: std::ops::Range<u64> = 1_000..300_000;
/// Well above: an output of its own, worth claiming at every feerate here.
const USUAL_MSAT: std::ops::Range<u64> = 15_000_000..120_000_000;
/// What the operator allows at once, less something for fees.
const MOST_MSAT: u64 = 900_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Invoice,
    Dust,
    /// More than any one channel carries.
    Multipath,
    /// The payer names the amount.
    Amountless,
    Keysend,
    /// To the payer himself.
    Circle,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Invoice => "invoice",
            Self::Dust => "dust",
            Self::Multipath => "multipath",
            Self::Amountless => "amount-less",
            Self::Keysend => "keysend",
            Self::Circle => "circle",
        }
    }
}

/// A payment on its way.
pub(crate) struct Flight {
    pub(crate) payer: usize,
    pub(crate) payee: usize,
    pub(crate) hash: PaymentHash,
    /// To be paid again if it fails.
    pub(crate) invoice: Option<Bolt11Invoice>,
}

impl Flight {
    /// How it ended, if it did.
    pub(crate) fn outcome(&self, town: &Town) -> Option<&'static str> {
        match town.node(self.payer).payment(&self.hash)? {
            Payment::Sent { .. } => Some("sent"),
            Payment::Failed => Some("failed"),
        }
    }

    /// Whether it waits at its payee.
    pub(crate) fn is_held(&self, town: &Town) -> bool {
        town.node(self.payee).held().contains(&self.hash)
    }

    /// Pays the same invoice once more.
    pub(crate) fn again(&self, town: &Town) -> Option<Flight> {
        let (payer, invoice) = (town.node(self.payer), self.invoice.as_ref()?);
        let hash = begun(|| payer.pay(invoice))?;
        Some(Flight { payer: self.payer, payee: self.payee, hash, invoice: None })
    }
}

/// Begins a payment of `kind` between two nodes of the town. Says what it is, and has no flight if there is no way.
pub(crate) fn begin(town: &Town, random: &mut Rng, kind: Kind) -> (String, Option<Flight>) {
    let places = town.all().len();
    let payer = random.usize(..places);
    let payee = (payer + 1 + random.usize(..places - 1)) % places;
    let amount_msat = match kind {
        Kind::Dust => random.u64(DUST_MSAT),
        Kind::Multipath => multipath_msat(town.node(payer), random),
        _ => random.u64(USUAL_MSAT),
    };
    if kind == Kind::Circle {
        return circle(town, random, payer, amount_msat / 2);
    }
    let what = format!("{} to {}: {amount_msat} msat", town.name(payer), town.name(payee));
    let (from, to) = (town.node(payer), town.node(payee));
    let mut invoice = None;
    let hash = match kind {
        Kind::Keysend => begun(|| from.keysend(to.id(), amount_msat)),
        Kind::Amountless => {
            let open = to.invoice_within(None, HOUR, "any amount").expect("an invoice");
            begun(|| from.pay_amount(&open, amount_msat))
        }
        _ => {
            let fixed = to.invoice(amount_msat, kind.name()).expect("an invoice");
            let hash = begun(|| from.pay(&fixed));
            invoice = Some(fixed);
            hash
        }
    };
    (what, hash.map(|hash| Flight { payer, payee, hash, invoice }))
}

/// An invoice that is approved, not paid, and expires.
pub(crate) fn unpaid(town: &Town, random: &mut Rng) -> String {
    let places = town.all().len();
    let payee = random.usize(..places);
    let payer = (payee + 1) % places;
    let amount_msat = random.u64(USUAL_MSAT);
    let invoice = town.node(payee).invoice_within(Some(amount_msat), Duration::from_secs(60), "never paid");
    let invoice = invoice.expect("an invoice");
    begun(|| town.node(payer).approve(&invoice).map(|()| payment_hash(&invoice)));
    format!("{} of {}: {amount_msat} msat", town.name(payee), town.name(payer))
}

/// Most of what the node can send, over all its channels.
fn multipath_msat(payer: &LdkNode, random: &mut Rng) -> u64 {
    let channels = payer.channels().into_iter().filter(|channel| channel.is_usable);
    let limits: Vec<u64> = channels.map(|channel| channel.next_outbound_htlc_limit_msat).collect();
    let most = limits.iter().sum::<u64>().min(MOST_MSAT);
    (most * random.u64(40..75) / 100).max(USUAL_MSAT.start)
}

fn circle(town: &Town, random: &mut Rng, payer: usize, amount_msat: u64) -> (String, Option<Flight>) {
    let circles = circles(town, payer);
    let Some(circle) = (!circles.is_empty()).then(|| pick(random, &circles)) else {
        return (format!("{} to itself: there is no circle", town.name(payer)), None);
    };
    let what = format!("{} to itself over {} channels: {amount_msat} msat", town.name(payer), circle.len());
    let hash = begun(|| town.node(payer).pay_around(circle, amount_msat));
    (what, hash.map(|hash| Flight { payer, payee: payer, hash, invoice: None }))
}

/// The ways from a node over open channels and other nodes back to it, each channel as its near end lists it.
fn circles(town: &Town, home: usize) -> Vec<Vec<ChannelDetails>> {
    let mut found = Vec::new();
    let mut ways = vec![(home, Vec::new(), Vec::<ChannelDetails>::new())];
    while let Some((at, streets, channels)) = ways.pop() {
        for (street, ends) in town.streets.iter().map(|street| street.ends).enumerate() {
            let Some(end) = ends.iter().position(|place| *place == at) else { continue };
            let (next, new) = (ends[1 - end], !streets.contains(&street));
            let Some(channel) = town.channel(street, end).filter(|channel| new && channel.is_usable) else { continue };
            let (mut streets, mut channels) = (streets.clone(), channels.clone());
            let seen = channels.iter().any(|c: &ChannelDetails| c.counterparty.node_id == channel.counterparty.node_id);
            streets.push(street);
            channels.push(channel);
            if next == home {
                found.push(channels);
            } else if !seen {
                ways.push((next, streets, channels));
            }
        }
    }
    found.retain(|circle| circle.len() > 1);
    found
}

/// Asks again while the signer cannot be asked. `None` if LDK knows no way to pay.
///
/// # Panics
/// If the signer refuses: nothing here is more than an honest node wants.
fn begun(pay: impl Fn() -> Result<PaymentHash, NodeError>) -> Option<PaymentHash> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pay() {
            Ok(hash) => return Some(hash),
            Err(NodeError::Ldk(_)) => return None,
            Err(NodeError::Signer(error)) if error.retry() && Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(error) => panic!("an honest payment was refused: {error}"),
        }
    }
}
