//! What is set aside for a request that was permitted, until it is known what came of it.

use sha2::{Digest, Sha256};

use super::definition::Budget;
use super::scope::ScopeKey;
use crate::facts::FactId;

/// The most reservations of one node that are not settled.
pub const MAX_RESERVATIONS: usize = 16_384;
/// The most settled reservations of one node that are remembered; those that end first are forgotten first.
pub const MAX_REMEMBERED: usize = 4_096;
/// The most budgets and keys of budgets that one reservation counts in.
pub const MAX_CHARGES: usize = 256;
/// A settled reservation is remembered so long at least, so that a repeat is not counted again.
pub const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// What a request is known by, if it comes again: made from the payment hash, the transaction id or the request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationKey(pub(super) [u8; 32]);

impl ReservationKey {
    /// The key of the request with this id, e.g. `payment:<hash>`; unique within the node.
    pub fn new(id: &str) -> Self {
        Self(Sha256::digest(id).into())
    }

    /// The key that records write so.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as records write it.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) state: State,
    /// When it is released by itself, or forgotten if it is settled.
    pub(super) expires_ms: u64,
    pub(super) charges: Vec<Charge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Permitted; may still come to nothing.
    Open,
    /// On its way: does not expire.
    Held,
    /// Spent. Remembered so that a repeat is not counted again.
    Settled,
}

/// What a reservation counts in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) budget: String,
    pub(super) fact: Option<FactId>,
    pub(super) scope: ScopeKey,
    pub(super) window_ms: u64,
    /// Set aside.
    pub(super) held: u64,
    /// Settled before.
    pub(super) spent: u64,
}

impl Charge {
    /// Of nothing yet.
    pub(super) fn new(budget: &Budget, scope: ScopeKey) -> Self {
        let Budget { name, fact, .. } = budget;
        Self { budget: name.clone(), fact: *fact, scope, window_ms: budget.window_ms(), held: 0, spent: 0 }
    }

    /// Whether it counts in this window.
    pub(super) fn is_in(&self, budget: &Budget, scope: &ScopeKey) -> bool {
        self.is_of(budget) && self.scope == *scope
    }

    /// Whether it counts in a window of `budget`, and in its unit.
    pub(super) fn is_of(&self, budget: &Budget) -> bool {
        self.budget == budget.name && self.fact == budget.fact
    }

    /// What was counted so far.
    pub(super) fn counted(&self) -> u64 {
        self.held.saturating_add(self.spent)
    }
}

impl Reservation {
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Settled
    }

    /// Whether it ends by itself at `now_ms`.
    pub(super) fn ends(&self, now_ms: u64) -> bool {
        self.state != State::Held && self.expires_ms <= now_ms
    }
}
