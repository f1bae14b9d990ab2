//! The channel book: value is conserved (P9).
//!
//! For each channel the book knows what is ours in every valid commitment, and for each payment hash what left and what
//! came over all channels of the node. A new commitment may lower what is ours only by what was approved, by a forward
//! that something irrevocable comes in for, by the fee if we fund the channel, and by dust within a bound. The rules and
//! bounds are in `docs/channel-book.md`.
//!
//! It is told facts, in the order in which messages bring them, and answers with a refusal or with what changed for the
//! journal. It knows no wire and no library's types. A commitment is judged and kept aside by [`Book::commitment`], and
//! counts once [`Book::adopt`] is called: a request that is refused elsewhere leaves the book as it was.

mod batch;
mod channel;
mod close;
mod commitment;
mod dust;
mod facts;
mod forward;
mod judge;
mod part;
mod payment;
mod record;
mod removal;
mod settlement;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::{OutPoint, Transaction};

use self::batch::{Batches, Claims};
use self::channel::{Channel, Place};
use self::close::{Close, Depth};
use self::dust::Dust;
pub use self::dust::SMALL_PAYMENT_MSAT;
pub use self::facts::{
    Approval, ChannelKey, Commitment, Direction, Hash, Htlc, MAX_FEE_PERCENT, Moment, Rules, Side, Terms,
};
pub use self::forward::Forward;
use self::judge::Verdict;
use self::part::Past;
use self::payment::{Payment, Totals};
pub use self::record::BookUnreadable;
use self::view::{BookView, PaymentView, Standing};
use crate::journal::Put;
use crate::reasons::Refusal;

/// The entries of a node's tenant that hold the book begin with this.
pub const PREFIX: &str = "book/";

/// The book of one node.
pub struct Book {
    rules: Rules,
    channels: HashMap<ChannelKey, Channel>,
    payments: HashMap<Hash, Payment>,
    batches: Batches,
    dust: Dust,
    /// What is dust on the channel where most is.
    dust_below_msat: u64,
    /// A commitment that was accepted and does not count yet.
    staged: Option<(ChannelKey, Verdict)>,
    dirty: Dirty,
    ended: Vec<(Hash, Paid)>,
}

/// What left for an approved payment that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    /// All that was approved.
    All,
    /// This much over all attempts, in msat; 0 if it failed.
    Part(u64),
}

/// What changed since the journal was told last.
#[derive(Default)]
struct Dirty {
    channels: BTreeSet<ChannelKey>,
    closes: BTreeSet<ChannelKey>,
    payments: BTreeSet<Hash>,
    batches: BTreeSet<BatchKey>,
    dust: bool,
}

/// Channel, whether the commitment is ours, its number.
type BatchKey = (ChannelKey, bool, u64);

impl Book {
    /// An empty book.
    pub fn new(rules: Rules) -> Self {
        let (channels, payments, batches) = (HashMap::new(), HashMap::new(), Batches::new());
        let (dust, dirty) = (Dust::default(), Dirty::default());
        Self { rules, channels, payments, batches, dust, dust_below_msat: 0, staged: None, dirty, ended: Vec::new() }
    }

    /// The book from its entries, which all begin with [`PREFIX`].
    pub fn restore(rules: Rules, entries: &BTreeMap<String, Vec<u8>>) -> Result<Self, BookUnreadable> {
        let mut book = Self::new(rules);
        record::read(&mut book, entries)?;
        Ok(book)
    }

    /// Judges a new commitment of `side` and keeps it aside. `terms` open a channel that the book does not know;
    /// `issued` are the hashes of those of its outgoing HTLCs for which this node issued an invoice.
    ///
    /// Refuses with a reason of the book's; one that is valid already passes and changes nothing.
    pub fn commitment(
        &mut self,
        key: &ChannelKey,
        terms: &Terms,
        side: Side,
        commitment: Commitment,
        issued: &[Hash],
        at: Moment,
    ) -> Result<(), Refusal> {
        self.staged = None;
        let known = self.channels.remove(key);
        let is_known = known.is_some();
        let mut channel = known.unwrap_or_else(|| Channel::new(terms.clone()));
        let verdict = judge::judge(self, key, &mut channel, side, commitment, issued, at);
        if is_known {
            self.channels.insert(key.clone(), channel);
        }
        self.staged = verdict?.map(|verdict| (key.clone(), verdict));
        Ok(())
    }

