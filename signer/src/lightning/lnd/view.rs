//! The channels of an lnd node as the operator sees them: what their commitments told.

use bitcoin::OutPoint;

use super::LndNode;
use super::channel::{Channel, Commitment};
use super::htlcs::Htlcs;
use crate::lightning::standing::{Balance, ChannelView, Funding, Overview, Side, State};

impl LndNode {
    /// All channels, those that closed long ago too: the signer does not see lnd's chain.
    pub fn overview(&self) -> Overview {
        let (channels, htlcs) = self.channels.all();
        let watched = self.channels.unproven_states().is_some();
        let view = |(funding, channel): (&OutPoint, &Channel)| {
            let unproven_states = watched.then_some(channel.unproven_states);
            let view = ChannelView { unproven_states, ..view(*funding, channel, htlcs) };
            let claims = self.claims.of(&view.channel);
            (view, claims)
        };
        let channels = channels.map(view).collect();
        Overview { channels, book: None, orders: self.orders.clone(), now_ms: self.clock.now_ms() }
    }
}

fn view(outpoint: OutPoint, channel: &Channel, htlcs: &Htlcs) -> ChannelView {
    let state = if channel.is_closing() { State::Closing } else { State::Ready };
    let capacity_sat = channel.capacity_sat;
    let funding = Funding { outpoint, capacity_sat, by_us: false, kind: String::new(), depth: 0, closing_depth: 0 };
    // lnd does not tell which commitment of ours is in force, before it closes the channel with it.
    let holder =
        channel.holder().map(|holder| Side { current: holder.number, next: None, revoked: None, balance: None });
    let newest = channel.newest();
    let counterparty =
        Side { current: newest.number, next: None, revoked: channel.revoked, balance: Some(balance(newest, htlcs)) };
    ChannelView {
        holder,
        counterparty: Some(counterparty),
        peer: channel.peer,
        ..ChannelView::new(outpoint.into(), state, Some(funding))
    }
}

/// What a commitment of the counterparty's says. What is neither ours nor known as an HTLC counts as the counterparty's.
fn balance(commitment: &Commitment, htlcs: &Htlcs) -> Balance {
    let mut balance = Balance { ours_sat: commitment.ours_sat, ..Balance::default() };
    for htlc in htlcs.of(&commitment.txid) {
        balance.count(htlc.incoming, htlc.amount_sat);
        balance.htlcs.push(htlc.clone());
    }
    let known_sat = balance.incoming_sat.saturating_add(balance.outgoing_sat);
    balance.theirs_sat = commitment.others_sat.saturating_sub(known_sat);
    // One of the others is the counterparty's balance.
    balance.untold_htlcs = commitment.others.saturating_sub(balance.htlcs.len() as u32 + 1);
    balance
}
