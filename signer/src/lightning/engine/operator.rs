//! The operator's side of a node: what it is shown, and what it orders.

use vls_protocol::msgs::Message;

use super::super::clock::NodeClock;
use super::super::orders::{Given, Order, OrderError, Orders};
use super::super::standing::{self, ChannelView, Claim, Overview, State};
use super::Engine;
use crate::facts::Fact;
use crate::journal::Put;
use crate::pipeline::{ChannelName, ChannelRef};
use crate::reasons::Refusal;

impl Engine {
    /// All channels, each with what the node last claimed of it. May panic, as `handle` may.
    pub fn channels(&self) -> Vec<(ChannelView, Vec<Claim>)> {
        let channels = standing::all(&self.node).into_iter();
        channels.map(|view| (self.claims.of(&view.channel), view)).map(|(claims, view)| (view, claims)).collect()
    }

    /// All channels, with what is booked and ordered. May panic, as `handle` may.
    pub fn overview(&self) -> Overview {
        let (channels, book) = (self.channels(), Some(self.book()));
        Overview { channels, book, orders: self.orders.clone(), now_ms: self.clock.now_ms() }
    }

    /// Of how many channels the node claimed something.
    pub fn claimed_channels(&self) -> usize {
        self.claims.channels()
    }

    /// What is ordered about the node.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The node's clock.
    pub fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Carries out an operator's order. Returns what must be durable before it counts.
    pub fn order(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        if let Order::Freeze(Some(channel)) | Order::Exempt { channel, .. } = order
            && !matches!(channel, ChannelName::Numbered(known) if standing::one(&self.node, *known).is_some())
        {
            return Err(OrderError::NoChannel(*channel));
        }
        self.orders.carry_out(order, given)
    }

    /// Refuses what a freeze stops.
    pub(super) fn require_thawed(&self, channel: Option<ChannelRef>, message: &Message) -> Result<(), Refusal> {
        self.orders.check(message, channel, self.clock.now_ms(), |channel| standing::one(&self.node, channel))?;
        if matches!(message, Message::SignAnchorspend(_) | Message::SignHtlcTxMingle(_))
            && let Some(why) = self.orders.only_fees()
        {
            self.limits.only_fees(why);
        }
        Ok(())
    }

    /// Keeps what was claimed of a channel, with what came of it. A refusal says with which numbers.
    pub(super) fn note_claim(
        &mut self,
        channel: Option<ChannelRef>,
        claim: Option<Claim>,
        reply: Result<Vec<u8>, Refusal>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Some(channel), Some(mut claim)) = (channel, claim) else { return reply };
        claim.at_ms = self.clock.now_ms();
        let Err(refusal) = reply else {
            self.claims.keep(channel, claim);
            return reply;
        };
        claim.refused = Some(refusal.reason);
        let fact = Fact::count("commitment_number", claim.number);
        // Claims of channels that do not exist would take memory without bound.
        let Some(view) = standing::one(&self.node, channel) else { return Err(refusal.with_fact(fact)) };
        let (lowest, highest) = standing::expected(&view, claim.step);
        let fact = match claim.number {
            number if number < lowest => fact.at_least(lowest),
            number if number > highest => fact.at_most(highest),
            _ => fact,
        };
        if view.state != State::Stub {
            self.claims.keep(channel, claim);
        }
        Err(refusal.with_fact(fact))
    }
}
