//! Payments that a signed call asked for, and the HTLCs in which they leave.

use std::str::FromStr;

use lightning_signer::invoice::{Invoice, InvoiceAttributes};

use super::operations::invoice;
use super::*;

/// Everything, but for what leaves beyond 1,000 sat and was not asked for.
const RULES: &str = "@id(\"all\") permit (principal, action, resource);\n\
    @id(\"asked\") forbid (principal, action == Action::\"UpdateChannel\", resource)\n\
    when { context has unrequested_msat && context.unrequested_msat > 1000000 };";
const SAT: u64 = 50_000;
const OURS_SAT: u64 = 400_000;

/// An account with a channel, under a rule that wants a call for what leaves.
fn ruled() -> Spark {
    Spark::under(desk("version = 1\n", RULES)).open(OURS_SAT)
}

fn out(payment_hash: [u8; 32]) -> Offer {
    Offer { payment_hash, sat: SAT, outgoing: true }
}

impl Spark {
    /// Has a payment of `sat` signed; its hash.
    fn ask_for(&mut self, n: u64, sat: u64) -> [u8; 32] {
        let invoice = invoice(n, sat * 1_000);
        self.sign_body(&self.pay(&invoice, None, 1)).expect("a payment");
        Invoice::from_str(&invoice).expect("an invoice").payment_hash().0
    }

    /// Signs commitment `number`, with these HTLCs.
    fn update(&mut self, number: u64, ours_sat: u64, offers: &[Offer]) -> Option<Reason> {
        let jobs = self.batch(number, ours_sat, offers);
        Self::reason(self.sign(&jobs))
    }
}

#[test]
fn hostile_an_htlc_that_no_call_asked_for_is_refused_where_a_rule_wants_a_call_and_its_twin_passes() {
    let mut spark = ruled();
    let unasked = out([7; 32]);
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[unasked]), Some(Reason::PolicyForbidden));
    let asked = out(spark.ask_for(1, SAT));
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[asked]), None);
    let mut spark = spark.restarted();
    // Further on it is the same HTLC, not another payment; and the same commitment again is no other one.
    assert_eq!(spark.update(2, OURS_SAT - SAT, &[asked]), None);
    assert_eq!(spark.update(2, OURS_SAT - SAT, &[asked]), None);
    let both = [asked, unasked];
    assert_eq!(spark.update(3, OURS_SAT - 2 * SAT, &both), Some(Reason::PolicyForbidden), "beside one that was");
    // What comes in nobody has to ask for.
    let incoming = Offer { outgoing: false, ..unasked };
    assert_eq!(spark.update(3, OURS_SAT - SAT, &[asked, incoming]), None);
}

#[test]
fn an_account_whose_policy_does_not_look_at_it_pays_from_elsewhere_too() {
    // Such a policy need not even know of commitments.
    let withdrawals = "@id(\"w\") permit (principal, action == Action::\"Withdraw\", resource)\n\
        when { context has unrequested && context.unrequested == 0 };";
    for desk in [Arc::default(), desk("version = 1\n", withdrawals)] {
        let mut spark = Spark::under(desk).open(OURS_SAT);
        assert_eq!(spark.update(1, OURS_SAT - SAT, &[out([7; 32])]), None);
        let unrequested = Fact::number("unrequested", SAT, crate::facts::Unit::Sat);
        assert!(spark.told.contains(&unrequested), "{:?}", spark.told);
    }
}

#[test]
fn hostile_what_leaves_without_an_htlc_or_by_one_that_shows_later_was_not_asked_for_either() {
    let mut spark = ruled();
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[]), Some(Reason::PolicyForbidden), "shifted");
    assert_eq!(spark.update(1, OURS_SAT - 1_000, &[]), None, "a fee");
    // The peer's part shrinks by as much: what is ours does not show that it leaves.
    let mut spark = ruled();
    let hash = spark.ask_for(1, SAT);
    for (number, hash, reason) in [(1, [7; 32], Some(Reason::PolicyForbidden)), (2, hash, None)] {
        let [commitment, htlc] = &spark.batch(number, OURS_SAT, &[out(hash)])[..] else { panic!("two jobs") };
        spark.sign(std::slice::from_ref(commitment)).expect("nothing leaves");
        assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(htlc))), reason, "{number}");
        assert_eq!(Spark::reason(spark.sign(std::slice::from_ref(htlc))), reason, "{number}, again");
    }
}

