//! Channels as the operator sees them, and what he orders about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::OutPoint;
use claviger_proto::v1::{
    BalanceInfo, BookInfo, ChannelCheck, ChannelInfo, ClaimInfo, CommitmentsInfo, ExemptionInfo, FreezeInfo, HtlcInfo,
    LndAdoptReply, LndAdoptRequest, NotAdopted, OrderReply, OrderRequest, PaymentInfo,
};

use super::Unsealed;
use super::nodes::parse_name;
use crate::admin::api::{AdminFailure, FailureKind};
use crate::lightning::actor::{Actor, AdoptFailed};
use crate::lightning::book::view;
use crate::lightning::lnd::adopt::Adopted;
use crate::lightning::orders::{Exemption, Given, Order, OrderError, Orders};
use crate::lightning::standing::{Balance, ChannelView, Claim, HtlcView, PaymentHash, Side, compare};
use crate::names::NodeName;
use crate::pipeline::{BadChannelName, ChannelName};
use crate::reasons::{Reason, Refusal};

impl Unsealed {
    /// All channels of `node`, by name.
    pub(super) fn channels(&self, node: &str) -> Result<Vec<ChannelInfo>, AdminFailure> {
        let all = self.running(node)?.overview().map_err(|refusal| unavailable(node, &refusal))?;
        let mut books: BTreeMap<&str, BookInfo> = BTreeMap::new();
        if let Some(book) = &all.book {
            books.extend(book.channels.iter().map(|entry| (entry.channel.as_str(), book_info(entry))));
            for (payment, channel) in book.payments.iter().flat_map(|p| p.channels.iter().map(move |c| (p, c))) {
                books.entry(channel).or_default().payments.push(payment_info(payment));
            }
        }
        let mut info = |(view, claims): &(ChannelView, Vec<Claim>)| {
            let info = info(view, claims, &all.orders, all.now_ms);
            ChannelInfo { book: books.remove(info.channel.as_str()), ..info }
        };
        Ok(all.channels.iter().map(&mut info).collect())
    }

    /// The channel of `node` that `text` calls: `peer:number`, the number alone, its funding output, or what else it is called.
    pub(super) fn channel(&self, node: &str, text: &str) -> Result<ChannelInfo, AdminFailure> {
        let is_it = |channel: &ChannelInfo| {
            let number = channel.channel.split_once(':').map(|(_, number)| number);
            let is_alias = channel.aliases.iter().any(|alias| alias == text);
            is_alias || channel.channel == text || number == Some(text) || (!text.is_empty() && channel.funding == text)
        };
        let mut found = self.channels(node)?.into_iter().filter(is_it);
        let hint = "`claviger channel list` shows the node's channels.";
        match (found.next(), found.next()) {
            (Some(channel), None) => Ok(channel),
            (Some(_), Some(_)) => {
                let what = format!("several channels of node '{node}' have the number {text}");
                Err(AdminFailure::new(FailureKind::Invalid, what, "Name the peer as well: peer:number."))
            }
            (None, _) => {
                Err(AdminFailure::new(FailureKind::NotFound, format!("node '{node}' has no channel '{text}'"), hint))
            }
        }
    }

    /// Carries out an order that `by` gave.
    pub(super) fn order(&self, request: &OrderRequest, by: String) -> Result<OrderReply, AdminFailure> {
        let channel = match request.channel.as_str() {
            "" => None,
            text => Some(parse_channel(&self.channel(&request.node, text)?.channel)?),
        };
        let order = match (request.order.as_str(), channel) {
            ("freeze", channel) => Order::Freeze(channel),
            ("thaw", channel) => Order::Thaw(channel),
            ("restore", None) => {
                self.require_quorum(&request.node)?;
                Order::Restore
            }
            ("exempt", Some(channel)) => {
                let reason = Reason::by_id(&request.reason).ok_or_else(|| {
                    let what = format!("there is no reason '{}'", request.reason);
                    AdminFailure::new(FailureKind::Invalid, what, "docs/reasons.md has all of them.")
                })?;
                Order::Exempt { channel, reason, for_s: request.for_s }
            }
            _ => {
                let hint = "Check that command and daemon are of one version.";
                return Err(AdminFailure::new(
                    FailureKind::Invalid,
                    format!("no such order '{}'", request.order),
                    hint,
                ));
            }
        };
        let ordered = self.running(&request.node)?.order(order, by, request.why.clone());
        let name = ordered.map_err(|error| refused_order(&error))?;
        Ok(OrderReply { request: name, node: Some(self.show_node(&request.node)?) })
    }

