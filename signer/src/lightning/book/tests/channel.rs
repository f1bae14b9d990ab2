//! A channel that keeps BOLT 2 and BOLT 3: updates of both sides, and the commitments that have them.

use std::collections::HashMap;

use super::super::{ChannelKey, Commitment, Direction, Htlc, Side, Terms};

const ANCHORS_SAT: u64 = 660;

/// Whoever sends an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Us,
    Peer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    Add(usize),
    /// The HTLC, and whether it was settled.
    Remove(usize, bool),
    Fee(u32),
}

/// How many updates of each a commitment has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) us: usize,
    pub(super) peer: usize,
}

#[derive(Clone)]
pub(super) struct Channel {
    pub(super) key: ChannelKey,
    pub(super) terms: Terms,
    /// Of our commitments, and of the peer's.
    pub(super) dust_limit_sat: [u64; 2],
    pub(super) htlcs: Vec<Htlc>,
    pub(super) us: Vec<Update>,
    pub(super) peer: Vec<Update>,
    /// In force, and signed to follow.
    pub(super) ours: (Applied, Option<Applied>),
    pub(super) theirs: (Applied, Option<Applied>),
    pub(super) numbers: [u64; 2],
}

impl Channel {
    fn updates(&self, applied: Applied) -> impl Iterator<Item = &Update> {
        self.us[..applied.us].iter().chain(&self.peer[..applied.peer])
    }

    fn is_added(&self, applied: Applied, id: usize) -> bool {
        self.updates(applied).any(|update| *update == Update::Add(id))
    }

    fn removed(&self, applied: Applied, id: usize) -> Option<bool> {
        self.updates(applied).find_map(|update| match update {
            Update::Remove(removed, settled) if *removed == id => Some(*settled),
            _ => None,
        })
    }

    fn valid(&self) -> impl Iterator<Item = Applied> {
        [Some(self.ours.0), self.ours.1, Some(self.theirs.0), self.theirs.1].into_iter().flatten()
    }

    /// Whether every valid commitment has it.
    pub(super) fn is_irrevocable(&self, id: usize) -> bool {
        self.valid().all(|applied| self.is_added(applied, id) && self.removed(applied, id).is_none())
            && !self.is_removal_sent(id)
    }

    /// Whether no valid commitment has it any more, and how it ended.
    pub(super) fn ended(&self, id: usize) -> Option<bool> {
        let ends: Vec<_> = self.valid().map(|applied| self.removed(applied, id)).collect();
        ends.iter().all(Option::is_some).then(|| ends[0]).flatten()
    }

    fn is_removal_sent(&self, id: usize) -> bool {
        let sent = self.us.iter().chain(&self.peer);
        sent.into_iter().any(|update| matches!(update, Update::Remove(removed, _) if *removed == id))
    }

    pub(super) fn htlc(&self, id: usize) -> Htlc {
        self.htlcs[id]
    }

    /// What is ours if every HTLC fails.
    pub(super) fn balance_msat(&self, side: Side) -> u64 {
        self.balances(self.newest(side)).0
    }

    fn newest(&self, side: Side) -> Applied {
        let (current, next) = if side == Side::Ours { self.ours } else { self.theirs };
        next.unwrap_or(current)
    }

    /// Ours and the peer's, if every HTLC fails; HTLCs; the feerate.
    fn balances(&self, applied: Applied) -> (u64, u64, Vec<usize>, u32) {
        let opening = if self.terms.we_fund {
            self.terms.capacity_sat * 1_000 - self.terms.push_msat
        } else {
            self.terms.push_msat
        };
        let mut us = opening as i64;
        let (mut live, mut removed, mut feerate) = (Vec::new(), HashMap::new(), 1_000);
        for update in self.updates(applied) {
            match update {
                Update::Add(id) => live.push(*id),
                Update::Fee(rate) => feerate = *rate,
                Update::Remove(id, settled) => drop(removed.insert(*id, *settled)),
            }
        }
        for id in removed.iter().filter(|(_, settled)| **settled).map(|(id, _)| *id) {
            let Htlc { direction, amount_msat, .. } = self.htlcs[id];
            us += if direction == Direction::In { amount_msat as i64 } else { -(amount_msat as i64) };
        }
        let us = u64::try_from(us).unwrap();
        live.retain(|id| !removed.contains_key(id));
        (us, self.terms.capacity_sat * 1_000 - us, live, feerate)
    }

    /// BOLT 3.
    pub(super) fn commitment(&self, side: Side, applied: Applied, number: u64) -> Commitment {
        let (mut us, mut peer, live, feerate_per_kw) = self.balances(applied);
        let dust_limit_sat = self.dust_limit_sat[side as usize];
        let mut htlcs = Vec::new();
        for id in live {
            let htlc = self.htlcs[id];
            match htlc.direction {
                Direction::Out => us -= htlc.amount_msat,
                Direction::In => peer -= htlc.amount_msat,
            }
            let fee_sat = if self.terms.zero_fee_htlcs {
                0
            } else {
                let offered = (htlc.direction == Direction::Out) == (side == Side::Ours);
                u64::from(feerate_per_kw) * if offered { 663 } else { 703 } / 1_000
            };
            if htlc.amount_msat / 1_000 >= dust_limit_sat + fee_sat {
                htlcs.push(htlc);
            }
        }
        htlcs.sort();
        let weight = if self.terms.anchors { 1_124 } else { 724 } + 172 * htlcs.len() as u64;
        let anchors_sat = if self.terms.anchors { ANCHORS_SAT } else { 0 };
        let cost_sat = u64::from(feerate_per_kw) * weight / 1_000 + anchors_sat;
        let funder = if self.terms.we_fund { &mut us } else { &mut peer };
        *funder = funder.saturating_sub(cost_sat * 1_000);
        let output = |msat: u64| if msat / 1_000 >= dust_limit_sat { msat / 1_000 } else { 0 };
        Commitment { number, feerate_per_kw, to_us_sat: output(us), to_them_sat: output(peer), htlcs }
    }

    /// What the funder needs for the fee stays free, and the reserve too. What the other side has not heard of yet does
    /// not count.
    pub(super) fn spendable_msat(&self, who: Who) -> u64 {
        let heard = match who {
            Who::Us => [self.ours.0.peer, self.peer.len()].map(|peer| Applied { us: self.us.len(), peer }),
            Who::Peer => [self.theirs.0.us, self.us.len()].map(|us| Applied { us, peer: self.peer.len() }),
        };
        heard.map(|applied| self.spendable_by(who, applied)).into_iter().min().unwrap()
    }

    fn spendable_by(&self, who: Who, applied: Applied) -> u64 {
        let (us, peer, live, feerate) = self.balances(applied);
        let direction = if who == Who::Us { Direction::Out } else { Direction::In };
        let in_flight: u64 =
            live.iter().map(|id| self.htlcs[*id]).filter(|h| h.direction == direction).map(|h| h.amount_msat).sum();
        let balance = if who == Who::Us { us } else { peer };
        let weight = 1_124 + 172 * (self.htlcs.len() as u64 + 4);
        let fee_sat = u64::from(feerate.max(5_000)) * weight / 1_000 + ANCHORS_SAT;
        balance.saturating_sub(in_flight + fee_sat * 1_000 + self.terms.capacity_sat * 10)
    }

    pub(super) fn is_quiet(&self) -> bool {
        let all = Applied { us: self.us.len(), peer: self.peer.len() };
        self.ours == (all, None) && self.theirs == (all, None)
    }
}
