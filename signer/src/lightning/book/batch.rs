//! Outgoing HTLCs that one commitment removed together, where our balance shows only what they come to.
//!
//! Where the wire brings no preimages, our balance shows that of two equal HTLCs one was paid and one failed, and not which.
//! So no guess decides: what failed is kept as a sum. Whoever relies on it that an HTLC failed, by paying its hash again or by
//! giving up what came in for it, takes that much out of the sum; once it is used up, all others were paid. A guess about
//! another batch may have been wrong: then what failed there makes up for it. In sum, nothing is given away that our
//! balances do not show.

use std::collections::{BTreeMap, HashMap};

use super::Book;
use super::facts::{ChannelKey, Hash, Htlc, Side};
use super::payment::{Payment, Settled};

/// Batches of one side of a channel that are kept open.
const MOST_OPEN: usize = 32;

/// HTLCs of one commitment of which some may have failed, but not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Whose commitment no longer has them.
    pub(super) side: Side,
    /// Its number.
    pub(super) number: u64,
    pub(super) htlcs: Vec<Removed>,
    /// So much of them failed, and nobody has relied on it yet.
    pub(super) failed_msat: u64,
    /// So much more, unless it came in by the same commitment, as the simplest reading has it.
    pub(super) credited_msat: u64,
    /// So much more, if dust made up for it. Whoever relies on that pays with dust.
    pub(super) blurred_msat: u64,
}

/// One HTLC of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) payment_hash: Hash,
    pub(super) out_msat: u64,
    /// Of that, what was paid by the simplest reading of our balance. No rule goes by it: reports do.
    pub(super) paid_msat: u64,
}

/// The batches of a node, by channel, those of each in the order of its sides and of their commitments.
pub(super) type Batches = HashMap<ChannelKey, Vec<Batch>>;

/// What a commitment that is being judged relies on: the batches as they are if it is accepted.
pub(super) struct Claims<'a> {
    known: &'a Batches,
    changed: BTreeMap<ChannelKey, Vec<Batch>>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(known: &'a Batches) -> Self {
        Self { known, changed: BTreeMap::new() }
    }

    pub(super) fn of(&self, channel: &ChannelKey) -> &[Batch] {
        self.changed.get(channel).or_else(|| self.known.get(channel)).map_or(&[], Vec::as_slice)
    }

    /// The batches that change.
    pub(super) fn into_changed(self) -> BTreeMap<ChannelKey, Vec<Batch>> {
        self.changed
    }

    /// How much of what left for `hash` by commitments of `side` on `channel` is in batches, and how much of that may have
    /// failed.
    pub(super) fn returnable_msat(&self, channel: &ChannelKey, side: Side, hash: &Hash) -> (u64, u64) {
        let (mut out_msat, mut open_msat) = (0u64, 0u64);
        for batch in self.of(channel).iter().filter(|batch| batch.side == side && batch.out_msat(hash) > 0) {
            out_msat = out_msat.saturating_add(batch.out_msat(hash));
            open_msat = open_msat.saturating_add(batch.credited_msat).saturating_add(batch.blurred_msat);
        }
        if out_msat == 0 {
            return (0, 0);
        }
        let all = self.known.keys().flat_map(|channel| self.of(channel)).filter(|batch| batch.side == side);
        let failed_msat = all.map(|batch| batch.failed_msat).fold(0, u64::saturating_add);
        (out_msat, out_msat.min(open_msat.saturating_add(failed_msat)))
    }

    /// Somebody relies on it that up to `amount_msat` of what left for `hash` by commitments of `side` on `channel` failed.
    /// Returns how much of that dust must have made up for.
    pub(super) fn give_back(&mut self, channel: &ChannelKey, side: Side, hash: &Hash, amount_msat: u64) -> u64 {
        let (mut left_msat, mut owed_msat, mut of_hash) = (amount_msat, 0, Vec::new());
        for (n, batch) in self.change(channel).iter_mut().enumerate().filter(|(_, batch)| batch.side == side) {
            let taken_msat = batch.take(hash, left_msat);
            left_msat -= taken_msat;
            owed_msat += taken_msat;
            of_hash.extend((taken_msat > 0).then_some(n));
        }
        let pay = |owed_msat: &mut u64, from: &mut u64| {
            let paid_msat = (*owed_msat).min(*from);
            (*owed_msat, *from) = (*owed_msat - paid_msat, *from - paid_msat);
        };
        for n in &of_hash {
            let batch = &mut self.change(channel)[*n];
            pay(&mut owed_msat, &mut batch.failed_msat);
            pay(&mut owed_msat, &mut batch.credited_msat);
        }
        let others: Vec<_> = if owed_msat > 0 { self.known.keys().cloned().collect() } else { Vec::new() };
        for other in others {
            for batch in self.change(&other).iter_mut().filter(|batch| batch.side == side) {
                pay(&mut owed_msat, &mut batch.failed_msat);
            }
        }
        let blurred_msat = owed_msat;
        for n in of_hash {
            pay(&mut owed_msat, &mut self.change(channel)[n].blurred_msat);
        }
        blurred_msat
    }

    fn change(&mut self, channel: &ChannelKey) -> &mut Vec<Batch> {
        let known = self.known.get(channel);
        self.changed.entry(channel.clone()).or_insert_with(|| known.cloned().unwrap_or_default())
    }
}

impl Removed {
    pub(super) fn new(htlc: &Htlc, is_paid: bool) -> Self {
        let Htlc { payment_hash, amount_msat, .. } = *htlc;
        Self { payment_hash, out_msat: amount_msat, paid_msat: if is_paid { amount_msat } else { 0 } }
    }
}

