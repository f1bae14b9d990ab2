//! What the book shows: plain data for `claviger channel show` and for whoever compares signer and node.

use serde::Serialize;

/// The whole book of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BookView {
    /// Its channels, by key.
    pub channels: Vec<ChannelView>,
    /// Payments that are approved or in flight, by hash.
    pub payments: Vec<PaymentView>,
    /// What left through HTLCs too small to be told apart.
    pub dust: DustView,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelView {
    /// `<peer id>:<dbid>`, as in the journal's decisions.
    pub channel: String,
    /// The funding output's amount.
    pub capacity_sat: u64,
    /// Whether we pay the commitments' fee.
    pub we_fund: bool,
    /// Whether the commitments have anchor outputs.
    pub anchors: bool,
    /// What may happen on it.
    pub standing: Standing,
    /// What is ours if every HTLC in flight fails, at least; in our newest commitment, before the fee.
    pub settled_msat: u64,
    /// What left (positive) or came (negative) through HTLCs too small to be told apart, since the channel was opened.
    pub dust_lost_msat: i64,
    /// Our commitments that are valid: the one in force, and the next if it is signed. Oldest first.
    pub ours: Vec<CommitmentView>,
    /// The peer's.
    pub theirs: Vec<CommitmentView>,
}

/// What may happen on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Commitments may follow.
    Ready,
    /// A close was signed.
    Closing,
    /// The funding output is spent.
    Closed,
}

/// One commitment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitmentView {
    /// As BOLT 3 counts, upwards from 0.
    pub number: u64,
    /// Our output.
    pub to_us_sat: u64,
    /// The peer's output.
    pub to_them_sat: u64,
    /// Its feerate.
    pub feerate_per_kw: u32,
    /// Its fee, without what is too small for an output.
    pub fee_sat: u64,
    /// In HTLCs that were left out or are too small to be told apart, whosever they are.
    pub dust_msat: u64,
    /// HTLCs that we offered.
    pub out_htlcs: usize,
    /// Their sum.
    pub out_msat: u64,
    /// HTLCs that the peer offered.
    pub in_htlcs: usize,
    /// Their sum.
    pub in_msat: u64,
}

/// One payment hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PaymentView {
    /// In hex.
    pub payment_hash: String,
    /// The amount that was approved, 0 for a forward.
    pub approved_msat: u64,
    /// The routing fee that was approved with it.
    pub max_fee_msat: u64,
    /// When the approval ends; absent for a forward.
    pub expires_ms: Option<u64>,
    /// In flight and settled, out of all channels, at most.
    pub out_msat: u64,
    /// In flight and settled, in to all channels, at least.
    pub in_msat: u64,
    /// Whether a message brought the preimage.
    pub preimage_known: bool,
    /// The channels that carry it.
    pub channels: Vec<String>,
}

/// What left through HTLCs too small to be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DustView {
    /// Not come back and not approved. Shrinks to nothing within a day.
    pub lost_msat: u64,
    /// As much may be lost.
    pub allowance_msat: u64,
}