    /// Takes over the channels in an lnd's static channel backup, which `by` brought.
    pub(super) fn adopt(&self, request: LndAdoptRequest, by: String) -> Result<LndAdoptReply, AdminFailure> {
        let LndAdoptRequest { node, backup } = request;
        let (request, Adopted { adopted, known, refused }) =
            self.running(&node)?.adopt(backup, by).map_err(|error| {
                let (kind, hint) = match &error {
                    AdoptFailed::Backup(_) => {
                        (FailureKind::Invalid, "Take channel.backup from the lnd that has this node's keys, as it is.")
                    }
                    AdoptFailed::Unavailable(_) => {
                        (FailureKind::Fault, "Look at `claviger node show`; only nodes of kind lnd have such backups.")
                    }
                };
                AdminFailure::new(kind, error, hint)
            })?;
        let text = |funding: Vec<OutPoint>| funding.iter().map(OutPoint::to_string).collect();
        let refused =
            refused.iter().map(|(funding, why)| NotAdopted { channel: funding.to_string(), why: why.to_string() });
        Ok(LndAdoptReply { request, adopted: text(adopted), known: text(known), refused: refused.collect() })
    }

    /// How each channel of `node` stands.
    pub(super) fn compare(&self, node: &NodeName) -> Result<Vec<ChannelCheck>, AdminFailure> {
        let channels = self.channels(node.as_str())?.into_iter();
        let check = |channel: ChannelInfo| ChannelCheck {
            node: node.to_string(),
            channel: channel.channel,
            standing: channel.standing,
            detail: channel.standing_detail,
            fix: channel.fix,
        };
        Ok(channels.map(check).collect())
    }

    fn running(&self, node: &str) -> Result<Arc<Actor>, AdminFailure> {
        self.show_node(node)?; // says in its own words that there is none
        let hint = "Seal and unseal the signer.";
        self.nodes
            .get(&parse_name(node)?)
            .ok_or_else(|| AdminFailure::new(FailureKind::Fault, format!("node '{node}' does not run"), hint))
    }
}

fn parse_channel(text: &str) -> Result<ChannelName, AdminFailure> {
    text.parse().map_err(|error: BadChannelName| {
        AdminFailure::new(FailureKind::Invalid, error, "`claviger channel list` shows the node's channels.")
    })
}

fn unavailable(node: &str, refusal: &Refusal) -> AdminFailure {
    let what = format!("node '{node}' cannot be looked at now: {}", refusal.detail);
    AdminFailure::new(FailureKind::Fault, what, refusal.reason.hint())
}

fn refused_order(error: &OrderError) -> AdminFailure {
    let kind = match error {
        OrderError::NotExemptible(_) | OrderError::Duration(_) => FailureKind::Invalid,
        OrderError::NotFrozen(_) | OrderError::NotQuarantined | OrderError::NoChannel(_) => FailureKind::NotFound,
        OrderError::Unavailable(_) => FailureKind::Fault,
    };
    AdminFailure::new(kind, error, error.hint())
}

