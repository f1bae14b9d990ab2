//! What a commitment kept aside passes on for others: what the spending policy is asked about. That it is covered is judged
//! before.

use super::batch::Claims;
use super::channel::{Channel, Place, of_hash};
use super::facts::{Direction, Hash, Htlc, Moment, Side};
use super::{Book, Verdict};

/// What the peer's next commitment adds for one hash, beyond what is approved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The hash.
    pub payment_hash: Hash,
    /// What is added.
    pub amount_msat: u64,
    /// What comes in for the hash over all channels; of HTLCs that are dust, nothing is known.
    pub incoming_msat: u64,
    /// By how many blocks the first incoming HTLC to end outlasts the last outgoing one; `None` if no incoming one is open.
    pub cltv_delta_blocks: Option<u32>,
}

impl Book {
    /// What the commitment kept aside adds to forwards, if it is the peer's; HTLCs that may have been there as dust left out.
    pub fn forwards(&self, at: Moment) -> Vec<Forward> {
        let Some((key, Verdict { side: Side::Theirs, place, held, terms, .. })) = &self.staged else {
            return Vec::new();
        };
        let known = self.channels.get(key);
        let before = known.and_then(|channel| channel.theirs.current.as_ref()).map(|held| &held.commitment);
        let feerate = before.map_or(held.commitment.feerate_per_kw, |commitment| commitment.feerate_per_kw);
        let sum_msat = |htlcs: &[Htlc]| {
            let out = htlcs.iter().filter(|htlc| htlc.direction == Direction::Out);
            out.filter(|htlc| !terms.is_dust(feerate, htlc.amount_msat)).map(|htlc| htlc.amount_msat).sum::<u64>()
        };
        let mut hashes: Vec<Hash> = held.commitment.regular(terms).map(|htlc| htlc.payment_hash).collect();
        hashes.dedup();
        let added = hashes.into_iter().filter_map(|hash| {
            let now = of_hash(&held.commitment.htlcs, &hash);
            let known_msat = before.map_or(0, |commitment| sum_msat(of_hash(&commitment.htlcs, &hash)));
            let added_msat = sum_msat(now).saturating_sub(known_msat);
            (added_msat > 0).then_some((hash, now, added_msat))
        });
        let mut added = added.peekable();
        if added.peek().is_none() {
            return Vec::new();
        }
        let mut channel = known.cloned().unwrap_or_else(|| Channel::new(terms.clone()));
        let slot = if *place == Place::First { &mut channel.theirs.current } else { &mut channel.theirs.next };
        *slot = Some(held.clone());
        let claims = Claims::new(&self.batches);
        let forwards = added.map(|(payment_hash, now, added_msat)| {
            let totals = self.totals(&payment_hash, Some((key, &channel)), &claims, at.height);
            let approval = self.payments.get(&payment_hash).and_then(|payment| payment.approval);
            let approved_msat = approval.map_or(0, |approval| approval.most_msat());
            let out = now.iter().filter(|htlc| htlc.direction == Direction::Out);
            let (first_in, last_out) = (self.first_in(&payment_hash), out.map(|htlc| htlc.cltv_expiry).max());
            Forward {
                payment_hash,
                amount_msat: added_msat.min(totals.out_msat().saturating_sub(approved_msat)),
                incoming_msat: totals.in_msat(),
                cltv_delta_blocks: first_in.zip(last_out).map(|(first, last)| first.saturating_sub(last)),
            }
        });
        forwards.filter(|forward| forward.amount_msat > 0).collect()
    }

    /// When the first HTLC ends that comes in for `hash`.
    fn first_in(&self, hash: &Hash) -> Option<u32> {
        let channels = self.payments.get(hash).into_iter().flat_map(|payment| &payment.channels);
        let valid = channels.filter_map(|key| self.channels.get(key)).flat_map(|channel| channel.valid());
        let ins = valid.flat_map(|(_, held)| of_hash(&held.commitment.htlcs, hash));
        ins.filter(|htlc| htlc.direction == Direction::In).map(|htlc| htlc.cltv_expiry).min()
    }
}