impl Batch {
    /// What left for `hash`, as long as nobody has shown otherwise.
    pub(super) fn out_msat(&self, hash: &Hash) -> u64 {
        self.of(hash).map(|htlc| htlc.out_msat).fold(0, u64::saturating_add)
    }

    /// What was paid for `hash` by the simplest reading.
    pub(super) fn paid_msat(&self, hash: &Hash) -> u64 {
        self.of(hash).map(|htlc| htlc.paid_msat).fold(0, u64::saturating_add)
    }

    /// Takes up to `amount_msat` out of what left for `hash`; returns how much.
    fn take(&mut self, hash: &Hash, amount_msat: u64) -> u64 {
        let mut left_msat = amount_msat;
        for htlc in self.htlcs.iter_mut().filter(|htlc| htlc.payment_hash == *hash) {
            let taken_msat = left_msat.min(htlc.out_msat);
            (htlc.out_msat, left_msat) = (htlc.out_msat - taken_msat, left_msat - taken_msat);
            htlc.paid_msat = htlc.paid_msat.min(htlc.out_msat);
        }
        amount_msat - left_msat
    }

    /// The approved payment of `hash` has ended: what failed by the simplest reading did, as far as that is left. Returns
    /// what was paid.
    pub(super) fn end(&mut self, hash: &Hash) -> u64 {
        let out_msat = self.out_msat(hash);
        let failed_msat = (out_msat - self.paid_msat(hash)).min(self.failed_msat);
        self.failed_msat -= failed_msat;
        out_msat - failed_msat
    }

    /// Nobody relies on what became of `hash` any more.
    pub(super) fn forget(&mut self, hash: &Hash) {
        self.htlcs.retain(|htlc| htlc.payment_hash != *hash);
    }

    fn of(&self, hash: &Hash) -> impl Iterator<Item = &Removed> {
        self.htlcs.iter().filter(move |htlc| htlc.payment_hash == *hash)
    }
}

impl Book {
    /// A commitment is in force that removed `batch`.
    pub(super) fn add_batch(&mut self, key: &ChannelKey, batch: Batch) {
        for htlc in &batch.htlcs {
            self.payments.entry(htlc.payment_hash).or_default().settled_on(key);
            self.dirty.payments.insert(htlc.payment_hash);
        }
        let mut batches = self.batches.get(key).cloned().unwrap_or_default();
        let at = batches.partition_point(|known| (known.side, known.number) < (batch.side, batch.number));
        batches.insert(at, batch);
        self.put_batches(key, batches);
        self.close_batches(key, MOST_OPEN);
    }

    /// Closes the oldest batches of each side until no more than `open` are left: what nobody relied on until now was paid.
    pub(super) fn close_batches(&mut self, key: &ChannelKey, open: usize) {
        let batches = self.batches.get(key).cloned().unwrap_or_default();
        let mut batches: Vec<_> = batches.chunk_by(|a, b| a.side == b.side).map(<[Batch]>::to_vec).collect();
        let old = batches.iter_mut().flat_map(|side| side.drain(..side.len().saturating_sub(open)));
        for batch in old.collect::<Vec<_>>() {
            for htlc in batch.htlcs {
                let Some(payment) = self.payments.get_mut(&htlc.payment_hash) else { continue };
                let sums = payment.settled_on(key).side_mut(batch.side);
                sums.out_msat = sums.out_msat.saturating_add(htlc.out_msat);
                self.dirty.payments.insert(htlc.payment_hash);
            }
        }
        self.put_batches(key, batches.concat());
    }

    /// What was paid of `hash`, over all channels, by the simplest reading.
    pub(super) fn paid_msat(&self, hash: &Hash, payment: &Payment) -> u64 {
        let paid = |settled: &Settled, side| {
            let batches = self.batches.get(&settled.channel).into_iter().flatten();
            let batched = batches.filter(|batch| batch.side == side).map(|batch| batch.paid_msat(hash));
            batched.fold(settled.side(side).out_msat, u64::saturating_add)
        };
        let settled = payment.settled.iter();
        settled.map(|on| paid(on, Side::Ours).max(paid(on, Side::Theirs))).fold(0, u64::saturating_add)
    }

    /// The batches of a channel are these from now on.
    pub(super) fn put_batches(&mut self, key: &ChannelKey, mut batches: Vec<Batch>) {
        batches.retain(|batch| !batch.htlcs.is_empty());
        let known = self.batches.remove(key).unwrap_or_default();
        let changed = known.iter().filter(|batch| !batches.contains(batch));
        let changed = changed.chain(batches.iter().filter(|batch| !known.contains(batch)));
        let changed: Vec<_> = changed.map(|batch| (key.clone(), batch.side == Side::Ours, batch.number)).collect();
        self.dirty.batches.extend(changed);
        if !batches.is_empty() {
            self.batches.insert(key.clone(), batches);
        }
    }

    /// A payment is over, and its batches are rid of it. Returns what was paid for it.
    pub(super) fn end_batches(&mut self, hash: &Hash, payment: &Payment) -> u64 {
        let mut paid_msat = 0u64;
        for settled in &payment.settled {
            let mut batches = self.batches.get(&settled.channel).cloned().unwrap_or_default();
            let (mut ours_msat, mut theirs_msat) = (settled.ours.out_msat, settled.theirs.out_msat);
            for batch in &mut batches {
                let sum_msat = if batch.side == Side::Ours { &mut ours_msat } else { &mut theirs_msat };
                // What is reported as failed is not paid again: only approvals are reported.
                let of_batch = if payment.approval.is_some() { batch.end(hash) } else { batch.paid_msat(hash) };
                *sum_msat = sum_msat.saturating_add(of_batch);
                batch.forget(hash);
            }
            self.put_batches(&settled.channel, batches);
            paid_msat = paid_msat.saturating_add(ours_msat.max(theirs_msat));
        }
        paid_msat
    }
}
