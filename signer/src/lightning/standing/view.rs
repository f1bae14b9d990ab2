//! What the signer knows of a channel.

use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use lightning_signer::channel::{Channel, ChannelId, ChannelSlot};
use lightning_signer::node::Node;
use lightning_signer::tx::tx::{CommitmentInfo2, HTLCInfo2};

use crate::pipeline::{ChannelName, ChannelRef};

/// One channel, as of the last message about it. Commitments are counted from 0, as BOLT 3 does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Its name.
    pub channel: ChannelName,
    /// Where it is in its life.
    pub state: State,
    /// What the node told when it opened; absent for a stub.
    pub funding: Option<Funding>,
    /// Our commitments.
    pub holder: Option<Side>,
    /// The peer's.
    pub counterparty: Option<Side>,
    /// The peer, where the name does not tell and the node did.
    pub peer: Option<PublicKey>,
    /// States that were replaced and are not proven to be revoked, where that is not told at once and somebody keeps count.
    pub unproven_states: Option<u64>,
    /// What else it is called where its node is run.
    pub aliases: Vec<String>,
}

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has keys and nothing else.
    Stub,
    /// It can be used once it is confirmed.
    Ready,
    /// Something that closes it was signed.
    Closing,
    /// The chain closed it.
    Closed,
}

impl State {
    /// In one word.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Stub => "stub",
            Self::Ready => "ready",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// The output that holds a channel's money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funding {
    /// Which.
    pub outpoint: OutPoint,
    /// All of it.
    pub capacity_sat: u64,
    /// Whether we paid it in.
    pub by_us: bool,
    /// The kind of commitments. Empty where the node does not tell; nor does it then who paid, and nobody counts confirmations.
    pub kind: String,
    /// Its confirmations; 0 for none.
    pub depth: u32,
    /// Confirmations of what spends it; 0 for none.
    pub closing_depth: u32,
}

/// One side's commitments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The oldest that is not revoked.
    pub current: u64,
    /// The one after it, where both are out: ours validated and the current one not revoked yet; theirs signed and the
    /// current one not revoked yet.
    pub next: Option<u64>,
    /// All up to here are revoked.
    pub revoked: Option<u64>,
    /// What the newest says.
    pub balance: Option<Balance>,
}

/// What a commitment says, seen from us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Ours, after fees if we pay them.
    pub ours_sat: u64,
    /// The peer's.
    pub theirs_sat: u64,
    /// What it pays miners.
    pub feerate_per_kw: u32,
    /// Sum of incoming HTLCs.
    pub incoming_sat: u64,
    /// Sum of outgoing HTLCs.
    pub outgoing_sat: u64,
    /// How many come in.
    pub incoming_htlcs: u32,
    /// How many go out.
    pub outgoing_htlcs: u32,
    /// Each of them; left out of what a node claims.
    pub htlcs: Vec<HtlcView>,
    /// HTLCs, at least, that are counted as the peer's: the node did not tell what they are.
    pub untold_htlcs: u32,
}

/// One HTLC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcView {
    /// Whether the peer offered it.
    pub incoming: bool,
    /// In sat, as the commitment's output has it.
    pub amount_sat: u64,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// The height at which it times out.
    pub cltv_expiry: u32,
}

/// What is known of a payment hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentHash {
    /// SHA-256 of the preimage.
    Whole([u8; 32]),
    /// RIPEMD-160 of that, as scripts have it.
    Hash160([u8; 20]),
}

/// All channels of `node`, by name. Panics where vls does.
pub fn all(node: &Node) -> Vec<ChannelView> {
    let slots: Vec<_> = node.get_channels().iter().map(|(id, slot)| (id.clone(), Arc::clone(slot))).collect();
    slots.iter().filter_map(|(id, slot)| view(channel_ref(id)?, slot)).collect()
}

/// One channel of `node`.
pub fn one(node: &Node, channel: ChannelRef) -> Option<ChannelView> {
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    let slot = node.get_channels().get(&id).map(Arc::clone)?;
    view(channel, &slot)
}

fn view(channel: ChannelRef, slot: &Mutex<ChannelSlot>) -> Option<ChannelView> {
    // A slot that a panic left behind is dropped with its engine: nobody sees it again.
    let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    Some(match &*slot {
        ChannelSlot::Stub(_) => ChannelView::new(channel.into(), State::Stub, None),
        ChannelSlot::Ready(ready) => ready_view(channel, ready),
    })
}

