//! What leaves through HTLCs that are dust (below 546 sat, plus the fee of their transaction where HTLC transactions pay
//! one). No commitment shows which they are, so they are netted over the whole node: what a router passes on comes in
//! again, and a small payment was approved. What is left over is bounded.

use serde::{Deserialize, Serialize};

use super::view::DustView;
use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

/// What one channel may lose within a day and not get back.
const PER_CHANNEL_MSAT: u64 = 100_000_000;
/// No more channels than this count.
const CHANNELS: u64 = 10;
/// Approvals up to this amount, fee included, may be paid as dust.
pub const SMALL_PAYMENT_MSAT: u64 = 10_000_000;

const DAY_MS: u64 = 24 * 3_600_000;

/// The node's balance of dust.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dust {
    /// Left, has not come back, was not approved.
    lost_msat: u64,
    /// Approved and not left yet.
    approved_msat: u64,
    /// Left with approval; may come back.
    paid_msat: u64,
    at_ms: u64,
}

impl Dust {
    /// Takes account of what left (positive) or came in (negative). Refuses with `dust-exceeded`.
    pub(super) fn charge(&mut self, now_ms: u64, left_msat: i128, channels: usize) -> Result<(), Refusal> {
        self.fade(now_ms, channels);
        let amount_msat = u64::try_from(left_msat.unsigned_abs()).unwrap_or(u64::MAX);
        if left_msat < 0 {
            let back = take(&mut self.lost_msat, amount_msat);
            self.approved_msat += take(&mut self.paid_msat, amount_msat - back);
            return Ok(());
        }
        let paid = take(&mut self.approved_msat, amount_msat);
        self.paid_msat += paid;
        let lost_msat = self.lost_msat.saturating_add(amount_msat - paid);
        let allowance_msat = allowance_msat(channels);
        if lost_msat > allowance_msat {
            let what = "HTLCs too small to be told apart took more out than they brought back within a day";
            let detail = format!("{what}: {lost_msat} msat > {allowance_msat} msat");
            let fact = Fact::msat("lost_in_dust", lost_msat.into()).at_most_msat(allowance_msat.into());
            return Err(Refusal::new(Reason::DustExceeded, detail).with_fact(fact));
        }
        self.lost_msat = lost_msat;
        Ok(())
    }

    /// A payment was approved that may leave as dust.
    pub(super) fn approve(&mut self, now_ms: u64, amount_msat: u64, channels: usize) {
        self.fade(now_ms, channels);
        self.approved_msat = self.approved_msat.saturating_add(amount_msat);
    }

    /// It left as an HTLC that can be told apart. What of the approval left as dust before was not approved then.
    pub(super) fn withdraw(&mut self, amount_msat: u64) {
        let spent_msat = amount_msat - take(&mut self.approved_msat, amount_msat);
        self.lost_msat = self.lost_msat.saturating_add(take(&mut self.paid_msat, spent_msat));
    }

    pub(super) fn view(mut self, now_ms: u64, channels: usize) -> DustView {
        self.fade(now_ms, channels);
        DustView { lost_msat: self.lost_msat, allowance_msat: allowance_msat(channels) }
    }

    /// All of it fades, by the allowance within a day.
    fn fade(&mut self, now_ms: u64, channels: usize) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let faded = u128::from(allowance_msat(channels)) * u128::from(elapsed_ms) / u128::from(DAY_MS);
        if faded == 0 {
            return; // keeps the time, so that short steps add up
        }
        let faded = u64::try_from(faded).unwrap_or(u64::MAX);
        for sum in [&mut self.lost_msat, &mut self.approved_msat, &mut self.paid_msat] {
            take(sum, faded);
        }
        self.at_ms = now_ms;
    }
}

fn allowance_msat(channels: usize) -> u64 {
    (channels as u64).clamp(1, CHANNELS) * PER_CHANNEL_MSAT
}

/// Takes up to `amount` out of `sum`; returns what was taken.
fn take(sum: &mut u64, amount: u64) -> u64 {
    let taken = amount.min(*sum);
    *sum -= taken;
    taken
}
