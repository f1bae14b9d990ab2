//! A commitment's arithmetic (BOLT 3), read backwards: from its outputs to the balances that they were made from.
//!
//! A balance is known to the satoshi, since an output drops its thousandths: every amount here is a [`Span`] of
//! millisatoshi that the true value lies in.

use super::facts::{Commitment, Direction, Htlc, Terms};

/// No side trims outputs of this amount or above: the largest dust limit in use (P2PKH).
pub(super) const DUST_LIMIT_SAT: u64 = 546;
const ANCHORS_SAT: u64 = 660;
const WEIGHT: u64 = 724;
const WEIGHT_WITH_ANCHORS: u64 = 1_124;
const WEIGHT_PER_HTLC: u64 = 172;
/// The heavier of the two HTLC transactions.
const HTLC_SUCCESS_WEIGHT: u64 = 703;

/// From `lo` to `hi`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) lo: i128,
    pub(super) hi: i128,
}

impl Span {
    pub(super) fn shifted(self, msat: i128) -> Self {
        Self { lo: self.lo + msat, hi: self.hi + msat }
    }

    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { lo: self.lo.max(other.lo), hi: self.hi.min(other.hi) };
        (both.lo <= both.hi).then_some(both)
    }

    /// How far `other` lies above (positive) or below; 0 where they meet.
    pub(super) fn distance_to(self, other: Self) -> i128 {
        if other.lo > self.hi {
            other.lo - self.hi
        } else if other.hi < self.lo {
            other.hi - self.lo
        } else {
            0
        }
    }
}

impl Terms {
    /// Our balance when the channel was opened.
    pub(super) fn opening(&self) -> Span {
        let (capacity, push) = (msat(self.capacity_sat), i128::from(self.push_msat));
        // Messages may round the pushed amount down, and do not show it where it is trimmed.
        let rounding = if self.push_msat == 0 { msat(DUST_LIMIT_SAT) - 1 } else { 999 };
        match self.we_fund {
            true if self.push_msat == 0 => Span { lo: capacity, hi: capacity },
            true => Span { lo: capacity - push - 999, hi: capacity - push },
            false => Span { lo: push, hi: push + rounding },
        }
    }

    /// What the funder pays for a commitment with `htlcs` HTLC outputs: its fee and the anchors.
    fn cost_sat(&self, feerate_per_kw: u32, htlcs: usize) -> u64 {
        let anchors_sat = if self.anchors { ANCHORS_SAT } else { 0 };
        self.fee_sat(feerate_per_kw, htlcs) + anchors_sat
    }

    pub(super) fn fee_sat(&self, feerate_per_kw: u32, htlcs: usize) -> u64 {
        let base = if self.anchors { WEIGHT_WITH_ANCHORS } else { WEIGHT };
        u64::from(feerate_per_kw) * (base + WEIGHT_PER_HTLC * htlcs as u64) / 1_000
    }

    /// Below this, a commitment at this feerate may leave an HTLC out. Dust limits differ between the two sides, and
    /// neither is told: what is below the largest is dust in every commitment, an output or not.
    pub(super) fn dust_below_msat(&self, feerate_per_kw: u32) -> u64 {
        let fee_sat = if self.zero_fee_htlcs { 0 } else { u64::from(feerate_per_kw) * HTLC_SUCCESS_WEIGHT / 1_000 };
        (DUST_LIMIT_SAT + fee_sat) * 1_000
    }

    pub(super) fn is_dust(&self, feerate_per_kw: u32, amount_msat: u64) -> bool {
        amount_msat < self.dust_below_msat(feerate_per_kw)
    }
}

impl Commitment {
    /// The HTLCs that are no dust, in order.
    pub(super) fn regular(&self, terms: &Terms) -> impl Iterator<Item = &Htlc> {
        self.htlcs.iter().filter(|htlc| !terms.is_dust(self.feerate_per_kw, htlc.amount_msat))
    }

    pub(super) fn sum_msat(&self, terms: &Terms, direction: Direction) -> i128 {
        let htlcs = self.regular(terms).filter(|htlc| htlc.direction == direction);
        htlcs.map(|htlc| i128::from(htlc.amount_msat)).sum()
    }

    /// Whether the outputs fit into the channel at all.
    pub(super) fn fits(&self, terms: &Terms) -> bool {
        let htlcs: i128 = self.htlcs.iter().map(|htlc| i128::from(htlc.amount_msat)).sum();
        msat(self.to_us_sat) + msat(self.to_them_sat) + htlcs <= msat(terms.capacity_sat)
    }

    /// What is ours if every HTLC fails, without what we offered as dust.
    pub(super) fn ours(&self, terms: &Terms) -> Span {
        self.side(terms, self.to_us_sat, terms.we_fund).shifted(self.sum_msat(terms, Direction::Out))
    }

    /// What is in HTLCs that are dust, both ways together: what no output and no fee accounts for. Negative if the
    /// outputs and the fee exceed the channel.
    pub(super) fn dust_msat(&self, terms: &Terms) -> Span {
        let (us, them) =
            (self.side(terms, self.to_us_sat, terms.we_fund), self.side(terms, self.to_them_sat, !terms.we_fund));
        let in_htlcs = self.sum_msat(terms, Direction::Out) + self.sum_msat(terms, Direction::In);
        let rest = msat(terms.capacity_sat) - in_htlcs;
        Span { lo: rest - us.hi - them.hi, hi: rest - us.lo - them.lo }
    }

    /// The balance that an output of `output_sat` was made from.
    fn side(&self, terms: &Terms, output_sat: u64, funds: bool) -> Span {
        let cost_sat = if funds { terms.cost_sat(self.feerate_per_kw, self.htlcs.len()) } else { 0 };
        match output_sat {
            // Trimmed; of a funder who cannot pay all of the fee, the rest is taken.
            0 => Span { lo: 0, hi: msat(cost_sat + DUST_LIMIT_SAT) - 1 },
            _ => Span { lo: msat(output_sat) + msat(cost_sat), hi: msat(output_sat) + msat(cost_sat) + 999 },
        }
    }
}

fn msat(sat: u64) -> i128 {
    i128::from(sat) * 1_000
}
