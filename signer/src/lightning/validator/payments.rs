//! What a payment may take: where vls's own rule is not asked, because it would stop what the channel book lets pass.
//!
//! vls holds the routing fee against a tenth of the payment, of which a base fee may be more, and against a tenth of the
//! limit as it is now, which may have been lowered since the payment left. And it knows only what a commitment shows: to it
//! a forward that came in as dust, and left on a channel where it is none, came from nowhere. The book has judged every
//! commitment before vls counts its payments, by the stricter rule (`docs/channel-book.md`).

use crate::lightning::book::Approval;

/// Whether `outgoing_msat` may leave for a payment of `invoiced_msat`, or for a forward, of which the book knows what came.
pub(super) fn is_within(incoming_msat: u64, outgoing_msat: u64, invoiced_msat: Option<u64>) -> bool {
    let Some(amount_msat) = invoiced_msat else { return true };
    let most_msat = Approval { amount_msat, expires_ms: 0 }.most_msat();
    outgoing_msat <= incoming_msat.saturating_add(most_msat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_base_fee_on_a_small_payment_passes_and_a_hostile_fee_does_not() {
        let pays = |msat, invoiced_msat| is_within(0, msat, Some(invoiced_msat));
        assert!(pays(1_000 + 50_000, 1_000), "some base fees");
        assert!(!pays(1_000 + 50_001, 1_000));
        assert!(pays(11_000_000, 10_000_000), "ten percent");
        assert!(!pays(11_000_001, 10_000_000));
    }

    #[test]
    fn what_comes_back_to_the_payer_may_go_out_again() {
        assert!(is_within(5_000_000, 16_000_000, Some(10_000_000)));
        assert!(!is_within(5_000_000, 16_000_001, Some(10_000_000)));
    }
}
