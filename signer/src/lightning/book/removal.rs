//! What became of the HTLCs that a new commitment no longer has.
//!
//! The wire does not say which were settled and which failed: our balance does, together with the preimages. The
//! expected case (an outgoing HTLC is settled if its preimage is known, and so is an incoming one) is tried first. If it
//! does not meet our balance to the satoshi, the removed HTLCs are told apart by what does. What may be no other way is
//! not tried: an outgoing HTLC without a preimage failed, an incoming one that a forward depends on was settled.

use super::channel::Held;
use super::commitment::Span;
use super::facts::{Commitment, Direction, Hash, Htlc, Terms};

/// What two balances that were read from outputs may be off by.
const ROUNDED_MSAT: u64 = 2 * 999;

/// Removed HTLCs of which every combination is tried; of more, one after the other.
const ALL_COMBINATIONS: usize = 16;

/// What a new commitment means beside the one before.
#[derive(Debug, PartialEq)]
pub(super) struct Removal {
    /// HTLCs that are no longer there, and whether each was settled.
    pub(super) removed: Vec<(Htlc, bool)>,
    /// HTLCs that were not there.
    pub(super) added: Vec<Htlc>,
    /// Incoming HTLCs that the new feerate makes dust: from now on nobody sees what becomes of them.
    pub(super) faded: Vec<Htlc>,
    /// What is ours now.
    pub(super) settled: Span,
    /// What is ours more (positive) or less by that.
    pub(super) gained_msat: i128,
    /// By how much that may be wrong, because of dust and of what outputs round.
    pub(super) blurred_msat: u64,
    /// What is ours less (positive) or more (negative) than HTLCs account for: at least, which is 0 where they do.
    pub(super) least_lost_msat: i128,
    /// The same, counted from lower bound to lower bound, so that it adds up over commitments without an error.
    pub(super) lost_msat: i128,
}

/// Whether what left depends on an incoming HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    None,
    /// With so much of what left, unless that is taken to have failed.
    UnlessFailed(u64),
    Certain,
}

/// Compares `new` with the commitment before it. `is_known` tells whether the preimage is known, `need` whether what left
/// depends on an incoming HTLC.
pub(super) fn compare(
    base: &Held,
    new: &Commitment,
    terms: &Terms,
    is_known: impl Fn(&Hash) -> bool,
    need: impl Fn(&Htlc) -> Need,
) -> Removal {
    let Difference { removed, added, faded } = difference(&base.commitment, new, terms);
    let observed = new.ours(terms);
    let mut candidates: Vec<Candidate> =
        removed.into_iter().map(|htlc| Candidate::new(htlc, &is_known, &need)).collect();
    let gained: i128 = candidates.iter().map(Candidate::gained_msat).sum();
    let dust = Span { lo: -new.dust_msat(terms).hi, hi: base.commitment.dust_msat(terms).hi };
    let expected = tell_apart(&mut candidates, base.settled.shifted(gained), observed, dust);
    let removed = candidates.into_iter().map(|candidate| (candidate.htlc, candidate.settled)).collect();
    let gained_msat = expected.lo - base.settled.lo;
    let blurred_msat = u64::try_from(dust.hi - dust.lo).unwrap_or(0).saturating_add(ROUNDED_MSAT);
    let common = |settled| Removal {
        removed,
        added,
        faded,
        settled,
        gained_msat,
        blurred_msat,
        least_lost_msat: 0,
        lost_msat: 0,
    };
    match expected.intersection(observed) {
        Some(settled) => common(settled),
        None => Removal {
            least_lost_msat: -expected.distance_to(observed),
            lost_msat: expected.lo - observed.lo,
            ..common(observed)
        },
    }
}

#[derive(Default)]
struct Difference {
    removed: Vec<Htlc>,
    added: Vec<Htlc>,
    faded: Vec<Htlc>,
}

/// The regular HTLCs of `base` that `new` no longer has, and those it has and `base` did not. What the new feerate makes
/// dust is neither removed nor added: its amount counts as dust from now on.
fn difference(base: &Commitment, new: &Commitment, terms: &Terms) -> Difference {
    let (mut before, mut after) = (base.regular(terms).peekable(), new.regular(terms).peekable());
    let Difference { mut removed, mut added, mut faded } = Difference::default();
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(b), Some(a)) => b.cmp(a),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return Difference { removed, added, faded },
        };
        match order {
            std::cmp::Ordering::Less => {
                let Some(htlc) = before.next() else { continue };
                match (terms.is_dust(new.feerate_per_kw, htlc.amount_msat), htlc.direction) {
                    (false, _) => removed.push(*htlc),
                    (true, Direction::In) => faded.push(*htlc),
                    (true, Direction::Out) => {}
                }
            }
            std::cmp::Ordering::Greater => added.extend(after.next()),
            std::cmp::Ordering::Equal => {
                before.next();
                after.next();
            }
        }
    }
}

