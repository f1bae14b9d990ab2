//! How the signer traits reach the signer: one blocking call, and what can go wrong with it.

use thiserror::Error;

/// Which channel of this node a message concerns. LDK derives a channel's signer before it knows the peer, so
/// [`ClavigerKeys`](crate::ClavigerKeys) names channels by the node's own id and a number that is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelRef {
    /// 33 bytes, compressed; constant for one node.
    pub peer_id: [u8; 33],
    /// The node's own number for the channel, never reused.
    pub dbid: u64,
}

/// Carries hsmd messages to the signer and their replies back.
pub trait Transport: Send + Sync {
    /// Sends `message` (u16 big-endian type, then the body) and waits for its reply in the same form.
    ///
    /// `channel` is absent for a message that concerns the node as a whole. May be called from many threads at once.
    /// Returns [`LinkError::Down`] within seconds when the link is down: waiting is the caller's decision. A request
    /// whose reply was lost may be repeated; the signer answers it as it did before (P5).
    fn call(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError>;
}

/// Why a call brought no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The signer cannot be reached at the moment. The same call may succeed later.
    #[error("the link to the signer is down: {0}; it reconnects by itself")]
    Down(String),
    /// The signer refused (P11).
    #[error("{0}")]
    Refused(Refusal),
    /// The reply does not belong to the message sent.
    #[error("the signer's reply could not be understood: {0}; check that node and signer versions match")]
    Protocol(String),
}

impl LinkError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn retry(&self) -> bool {
        match self {
            LinkError::Down(_) => true,
            LinkError::Refused(refusal) => refusal.retry,
            LinkError::Protocol(_) => false,
        }
    }
}

/// A refusal as the signer worded it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the signer refused request {request}: {}", .reasons.iter().map(|r| format!("{} ({}; {})", r.id, r.detail, r.hint)).collect::<Vec<_>>().join(", "))]
pub struct Refusal {
    /// What `claviger explain` takes.
    pub request: String,
    /// Never empty.
    pub reasons: Vec<RefusalReason>,
    /// Whether the same request may succeed later without anybody's help.
    pub retry: bool,
}

/// One reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReason {
    /// Stable, from the signer's table of reasons.
    pub id: String,
    /// The facts compared.
    pub detail: String,
    /// The next step.
    pub hint: String,
    /// The facts compared, as data.
    pub facts: Vec<Fact>,
}

/// One thing that the signer looked at, and what it held it against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// In snake case.
    pub name: String,
    /// A number in decimal, or a word.
    pub value: String,
    /// `sat`, `msat`, `sat/kw`, `blocks`, `s`, `bytes`; empty for a plain number or a word.
    pub unit: String,
    /// `at-most`, `at-least`, `exactly`; empty for what was only looked at.
    pub rule: String,
    /// What would have passed, in the same unit.
    pub limit: String,
}
