//! BOLT 3 read backwards, in numbers worked out by hand.

use super::super::commitment::Span;
use super::super::{Commitment, Direction, Terms};
use super::model::{htlc, terms};
use Direction::{In, Out};

const fn span(lo: i128, hi: i128) -> Span {
    Span { lo, hi }
}

/// A channel without anchors, whose HTLC transactions pay a fee.
fn legacy(we_fund: bool) -> Terms {
    Terms { anchors: false, zero_fee_htlcs: false, ..terms(0, 1_000_000, we_fund, 300_000_000) }
}

/// At 2,500 sat per 1000 weight and with one HTLC of 100,000 sat: 2,240 sat of fee.
fn commitment(to_us_sat: u64, to_them_sat: u64) -> Commitment {
    let htlcs = vec![htlc(1, Out, 100_000_000, 500)];
    Commitment { number: 5, feerate_per_kw: 2_500, to_us_sat, to_them_sat, htlcs }
}

#[test]
fn spans_meet_or_lie_apart() {
    let base = span(10, 20);
    assert_eq!(base.shifted(-15), span(-5, 5));
    for (other, both, apart) in [
        (span(0, 9), None, -1),
        (span(0, 10), Some(span(10, 10)), 0),
        (span(12, 30), Some(span(12, 20)), 0),
        (span(20, 30), Some(span(20, 20)), 0),
        (span(21, 30), None, 1),
        (span(60, 70), None, 40),
        (span(-70, -30), None, -40),
    ] {
        assert_eq!((base.intersection(other), base.distance_to(other)), (both, apart), "{other:?}");
    }
}

#[test]
fn an_opening_balance_is_known_but_for_what_a_message_rounds() {
    let of = |we_fund, push_msat| terms(0, 1_000_000, we_fund, push_msat).opening();
    assert_eq!(of(true, 0), span(1_000_000_000, 1_000_000_000), "nothing was pushed");
    assert_eq!(of(true, 300_000_000), span(699_999_001, 700_000_000));
    assert_eq!(of(false, 300_000_000), span(300_000_000, 300_000_999));
    assert_eq!(of(false, 0), span(0, 545_999), "what was pushed may be trimmed, and not be told");
}

#[test]
fn fees_and_dust_follow_bolt_3() {
    let (legacy, anchors) = (legacy(true), terms(0, 1_000_000, true, 0));
    assert_eq!((legacy.fee_sat(1_000, 0), anchors.fee_sat(1_000, 0)), (724, 1_124));
    assert_eq!((legacy.fee_sat(2_500, 3), anchors.fee_sat(2_500, 3)), (3_100, 4_100));
    assert_eq!((legacy.dust_below_msat(1_000), anchors.dust_below_msat(1_000)), (1_249_000, 546_000));
    for (amount_msat, legacy_dust, anchors_dust) in
        [(545_999, true, true), (546_000, true, false), (1_248_999, true, false), (1_249_000, false, false)]
    {
        assert_eq!(legacy.is_dust(1_000, amount_msat), legacy_dust, "{amount_msat}");
        assert_eq!(anchors.is_dust(1_000, amount_msat), anchors_dust, "{amount_msat}");
    }
}

#[test]
fn what_is_ours_is_our_output_what_we_offered_and_the_cost_if_we_fund() {
    let (funding, funded) = (legacy(true), legacy(false));
    let held = commitment(500_000, 397_760);
    assert_eq!(held.ours(&funded), span(600_000_000, 600_000_999));
    assert_eq!(held.ours(&funding), span(602_240_000, 602_240_999));
    let anchors = terms(0, 1_000_000, true, 0);
    // 3,240 sat of fee, 660 sat of anchors.
    assert_eq!(held.ours(&anchors), span(603_900_000, 603_900_999));
    assert_eq!((held.sum_msat(&funding, Out), held.sum_msat(&funding, In)), (100_000_000, 0));
    // An output that was trimmed, or taken by the fee.
    let trimmed = commitment(0, 897_760);
    assert_eq!(trimmed.ours(&funded), span(100_000_000, 100_545_999));
    assert_eq!(trimmed.ours(&funding), span(100_000_000, 102_785_999));
}

#[test]
fn what_nothing_accounts_for_is_in_dust() {
    for we_fund in [false, true] {
        let terms = legacy(we_fund);
        assert_eq!(commitment(500_000, 397_760).dust_msat(&terms), span(-1_998, 0), "all is accounted for");
        assert_eq!(commitment(500_000, 397_060).dust_msat(&terms), span(698_002, 700_000));
        assert_eq!(commitment(500_000, 397_761).dust_msat(&terms), span(-2_998, -1_000), "more than there is");
        let mut small = commitment(500_000, 397_060);
        small.htlcs.push(htlc(2, In, 700_000, 500));
        // Its own output costs a fee of 430 sat.
        assert_eq!(small.dust_msat(&terms), span(268_002, 270_000), "in an HTLC that is dust to the book");
        assert_eq!(small.regular(&terms).count(), 1);
    }
}

#[test]
fn outputs_fit_into_their_channel_to_the_satoshi() {
    let terms = legacy(true);
    assert!(commitment(500_000, 400_000).fits(&terms), "a fee of nothing");
    assert!(!commitment(500_001, 400_000).fits(&terms));
    assert!(!commitment(500_000, 400_001).fits(&terms));
}
