//! What happened to a node so far, as LDK's events told it.

use std::collections::{BTreeMap, BTreeSet};

use lightning::events::{ClosureReason, Event};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;

/// How an outgoing payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payment {
    /// The payee has it.
    Sent {
        /// What the payee was to have.
        amount_msat: u64,
        /// Paid to the nodes in between.
        fee_msat: u64,
    },
    /// The payer has it back.
    Failed,
}

/// What happened to a node so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Outgoing payments that ended.
    pub payments: BTreeMap<PaymentHash, Payment>,
    /// Incoming payments that were claimed, in msat.
    pub received: BTreeMap<PaymentHash, u64>,
    /// Payments passed on to another node.
    pub forwarded: usize,
    /// What they brought, in msat: where LDK does not tell, because the chain settled it, the node's fee.
    pub forwarding_fees_msat: u64,
    /// Channels that became usable.
    pub ready: BTreeSet<ChannelId>,
    /// Channels that ended, and why.
    pub closed: BTreeMap<ChannelId, ClosureReason>,
}

/// What each node asks for passing a payment on, whatever its amount: LDK's default.
pub const FORWARDING_FEE_MSAT: u64 = 1_000;

impl History {
    /// What payments brought, less what they cost. What others' payments brought to a node in between is not in it: see
    /// [`forwarding_fees_msat`](Self::forwarding_fees_msat).
    pub fn net_msat(&self) -> i64 {
        let spent = self.payments.values().map(|payment| match payment {
            Payment::Sent { amount_msat, fee_msat } => amount_msat + fee_msat,
            Payment::Failed => 0,
        });
        self.received.values().sum::<u64>() as i64 - spent.sum::<u64>() as i64
    }

    pub(super) fn note(&mut self, event: &Event) {
        match event {
            // LDK knows both for payments that it began in this version.
            Event::PaymentSent { payment_hash, amount_msat, fee_paid_msat, .. } => {
                let (amount_msat, fee_msat) = (amount_msat.unwrap_or(0), fee_paid_msat.unwrap_or(0));
                self.payments.insert(*payment_hash, Payment::Sent { amount_msat, fee_msat });
            }
            Event::PaymentFailed { payment_hash: Some(hash), .. } => {
                self.payments.insert(*hash, Payment::Failed);
            }
            Event::PaymentClaimed { payment_hash, amount_msat, .. } => {
                self.received.insert(*payment_hash, *amount_msat);
            }
            Event::PaymentForwarded { total_fee_earned_msat, .. } => {
                self.forwarded += 1;
                self.forwarding_fees_msat += total_fee_earned_msat.unwrap_or(FORWARDING_FEE_MSAT);
            }
            Event::ChannelReady { channel_id, .. } => {
                self.ready.insert(*channel_id);
            }
            Event::ChannelClosed { channel_id, reason, .. } => {
                self.closed.insert(*channel_id, reason.clone());
            }
            _ => {}
        }
    }
}
