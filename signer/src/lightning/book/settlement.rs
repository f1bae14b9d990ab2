//! What the HTLCs that a commitment removed mean for their payments.

use super::SMALL_PAYMENT_MSAT;
use super::batch::{Batch, Claims, Removed};
use super::channel::Settlement;
use super::facts::{Direction, Htlc, Side};
use super::judge::Case;
use super::removal::{Need, Removal};

/// What HTLCs that were settled mean for their payments. What comes in counts as far as it stands for something that left:
/// the rest is ours to keep, and covers nothing later.
pub(super) fn settlements(case: Case<'_>, side: Side, settled: &[Htlc]) -> Vec<Settlement> {
    let of_hash = settled.chunk_by(|a, b| a.payment_hash == b.payment_hash).map(|htlcs| {
        let sum_msat = |direction| {
            let htlcs = htlcs.iter().filter(|htlc| htlc.direction == direction);
            htlcs.map(|htlc| htlc.amount_msat).fold(0, u64::saturating_add)
        };
        let (payment_hash, out_msat) = (htlcs[0].payment_hash, sum_msat(Direction::Out));
        Settlement { payment_hash, out_msat, in_msat: sum_msat(Direction::In) }
    });
    let mut all: Vec<Settlement> = of_hash.collect();
    for settlement in all.iter_mut().filter(|settlement| settlement.in_msat > 0) {
        let hash = &settlement.payment_hash;
        let left_msat = case.totals(hash, &Claims::new(&case.book.batches)).out_msat();
        let settled = case.book.payments.get(hash).map_or(&[][..], |payment| &payment.settled);
        let counted_msat = settled.iter().map(|settled| settled.side(side).in_msat).sum();
        settlement.in_msat = settlement.in_msat.min(left_msat.saturating_sub(counted_msat));
    }
    all.retain(|settlement| settlement.out_msat > 0 || settlement.in_msat > 0);
    all
}

/// The same where the wire brings no preimages: our balance shows what is ours of all that was removed, what failed of what
/// went out and what was paid of what came in, and not of which HTLC. What certainly came in is spoken for. Of the rest, as
/// much as what left depends on counts for what came in, and what is left then may have failed.
pub(super) fn untold(
    side: Side,
    number: u64,
    removal: &mut Removal,
    need: impl Fn(&Htlc) -> Need,
    settled: impl Fn(&[Htlc]) -> Vec<Settlement>,
) -> (Vec<Settlement>, Option<Batch>) {
    let removed = |direction| removal.removed.iter().filter(move |(htlc, _)| htlc.direction == direction);
    let sum_msat = |htlcs: &[Htlc]| -> i128 { htlcs.iter().map(|htlc| i128::from(htlc.amount_msat)).sum() };
    let out: Vec<(Htlc, bool)> = removed(Direction::Out).copied().collect();
    let all_out: Vec<Htlc> = out.iter().map(|(htlc, _)| *htlc).collect();
    let failed: Vec<Htlc> = out.iter().filter(|(_, settled)| !settled).map(|(htlc, _)| *htlc).collect();
    let certain = removed(Direction::In).map(|(htlc, _)| *htlc).filter(|htlc| need(htlc) == Need::Certain);
    let mut paid: Vec<Htlc> = certain.collect();
    let mut ours_msat = (removal.gained_msat + sum_msat(&all_out) - sum_msat(&paid)).max(0);

    let mut counted: Vec<Settlement> = Vec::new();
    for (htlc, settled) in removal.removed.iter_mut().filter(|(htlc, _)| htlc.direction == Direction::In) {
        let Need::UnlessFailed(needed_msat) = need(htlc) else { continue };
        *settled = i128::from(needed_msat) <= ours_msat;
        if *settled {
            ours_msat -= i128::from(needed_msat);
            counted.push(Settlement { payment_hash: htlc.payment_hash, out_msat: 0, in_msat: needed_msat });
        }
    }
    let ours_msat = u64::try_from(ours_msat).unwrap_or(u64::MAX);
    // One that is larger than all that may have failed was paid.
    let most_msat = ours_msat.saturating_add(removal.blurred_msat);
    let (htlcs, large): (Vec<_>, Vec<_>) = out.into_iter().partition(|(htlc, _)| htlc.amount_msat <= most_msat);
    paid.extend(large.into_iter().map(|(htlc, _)| htlc));
    paid.sort_unstable();
    let settlements = settled(&paid).into_iter().chain(counted).collect();
    let open_msat = htlcs.iter().map(|(htlc, _)| htlc.amount_msat).fold(0, u64::saturating_add);
    let failed_msat = u64::try_from(sum_msat(&failed)).unwrap_or(u64::MAX).min(ours_msat);
    let batch = Batch {
        side,
        number,
        htlcs: htlcs.iter().map(|(htlc, settled)| Removed::new(htlc, *settled)).collect(),
        failed_msat,
        credited_msat: ours_msat - failed_msat,
        // Small amounts, here or where something else was given up, are easily taken for dust.
        blurred_msat: removal.blurred_msat.saturating_add(SMALL_PAYMENT_MSAT),
    };
    (settlements, (open_msat > ours_msat).then_some(batch))
}
