//! What one channel says of one payment hash: by one commitment, and by those before it.

use super::Book;
use super::batch::Claims;
use super::channel::{Channel, Held, of_hash};
use super::close::Depth;
use super::facts::{ChannelKey, Direction, Hash, Side};
use super::payment::{Payment, Settled, Sums, Totals, add, sum};

/// What ended of one hash on one channel before its valid commitments.
#[derive(Clone, Copy)]
pub(super) struct Past<'a> {
    pub(super) hash: &'a Hash,
    pub(super) channel: &'a ChannelKey,
    pub(super) settled: Option<&'a Settled>,
    pub(super) claims: &'a Claims<'a>,
}

impl Past<'_> {
    /// By the commitments of `side`: what left in batches, and of that, what may have failed.
    fn batched(&self, side: Side) -> (u64, u64) {
        // Whatever is in a batch ended on its channel.
        self.settled.map_or((0, 0), |_| self.claims.returnable_msat(self.channel, side, self.hash))
    }
}

/// What left for one hash on one channel.
pub(super) struct Left {
    /// By the worst valid commitment of each side.
    pub(super) by_side: [(Side, u64); 2],
    /// All that is certain.
    pub(super) least_msat: u64,
}

impl Left {
    pub(super) fn of(channel: &Channel, past: Past<'_>, depth: Depth) -> Self {
        let part = |side, held| Part::new(channel, side, held, past).without_returned(channel, past.hash, depth);
        let by = |side| {
            let parts = channel.chain(side).valid().map(|held| part(side, held));
            parts.fold((0, 0), |(most_msat, least_msat), part| {
                (most_msat.max(part.out_msat()), least_msat.max(part.out_msat() - part.returnable_msat))
            })
        };
        let ((ours_msat, ours_least_msat), (theirs_msat, theirs_least_msat)) = (by(Side::Ours), by(Side::Theirs));
        let by_side = [(Side::Ours, ours_msat), (Side::Theirs, theirs_msat)];
        Self { by_side, least_msat: ours_least_msat.max(theirs_least_msat) }
    }

    pub(super) fn most_msat(&self) -> u64 {
        self.by_side[0].1.max(self.by_side[1].1)
    }
}

/// What one commitment says of one hash.
pub(super) struct Part {
    pub(super) outs: Vec<(u32, u64)>,
    pub(super) ins: Vec<(u32, u64)>,
    pub(super) settled: Sums,
    /// Of what was paid, what may have failed.
    pub(super) returnable_msat: u64,
}

impl Part {
    pub(super) fn new(channel: &Channel, side: Side, held: &Held, past: Past<'_>) -> Self {
        let (commitment, hash) = (&held.commitment, past.hash);
        let of = |direction| {
            let htlcs = of_hash(&commitment.htlcs, hash).iter().filter(move |htlc| {
                htlc.direction == direction && !channel.terms.is_dust(commitment.feerate_per_kw, htlc.amount_msat)
            });
            htlcs.map(|htlc| (htlc.cltv_expiry, htlc.amount_msat)).collect()
        };
        let mut settled = past.settled.map_or(Sums::default(), |settled| settled.side(side));
        for step in held.settlements.iter().filter(|step| step.payment_hash == *hash) {
            settled.out_msat = add(settled.out_msat, step.out_msat);
            settled.in_msat = add(settled.in_msat, step.in_msat);
        }
        // Of what this commitment itself removed, nothing is given back before the one that has it is revoked.
        let removed_msat = held.batch.as_ref().map_or(0, |batch| batch.out_msat(hash));
        let (batched_msat, returnable_msat) = past.batched(side);
        settled.out_msat = add(settled.out_msat, add(removed_msat, batched_msat));
        Self { outs: of(Direction::Out), ins: of(Direction::In), settled, returnable_msat }
    }

    /// The same without what the chain has shown not to be the peer's.
    pub(super) fn without_returned(mut self, channel: &Channel, hash: &Hash, depth: Depth) -> Self {
        if let Some(close) = &channel.close {
            close.retain(hash, &mut self.outs, depth);
        }
        self
    }

    pub(super) fn out_msat(&self) -> u64 {
        add(self.settled.out_msat, sum(self.outs.iter().map(|(_, amount)| amount)))
    }

    pub(super) fn in_msat(&self) -> u64 {
        add(self.settled.in_msat, sum(self.ins.iter().map(|(_, amount)| amount)))
    }
}

impl Book {
    /// What of `hash` left and came, by the batches as `claims` has them. `apart` is a channel that is not in the map at the
    /// moment.
    pub(super) fn totals(
        &self,
        hash: &Hash,
        apart: Option<(&ChannelKey, &Channel)>,
        claims: &Claims<'_>,
        height: u32,
    ) -> Totals {
        let mut totals = Totals::default();
        let empty = Payment::default();
        let payment = self.payments.get(hash).unwrap_or(&empty);
        let (is_known, depth) = (payment.preimage.is_some(), self.depth(height));
        if let Some((key, channel)) = apart {
            totals.add(channel, self.past(hash, payment, key, claims), is_known, depth);
        }
        let is_apart = |key: &ChannelKey| apart.is_some_and(|(apart, _)| apart == key);
        let ended = payment.settled.iter().map(|settled| &settled.channel);
        let ended = ended.filter(|key| !payment.channels.contains(key));
        for key in payment.channels.iter().chain(ended).filter(|key| !is_apart(key)) {
            let past = self.past(hash, payment, key, claims);
            match self.channels.get(key) {
                Some(channel) => totals.add(channel, past, is_known, depth),
                None => past.settled.into_iter().for_each(|settled| totals.add_settled(settled)),
            }
        }
        totals
    }

    /// What ended of `hash` on a channel.
    pub(super) fn past<'a>(
        &self,
        hash: &'a Hash,
        payment: &'a Payment,
        channel: &'a ChannelKey,
        claims: &'a Claims<'a>,
    ) -> Past<'a> {
        let settled = payment.settled.iter().find(|settled| settled.channel == *channel);
        Past { hash, channel, settled, claims }
    }
}