#[test]
fn hostile_no_more_leaves_for_a_payment_than_was_asked_for_in_parts_or_at_once() {
    let mut spark = ruled();
    let hash = spark.ask_for(1, SAT);
    let part = |sat| Offer { sat, ..out(hash) };
    // Its call allows 1 sat for routing.
    assert_eq!(spark.update(1, OURS_SAT - SAT - 2, &[part(SAT + 2)]), Some(Reason::PolicyForbidden));
    assert_eq!(spark.update(1, OURS_SAT - 20_000, &[part(20_000)]), None);
    assert_eq!(spark.update(2, OURS_SAT - 50_002, &[part(20_000), part(30_002)]), Some(Reason::PolicyForbidden));
    assert_eq!(spark.update(2, OURS_SAT - 50_001, &[part(20_000), part(30_001)]), None);
    assert_eq!(
        spark.update(3, OURS_SAT - 60_001, &[part(20_000), part(30_001), part(10_000)]),
        Some(Reason::PolicyForbidden)
    );
}

#[test]
fn an_attempt_that_failed_makes_room_for_the_next_and_hostile_a_payment_that_was_made_makes_none() {
    let attempt = |spark: &mut Spark| out(spark.ask_for(1, SAT));
    let mut spark = ruled();
    let htlc = attempt(&mut spark);
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[htlc]), None);
    assert_eq!(spark.update(2, OURS_SAT, &[]), None, "it came back");
    let mut spark = spark.restarted();
    assert_eq!(spark.update(3, OURS_SAT - SAT, &[htlc]), None, "the next attempt");
    assert_eq!(spark.update(4, OURS_SAT - SAT, &[]), None, "it was paid");
    let mut spark = spark.restarted();
    assert_eq!(spark.update(5, OURS_SAT - 2 * SAT, &[htlc]), Some(Reason::PolicyForbidden), "once more");
    // What comes in meanwhile is no payment that came back.
    let mut spark = ruled();
    let (htlc, incoming) = (attempt(&mut spark), Offer { outgoing: false, ..out([8; 32]) });
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[htlc, incoming]), None);
    assert_eq!(spark.update(2, OURS_SAT, &[]), None, "one was paid to us, the other by us");
    assert_eq!(spark.update(3, OURS_SAT - SAT, &[htlc]), Some(Reason::PolicyForbidden), "once more");
}

#[test]
fn an_htlc_begins_while_its_payment_is_tried_and_hostile_not_long_after() {
    for (hours, reason) in [(1, None), (2, Some(Reason::PolicyForbidden))] {
        let mut spark = ruled();
        let hash = spark.ask_for(1, SAT);
        let now_ms = spark.node.clock.now_ms();
        spark.node.clock.raise(now_ms + hours * 3_600_000);
        assert_eq!(spark.update(1, OURS_SAT - SAT, &[out(hash)]), reason, "{hours} h");
    }
}

#[test]
fn a_budget_counts_what_nobody_asked_for_once() {
    let budget = "version = 1\n[[budget]]\nname = \"drift\"\nactions = [\"UpdateChannel\"]\nfact = \"unrequested_msat\"\n\
        scope = [\"node\"]\nwindow = \"24h\"\nlimit = 2_000_000\n";
    let permit = "@id(\"all\") permit (principal, action, resource);";
    let mut spark = Spark::under(desk(budget, permit)).open(OURS_SAT);
    let hash = spark.ask_for(1, SAT);
    for _ in 0..3 {
        assert_eq!(spark.update(1, OURS_SAT - 1_500, &[]), None);
        spark = spark.restarted();
    }
    assert_eq!(spark.update(2, OURS_SAT - 2_001, &[]), Some(Reason::PolicyBudgetExceeded));
    assert_eq!(spark.update(2, OURS_SAT - 2_000 - SAT, &[out(hash)]), None, "500 sat, and a payment");
}

#[test]
fn the_match_is_recorded_and_shown_and_forgotten_once_the_payment_is_over() {
    let mut spark = ruled();
    let hash = spark.ask_for(1, SAT);
    assert_eq!(spark.update(1, OURS_SAT - SAT, &[out(hash)]), None);
    assert!(spark.told.contains(&Fact::text("payment_hash", hex::encode(hash))), "{:?}", spark.told);
    let mut spark = spark.restarted();
    let shown = |spark: &Spark| spark.node.overview().book.expect("a book").payments;
    let [payment] = &shown(&spark)[..] else { panic!("one payment") };
    assert_eq!((payment.approved_msat, payment.max_fee_msat, payment.out_msat), (SAT * 1_000, 1_000, SAT * 1_000));
    assert_eq!((&payment.payment_hash, &payment.channels), (&hex::encode(hash), &vec![coin(1).to_string()]));
    assert_eq!(spark.update(2, OURS_SAT - SAT, &[]), None);
    let now_ms = spark.node.clock.now_ms();
    spark.node.clock.raise(now_ms + 25 * 3_600_000);
    spark.ask_for(2, SAT);
    assert_eq!(shown(&spark).len(), 1, "the other one");
    assert_eq!(spark.entries.keys().filter(|key| key.starts_with("lightspark/payment/")).count(), 1);
}
