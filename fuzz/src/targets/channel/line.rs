//! An honest channel: what the two sides agree on next, HTLC by HTLC.

use bitcoin::hashes::{Hash as _, sha256};
use claviger::lightning::driver::{Driver, DriverHtlc, Holdings};

/// All channels have it.
pub(super) const CHANNEL_SAT: u64 = 10_000_000;
/// Neither side goes below, so that it can pay fees.
const RESERVE_SAT: u64 = 100_000;
/// More are not in flight on one channel.
const MAX_HTLCS: usize = 5;

/// One channel of the honest node.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) driver: Driver,
    pub(super) we_fund: bool,
    /// Ours if every incoming HTLC fails, less what is in outgoing ones, before the commitment's cost.
    pub(super) balance_sat: u64,
    pub(super) flying: Vec<Flying>,
    pub(super) is_closed: bool,
}

/// An HTLC on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flying {
    /// Its preimage is made of this.
    pub(super) n: u64,
    pub(super) is_ours: bool,
    pub(super) amount_sat: u64,
    pub(super) cltv_expiry: u32,
}

/// Preimage number `n`.
pub(super) fn preimage(n: u64) -> [u8; 32] {
    let mut preimage = [0x77; 32];
    preimage[..8].copy_from_slice(&n.to_be_bytes());
    preimage
}

/// What preimage number `n` hashes to.
pub(super) fn hash(n: u64) -> [u8; 32] {
    sha256::Hash::hash(&preimage(n)).to_byte_array()
}

impl Line {
    /// A channel that was just opened, in which `balance_sat` is ours.
    pub(super) fn new(driver: Driver, we_fund: bool, balance_sat: u64) -> Self {
        Self { driver, we_fund, balance_sat, flying: Vec::new(), is_closed: false }
    }

    /// Adds an HTLC if the side that offers it can afford it.
    pub(super) fn add(&mut self, flying: Flying) -> bool {
        let in_flight: u64 = self.flying.iter().map(|flying| flying.amount_sat).sum();
        let theirs_sat = CHANNEL_SAT - self.balance_sat - in_flight;
        let affords_sat = if flying.is_ours { self.balance_sat } else { theirs_sat };
        if self.flying.len() >= MAX_HTLCS || affords_sat < flying.amount_sat + RESERVE_SAT {
            return false;
        }
        if flying.is_ours {
            self.balance_sat -= flying.amount_sat;
        }
        self.flying.push(flying);
        true
    }

    /// Removes an HTLC, settled or failed.
    pub(super) fn remove(&mut self, which: usize, is_settled: bool) -> Flying {
        let flying = self.flying.remove(which);
        if is_settled != flying.is_ours {
            self.balance_sat += flying.amount_sat;
        }
        flying
    }

    /// What the next commitments hold.
    pub(super) fn holdings(&self) -> Holdings {
        let htlc = |flying: &Flying| DriverHtlc {
            is_ours: flying.is_ours,
            payment_hash: hash(flying.n),
            amount_sat: flying.amount_sat,
            cltv_expiry: flying.cltv_expiry,
        };
        let cost_sat = if self.we_fund { self.driver.cost_sat(self.flying.len()) } else { 0 };
        Holdings { to_us_sat: self.balance_sat.saturating_sub(cost_sat), htlcs: self.flying.iter().map(htlc).collect() }
    }
}
