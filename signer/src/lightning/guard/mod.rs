//! The guard between the link and the state machine: what a node sends comes out as a message that was decoded and judged,
//! or not at all (P2, P3, P4, P8, P10).
//!
//! ```text
//! bytes ── row ── scope ── layout ── decode ── shape ── judge ── vls
//! ```
//!
//! 1. The [table](TABLE) knows the message by number, direction and dialect.
//! 2. What is addressed to a channel comes for a channel, and what is the node's does not.
//! 3. The bytes are laid out as the table says, and promise no more than they hold (`layout`).
//! 4. vls's decoder makes a message of them, whose fields can be handled (`shapes`).
//! 5. The judge the table names for it finds that it says what it claims to (`gossip`, `invoices`, `tags`), asks only
//!    what it is for (`oracles`), and does not revoke what was signed or sign what was revoked (`closing`).
//!
//! No flag, filter or environment variable changes any of this.

mod closing;
pub(in crate::lightning) mod gossip;
pub(in crate::lightning) mod invoices;
mod layout;
mod oracles;
mod shapes;
mod table;
mod tags;

use std::collections::BTreeMap;
use std::sync::Arc;

use lightning_signer::node::Node;
use vls_protocol::msgs::{self, DeBolt, Message};

pub use self::closing::{Closing, ClosingUnreadable};
use self::closing::{Closings, Judged};
pub use self::table::{Class, Judge, Level, MAX_LND_MESSAGE_BYTES, MAX_MESSAGE_BYTES, Row, TABLE, row};
pub use self::tags::MAX_SIGNED_MESSAGE_BYTES;
use super::preimages;
use crate::facts::Fact;
use crate::journal::Put;
use crate::names::NodeKind;
use crate::pipeline::{ChannelRef, Request};
use crate::reasons::{Reason, Refusal};

/// What a request whose row is known says: all that is checked of it without looking at the node. Preimages have a form of
/// their own.
pub fn read(row: &Row, request: &Request) -> Result<Message, Refusal> {
    require_scope(row, request.channel)?;
    require_layout(row, &request.message)?;
    let message = decode(row, &request.message)?;
    shapes::check(&message)?;
    Ok(message)
}

/// The guard of one node.
pub struct Guard {
    kind: NodeKind,
    node: Arc<Node>,
    closings: Closings,
}

/// A request that passed.
#[expect(clippy::large_enum_variant, reason = "it is made and taken apart once per request")]
pub enum Admitted {
    /// The state machine is to be asked.
    Ask {
        /// What the node asks.
        message: Message,
        /// To be handed to [`Guard::signed`] if it is answered.
        closing: Option<Closing>,
    },
    /// Preimages are to be noted.
    Learn(Vec<[u8; 32]>),
    /// It was answered before, at a time when it could be; the encoded reply.
    Answered(Vec<u8>),
}

/// The guard's entries of a node, before the node is there.
pub struct GuardEntries(Closings);

impl GuardEntries {
    /// Takes the guard's entries out of `entries`.
    pub fn take(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, ClosingUnreadable> {
        Closings::restore(entries).map(Self)
    }
}

impl Guard {
    /// The guard of `node`, which speaks the dialect `kind`.
    pub fn new(kind: NodeKind, node: Arc<Node>, entries: GuardEntries) -> Self {
        let GuardEntries(mut closings) = entries;
        closings.reconcile(&node);
        Self { kind, node, closings }
    }

    /// Decodes and judges a request whose row is known. `seen` is shown the message between the two.
    pub fn admit(&self, row: &Row, request: &Request, seen: impl FnOnce(&Message)) -> Result<Admitted, Refusal> {
        if row.judge == Judge::Book {
            require_scope(row, request.channel)?;
            require_layout(row, &request.message)?;
            return preimages::decode(&request.message).map(Admitted::Learn);
        }
        let message = read(row, request)?;
        seen(&message);
        match row.judge {
            Judge::Vls | Judge::Book => {}
            // No engine of vls serves such a node.
            Judge::Lnd | Judge::Lightspark => return Err(Refusal::new(Reason::NotAllowed, row.name)),
            Judge::Gossip => gossip::judge(self.kind, &self.node, request.channel, &message)?,
            Judge::Invoice => invoices::judge(&self.node, &message)?,
            Judge::Tag => tags::judge(&message)?,
            Judge::Oracle => oracles::judge(&self.node, request.channel, &message)?,
            Judge::Closing => match self.closings.judge(&self.node, request.channel, &message)? {
                Judged::Ask(closing) => return Ok(Admitted::Ask { message, closing }),
                Judged::Answered(reply) => return Ok(Admitted::Answered(reply)),
            },
        }
        Ok(Admitted::Ask { message, closing: None })
    }

    /// What `closing` names was signed.
    pub fn signed(&mut self, closing: Closing) {
        self.closings.signed(closing);
    }

    /// What changed since the last call, for the journal.
    pub fn take_changes(&mut self) -> Vec<Put> {
        self.closings.take_changes()
    }
}

/// The channel that a message addressed to a channel must name.
pub fn channel_of(row: &Row, request: &Request) -> Result<ChannelRef, Refusal> {
    request.channel.ok_or_else(|| no_channel(row.name))
}

fn no_channel(message: &str) -> Refusal {
    let detail = format!("{message} is addressed to a channel and names none");
    Refusal::new(Reason::MessageScope, detail).with_fact(Fact::text("sent_for", "node").exactly("channel"))
}

fn require_scope(row: &Row, channel: Option<ChannelRef>) -> Result<(), Refusal> {
    match (row.level, channel) {
        (Level::Channel, None) => Err(no_channel(row.name)),
        (Level::Node, Some(channel)) => {
            let detail = format!("{} is the node's to send; it came for channel {}", row.name, channel.dbid);
            let fact = Fact::text("sent_for", "channel").exactly("node");
            Err(Refusal::new(Reason::MessageScope, detail).with_fact(fact))
        }
        _ => Ok(()),
    }
}

fn require_layout(row: &Row, message: &[u8]) -> Result<(), Refusal> {
    let body = message.get(2..).unwrap_or_default();
    layout::check(row.layout, body).map_err(|misfit| malformed(row, &misfit).with_fact(misfit.fact()))
}

/// Decodes a message. Number 20 means two things; the row, that is the dialect, decides.
fn decode(row: &Row, message: &[u8]) -> Result<Message, Refusal> {
    let decoded = match row.name {
        "SignLocalHtlcTx2" => msgs::SignLocalHtlcTx2::from_vec(message.to_vec()).map(Message::SignLocalHtlcTx2),
        // `row` bounds the length, far below what a u32 holds.
        _ => msgs::from_reader(&mut &message[..], message.len() as u32),
    };
    decoded.map_err(|error| malformed(row, &format_args!("{error:?}")))
}

fn malformed(row: &Row, cause: &dyn std::fmt::Display) -> Refusal {
    let refusal = Refusal::new(Reason::Malformed, format!("{} ({}): {cause}", row.name, row.number));
    refusal.with_fact(Fact::count("message_number", row.number.into()))
}
