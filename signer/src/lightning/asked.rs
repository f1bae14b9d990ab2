//! What a message asks of the spending policy: actions and their facts, from what was parsed and proved.
//!
//! | action | when it is asked | proved by |
//! |---|---|---|
//! | `PayInvoice`, `Keysend` | the node announces a payment | the invoice's signature; of a keysend the payee is the node's word |
//! | `OpenChannel` | a channel is set up | funding output and terms are checked when it is used |
//! | `UpdateChannel` | a commitment of the peer's is signed | the transaction |
//! | `Forward` | such a commitment has more for a hash than is approved | the transaction, and the book of all channels |
//! | `CloseChannel`, `Sweep`, `Withdraw`, `BumpFee` | the transaction is signed | its outputs, of which the wallet's own are known by their keys |
//! | `ForceClose` | our own commitment is signed | the channel |
//! | `IssueInvoice`, `SignMessage`, `Gossip`, `Ecdh` | the signature or secret is asked for | the bytes themselves |
//!
//! Penalties are never asked about: nothing an operator writes may let a cheat keep the money (P3).

use std::str::FromStr;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{ScriptBuf, Transaction};
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::request::Request;
use claviger_policy::value::Value;
use lightning_signer::invoice::{Invoice, InvoiceAttributes};
use lightning_signer::lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning_signer::tx::tx::CommitmentInfo2;
use vls_protocol::msgs::Message;

use super::book::{Forward, SMALL_PAYMENT_MSAT};
use super::counter::{Counter, payment_key};
use super::limits::Onchain;
use super::payments;
use crate::pipeline::ChannelRef;
use crate::policy::Ends;
use crate::reasons::Refusal;

