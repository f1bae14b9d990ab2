//! Channels as the operator sees them, and what he orders about one of them.

use super::*;
use crate::lightning::orders::LONGEST_EXEMPTION_S;
use crate::lightning::standing::{Balance, ChannelView, HtlcView, PaymentHash, Standing, State, compare};

impl Lnd {
    /// The channel, as the operator sees it.
    pub(super) fn shown(&self, our_index: u32) -> ChannelView {
        self.compared(our_index).0
    }

    fn compared(&self, our_index: u32) -> (ChannelView, Standing) {
        let channels = self.node.overview().channels.into_iter();
        let name = ChannelName::from(funding(our_index));
        let (view, claims) = channels.into_iter().find(|(view, _)| view.channel == name).expect("shown");
        let standing = compare(&view, &claims).standing;
        (view, standing)
    }

    fn balance_shown(&self, our_index: u32) -> Balance {
        self.shown(our_index).counterparty.expect("a side").balance.expect("a balance")
    }
}

#[test]
fn a_channel_is_shown_as_its_commitments_tell_and_its_htlcs_as_lnd_does_before_or_after_them() {
    let mut lnd = Lnd::with_channel(0, 0);
    for number in [1, 2] {
        let state = lnd.revocable(number, true);
        let htlc = states::second_level(&lnd, &state, 2, number, 20_000);
        let asked = if number == 1 { [&htlc, &state] } else { [&state, &htlc] };
        for psbt in asked {
            assert!(lnd.class(psbt).is_ok());
        }
        let view = lnd.shown(0);
        assert_eq!((view.state, view.unproven_states, view.holder), (State::Ready, None, None));
        assert_eq!(view.funding.expect("known").capacity_sat, CAPACITY_SAT);
        let side = view.counterparty.expect("a side");
        assert_eq!((side.current, side.next, side.revoked), (number, None, None));
        let htlc = HtlcView {
            incoming: false,
            amount_sat: 20_000,
            payment_hash: PaymentHash::Hash160([5; 20]),
            cltv_expiry: HEIGHT + 100,
        };
        let expected = Balance {
            ours_sat: 600_000,
            theirs_sat: 379_000 - number,
            outgoing_sat: 20_000,
            outgoing_htlcs: 1,
            htlcs: vec![htlc],
            ..Balance::default()
        };
        assert_eq!(side.balance, Some(expected));
    }
    // The kind of HTLCs is told anew with each update.
    lnd = lnd.restarted();
    let balance = lnd.balance_shown(0);
    assert_eq!((balance.ours_sat, balance.theirs_sat, balance.untold_htlcs), (600_000, 398_998, 1));
    let ours = lnd.commitment(0, 2, None);
    assert!(lnd.class(&ours).is_ok());
    let view = lnd.restarted().shown(0);
    assert_eq!((view.state, view.holder.map(|side| side.current)), (State::Closing, Some(2)));
}

#[test]
fn hostile_htlcs_that_are_not_in_the_commitment_are_not_shown() {
    let mut lnd = Lnd::with_channel(0, 0);
    let state = lnd.revocable(1, true);
    // Another amount, another script, another place; before the commitment and after it.
    let lies = |lnd: &Lnd| {
        [(2, 1, 19_999), (2, 2, 20_000), (0, 1, 20_000), (9, 1, 20_000)]
            .map(|(vout, number, sat)| states::second_level(lnd, &state, vout, number, sat))
    };
    for psbt in lies(&lnd).iter().chain([&state]).chain(&lies(&lnd)) {
        assert!(lnd.class(psbt).is_ok(), "the signature is good for nothing");
    }
    let balance = lnd.balance_shown(0);
    assert_eq!((balance.htlcs, balance.theirs_sat, balance.untold_htlcs), (vec![], 398_999, 1));
    let honest = states::second_level(&lnd, &state, 2, 1, 20_000);
    assert!(lnd.class(&honest).is_ok());
    let balance = lnd.balance_shown(0);
    assert_eq!((balance.htlcs.len(), balance.theirs_sat, balance.untold_htlcs), (1, 378_999, 0));
}

