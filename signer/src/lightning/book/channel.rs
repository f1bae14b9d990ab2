//! One channel: the valid commitments of both sides, and what is ours by each.

use super::batch::Batch;
use super::close::Close;
use super::commitment::Span;
use super::facts::{Commitment, Direction, Hash, Htlc, Side, Terms};
use super::view::{ChannelView, CommitmentView, Standing};

/// A channel of the book.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Channel {
    pub(super) terms: Terms,
    pub(super) standing: Standing,
    pub(super) ours: Chain,
    pub(super) theirs: Chain,
    /// What spent the funding output; absent while nothing did.
    pub(super) close: Option<Close>,
}

/// One side's commitments that are not revoked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    /// The one in force.
    pub(super) current: Option<Held>,
    /// The one that will follow: signed, while `current` is not yet revoked.
    pub(super) next: Option<Held>,
}

/// A valid commitment and what it means for us.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) commitment: Commitment,
    /// What is ours if every HTLC in it fails; exact but for the thousandths that no output shows.
    pub(super) settled: Span,
    /// What left through dust up to here, since the channel was opened; negative if more came.
    pub(super) dust_lost_msat: i64,
    /// What the HTLCs came to that the commitment before still had.
    pub(super) settlements: Vec<Settlement>,
    /// Those of them of which our balance shows no more than the sum.
    pub(super) batch: Option<Batch>,
}

/// HTLCs of one hash that were settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) payment_hash: Hash,
    /// Paid by us.
    pub(super) out_msat: u64,
    /// Paid to us, as far as it stands for something paid by us.
    pub(super) in_msat: u64,
}

/// Where a commitment that a message asks for belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is there already: the message is repeated.
    Held,
    /// The first of its side.
    First,
    /// After the one in force.
    Next,
}

impl Channel {
    pub(super) fn new(terms: Terms) -> Self {
        let (ours, theirs) = (Chain::default(), Chain::default());
        Self { terms, standing: Standing::Ready, ours, theirs, close: None }
    }

    pub(super) fn chain(&self, side: Side) -> &Chain {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    pub(super) fn chain_mut(&mut self, side: Side) -> &mut Chain {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }

    /// All commitments of which one may be what counts in the end.
    pub(super) fn valid(&self) -> impl Iterator<Item = (Side, &Held)> {
        let of = |side| self.chain(side).valid().map(move |held| (side, held));
        of(Side::Ours).chain(of(Side::Theirs))
    }

    /// What left through dust, by the worst of the valid commitments.
    pub(super) fn dust_lost_msat(&self) -> i64 {
        self.valid().map(|(_, held)| held.dust_lost_msat).max().unwrap_or(0)
    }

    pub(super) fn carries(&self, hash: &Hash) -> bool {
        self.valid().any(|(_, held)| !of_hash(&held.commitment.htlcs, hash).is_empty())
    }

    pub(super) fn view(&self, channel: String) -> ChannelView {
        let newest = self.ours.newest().or(self.theirs.newest());
        let views = |side| self.chain(side).valid().map(|held| held.commitment.view(&self.terms)).collect();
        ChannelView {
            channel,
            capacity_sat: self.terms.capacity_sat,
            we_fund: self.terms.we_fund,
            anchors: self.terms.anchors,
            standing: self.standing,
            settled_msat: newest.map_or(0, |held| u64::try_from(held.settled.lo).unwrap_or(0)),
            dust_lost_msat: self.dust_lost_msat(),
            ours: views(Side::Ours),
            theirs: views(Side::Theirs),
        }
    }
}

impl Chain {
    pub(super) fn valid(&self) -> impl Iterator<Item = &Held> {
        self.current.iter().chain(&self.next)
    }

    pub(super) fn newest(&self) -> Option<&Held> {
        self.next.as_ref().or(self.current.as_ref())
    }

    /// Where `commitment` belongs; `None` if nowhere. Our next commitment may be replaced: until the one in force is
    /// revoked, the peer may sign another, and we hold both signatures ourselves.
    pub(super) fn place(&self, side: Side, commitment: &Commitment) -> Option<Place> {
        let Some(current) = &self.current else { return (commitment.number == 0).then_some(Place::First) };
        if self.valid().any(|held| held.commitment == *commitment) {
            return Some(Place::Held);
        }
        let follows = commitment.number == current.commitment.number + 1;
        (follows && (side == Side::Ours || self.next.is_none())).then_some(Place::Next)
    }
}

impl Commitment {
    fn view(&self, terms: &Terms) -> CommitmentView {
        let of = |direction| self.regular(terms).filter(move |htlc| htlc.direction == direction);
        let sum = |direction| of(direction).map(|htlc| htlc.amount_msat).sum();
        CommitmentView {
            number: self.number,
            to_us_sat: self.to_us_sat,
            to_them_sat: self.to_them_sat,
            feerate_per_kw: self.feerate_per_kw,
            fee_sat: terms.fee_sat(self.feerate_per_kw, self.htlcs.len()),
            dust_msat: u64::try_from(self.dust_msat(terms).lo).unwrap_or(0),
            out_htlcs: of(Direction::Out).count(),
            out_msat: sum(Direction::Out),
            in_htlcs: of(Direction::In).count(),
            in_msat: sum(Direction::In),
        }
    }
}

/// The HTLCs of one hash in a sorted list.
pub(super) fn of_hash<'a>(htlcs: &'a [Htlc], hash: &Hash) -> &'a [Htlc] {
    let begin = htlcs.partition_point(|htlc| htlc.payment_hash < *hash);
    let rest = &htlcs[begin..];
    &rest[..rest.partition_point(|htlc| htlc.payment_hash == *hash)]
}
