//! The fees of a day, as far as they can all be paid.
//!
//! A node raises the fee of a claim with every block until it is confirmed. Of transactions that spend the same output one
//! at most ever is, so that together they cost no more than the highest of their fees.

use std::collections::VecDeque;

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};

use super::DAY_MS;
use super::window::Window;

/// Outputs whose spenders are known as rivals; the one whose turn is longest ago goes first.
const KNOWN: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fees {
    /// Latest last.
    rivals: VecDeque<Rivals>,
    /// Fees of all others.
    others: Window,
}

/// Transactions that all spend one output: they exclude each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rivals {
    output: OutPoint,
    highest_sat: u64,
    latest_ms: u64,
}

/// The fee of a transaction, and the output for which it stands beside its rivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fee {
    output: Option<OutPoint>,
    sat: u64,
}

impl Fees {
    /// The fee of a transaction that spends `outputs`, and the fees of a day with it, in sat.
    pub(super) fn with(&self, now_ms: u64, outputs: impl Iterator<Item = OutPoint>, sat: u64) -> (Fee, u64) {
        let outputs: Vec<_> = outputs.collect();
        let rivals = self.rivals.iter().filter(|rivals| rivals.is_live(now_ms) && outputs.contains(&rivals.output));
        let rivals = rivals.max_by_key(|rivals| rivals.highest_sat);
        // In what LDK asks for, a claimed output stands before the coins that pay its fee, which may change.
        let output = rivals.map(|rivals| rivals.output).or(outputs.first().copied());
        let charged_sat = rivals.map_or(0, |rivals| rivals.highest_sat);
        let day_sat = self.sum_sat(now_ms).saturating_add(sat.saturating_sub(charged_sat));
        (Fee { output, sat }, day_sat)
    }

    /// Charges what [`with`](Self::with) returned at the same time.
    pub(super) fn charge(&mut self, now_ms: u64, fee: Fee) {
        let Some(output) = fee.output else { return self.others.add(now_ms, DAY_MS, fee.sat) };
        self.rivals.retain(|rivals| rivals.is_live(now_ms));
        let known = self.rivals.iter().position(|rivals| rivals.output == output);
        let charged_sat = known.and_then(|index| self.rivals.remove(index)).map_or(0, |rivals| rivals.highest_sat);
        self.rivals.push_back(Rivals { output, highest_sat: fee.sat.max(charged_sat), latest_ms: now_ms });
        if self.rivals.len() > KNOWN
            && let Some(oldest) = self.rivals.pop_front()
        {
            self.others.add(now_ms, DAY_MS, oldest.highest_sat);
        }
    }

    fn sum_sat(&self, now_ms: u64) -> u64 {
        let live = self.rivals.iter().filter(|rivals| rivals.is_live(now_ms));
        live.fold(self.others.sum(now_ms, DAY_MS), |sum, rivals| sum.saturating_add(rivals.highest_sat))
    }
}

impl Rivals {
    fn is_live(&self, now_ms: u64) -> bool {
        self.latest_ms + DAY_MS > now_ms
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;

    use super::*;

    /// Charges a transaction that spends these coins, and returns the sum of the day.
    fn charge(fees: &mut Fees, now_ms: u64, coins: &[u32], sat: u64) -> u64 {
        let outputs = coins.iter().map(|vout| OutPoint { txid: Txid::all_zeros(), vout: *vout });
        let (fee, day_sat) = fees.with(now_ms, outputs, sat);
        fees.charge(now_ms, fee);
        assert_eq!(fees.sum_sat(now_ms), day_sat, "as announced");
        day_sat
    }

    #[test]
    fn rivals_cost_what_the_dearest_of_them_costs() {
        let mut fees = Fees::default();
        assert_eq!(charge(&mut fees, 0, &[1, 10], 100), 100);
        assert_eq!(charge(&mut fees, 1, &[1, 11], 150), 150, "the same claim with another coin for the fee");
        assert_eq!(charge(&mut fees, 2, &[1, 11], 120), 150);
        assert_eq!(charge(&mut fees, 3, &[2], 50), 200, "another claim");
    }

    #[test]
    fn transactions_that_can_all_be_confirmed_cost_what_they_all_cost() {
        let mut fees = Fees::default();
        charge(&mut fees, 0, &[1], 100);
        charge(&mut fees, 0, &[1, 2], 100);
        // Excluded by the second, but not by the first.
        assert_eq!(charge(&mut fees, 0, &[2], 100), 200);
        // More rivals than are known as such are counted one by one.
        let mut fees = Fees::default();
        for coin in 0..100 {
            assert_eq!(charge(&mut fees, 0, &[coin], 1), u64::from(coin) + 1);
        }
        assert_eq!(charge(&mut fees, 0, &[0], 1), 101);
        assert_eq!(charge(&mut fees, 0, &[99], 1), 101);
        assert_eq!(fees.rivals.len(), KNOWN);
    }

    #[test]
    fn a_day_later_nothing_is_left() {
        let mut fees = Fees::default();
        charge(&mut fees, 0, &[1], 100);
        assert_eq!(charge(&mut fees, DAY_MS - 1, &[1], 50), 100, "it may be confirmed today");
        assert_eq!(charge(&mut fees, 2 * DAY_MS, &[1], 50), 50);
    }
}
