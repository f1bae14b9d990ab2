//! The account's channels, as the operator sees them.
//!
//! Lightspark shows the counterparty's commitments alone, and of their HTLCs what the jobs show that sign for them. What is ours in
//! our own commitments, who pays the fee, and what the chain has of a channel nobody tells.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::ripemd160;
use bitcoin::{OutPoint, ScriptBuf};
use lightning::ln::chan_utils::CounterpartyCommitmentSecrets;

use super::LightsparkNode;
use super::channel::{Channel, Htlc, Known};
use super::event::MAX_INDEX;
use super::paths::{ChannelKey, KeyPath};
use crate::lightning::book::view::{BookView, DustView};
use crate::lightning::lnd::scripts::payment_outputs;
use crate::lightning::lnd::transactions::ANCHOR_SAT;
use crate::lightning::standing::{Balance, ChannelView, Funding, HtlcView, Overview, PaymentHash, Side, State};
use crate::pipeline::ChannelName;

/// One for each side (BOLT 3).
const MAX_ANCHORS: usize = 2;

impl LightsparkNode {
    /// All channels whose first commitment was signed here, with the payments in them and what is ordered.
    pub fn overview(&self) -> Overview {
        let views = self.channels.iter().filter_map(|(number, channel)| self.view(*number, channel));
        let channels = views.map(|view| (self.claims.of(&view.channel), view)).map(|(claims, view)| (view, claims));
        let mut carried: BTreeMap<ripemd160::Hash, BTreeSet<OutPoint>> = BTreeMap::new();
        for known in self.channels.values().filter_map(Channel::known) {
            for htlc in known.htlcs.values() {
                carried.entry(htlc.payment_hash160).or_default().insert(known.funding);
            }
        }
        // Its rules need both sides' commitments: there are payments in it, and no balances.
        let dust = DustView { lost_msat: 0, allowance_msat: 0 };
        let book = BookView { channels: Vec::new(), payments: self.payments.views(&carried), dust };
        let (orders, now_ms) = (self.orders.clone(), self.clock.now_ms());
        Overview { channels: channels.collect(), book: Some(book), orders, now_ms }
    }

    fn view(&self, number: u32, channel: &Channel) -> Option<ChannelView> {
        let known = channel.known()?;
        let (outpoint, capacity_sat) = (known.funding, known.capacity_sat);
        let funding = Funding { outpoint, capacity_sat, by_us: false, kind: String::new(), depth: 0, closing_depth: 0 };
        let holder = Side {
            current: known.revoked,
            // The counterparty has its point; whether it signed it is not shown.
            next: (known.told > known.revoked).then_some(known.revoked + 1),
            revoked: known.revoked.checked_sub(1),
            balance: None,
        };
        let revoked = self.revealed.get(&number).map(CounterpartyCommitmentSecrets::get_min_seen_secret);
        let revoked = revoked.filter(|index| *index <= MAX_INDEX).map(|index| MAX_INDEX - index);
        // A commitment is signed once the one before the last is revoked, shown or not (BOLT 2).
        let next = revoked.is_none_or(|revoked| revoked + 1 < known.number) && known.number > 0;
        let counterparty = Side {
            current: known.number - u64::from(next),
            next: next.then_some(known.number),
            revoked,
            balance: Some(self.balance(number, &known)),
        };
        let state = if known.closing { State::Closing } else { State::Ready };
        let aliases = vec![channel.entity.clone(), KeyPath::Channel(number).to_string()];
        let view = ChannelView::new(ChannelName::Funded(outpoint), state, Some(funding));
        Some(ChannelView { holder: Some(holder), counterparty: Some(counterparty), aliases, ..view })
    }

    /// The counterparty's newest commitment, seen from us.
    fn balance(&self, number: u32, known: &Known<'_>) -> Balance {
        let mut balance = Balance { ours_sat: known.ours_sat, ..Balance::default() };
        for htlc in known.htlcs.values() {
            balance.count(!htlc.outgoing, htlc.amount_sat);
            balance.htlcs.push(self.htlc_view(htlc));
        }
        let ours = payment_outputs(&self.keys.public(KeyPath::ChannelKey(number, ChannelKey::Payment)));
        let is_untold =
            |(vout, (_, script)): &(u32, &(u64, ScriptBuf))| !known.htlcs.contains_key(vout) && !ours.contains(script);
        let untold: Vec<u64> = (0..).zip(known.outputs).filter(is_untold).map(|(_, (sat, _))| *sat).collect();
        balance.theirs_sat = untold.iter().fold(0, |sum: u64, sat| sum.saturating_add(*sat));
        // One is the counterparty's balance.
        let anchors = untold.iter().filter(|sat| **sat == ANCHOR_SAT).count().min(MAX_ANCHORS);
        balance.untold_htlcs = u32::try_from(untold.len().saturating_sub(anchors + 1)).unwrap_or(u32::MAX);
        balance
    }

    fn htlc_view(&self, htlc: &Htlc) -> HtlcView {
        let Htlc { payment_hash160, outgoing, amount_sat, expiry_height } = htlc;
        let hash160 = || PaymentHash::Hash160(*payment_hash160.as_ref());
        let payment_hash = self.payments.payment_hash(payment_hash160).map_or_else(hash160, PaymentHash::Whole);
        HtlcView { incoming: !outgoing, amount_sat: *amount_sat, payment_hash, cltv_expiry: *expiry_height }
    }
}