    /// The request that brought the commitment kept aside succeeded: it counts.
    pub fn adopt(&mut self, at: Moment) {
        let Some((key, verdict)) = self.staged.take() else { return };
        let Verdict { side, place, held, terms, dust, withdrawn, lent, batches } = verdict;
        self.dust_below_msat = self.dust_below_msat.max(terms.dust_below_msat(held.commitment.feerate_per_kw));
        if let Some(dust) = dust {
            self.dust = dust;
            self.dirty.dust = true;
        }
        for hash in withdrawn {
            if let Some(payment) = self.payments.get_mut(&hash) {
                payment.small_msat = 0;
                self.dirty.payments.insert(hash);
            }
        }
        let hashes: Vec<Hash> = held.commitment.regular(&terms).map(|htlc| htlc.payment_hash).collect();
        let channel = self.channels.entry(key.clone()).or_insert_with(|| Channel::new(terms));
        let chain = channel.chain_mut(side);
        let replaced = match place {
            Place::Held => None,
            Place::First => chain.current.replace(held),
            Place::Next => chain.next.replace(held),
        };
        for (key, changed) in batches {
            self.put_batches(&key, changed);
        }
        for (hash, lent_msat) in lent {
            self.payments.entry(hash).or_default().lent_msat += lent_msat;
            self.dirty.payments.insert(hash);
        }
        for hash in hashes {
            let channels = &mut self.payments.entry(hash).or_default().channels;
            if !channels.contains(&key) {
                channels.push(key.clone());
            }
        }
        self.dirty.channels.insert(key.clone());
        if let Some(replaced) = replaced {
            self.release(&key, &replaced.commitment, at.now_ms);
        }
    }

    /// The request that brought the commitment kept aside failed: it never was.
    pub fn discard(&mut self) {
        self.staged = None;
    }

    /// Commitment `number` of `side` was revoked: the next one is in force.
    pub fn revoked(&mut self, key: &ChannelKey, side: Side, number: u64, at: Moment) {
        let channels = self.channels.len();
        let Some(channel) = self.channels.get_mut(key) else { return };
        let lost_before = channel.dust_lost_msat();
        let chain = channel.chain_mut(side);
        if chain.current.as_ref().is_none_or(|held| held.commitment.number != number) {
            return;
        }
        let Some(mut next) = chain.next.take() else { return };
        let (settlements, batch) = (std::mem::take(&mut next.settlements), next.batch.take());
        let Some(revoked) = chain.current.replace(next) else { return };
        // One valid commitment less: nothing can be lost by that.
        let back_msat = i128::from(channel.dust_lost_msat()) - i128::from(lost_before);
        if back_msat < 0 && self.dust.charge(at.now_ms, back_msat, channels).is_ok() {
            self.dirty.dust = true;
        }
        for settlement in settlements {
            let hash = settlement.payment_hash;
            let sums = self.payments.entry(hash).or_default().settled_on(key).side_mut(side);
            sums.out_msat = sums.out_msat.saturating_add(settlement.out_msat);
            sums.in_msat = sums.in_msat.saturating_add(settlement.in_msat);
            self.dirty.payments.insert(hash);
        }
        if let Some(batch) = batch {
            self.add_batch(key, batch);
        }
        self.dirty.channels.insert(key.clone());
        self.release(key, &revoked.commitment, at.now_ms);
    }

    /// A payment may leave. Told again, the larger amount counts, not both. One that has ended approves nothing: whoever
    /// remembers it for longer than the book would have the same payment leave again.
    pub fn approve(&mut self, hash: Hash, approval: Approval, at: Moment) {
        if approval.expires_ms <= at.now_ms {
            return;
        }
        let payment = self.payments.entry(hash).or_default();
        let known = payment.approval.unwrap_or(Approval::new(0, 0));
        let merged = Approval {
            amount_msat: known.amount_msat.max(approval.amount_msat),
            expires_ms: known.expires_ms.max(approval.expires_ms),
            max_fee_msat: known.max_fee_msat.max(approval.max_fee_msat),
        };
        if payment.approval == Some(merged) {
            return;
        }
        let most_msat = merged.most_msat();
        if payment.approval.is_none()
            && payment.channels.is_empty()
            && most_msat <= SMALL_PAYMENT_MSAT.max(self.dust_below_msat)
        {
            payment.small_msat = most_msat;
            self.dust.approve(at.now_ms, most_msat, self.channels.len());
            self.dirty.dust = true;
        }
        payment.approval = Some(merged);
        self.dirty.payments.insert(hash);
    }