impl Counter {
    /// Asks what a message asks by itself, before anybody acts on it.
    pub(super) fn message(&self, message: &Message) -> Result<(), Refusal> {
        let asked = match message {
            Message::PreapproveInvoice(m) => self.pay(&m.invstring.0),
            Message::PreapproveKeysend(m) => self.request(Action::Keysend).map(|request| {
                let hash = hex::encode(m.payment_hash.0);
                let request = request
                    .with(FactId::Payee, hex::encode(m.destination.0))
                    .with(FactId::PaymentHash, hash.clone())
                    .with(FactId::AmountMsat, m.amount_msat);
                (request, payment_key(&hash), ends(m.amount_msat))
            }),
            Message::SetupChannel(m) => self.of_channel(Action::OpenChannel).map(|(request, channel)| {
                let (amount_msat, push_msat) =
                    if m.is_outbound { (m.channel_value.saturating_mul(1_000), m.push_value) } else { (0, 0) };
                let request = request
                    .with(FactId::Peer, hex::encode(channel.peer_id))
                    .with(FactId::AmountMsat, amount_msat)
                    .with(FactId::PushMsat, push_msat);
                (request, format!("open:{channel}"), Ends::AtOnce)
            }),
            Message::SignLocalCommitmentTx2(_) => self.force_close(self.channel()),
            Message::SignCommitmentTx(m) => self.force_close(Some(ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid })),
            Message::SignMessage(m) => return self.text(&m.message),
            Message::SignInvoice(m) => {
                let Some(invoice) = payments::bolt11(&m.hrp, &m.u5bytes) else { return Ok(()) };
                let Some(hash) = invoice.payment_hash() else { return Ok(()) };
                let amount_msat = invoice.amount_pico_btc().map(|amount_pico_btc| amount_pico_btc / 10);
                return self.invoice(&hex::encode(hash.0.to_byte_array()), amount_msat);
            }
            Message::SignBolt12Invoice(m) => {
                let Ok(invoice) = UnsignedBolt12Invoice::try_from(m.invoice_bytes.0.clone()) else { return Ok(()) };
                return self.invoice(&hex::encode(invoice.payment_hash().0), Some(invoice.amount_msats()));
            }
            Message::SignNodeAnnouncement(m) => return self.gossip("node_announcement", &m.announcement),
            Message::SignChannelUpdate(m) => return self.gossip("channel_update", &m.update),
            Message::SignChannelAnnouncement(m) => return self.gossip("channel_announcement", &m.announcement),
            Message::SignAnyChannelAnnouncement(m) => return self.gossip("channel_announcement", &m.announcement),
            Message::SignGossipMessage(m) => return self.gossip(gossip_name(&m.message), &m.message),
            Message::Ecdh(m) => return self.ecdh(&m.point.0, None),
            _ => None,
        };
        asked.map_or(Ok(()), |(request, key, ends)| self.ask(request, key, ends))
    }

    /// A commitment of the peer's is about to be signed.
    pub(super) fn commitment(&self, number: u64, info: &CommitmentInfo2) -> Result<(), Refusal> {
        let Some((request, channel)) = self.of_channel(Action::UpdateChannel) else { return Ok(()) };
        // The peer is the broadcaster: what it receives is what we send.
        let outgoing_msat =
            info.received_htlcs.iter().fold(0u64, |sum, htlc| sum.saturating_add(htlc.value_sat.saturating_mul(1_000)));
        let request = about(request, channel)
            .with(FactId::Htlcs, (info.offered_htlcs.len() + info.received_htlcs.len()) as u64)
            .with(FactId::OutgoingMsat, outgoing_msat)
            .with(FactId::FeerateSatPerKw, u64::from(info.feerate_per_kw));
        let htlcs = || info.offered_htlcs.iter().chain(&info.received_htlcs);
        let largest_sat = htlcs().map(|htlc| htlc.value_sat).max();
        let request = largest_sat
            .into_iter()
            .fold(request, |request, sat| request.with(FactId::HtlcMsat, sat.saturating_mul(1_000)));
        let last = htlcs().map(|htlc| u64::from(htlc.cltv_expiry)).max();
        let request = last.into_iter().fold(request, |request, height| request.with(FactId::ExpiryHeight, height));
        self.ask(request, format!("commitment:{channel}:{number}"), Ends::AtOnce)
    }

    /// What the peer's commitment `number` passes on for others, each hash by itself. `forwards` tells what that is, once the
    /// book has accepted it.
    pub(super) fn forwards(&self, number: u64, forwards: impl FnOnce() -> Vec<Forward>) -> Result<(), Refusal> {
        let Some((request, channel)) = self.of_channel(Action::Forward) else { return Ok(()) };
        forwards().into_iter().try_for_each(|forward| {
            let request = about(request.clone(), channel)
                .with(FactId::PaymentHash, forward.payment_hash.to_string())
                .with(FactId::AmountMsat, forward.amount_msat)
                .with(FactId::IncomingMsat, forward.incoming_msat);
            let request = match forward.cltv_delta_blocks {
                Some(blocks) => request.with(FactId::CltvDeltaBlocks, u64::from(blocks)),
                None => request,
            };
            // An HTLC is added by one commitment; a repeat of that has its number.
            self.ask(request, format!("forward:{channel}:{number}:{}", forward.payment_hash), Ends::AtOnce)
        })
    }

    /// A channel is about to be closed with the peer's help. `foreign` tells where our share goes if that is not the wallet.
    pub(super) fn close<'a>(
        &self,
        ours_sat: u64,
        foreign: impl FnOnce() -> Option<&'a ScriptBuf>,
    ) -> Result<(), Refusal> {
        let Some((request, channel)) = self.of_channel(Action::CloseChannel) else { return Ok(()) };
        let foreign = foreign();
        let leaving_sat = if foreign.is_some() { ours_sat } else { 0 };
        let request = about(request, channel)
            .with(FactId::AmountMsat, leaving_sat.saturating_mul(1_000))
            .paying_to(self.destinations(foreign.into_iter()));
        self.ask(request, format!("close:{channel}"), Ends::AtOnce)
    }

    /// What a channel left to us is about to be swept. `is_foreign` tells the outputs that are not the wallet's.
    pub(super) fn sweep(&self, tx: &Transaction, is_foreign: impl Fn(usize) -> bool) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::Sweep) else { return Ok(()) };
        let leaving = Leaving::of(tx, is_foreign);
        let request = match self.channel() {
            Some(channel) => request.with(FactId::Channel, channel.to_string()),
            None => request,
        };
        let request = request
            .with(FactId::AmountMsat, leaving.sat.saturating_mul(1_000))
            .paying_to(self.destinations(leaving.scripts.into_iter()));
        // Signed input by input: all are one sweep.
        self.ask(request, format!("sweep:{}", tx.compute_txid()), Ends::AtOnce)
    }

    /// The wallet's coins are about to be spent. `is_foreign` tells the outputs that are neither the wallet's nor a channel's.
    pub(super) fn onchain(
        &self,
        tx: &Transaction,
        onchain: Onchain,
        is_foreign: impl Fn(usize) -> bool,
    ) -> Result<(), Refusal> {
        // Whose the outputs are takes keys to tell: only where a policy asks.
        let (Some(bump), Some(withdrawal)) = (self.request(Action::BumpFee), self.request(Action::Withdraw)) else {
            return Ok(());
        };
        let (leaving, key) = (Leaving::of(tx, is_foreign), tx.compute_txid());
        let leaving_sat = leaving.sat.saturating_sub(onchain.foreign_sat);
        let fee_msat = onchain.fee_sat.saturating_mul(1_000);
        // Where an HTLC is claimed and the wallet only adds the fee, nothing of the wallet's leaves but that.
        if leaving_sat == 0 {
            return self.ask(bump.with(FactId::FeeMsat, fee_msat), format!("bump:{key}"), Ends::AtOnce);
        }
        let request = withdrawal
            .with(FactId::FeeMsat, fee_msat)
            .with(FactId::AmountMsat, leaving_sat.saturating_mul(1_000))
            .paying_to(self.destinations(leaving.scripts.into_iter()));
        self.ask(request, format!("withdraw:{key}"), Ends::AtOnce)
    }

    fn pay(&self, invoice: &[u8]) -> Option<Asked> {
        let request = self.request(Action::PayInvoice)?;
        // What cannot be read is left to the state machine to refuse.
        let invoice = Invoice::from_str(std::str::from_utf8(invoice).ok()?).ok()?;
        let amount_msat = invoice.amount_milli_satoshis();
        let (request, key) = paying(request, &invoice, amount_msat);
        Some((request, key, ends(amount_msat)))
    }

    fn force_close(&self, channel: Option<ChannelRef>) -> Option<Asked> {
        let (request, channel) = (self.request(Action::ForceClose)?, channel?);
        Some((about(request, channel), format!("force-close:{channel}"), Ends::AtOnce))
    }

    /// A text is about to be signed as the node.
    pub(super) fn text(&self, text: &[u8]) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::SignMessage) else { return Ok(()) };
        let digest = sha256::Hash::hash(text).to_string();
        let request = request.with(FactId::MessageBytes, text.len() as u64).with(FactId::MessageSha256, digest.clone());
        self.ask(request, format!("message:{digest}"), Ends::AtOnce)
    }

    /// An invoice is about to be signed; its payment hash in hex.
    pub(super) fn invoice(&self, payment_hash: &str, amount_msat: Option<u64>) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::IssueInvoice) else { return Ok(()) };
        let request = request.with(FactId::PaymentHash, payment_hash);
        let request = match amount_msat {
            Some(amount_msat) => request.with(FactId::IncomingMsat, amount_msat),
            None => request,
        };
        self.ask(request, format!("invoice:{payment_hash}"), Ends::AtOnce)
    }

    /// A message of BOLT 7 is about to be signed.
    pub(super) fn gossip(&self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::Gossip) else { return Ok(()) };
        let key = format!("gossip:{}", sha256::Hash::hash(bytes));
        self.ask(request.with(FactId::Gossip, name), key, Ends::AtOnce)
    }

    /// A secret is about to be shared with this key, for the purpose that the node says.
    pub(super) fn ecdh(&self, peer: &[u8; 33], purpose: Option<&str>) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::Ecdh) else { return Ok(()) };
        let peer = hex::encode(peer);
        let request = request.with(FactId::Peer, peer.clone());
        let request = match purpose {
            Some(purpose) => request.with(FactId::Purpose, purpose),
            None => request,
        };
        self.ask(request, format!("ecdh:{peer}"), Ends::AtOnce)
    }

    /// Begins a request about the channel that the message names.
    fn of_channel(&self, action: Action) -> Option<(Request, ChannelRef)> {
        Some((self.request(action)?, self.channel()?))
    }
}

