//! What our balance tells of HTLCs that ended together, where no message brings a preimage.

use super::super::Direction::{In, Out};
use super::super::channel::Held;
use super::super::removal::{Need, Removal, compare};
use super::super::{Commitment, Htlc};
use super::model::{htlc, terms};

/// What the book makes of it if outgoing HTLCs of these amounts, `failed` of which failed, end beside incoming ones, `paid`
/// of which were paid, and our output then holds `shifted_sat` more than that comes to, at the peer's cost.
fn compared(
    out_msat: &[u64],
    failed: &[usize],
    in_msat: &[u64],
    paid: &[usize],
    shifted_sat: i64,
) -> (Removal, Vec<(u64, bool)>) {
    let terms = terms(0, 10_000_000, false, 5_000_000_000);
    let commitment = |number, to_us_sat: u64, mut htlcs: Vec<Htlc>| {
        htlcs.sort();
        let cost_sat = terms.fee_sat(1_000, htlcs.len()) + 660;
        let in_htlcs_sat = htlcs.iter().map(|htlc| htlc.amount_msat).sum::<u64>() / 1_000;
        let to_them_sat = terms.capacity_sat - cost_sat - in_htlcs_sat - to_us_sat;
        Commitment { number, feerate_per_kw: 1_000, to_us_sat, to_them_sat, htlcs }
    };
    let outs = (0..).zip(out_msat).map(|(n, msat)| htlc(n, Out, *msat, 500));
    let ins = (100..).zip(in_msat).map(|(n, msat)| htlc(n, In, *msat, 600));
    let before = commitment(1, 4_000_000, outs.chain(ins).collect());
    let came_msat = failed.iter().map(|n| out_msat[*n]).sum::<u64>() + paid.iter().map(|n| in_msat[*n]).sum::<u64>();
    let to_us_sat = (4_000_000 + came_msat / 1_000).checked_add_signed(shifted_sat).unwrap();
    let base = Held {
        settled: before.ours(&terms),
        commitment: before,
        dust_lost_msat: 0,
        settlements: Vec::new(),
        batch: None,
    };
    let removal = compare(&base, &commitment(2, to_us_sat, Vec::new()), &terms, |_| true, |_| Need::None);
    let ended = removal.removed.iter().map(|(htlc, settled)| (htlc.amount_msat, *settled)).collect();
    (removal, ended)
}

fn settled(ended: &[(u64, bool)]) -> Vec<u64> {
    let mut amounts: Vec<u64> = ended.iter().filter(|(_, settled)| *settled).map(|(msat, _)| *msat).collect();
    amounts.sort_unstable();
    amounts
}

/// Up to sixteen are told apart whatever they are, by the only combination that our balance shows.
#[test]
fn every_combination_of_a_few_is_found() {
    let amounts: Vec<u64> = (0..6).map(|n| 10_000_000 << n).collect();
    for set in 0..64usize {
        let failed: Vec<usize> = (0..6).filter(|n| set >> n & 1 == 1).collect();
        let (removal, ended) = compared(&amounts, &failed, &[], &[], 0);
        let paid: Vec<u64> = (0..6).filter(|n| set >> n & 1 == 0).map(|n| amounts[n]).collect();
        assert_eq!(settled(&ended), paid, "{failed:?}");
        assert_eq!((removal.lost_msat, removal.least_lost_msat), (0, 0));
        assert_eq!(removal.gained_msat, -i128::from(paid.iter().sum::<u64>()));
    }
}

/// What came in and what left, together.
#[test]
fn what_was_paid_to_us_is_found_beside_what_we_paid() {
    for (failed, paid) in [(&[][..], &[0, 1][..]), (&[0], &[1]), (&[1], &[0]), (&[0, 1], &[])] {
        let (removal, ended) = compared(&[30_000_000, 50_000_000], failed, &[110_000_000, 230_000_000], paid, 0);
        let outs = [30_000_000, 50_000_000].into_iter().enumerate().filter(|(n, _)| !failed.contains(n));
        let ins = [110_000_000, 230_000_000].into_iter().enumerate().filter(|(n, _)| paid.contains(n));
        assert_eq!(settled(&ended), outs.chain(ins).map(|(_, msat)| msat).collect::<Vec<_>>(), "{failed:?} {paid:?}");
        assert_eq!(removal.lost_msat, 0);
    }
}

/// Amounts of which sixteen are small and alike, and more are large: too many to try all.
fn many() -> Vec<u64> {
    (0..16).map(|n| 1_000_000 + n * 1_000).chain([100_000_000, 300_000_000, 900_000_000]).collect()
}

/// Of more than sixteen, the largest that our balance shows to have failed are found one after the other.
#[test]
fn of_many_those_that_failed_are_found_one_after_the_other() {
    for failed in [&[][..], &[18], &[17], &[16, 17], &[16, 18], &[16, 17, 18], &[18, 3], &[16, 17, 18, 0]] {
        let (removal, ended) = compared(&many(), failed, &[], &[], 0);
        let paid = many().into_iter().enumerate().filter(|(n, _)| !failed.contains(n));
        assert_eq!(settled(&ended), paid.map(|(_, msat)| msat).collect::<Vec<_>>(), "{failed:?}");
        assert_eq!((removal.lost_msat, removal.least_lost_msat), (0, 0), "{failed:?}");
        let failed_msat: u64 = failed.iter().map(|n| many()[*n]).sum();
        let all_msat: u64 = many().iter().sum();
        assert_eq!(removal.gained_msat, i128::from(failed_msat) - i128::from(all_msat), "{failed:?}");
    }
}

/// Beyond what any of them comes to, our balance shows a loss or a gift, to the satoshi.
#[test]
fn what_no_combination_accounts_for_is_lost_or_given() {
    let few = [10_000_000, 20_000_000];
    for amounts in [&few[..], &many()] {
        let all: Vec<usize> = (0..amounts.len()).collect();
        for (failed, shifted_sat) in [(&[][..], -5_000), (&[], -1), (&all, 5_000), (&all, 1)] {
            let (removal, ended) = compared(amounts, failed, &[], &[], shifted_sat);
            assert_eq!(removal.lost_msat, i128::from(-shifted_sat) * 1_000, "{failed:?} {shifted_sat}");
            assert_eq!(settled(&ended).len(), if failed.is_empty() { amounts.len() } else { 0 });
            // Outputs hide thousandths.
            let least = i128::from(-shifted_sat) * 1_000 + if shifted_sat > 0 { 999 } else { -999 };
            assert_eq!(removal.least_lost_msat, least, "{failed:?} {shifted_sat}");
        }
    }
}

/// What of many is in between is within what they can come to: nothing was lost.
#[test]
fn what_many_could_account_for_is_not_lost() {
    let (removal, _) = compared(&many(), &[16], &[], &[], -300);
    assert_eq!((removal.lost_msat, removal.least_lost_msat), (0, 0));
}