    /// A message brought a preimage. Kept if a payment in flight has its hash.
    pub fn learn(&mut self, preimage: [u8; 32]) {
        let hash = Hash(sha256::Hash::hash(&preimage).to_byte_array());
        if let Some(payment) = self.payments.get_mut(&hash)
            && payment.preimage.is_none()
        {
            payment.preimage = Some(preimage);
            self.dirty.payments.insert(hash);
        }
    }

    /// A closing transaction or our own commitment was signed for broadcast.
    pub fn closing(&mut self, key: &ChannelKey) {
        self.stand(key, Standing::Closing, |standing| standing == Standing::Ready);
    }

    /// The output that funds a channel was spent by `tx` in the block at `height`.
    pub fn closed(&mut self, funding: &OutPoint, tx: &Transaction, height: u32) {
        let found = self.channels.iter_mut().find(|(_, channel)| channel.terms.funding == *funding);
        let Some((key, channel)) = found else { return };
        channel.close = Some(Close::new(channel, tx, height));
        let key = key.clone();
        self.stand(&key, Standing::Closed, |standing| standing != Standing::Closed);
        self.dirty.closes.insert(key);
    }

    /// A block was added at `height`; `spender` finds what spends an output in it. Learns from what spends the closes that
    /// were [told](Self::closed), also in the same block.
    pub fn spent<'a>(&mut self, height: u32, spender: impl Fn(&OutPoint) -> Option<&'a Transaction>) {
        let mut preimages = Vec::new();
        for (key, channel) in &mut self.channels {
            let Some(mut close) = channel.close.take() else { continue };
            let inputs = close.unspent().filter_map(|(n, output)| {
                let input = spender(&output)?.input.iter().find(|input| input.previous_output == output)?;
                Some((n, &input.witness))
            });
            for (n, witness) in inputs.collect::<Vec<_>>() {
                preimages.extend(close::preimages(witness));
                close.outputs[n].spent = Some(close::spent(channel, witness, height));
                self.dirty.closes.insert(key.clone());
            }
            channel.close = Some(close);
        }
        preimages.into_iter().for_each(|preimage| self.learn(preimage));
    }

    /// The block at `height` was removed: what it closed is closing, what it spent is not spent. Preimages stay known.
    pub fn reverted(&mut self, height: u32) {
        for (key, channel) in &mut self.channels {
            let Some(close) = &mut channel.close else { continue };
            if close.height >= height {
                (channel.close, channel.standing) = (None, Standing::Closing);
                self.dirty.channels.insert(key.clone());
            } else if !close.revert(height) {
                continue;
            }
            self.dirty.closes.insert(key.clone());
        }
    }

    fn stand(&mut self, key: &ChannelKey, standing: Standing, from: impl Fn(Standing) -> bool) {
        if let Some(channel) = self.channels.get_mut(key)
            && from(channel.standing)
        {
            channel.standing = standing;
            self.dirty.channels.insert(key.clone());
        }
    }

    /// Drops closed channels that `is_gone` elsewhere and that nothing which comes in depends on, and payments that are over.
    pub fn prune(&mut self, is_gone: impl Fn(&ChannelKey) -> bool, at: Moment) {
        let closed = self.channels.iter().filter(|(_, channel)| channel.standing == Standing::Closed);
        let gone = closed.filter(|(key, channel)| is_gone(key) && !self.is_awaited(key, channel, at.height));
        let gone: Vec<ChannelKey> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(channel) = self.channels.remove(&key) else { continue };
            if channel.close.is_some() {
                self.dirty.closes.insert(key.clone());
            }
            for (_, held) in channel.valid() {
                self.release(&key, &held.commitment, at.now_ms);
            }
            self.close_batches(&key, 0);
            self.dirty.channels.insert(key);
        }
        let over = self.payments.iter().filter(|(_, payment)| payment.is_over(at.now_ms));
        let over: Vec<Hash> = over.map(|(hash, _)| *hash).collect();
        for hash in over {
            self.drop_payment(hash, at.now_ms);
        }
    }

    /// Entries that changed since the last call, for the journal.
    pub fn changes(&mut self) -> Vec<Put> {
        record::changes(self)
    }

    /// Approved payments that ended since the last call: those that left whole, and, once nothing more may leave, all. One
    /// that left whole is told twice.
    pub fn take_ended(&mut self) -> Vec<(Hash, Paid)> {
        std::mem::take(&mut self.ended)
    }

    /// All of it, to be shown.
    pub fn view(&self, at: Moment) -> BookView {
        let channels: BTreeMap<_, _> = self.channels.iter().collect();
        let payments: BTreeMap<_, _> = self.payments.iter().collect();
        let payments = payments.into_iter().map(|(hash, payment)| {
            let totals = self.totals(hash, None, &Claims::new(&self.batches), at.height);
            PaymentView {
                payment_hash: hash.to_string(),
                approved_msat: payment.approval.map_or(0, |approval| approval.amount_msat),
                max_fee_msat: payment.approval.map_or(0, |approval| approval.max_fee_msat),
                expires_ms: payment.approval.map(|approval| approval.expires_ms),
                out_msat: totals.out_msat(),
                in_msat: totals.in_msat(),
                preimage_known: payment.preimage.is_some(),
                channels: payment.channels.iter().map(ToString::to_string).collect(),
            }
        });
        BookView {
            channels: channels.into_iter().map(|(key, channel)| channel.view(key.to_string())).collect(),
            payments: payments.collect(),
            dust: self.dust.view(at.now_ms, self.channels.len()),
        }
    }

    fn depth(&self, height: u32) -> Depth {
        Depth { height, buried: self.rules.buried }
    }

    /// A commitment is no longer valid: forgets payments that only it carried.
    fn release(&mut self, key: &ChannelKey, commitment: &Commitment, now_ms: u64) {
        let channel = self.channels.get(key);
        let mut hashes: Vec<Hash> = commitment.htlcs.iter().map(|htlc| htlc.payment_hash).collect();
        hashes.dedup();
        hashes.retain(|hash| !channel.is_some_and(|channel| channel.carries(hash)));
        for hash in hashes {
            let Some(payment) = self.payments.get_mut(&hash) else { continue };
            payment.channels.retain(|other| other != key);
            let Some(payment) = self.payments.get(&hash) else { continue };
            let approved_msat = payment.approval.map_or(0, |approval| approval.amount_msat);
            if payment.channels.is_empty() && approved_msat > 0 && self.paid_msat(&hash, payment) >= approved_msat {
                self.ended.push((hash, Paid::All));
            }
            if payment.is_over(now_ms) {
                self.drop_payment(hash, now_ms);
            }
        }
    }

    /// Whether something that comes in on another channel depends on what this one's peer took or may take.
    fn is_awaited(&self, key: &ChannelKey, channel: &Channel, height: u32) -> bool {
        let claims = Claims::new(&self.batches);
        channel.valid().flat_map(|(_, held)| &held.commitment.htlcs).any(|htlc| {
            let hash = &htlc.payment_hash;
            let elsewhere = self.payments.get(hash).is_some_and(|payment| payment.channels.len() > 1);
            let mut totals = Totals::default();
            totals.add(channel, Past { hash, channel: key, settled: None, claims: &claims }, true, self.depth(height));
            elsewhere && totals.out_msat() > 0
        })
    }

    fn drop_payment(&mut self, hash: Hash, now_ms: u64) {
        let Some(payment) = self.payments.remove(&hash) else { return };
        let paid_msat = self.end_batches(&hash, &payment);
        if payment.approval.is_some() {
            // What may have left as dust counts as paid: no commitment shows that it did not.
            self.ended.push((hash, if payment.small_msat > 0 { Paid::All } else { Paid::Part(paid_msat) }));
        }
        if payment.stored {
            self.dirty.payments.insert(hash);
        } else {
            self.dirty.payments.remove(&hash);
        }
        let returned_msat = payment.lent_msat.saturating_sub(paid_msat);
        if returned_msat > 0 && self.dust.charge(now_ms, -i128::from(returned_msat), self.channels.len()).is_ok() {
            self.dirty.dust = true;
        }
    }
}