fn ready_view(channel: ChannelRef, ready: &Channel) -> ChannelView {
    let (setup, state) = (&ready.setup, &ready.enforcement_state);
    let chain = ready.monitor.as_chain_state();
    let funding = Funding {
        outpoint: setup.funding_outpoint,
        capacity_sat: setup.channel_value_sat,
        by_us: setup.is_outbound,
        kind: format!("{:?}", setup.commitment_type),
        depth: chain.funding_depth,
        closing_depth: chain.closing_depth,
    };
    let next_info = state.next_holder_commit_info.as_ref().map(|(info, _)| info);
    let holder = state.next_holder_commit_num.checked_sub(1).map(|current| Side {
        current,
        next: next_info.map(|_| current + 1),
        revoked: current.checked_sub(1),
        balance: next_info.or(state.current_holder_commit_info.as_ref()).map(balance),
    });
    let counterparty = state.next_counterparty_commit_num.checked_sub(1).map(|signed| {
        let current = state.next_counterparty_revoke_num.min(signed);
        Side {
            current,
            next: (signed > current).then_some(signed),
            revoked: current.checked_sub(1),
            balance: state.current_counterparty_commit_info.as_ref().map(balance),
        }
    });
    let state = match (chain.closing_depth, state.channel_closed) {
        (1.., _) => State::Closed,
        (0, true) => State::Closing,
        (0, false) => State::Ready,
    };
    ChannelView { holder, counterparty, ..ChannelView::new(channel.into(), state, Some(funding)) }
}

fn balance(info: &CommitmentInfo2) -> Balance {
    let theirs = info.is_counterparty_broadcaster;
    let (ours_sat, theirs_sat) = match theirs {
        true => (info.to_countersigner_value_sat, info.to_broadcaster_value_sat),
        false => (info.to_broadcaster_value_sat, info.to_countersigner_value_sat),
    };
    let offered = info.offered_htlcs.iter().map(|htlc| htlc_view(htlc, theirs));
    let received = info.received_htlcs.iter().map(|htlc| htlc_view(htlc, !theirs));
    let mut balance = Balance { ours_sat, theirs_sat, feerate_per_kw: info.feerate_per_kw, ..Balance::default() };
    for htlc in offered.chain(received) {
        balance.count(htlc.incoming, htlc.amount_sat);
        balance.htlcs.push(htlc);
    }
    balance
}

fn htlc_view(htlc: &HTLCInfo2, incoming: bool) -> HtlcView {
    let HTLCInfo2 { value_sat, payment_hash, cltv_expiry } = htlc;
    let payment_hash = PaymentHash::Whole(payment_hash.0);
    HtlcView { incoming, amount_sat: *value_sat, payment_hash, cltv_expiry: *cltv_expiry }
}

impl ChannelView {
    /// A channel without commitments.
    pub(in crate::lightning) fn new(channel: ChannelName, state: State, funding: Option<Funding>) -> Self {
        let (holder, counterparty, peer, unproven_states) = (None, None, None, None);
        Self { channel, state, funding, holder, counterparty, peer, unproven_states, aliases: Vec::new() }
    }
}

impl Balance {
    /// Whether two say the same, as far as sums tell.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let sums = |balance: &Self| Self { htlcs: Vec::new(), ..balance.clone() };
        sums(self) == sums(other)
    }

    /// Adds one HTLC to the sums.
    pub(in crate::lightning) fn count(&mut self, incoming: bool, amount_sat: u64) {
        let (sum, number) = match incoming {
            true => (&mut self.incoming_sat, &mut self.incoming_htlcs),
            false => (&mut self.outgoing_sat, &mut self.outgoing_htlcs),
        };
        *sum = sum.saturating_add(amount_sat);
        *number += 1;
    }
}

/// The name in an id made by `ChannelId::new_from_peer_id_and_oid`.
fn channel_ref(id: &ChannelId) -> Option<ChannelRef> {
    let (peer_id, dbid) = id.as_slice().split_first_chunk::<33>()?;
    Some(ChannelRef { peer_id: *peer_id, dbid: u64::from_le_bytes(dbid.try_into().ok()?) })
}
