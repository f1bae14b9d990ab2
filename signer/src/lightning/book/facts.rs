//! What the book is told, in the words of BOLT 2 and BOLT 3. Any front door can say it.

use std::fmt;
use std::sync::Arc;

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};

/// The routing fee that an approval includes, in percent of the amount, and at least.
pub const MAX_FEE_PERCENT: u64 = 10;
const LEAST_FEE_MSAT: u64 = 50_000;

/// Which channel of a node: `<peer id>:<dbid>`, as in the journal's decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey(pub Arc<str>);

impl fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A payment hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Whose commitment: who may broadcast it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Ours, signed by the peer.
    Ours,
    /// The peer's, signed by us.
    Theirs,
}

/// Which way an HTLC pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// We offered it.
    Out,
    /// The peer offered it.
    In,
}

/// One HTLC output of a commitment. Its order is the order in a [`Commitment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Htlc {
    /// What its preimage hashes to.
    pub payment_hash: Hash,
    /// Which way it pays.
    pub direction: Direction,
    /// Its amount.
    pub amount_msat: u64,
    /// The height at which the payer gets it back.
    pub cltv_expiry: u32,
}

/// What is agreed on when a channel is opened, and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The output that holds the channel's money.
    pub funding: OutPoint,
    /// Its amount.
    pub capacity_sat: u64,
    /// What the funder gave the other side at once.
    pub push_msat: u64,
    /// Whether we are the funder, who pays the commitments' fee and anchors.
    pub we_fund: bool,
    /// Whether commitments have anchor outputs.
    pub anchors: bool,
    /// Whether HTLC transactions bring their own fee (BOLT 3: `option_anchors`).
    pub zero_fee_htlcs: bool,
}

/// A commitment as a message asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// As BOLT 3 counts, upwards from 0.
    pub number: u64,
    /// The feerate both sides agreed on.
    pub feerate_per_kw: u32,
    /// Our output; 0 if there is none.
    pub to_us_sat: u64,
    /// The peer's output; 0 if there is none.
    pub to_them_sat: u64,
    /// Its HTLC outputs, sorted. What is trimmed is not among them.
    pub htlcs: Vec<Htlc>,
}

/// A payment that may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// What the invoice or the keysend names. 0 approves nothing: an invoice without an amount does not say how much.
    pub amount_msat: u64,
    /// When it ends, if it is not in flight then.
    pub expires_ms: u64,
    /// The routing fee that may come on top.
    pub max_fee_msat: u64,
}

impl Approval {
    /// An approval with as much routing fee as is ever honest: a tenth of the amount, and 50 sat at least.
    pub fn new(amount_msat: u64, expires_ms: u64) -> Self {
        Self { amount_msat, expires_ms, max_fee_msat: fee_msat(amount_msat, MAX_FEE_PERCENT) }
    }

    /// The same with at most `percent` of the amount, or 50 sat.
    pub fn with_fee_percent(self, percent: u64) -> Self {
        Self { max_fee_msat: self.max_fee_msat.min(fee_msat(self.amount_msat, percent)), ..self }
    }

    /// All that may leave for it, over all channels, parts and attempts.
    pub fn most_msat(&self) -> u64 {
        self.amount_msat.saturating_add(self.max_fee_msat)
    }
}

fn fee_msat(amount_msat: u64, percent: u64) -> u64 {
    let part_msat = u64::try_from(u128::from(amount_msat) * u128::from(percent) / 100).unwrap_or(u64::MAX);
    if amount_msat == 0 { 0 } else { part_msat.max(LEAST_FEE_MSAT) }
}

/// When a message is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch; never runs backwards (P7).
    pub now_ms: u64,
    /// Our own chain view's height.
    pub height: u32,
}

/// What a network and a wire settle once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Blocks by which a forward's incoming HTLC must outlast its outgoing one.
    pub cltv_delta: u32,
    /// The highest feerate that we pay for a commitment.
    pub max_feerate_per_kw: u32,
    /// Confirmations from which on the node goes by what the chain shows of a close.
    pub buried: u32,
    /// Whether the wire brings a preimage before the commitment without its HTLC.
    pub brings_preimages: bool,
}