/// The outputs of a transaction that pay somebody else.
struct Leaving<'a> {
    sat: u64,
    scripts: Vec<&'a ScriptBuf>,
}

impl<'a> Leaving<'a> {
    fn of(tx: &'a Transaction, is_foreign: impl Fn(usize) -> bool) -> Self {
        let foreign = tx.output.iter().enumerate().filter(|(index, _)| is_foreign(*index));
        foreign.fold(Self { sat: 0, scripts: Vec::new() }, |mut leaving, (_, output)| {
            leaving.sat = leaving.sat.saturating_add(output.value.to_sat());
            leaving.scripts.push(&output.script_pubkey);
            leaving
        })
    }
}

/// A request with the channel that it is about.
/// `request` with what `invoice`, of which `amount_msat` are to be paid, says of itself; and the payment's key.
pub(super) fn paying(request: Request, invoice: &Invoice, amount_msat: u64) -> (Request, String) {
    let hash = hex::encode(invoice.payment_hash().0);
    let key = payment_key(&hash);
    let ends_s = invoice.duration_since_epoch().saturating_add(invoice.expiry_duration()).as_secs();
    let expires_in_s = ends_s.saturating_sub(request.time_ms / 1_000);
    let request = request
        .with(FactId::Payee, invoice.payee_pub_key().to_string())
        .with(FactId::PaymentHash, hash)
        .with(FactId::AmountMsat, amount_msat)
        .with(FactId::ExpiresInS, expires_in_s);
    match invoice.description() {
        Some(text) if text.len() <= Value::MAX_TEXT => (request.with(FactId::Description, text), key),
        _ => (request, key),
    }
}

fn about(request: Request, channel: ChannelRef) -> Request {
    request.with(FactId::Channel, channel.to_string()).with(FactId::Peer, hex::encode(channel.peer_id))
}

/// A payment that may leave as dust leaves no trace in commitments: it counts as spent once it is approved.
fn ends(amount_msat: u64) -> Ends {
    if amount_msat <= SMALL_PAYMENT_MSAT { Ends::AtOnce } else { Ends::WithPayment }
}

type Asked = (Request, String, Ends);

/// BOLT 7's name of a message; the guard has read it before.
fn gossip_name(message: &[u8]) -> &'static str {
    match message.first_chunk::<2>().map(|number| u16::from_be_bytes(*number)) {
        Some(256) => "channel_announcement",
        Some(257) => "node_announcement",
        Some(258) => "channel_update",
        _ => "unknown",
    }
}