#[test]
fn states_that_nobody_proved_to_be_revoked_are_shown_where_somebody_counts() {
    let mut lnd = Lnd::with_tower();
    lnd.open(0, 3);
    lnd.open(1, 1);
    let unproven = |lnd: &Lnd| [0, 1].map(|index| lnd.shown(index).unproven_states);
    assert_eq!(unproven(&lnd), [Some(3), Some(1)]);
    assert_eq!(unproven(&lnd.restarted()), [Some(3), Some(1)]);
}

#[test]
fn a_node_that_asks_for_an_old_state_is_shown_behind_one_for_a_far_one_ahead_and_an_honest_one_in_step() {
    let mut lnd = policy::forbid("UpdateChannel", "context has decrease_msat && context.decrease_msat > 200000000");
    lnd.open(0, 5);
    let standing = |lnd: &mut Lnd, number, ours_sat| {
        let asked = lnd.commitment(0, number, ours_sat);
        (lnd.class(&asked).err(), lnd.compared(0).1)
    };
    assert_eq!(standing(&mut lnd, 5, Some(600_000)), (None, Standing::InStep));
    assert_eq!(standing(&mut lnd, 3, Some(600_000)), (Some(Reason::CommitmentOrder), Standing::NodeBehind));
    assert_eq!(standing(&mut lnd, 8, Some(600_000)), (Some(Reason::CommitmentOrder), Standing::NodeAhead));
    // What the policy refuses is no sign of a lost state.
    assert_eq!(standing(&mut lnd, 6, Some(100_000)), (Some(Reason::PolicyForbidden), Standing::InStep));
    assert_eq!(standing(&mut lnd, 6, Some(600_000)), (None, Standing::InStep));
    assert_eq!(standing(&mut lnd, 6, None), (None, Standing::InStep), "ours, to close");
    assert_eq!(standing(&mut lnd, 7, Some(600_000)), (Some(Reason::UpdateAfterClose), Standing::InStep));
}

#[test]
fn a_frozen_channel_takes_no_new_state_nor_htlc_and_the_others_and_its_closes_go_on() {
    let mut lnd = Lnd::new();
    lnd.open(0, 1);
    lnd.open(1, 1);
    let unknown = ChannelName::from(funding(7));
    assert_eq!(lnd.order(&Order::Freeze(Some(unknown))), Err(OrderError::NoChannel(unknown)));
    let frozen = ChannelName::from(funding(0));
    lnd.order(&Order::Freeze(Some(frozen))).expect("its own");
    lnd = lnd.restarted();
    assert!(lnd.node.overview().orders.frozen_channel(&frozen).is_some());
    let [last, next, other] =
        [(0, 1), (0, 2), (1, 2)].map(|(index, number)| lnd.commitment(index, number, Some(600_000)));
    let htlc = |lnd: &Lnd, state: &Psbt| states::second_level(lnd, state, 1, 1, 20_000);
    // The attack: a new state, or an HTLC of the last one.
    assert_eq!(lnd.class(&next), Err(Reason::Frozen));
    let of_last = htlc(&lnd, &last);
    assert_eq!(lnd.class(&of_last), Err(Reason::Frozen));
    // The honest twins: the last one again, the other channel, and the close.
    assert!(lnd.class(&last).is_ok());
    assert!(lnd.class(&other).is_ok());
    let of_other = htlc(&lnd, &other);
    assert!(lnd.class(&of_other).is_ok());
    let close = |lnd: &Lnd| {
        lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(399_000, peer_script()), out(600_000, lnd.address(1))])
    };

    lnd.order(&Order::Thaw(Some(frozen))).expect("frozen");
    assert!(lnd.class(&next).is_ok());
    lnd.order(&Order::Freeze(Some(frozen))).expect("its own");
    let close = close(&lnd);
    assert!(lnd.class(&close).is_ok());
}

#[test]
fn an_exempted_channel_of_a_frozen_node_goes_on_and_the_others_do_not() {
    let mut lnd = Lnd::new();
    lnd.open(0, 1);
    lnd.open(1, 1);
    lnd.order(&Order::Freeze(None)).expect("ordered");
    let channel = ChannelName::from(funding(0));
    lnd.order(&Order::Exempt { channel, reason: Reason::Frozen, for_s: LONGEST_EXEMPTION_S }).expect("exempted");
    let [exempted, other] = [0, 1].map(|index| lnd.commitment(index, 2, Some(600_000)));
    assert!(lnd.class(&exempted).is_ok());
    assert_eq!(lnd.class(&other), Err(Reason::Frozen));
}
