//! The account's channels as the operator sees them, and what he orders about one of them.

use super::*;
use crate::lightning::standing::{ChannelView, HtlcView, PaymentHash, Standing, State, compare};

const OURS_SAT: u64 = 400_000;

fn given(at_ms: u64) -> Given {
    Given { at_ms, by: "uid 0".to_owned(), why: String::new() }
}

fn name() -> ChannelName {
    ChannelName::Funded(coin(1))
}

/// The one channel, and how it stands.
fn seen(spark: &Spark) -> (ChannelView, Standing) {
    let overview = spark.node.overview();
    let [(view, claims)] = &overview.channels[..] else { panic!("{:?}", overview.channels) };
    (view.clone(), compare(view, claims).standing)
}

#[test]
fn a_channel_is_shown_as_its_jobs_show_it() {
    let mut spark = Spark::new();
    spark.point(MAX_INDEX).expect("the first point");
    assert!(spark.node.overview().channels.is_empty(), "before its first commitment");
    let mut spark = Spark::opened(OURS_SAT);
    let offer = |byte, sat, outgoing| Offer { payment_hash: [byte; 32], sat, outgoing };
    let offers = [offer(1, 50_000, true), offer(2, 20_000, false)];
    let batch = spark.batch(1, 350_000, &offers);
    spark.sign(&batch[..2]).expect("a commitment, and one of its HTLCs");
    let theirs_sat = CAPACITY_SAT - FEE_SAT - 350_000 - 50_000;
    let balance = |spark: &Spark| seen(spark).0.counterparty.and_then(|side| side.balance).expect("a balance");
    let told = balance(&spark);
    assert_eq!((told.ours_sat, told.theirs_sat, told.untold_htlcs), (350_000, theirs_sat, 1));
    spark.sign(&batch[2..]).expect("the other HTLC");
    let mut spark = spark.restarted();
    let told = balance(&spark);
    assert_eq!((told.ours_sat, told.theirs_sat, told.untold_htlcs), (350_000, theirs_sat - 20_000, 0));
    assert_eq!((told.outgoing_sat, told.incoming_sat), (50_000, 20_000));
    let hash160 = |byte| PaymentHash::Hash160(ripemd160::Hash::hash(&[byte; 32]).to_byte_array());
    let htlc = |byte, amount_sat, incoming, cltv_expiry| HtlcView {
        payment_hash: hash160(byte),
        amount_sat,
        incoming,
        cltv_expiry,
    };
    assert_eq!(told.htlcs, [htlc(1, 50_000, false, 800_000), htlc(2, 20_000, true, 800_001)]);
    let (view, standing) = seen(&spark);
    assert_eq!((view.channel, view.state, standing), (name(), State::Ready, Standing::Unknown));
    assert_eq!(view.aliases, [CHANNEL, "m/3/5"]);
    assert_eq!(view.funding.map(|funding| funding.capacity_sat), Some(CAPACITY_SAT));
    let numbers = |side: Option<crate::lightning::standing::Side>| {
        side.map(|side| (side.current, side.next, side.revoked)).expect("a side")
    };
    assert_eq!((numbers(view.holder), numbers(view.counterparty)), ((0, Some(1), None), (0, Some(1), None)));
    // Both sides revoke number 0.
    spark.point(MAX_INDEX - 2).expect("a point");
    spark.release(MAX_INDEX).expect("a secret");
    let secret = hex::encode(build_commitment_secret(&[9; 32], MAX_INDEX));
    let data = json!({ "per_commitment_secret_idx": MAX_INDEX, "per_commitment_secret": secret, "node_id": NODE });
    spark.ask(Method::RevealSecret, data).expect("kept");
    let (view, standing) = seen(&spark);
    assert_eq!((numbers(view.holder), numbers(view.counterparty)), ((1, Some(2), Some(0)), (1, None, Some(0))));
    assert_eq!(standing, Standing::InStep);
}

#[test]
fn a_platform_that_is_ahead_of_the_signer_or_behind_it_is_told_apart() {
    for (number, standing) in [(0, Standing::NodeBehind), (4, Standing::NodeAhead), (3, Standing::InStep)] {
        let mut spark = Spark::opened(OURS_SAT);
        for number in [1, 2] {
            let tx = spark.commitment(number, OURS_SAT - number, &[]);
            spark.sign_commitment(&tx).expect("in order");
        }
        let tx = spark.commitment(number, OURS_SAT - 9, &[]);
        let _ = spark.sign_commitment(&tx);
        assert_eq!(seen(&spark).1, standing, "{number}");
    }
    let mut spark = Spark::opened(OURS_SAT);
    let closing = spark.holder_commitment(0);
    spark.sign_commitment(&closing).expect("it closes the channel");
    assert_eq!(seen(&spark).0.state, State::Closing);
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::RevokeAfterClose));
    assert_eq!(seen(&spark).1, Standing::InStep);
}

#[test]
fn hostile_a_frozen_channel_takes_no_new_state_and_after_the_thaw_it_does() {
    let mut spark = Spark::opened(OURS_SAT);
    let offer = Offer { payment_hash: [1; 32], sat: 50_000, outgoing: true };
    let batch = spark.batch(1, 350_000, &[offer]);
    spark.sign(&batch[..1]).expect("a commitment");
    spark.point(MAX_INDEX - 2).expect("a point");
    let unknown = Order::Freeze(Some(ChannelName::Funded(coin(2))));
    assert_eq!(spark.node.order(&unknown, given(1)).err(), Some(OrderError::NoChannel(coin(2).into())));
    let freeze = spark.node.order(&Order::Freeze(Some(name())), given(1)).expect("ordered");
    for Put { key, value } in freeze {
        spark.entries.insert(key, value.expect("an order"));
    }
    let mut spark = spark.restarted();
    let next = spark.commitment(2, 350_000, &[]);
    assert_eq!(Spark::reason(spark.sign_commitment(&next)), Some(Reason::Frozen));
    assert_eq!(Spark::reason(spark.release(MAX_INDEX)), Some(Reason::Frozen));
    assert_eq!(Spark::reason(spark.sign(&batch[1..])), Some(Reason::Frozen), "an HTLC that shows only now");
    spark.sign(&batch[..1]).expect("what was signed before");
    let exempt = Order::Exempt { channel: name(), reason: Reason::Frozen, for_s: 60 };
    let now_ms = spark.node.clock.now_ms();
    spark.node.order(&exempt, given(now_ms)).expect("ordered");
    spark.sign(&batch[1..]).expect("exempted");
    spark.node.clock.raise(now_ms + 61_000);
    assert_eq!(Spark::reason(spark.sign_commitment(&next)), Some(Reason::Frozen), "the exemption has ended");
    spark.node.order(&Order::Thaw(Some(name())), given(2)).expect("ordered");
    spark.sign_commitment(&next).expect("thawed");
    spark.release(MAX_INDEX).expect("thawed");
}

#[test]
fn an_honest_close_of_a_frozen_channel_is_signed() {
    let mut spark = Spark::opened(OURS_SAT);
    spark.node.order(&Order::Freeze(Some(name())), given(1)).expect("ordered");
    let closing = spark.holder_commitment(0);
    spark.sign_commitment(&closing).expect("it closes the channel");
}
