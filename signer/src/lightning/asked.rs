//! What a message asks of the spending policy: actions and their facts, from what was parsed and proved.
//!
//! | action | when it is asked | proved by |
//! |---|---|---|
//! | `PayInvoice`, `Keysend` | the node announces a payment | the invoice's signature; of a keysend the payee is the node's word |
//! | `OpenChannel` | a channel is set up | funding output and terms are checked when it is used |
//! | `UpdateChannel` | a commitment of the peer's is signed | the transaction |
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

use super::book::SMALL_PAYMENT_MSAT;
use super::counter::{Counter, of_channel, payment_key};
use super::payments;
use crate::pipeline::ChannelRef;
use crate::policy::Ends;
use crate::reasons::Refusal;

impl Counter {
    /// Asks what a message asks by itself, before anybody acts on it.
    pub(super) fn message(&self, channel: Option<ChannelRef>, message: &Message) -> Result<(), Refusal> {
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
            Message::SetupChannel(m) => self.of(Action::OpenChannel, channel).map(|(request, channel)| {
                let (amount_msat, push_msat) =
                    if m.is_outbound { (m.channel_value.saturating_mul(1_000), m.push_value) } else { (0, 0) };
                let request = request
                    .with(FactId::Peer, hex::encode(channel.peer_id))
                    .with(FactId::AmountMsat, amount_msat)
                    .with(FactId::PushMsat, push_msat);
                (request, format!("open:{channel}"), Ends::AtOnce)
            }),
            Message::SignLocalCommitmentTx2(_) => self.force_close(channel),
            Message::SignCommitmentTx(m) => self.force_close(Some(ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid })),
            Message::SignMessage(m) => self.request(Action::SignMessage).map(|request| {
                let digest = sha256::Hash::hash(&m.message).to_string();
                let request = request
                    .with(FactId::MessageBytes, m.message.len() as u64)
                    .with(FactId::MessageSha256, digest.clone());
                (request, format!("message:{digest}"), Ends::AtOnce)
            }),
            Message::SignInvoice(m) => self.request(Action::IssueInvoice).and_then(|request| {
                let invoice = payments::bolt11(&m.hrp, &m.u5bytes)?;
                let hash = invoice.payment_hash().map(|hash| hex::encode(hash.0.to_byte_array()))?;
                let request = request.with(FactId::PaymentHash, hash.clone());
                let amount_msat = invoice.amount_pico_btc().map(|pico| pico / 10);
                let request = with_number(request, FactId::IncomingMsat, amount_msat);
                Some((request, format!("invoice:{hash}"), Ends::AtOnce))
            }),
            Message::SignBolt12Invoice(m) => self.request(Action::IssueInvoice).and_then(|request| {
                let invoice = UnsignedBolt12Invoice::try_from(m.invoice_bytes.0.clone()).ok()?;
                let hash = hex::encode(invoice.payment_hash().0);
                let request = request.with(FactId::PaymentHash, hash.clone());
                let request = request.with(FactId::IncomingMsat, invoice.amount_msats());
                Some((request, format!("invoice:{hash}"), Ends::AtOnce))
            }),
            Message::SignNodeAnnouncement(m) => self.gossip("node_announcement", &m.announcement),
            Message::SignChannelUpdate(m) => self.gossip("channel_update", &m.update),
            Message::SignChannelAnnouncement(m) => self.gossip("channel_announcement", &m.announcement),
            Message::SignAnyChannelAnnouncement(m) => self.gossip("channel_announcement", &m.announcement),
            Message::SignGossipMessage(m) => self.gossip(gossip_name(&m.message), &m.message),
            Message::Ecdh(m) => self.request(Action::Ecdh).map(|request| {
                let peer = hex::encode(m.point.0);
                (request.with(FactId::Peer, peer.clone()), format!("ecdh:{peer}"), Ends::AtOnce)
            }),
            _ => None,
        };
        asked.map_or(Ok(()), |(request, key, ends)| self.ask(request, key, ends))
    }

    /// A commitment of the peer's is about to be signed.
    pub(super) fn commitment(&self, channel: ChannelRef, number: u64, info: &CommitmentInfo2) -> Result<(), Refusal> {
        let Some((request, _)) = self.of(Action::UpdateChannel, Some(channel)) else { return Ok(()) };
        // The peer is the broadcaster: what it receives is what we send.
        let outgoing_msat =
            info.received_htlcs.iter().fold(0u64, |sum, htlc| sum.saturating_add(htlc.value_sat.saturating_mul(1_000)));
        let request = of_channel(request, channel)
            .with(FactId::Htlcs, (info.offered_htlcs.len() + info.received_htlcs.len()) as u64)
            .with(FactId::OutgoingMsat, outgoing_msat)
            .with(FactId::FeerateSatPerKw, u64::from(info.feerate_per_kw));
        self.ask(request, format!("commitment:{channel}:{number}"), Ends::AtOnce)
    }

    /// A channel is about to be closed with the peer's help. `foreign` is where our share goes if that is not the wallet.
    pub(super) fn close(&self, channel: ChannelRef, ours_sat: u64, foreign: Option<&ScriptBuf>) -> Result<(), Refusal> {
        let Some((request, _)) = self.of(Action::CloseChannel, Some(channel)) else { return Ok(()) };
        let leaving_sat = if foreign.is_some() { ours_sat } else { 0 };
        let request = of_channel(request, channel)
            .with(FactId::AmountMsat, leaving_sat.saturating_mul(1_000))
            .paying_to(self.destinations(foreign.into_iter()));
        self.ask(request, format!("close:{channel}"), Ends::AtOnce)
    }

    /// What a channel left to us is about to be swept. `foreign` are the outputs that are not the wallet's.
    pub(super) fn sweep(
        &self,
        channel: Option<ChannelRef>,
        tx: &Transaction,
        foreign: &[usize],
    ) -> Result<(), Refusal> {
        let Some(request) = self.request(Action::Sweep) else { return Ok(()) };
        let request =
            channel.into_iter().fold(request, |request, channel| request.with(FactId::Channel, channel.to_string()));
        // Signed input by input: all are one sweep.
        self.ask(self.leaving(request, tx, foreign, 0), format!("sweep:{}", tx.compute_txid()), Ends::AtOnce)
    }

    /// The wallet's coins are about to be spent. `foreign` are the outputs that are neither the wallet's nor a channel's;
    /// `brought_sat` is what inputs of others bring in, `fee_sat` what the transaction costs.
    pub(super) fn onchain(
        &self,
        tx: &Transaction,
        foreign: &[usize],
        brought_sat: u64,
        fee_sat: u64,
    ) -> Result<(), Refusal> {
        let outputs = foreign.iter().filter_map(|index| tx.output.get(*index));
        let leaving_sat = outputs.fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()));
        let key = tx.compute_txid();
        // Where an HTLC is claimed and the wallet only adds the fee, nothing of the wallet's leaves but that.
        if leaving_sat <= brought_sat {
            let Some(request) = self.request(Action::BumpFee) else { return Ok(()) };
            let request = request.with(FactId::FeeMsat, fee_sat.saturating_mul(1_000));
            return self.ask(request, format!("bump:{key}"), Ends::AtOnce);
        }
        let Some(request) = self.request(Action::Withdraw) else { return Ok(()) };
        let request = request.with(FactId::FeeMsat, fee_sat.saturating_mul(1_000));
        self.ask(self.leaving(request, tx, foreign, brought_sat), format!("withdraw:{key}"), Ends::AtOnce)
    }

    fn leaving(&self, request: Request, tx: &Transaction, foreign: &[usize], brought_sat: u64) -> Request {
        let outputs = || foreign.iter().filter_map(|index| tx.output.get(*index));
        let sat = outputs().fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()));
        request
            .with(FactId::AmountMsat, sat.saturating_sub(brought_sat).saturating_mul(1_000))
            .paying_to(self.destinations(outputs().map(|output| &output.script_pubkey)))
    }

    fn pay(&self, invoice: &[u8]) -> Option<Asked> {
        let request = self.request(Action::PayInvoice)?;
        // What cannot be read is left to the state machine to refuse.
        let invoice = Invoice::from_str(std::str::from_utf8(invoice).ok()?).ok()?;
        let hash = hex::encode(invoice.payment_hash().0);
        let ends_s = invoice.duration_since_epoch().saturating_add(invoice.expiry_duration()).as_secs();
        let expires_in_s = ends_s.saturating_sub(request.time_ms / 1_000);
        let request = request
            .with(FactId::Payee, invoice.payee_pub_key().to_string())
            .with(FactId::PaymentHash, hash.clone())
            .with(FactId::AmountMsat, invoice.amount_milli_satoshis())
            .with(FactId::ExpiresInS, expires_in_s);
        let request = match invoice.description() {
            Some(text) if text.len() <= Value::MAX_TEXT => request.with(FactId::Description, text),
            _ => request,
        };
        Some((request, payment_key(&hash), ends(invoice.amount_milli_satoshis())))
    }

    fn force_close(&self, channel: Option<ChannelRef>) -> Option<Asked> {
        let (request, channel) = self.of(Action::ForceClose, channel)?;
        Some((of_channel(request, channel), format!("force-close:{channel}"), Ends::AtOnce))
    }

    fn gossip(&self, name: &str, bytes: &[u8]) -> Option<Asked> {
        let request = self.request(Action::Gossip)?.with(FactId::Gossip, name);
        Some((request, format!("gossip:{}", sha256::Hash::hash(bytes)), Ends::AtOnce))
    }

    fn of(&self, action: Action, channel: Option<ChannelRef>) -> Option<(Request, ChannelRef)> {
        Some((self.request(action)?, channel?))
    }
}

/// A payment that may leave as dust leaves no trace in commitments: it counts as spent once it is approved.
fn ends(amount_msat: u64) -> Ends {
    if amount_msat <= SMALL_PAYMENT_MSAT { Ends::AtOnce } else { Ends::WithPayment }
}

type Asked = (Request, String, Ends);

fn with_number(request: Request, fact: FactId, number: Option<u64>) -> Request {
    number.into_iter().fold(request, |request, number| request.with(fact, number))
}

/// BOLT 7's name of a message; the guard has read it before.
fn gossip_name(message: &[u8]) -> &'static str {
    match message.first_chunk::<2>().map(|number| u16::from_be_bytes(*number)) {
        Some(256) => "channel_announcement",
        Some(257) => "node_announcement",
        Some(258) => "channel_update",
        _ => "unknown",
    }
}
