//! What a freeze stops, and a quarantine as well, with `quarantined` and for the whole node.
//!
//! Stopped, until thawed: a signature on a new commitment of the peer, the revocation of ours (which puts a new one in
//! force), sends from the wallet, and approvals of payments. Not stopped: what was answered before (P5); closes of every
//! kind; HTLC claims, sweeps and justice; fees for them from the wallet; the peer's revocations, without which there is
//! no justice; the validation of our next commitment, which only adds one to close with; invoices, which move nothing.
//!
//! `frozen` may be retried: a node waits with the message, instead of closing the channel over it, and goes on by itself
//! once it is thawed.
//!
//! A quarantine also stops what a channel's next state is made of (validations, the peer's revocations, preimages): what an
//! old state was told would be missing once the latest is put back. `quarantined` may be retried too, and every refusal of a
//! channel's message is one while the quarantine lasts: the node waits until somebody has looked.

use vls_protocol::msgs::Message;

use super::{Given, Orders};
use crate::facts::Fact;
use crate::lightning::standing::{ChannelView, Side};
use crate::pipeline::{ChannelName, ChannelRef};
use crate::reasons::{Reason, Refusal};

impl Orders {
    /// Refuses with `frozen` what a freeze stops at `now_ms`. `view` looks the channel up; it is called only if the
    /// answer depends on it.
    pub fn check(
        &self,
        message: &Message,
        channel: Option<ChannelRef>,
        now_ms: u64,
        view: impl Fn(ChannelRef) -> Option<ChannelView>,
    ) -> Result<(), Refusal> {
        if self.node.is_none() && self.channels.is_empty() && self.quarantine.is_none() {
            return Ok(());
        }
        let counterparty = |channel| view(channel)?.counterparty;
        let holder = |channel| view(channel)?.holder;
        match (message, channel) {
            (Message::SignWithdrawal(_) | Message::PreapproveInvoice(_) | Message::PreapproveKeysend(_), _) => {
                self.node_stopped("node").map_or(Ok(()), Err)
            }
            (Message::SignRemoteCommitmentTx(m), Some(channel)) => {
                self.check_state(channel, now_ms, || begins(counterparty(channel), m.commitment_number))
            }
            (Message::SignRemoteCommitmentTx2(m), Some(channel)) => {
                self.check_state(channel, now_ms, || begins(counterparty(channel), m.commitment_number))
            }
            (Message::RevokeCommitmentTx(m), Some(channel)) => {
                self.check_state(channel, now_ms, || ends(holder(channel), m.commitment_number))
            }
            (Message::ValidateCommitmentTx(m), Some(channel)) => {
                self.check_latest(|| begins(holder(channel), m.commitment_number))
            }
            (Message::ValidateCommitmentTx2(m), Some(channel)) => {
                self.check_latest(|| begins(holder(channel), m.commitment_number))
            }
            (Message::ValidateRevocation(m), Some(channel)) => {
                self.check_latest(|| ends(counterparty(channel), m.commitment_number))
            }
            _ => Ok(()),
        }
    }

    /// Refuses with `quarantined` if the node's state may not be the latest.
    pub fn require_latest(&self) -> Result<(), Refusal> {
        self.quarantine.as_ref().map_or(Ok(()), |given| Err(quarantined(given)))
    }

    /// Whether the wallet pays nothing but fees: for claims and anchors, which have to go on.
    pub fn only_fees(&self) -> Option<Refusal> {
        self.node_stopped("node")
    }

    /// Why the whole node, which is called `what`, signs no new state and spends nothing.
    pub fn node_stopped(&self, what: &'static str) -> Option<Refusal> {
        let frozen = || self.node.as_ref().map(|given| refusal(what, given));
        self.quarantine.as_ref().map(quarantined).or_else(frozen)
    }

    /// Why `channel` takes no new state at `now_ms`.
    pub fn channel_stopped(&self, channel: &ChannelName, now_ms: u64) -> Option<Refusal> {
        if let Some(given) = &self.quarantine {
            return Some(quarantined(given));
        }
        let frozen = match (&self.node, self.channels.get(channel)) {
            (_, Some(given)) => refusal("channel", given),
            (Some(given), None) => refusal("node", given),
            (None, None) => return None,
        };
        (!self.is_exempt(channel, Reason::Frozen, now_ms)).then_some(frozen)
    }

    /// In quarantine, what is refused on a channel may be refused only because this state is older than the node's.
    pub fn excuse(&self, refusal: Refusal) -> Refusal {
        match &self.quarantine {
            Some(given) if !refusal.reason.retry() && refusal.reason != Reason::Fault => {
                let waits = quarantined(given);
                let detail = format!("{}. By this state: {}", waits.detail, refusal.detail);
                let fact = Fact::text("reason_by_this_state", refusal.reason.id());
                Refusal { reason: waits.reason, detail, ..refusal }.with_fact(fact)
            }
            _ => refusal,
        }
    }

    fn check_latest(&self, is_new: impl FnOnce() -> bool) -> Result<(), Refusal> {
        self.require_latest().or_else(|refusal| if is_new() { Err(refusal) } else { Ok(()) })
    }

    fn check_state(&self, channel: ChannelRef, now_ms: u64, is_new: impl FnOnce() -> bool) -> Result<(), Refusal> {
        match self.channel_stopped(&channel.into(), now_ms) {
            Some(refusal) if is_new() => Err(refusal),
            _ => Ok(()),
        }
    }
}

/// Whether a side has had no commitment with this number yet.
fn begins(side: Option<Side>, number: u64) -> bool {
    side.is_none_or(|side| number > side.next.unwrap_or(side.current))
}

/// Whether a side's commitment with this number is not revoked yet.
fn ends(side: Option<Side>, number: u64) -> bool {
    side.and_then(|side| side.revoked).is_none_or(|revoked| number > revoked)
}

fn quarantined(given: &Given) -> Refusal {
    Refusal::new(Reason::Quarantined, format!("the node is in quarantine: {}", given.why))
}

fn refusal(what: &'static str, given: &Given) -> Refusal {
    let Given { by, why, .. } = given;
    let colon = if why.is_empty() { "" } else { ": " };
    let refusal = Refusal::new(Reason::Frozen, format!("the {what} was frozen by {by}{colon}{why}"));
    refusal.with_fact(Fact::text("frozen", what)).with_fact(Fact::text("frozen_by", by))
}
