//! The way of a request.

use std::fmt;
use std::str::FromStr;

use bitcoin::OutPoint;

use crate::reasons::Refusal;

/// Which channel of the calling node a message concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelRef {
    /// The peer's node id, compressed.
    pub peer_id: [u8; 33],
    /// The node's own number for the channel.
    pub dbid: u64,
}

/// `peer:number`, in hex and decimal: how people, logs and the journal call a channel.
impl fmt::Display for ChannelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", hex::encode(self.peer_id), self.dbid)
    }
}

impl FromStr for ChannelRef {
    type Err = BadChannelName;

    fn from_str(text: &str) -> Result<Self, BadChannelName> {
        let (peer, number) = text.split_once(':').ok_or(BadChannelName)?;
        let mut peer_id = [0; 33];
        hex::decode_to_slice(peer, &mut peer_id).map_err(|_| BadChannelName)?;
        Ok(Self { peer_id, dbid: number.parse().map_err(|_| BadChannelName)? })
    }
}

/// What people, orders and the journal call a channel, of whatever kind its node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelName {
    /// `peer:number`, where the node numbers its channels.
    Numbered(ChannelRef),
    /// `txid:vout`, its funding output, where it does not.
    Funded(OutPoint),
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(channel) => channel.fmt(f),
            Self::Funded(funding) => funding.fmt(f),
        }
    }
}

/// Neither `peer:number` nor `txid:vout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a channel is called by its peer's node id in hex, a colon and its number, or by its funding output, txid:vout"
)]
pub struct BadChannelName;

impl FromStr for ChannelName {
    type Err = BadChannelName;

    fn from_str(text: &str) -> Result<Self, BadChannelName> {
        // A node id has two digits more than a txid.
        let numbered = text.parse().map(Self::Numbered);
        numbered.or_else(|_| text.parse().map(Self::Funded).map_err(|_| BadChannelName))
    }
}

impl From<ChannelRef> for ChannelName {
    fn from(channel: ChannelRef) -> Self {
        Self::Numbered(channel)
    }
}

impl From<OutPoint> for ChannelName {
    fn from(funding: OutPoint) -> Self {
        Self::Funded(funding)
    }
}

/// One request of one node, as a front door hands it in.
#[derive(Clone)]
pub struct Request {
    /// Chosen by the node; repeated after a reconnect.
    pub request_id: u64,
    /// Absent for a message that concerns the node as a whole.
    pub channel: Option<ChannelRef>,
    /// One hsmd message: u16 type, then the body.
    pub message: Vec<u8>,
}

/// What a request comes to. Reaches the front door only after its record is durable (P1).
#[derive(Clone)]
pub enum Outcome {
    /// The encoded hsmd reply.
    Reply(Vec<u8>),
    /// Refused, with the id that `claviger explain` takes.
    Refused {
        /// Names the decision in the journal.
        request: String,
        /// Why.
        refusal: Refusal,
    },
}

/// Takes the outcome back to the front door. Called once, from any thread; must not block.
pub type Responder = Box<dyn FnOnce(Outcome) + Send>;

// Messages and replies carry secrets, e.g. shared and per-commitment ones: Debug shows their size only (P8).

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("request_id", &self.request_id)
            .field("channel", &self.channel)
            .field("message_bytes", &self.message.len())
            .finish()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => f.debug_struct("Reply").field("bytes", &reply.len()).finish(),
            Self::Refused { request, refusal } => {
                f.debug_struct("Refused").field("request", request).field("refusal", refusal).finish()
            }
        }
    }
}