struct Candidate {
    htlc: Htlc,
    settled: bool,
    /// Whether nothing else may have become of it.
    is_certain: bool,
}

impl Candidate {
    fn new(htlc: Htlc, is_known: impl Fn(&Hash) -> bool, need: impl Fn(&Htlc) -> Need) -> Self {
        let is_known = is_known(&htlc.payment_hash);
        match htlc.direction {
            Direction::Out => Self { htlc, settled: is_known, is_certain: !is_known },
            Direction::In => {
                let is_certain = need(&htlc) == Need::Certain;
                Self { htlc, settled: is_certain || is_known, is_certain }
            }
        }
    }

    /// What it changes of what is ours.
    fn gained_msat(&self) -> i128 {
        let amount_msat = i128::from(self.htlc.amount_msat);
        match (self.settled, self.htlc.direction) {
            (false, _) => 0,
            (true, Direction::Out) => -amount_msat,
            (true, Direction::In) => amount_msat,
        }
    }

    /// What changes if the other thing became of it.
    fn turn_msat(&self) -> i128 {
        let turned = Self { settled: !self.settled, ..*self };
        turned.gained_msat() - self.gained_msat()
    }
}

/// Turns candidates until what is `expected` meets what is `observed`; returns what is expected then. If nothing meets it,
/// dust made the difference: the expectation stands as long as dust is enough for that. Of too many to try, any part may
/// have turned.
fn tell_apart(candidates: &mut [Candidate], expected: Span, observed: Span, dust: Span) -> Span {
    let gap = |expected: Span| expected.distance_to(observed);
    if gap(expected) == 0 {
        return expected;
    }
    let mut open: Vec<&mut Candidate> = candidates.iter_mut().filter(|candidate| !candidate.is_certain).collect();
    let is_tried = open.len() <= ALL_COMBINATIONS;
    let turns = if is_tried {
        best_turns(&open, |msat| gap(expected.shifted(msat)), dust)
    } else {
        nearest_turns(&open, |msat| gap(expected.shifted(msat)))
    };
    let turned = turns.iter().map(|n| open[*n].turn_msat()).sum();
    let told_apart = expected.shifted(turned);
    if gap(told_apart) != 0 && (dust.lo..=dust.hi).contains(&gap(expected)) {
        return expected;
    }
    for n in turns {
        open[n].settled ^= true;
    }
    if gap(told_apart) == 0 || is_tried {
        return told_apart;
    }
    let turns = open.iter().map(|candidate| candidate.turn_msat());
    let (fall, rise) = turns.fold((0, 0), |(fall, rise), turn| (fall + turn.min(0), rise + turn.max(0)));
    told_apart.shifted(gap(told_apart).clamp(fall, rise))
}

/// The fewest turns that leave the smallest gap, if they can no gap beyond `dust`.
fn best_turns(open: &[&mut Candidate], gap: impl Fn(i128) -> i128, dust: Span) -> Vec<usize> {
    let turns: Vec<i128> = open.iter().map(|candidate| candidate.turn_msat()).collect();
    let mut sums: Vec<i128> = vec![0; 1 << open.len()];
    for set in 1..sums.len() {
        sums[set] = sums[set & (set - 1)] + turns[set.trailing_zeros() as usize];
    }
    let rank = |set: &usize| {
        let gap = gap(sums[*set]);
        (gap != 0 && !(dust.lo..=dust.hi).contains(&gap), gap.abs(), set.count_ones())
    };
    let best = (0..sums.len()).min_by_key(rank).unwrap_or(0);
    (0..open.len()).filter(|n| best >> n & 1 == 1).collect()
}

/// One turn after the other, the one that leaves the smallest gap each time.
fn nearest_turns(open: &[&mut Candidate], gap: impl Fn(i128) -> i128) -> Vec<usize> {
    let (mut turned, mut turns) = (0, Vec::new());
    loop {
        let left = |n: &usize| gap(turned + open[*n].turn_msat()).abs();
        let Some(best) = (0..open.len()).filter(|n| !turns.contains(n)).min_by_key(left) else { return turns };
        if left(&best) >= gap(turned).abs() {
            return turns;
        }
        turned += open[best].turn_msat();
        turns.push(best);
    }
}