fn info(view: &ChannelView, claims: &[Claim], orders: &Orders, now_ms: u64) -> ChannelInfo {
    let finding = compare(view, claims);
    let funding = view.funding.as_ref();
    let mine = orders.exemptions(now_ms).filter(|exemption| exemption.channel == view.channel);
    ChannelInfo {
        channel: view.channel.to_string(),
        state: view.state.id().to_owned(),
        funding: funding.map(|funding| funding.outpoint.to_string()).unwrap_or_default(),
        capacity_sat: funding.map_or(0, |funding| funding.capacity_sat),
        funded_by_us: funding.is_some_and(|funding| funding.by_us),
        kind: funding.map(|funding| funding.kind.clone()).unwrap_or_default(),
        funding_depth: funding.map_or(0, |funding| funding.depth),
        closing_depth: funding.map_or(0, |funding| funding.closing_depth),
        holder: view.holder.as_ref().map(commitments),
        counterparty: view.counterparty.as_ref().map(commitments),
        claims: claims.iter().map(claim_info).collect(),
        standing: finding.standing.id().to_owned(),
        standing_detail: finding.detail,
        fix: finding.standing.fix().to_owned(),
        frozen: orders.frozen_channel(&view.channel).or(orders.frozen_node()).map(freeze_info),
        exemptions: mine.map(exemption_info).collect(),
        book: None,
        peer: view.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        unproven_states: view.unproven_states,
        aliases: view.aliases.clone(),
    }
}

fn book_info(entry: &view::ChannelView) -> BookInfo {
    let view::ChannelView { settled_msat, dust_lost_msat, .. } = entry;
    let (settled_msat, dust_lost_msat) = (Some(*settled_msat), Some(*dust_lost_msat));
    BookInfo { settled_msat, dust_lost_msat, payments: Vec::new() }
}

fn payment_info(payment: &view::PaymentView) -> PaymentInfo {
    PaymentInfo {
        payment_hash: payment.payment_hash.clone(),
        approved_msat: payment.approved_msat,
        max_fee_msat: payment.max_fee_msat,
        out_msat: payment.out_msat,
        in_msat: payment.in_msat,
        preimage_known: payment.preimage_known,
    }
}

/// A freeze, for the operator.
pub(super) fn freeze_info(given: &Given) -> FreezeInfo {
    FreezeInfo { at_ms: given.at_ms, by: given.by.clone(), why: given.why.clone() }
}

/// An exemption, for the operator.
pub(super) fn exemption_info(exemption: &Exemption) -> ExemptionInfo {
    let Given { at_ms, by, why } = exemption.given.clone();
    let reason = exemption.reason.id().to_owned();
    ExemptionInfo { channel: exemption.channel.to_string(), reason, until_ms: exemption.until_ms, at_ms, by, why }
}

fn commitments(side: &Side) -> CommitmentsInfo {
    let Side { current, next, revoked, balance } = side;
    let balance = balance.as_ref().map(balance_info);
    CommitmentsInfo { current: *current, next: *next, revoked: *revoked, balance }
}

fn balance_info(balance: &Balance) -> BalanceInfo {
    let htlc = |htlc: &HtlcView| {
        let (payment_hash, payment_hash160) = match htlc.payment_hash {
            PaymentHash::Whole(hash) => (hex::encode(hash), String::new()),
            PaymentHash::Hash160(hash) => (String::new(), hex::encode(hash)),
        };
        let direction = if htlc.incoming { "in" } else { "out" }.to_owned();
        let (amount_sat, cltv_expiry) = (htlc.amount_sat, htlc.cltv_expiry);
        HtlcInfo { direction, amount_sat, payment_hash, cltv_expiry, payment_hash160 }
    };
    BalanceInfo {
        ours_sat: balance.ours_sat,
        theirs_sat: balance.theirs_sat,
        feerate_per_kw: balance.feerate_per_kw,
        incoming_sat: balance.incoming_sat,
        outgoing_sat: balance.outgoing_sat,
        incoming_htlcs: balance.incoming_htlcs,
        outgoing_htlcs: balance.outgoing_htlcs,
        htlcs: balance.htlcs.iter().map(htlc).collect(),
        untold_htlcs: balance.untold_htlcs,
    }
}

fn claim_info(claim: &Claim) -> ClaimInfo {
    ClaimInfo {
        action: claim.step.text().to_owned(),
        number: claim.number,
        at_ms: claim.at_ms,
        refused: claim.refused.map(Reason::id).unwrap_or_default().to_owned(),
        balance: claim.balance.as_ref().map(balance_info),
    }
}
