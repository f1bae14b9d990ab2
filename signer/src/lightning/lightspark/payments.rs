//! Payments that the account's own services had signed, and the HTLCs in which they leave.
//!
//! A call names its payment hash; a commitment shows RIPEMD-160 of it, in the scripts of its HTLCs. An HTLC belongs to a
//! payment if it has its hash, begins in time, and all of them together hold no more than what may leave for it.
//!
//! What becomes of an HTLC no event tells. One that is gone has failed if what is ours has risen by as much, beyond the HTLCs that
//! came in and are gone as well; otherwise it counts as paid. So an attempt that failed makes room for the next, and a payment that
//! was made leaves none for a second one with its hash.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bitcoin::OutPoint;
use bitcoin::hashes::{Hash, ripemd160, sha256};
use serde::{Deserialize, Serialize};

use super::channel::{Htlc, Newest};
use crate::journal::Put;
use crate::lightning::book::view::PaymentView;

/// In front of RIPEMD-160 of a payment hash.
const PAYMENT: &str = "lightspark/payment/";
const VERSION: u8 = 1;
/// With each payment so many old ones are forgotten: more than one, so that their number falls.
const FORGET: usize = 2;
/// One that is still on its way is looked at again so much later.
const AGAIN_MS: u64 = 60 * 60 * 1_000;

/// Payments that were signed and are not over, by RIPEMD-160 of their hashes.
#[derive(Default)]
pub(super) struct Payments {
    payments: BTreeMap<ripemd160::Hash, Payment>,
    /// When each may be over.
    ends: BTreeSet<(u64, ripemd160::Hash)>,
}

/// A payment: the entry `lightspark/payment/HASH160`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payment {
    version: u8,
    payment_hash: sha256::Hash,
    amount_msat: u64,
    max_fee_msat: u64,
    /// Until then HTLCs of it may begin: Unix time.
    until_ms: u64,
    /// In HTLCs of all channels.
    in_flight_sat: u64,
    /// In HTLCs that are gone and did not come back.
    paid_sat: u64,
}

/// What a batch of jobs changes in the counterparty's newest commitment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// HTLCs that were not there.
    begun: Vec<Htlc>,
    /// HTLCs that are no longer there.
    gone: Vec<Htlc>,
    /// What is ours, before and now.
    ours_sat: (u64, u64),
}

/// What a change has to do with the payments that were signed.
pub(super) struct Matched {
    /// The payments of the HTLCs that begin.
    pub(super) requested: Vec<sha256::Hash>,
    /// What leaves and belongs to none.
    pub(super) unrequested_sat: u64,
    touched: BTreeMap<ripemd160::Hash, Payment>,
}

impl Payments {
    /// Takes its entries out of `entries`.
    pub(super) fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let mut payments = Self::default();
        for (key, entry) in entries.extract_if(PAYMENT.to_owned().., |key, _| key.starts_with(PAYMENT)) {
            let payment: Payment = serde_json::from_slice(&entry).ok()?;
            let hash160 = key.strip_prefix(PAYMENT)?.parse().ok().filter(|_| payment.version == VERSION)?;
            payments.ends.insert((payment.until_ms, hash160));
            payments.payments.insert(hash160, payment);
        }
        Some(payments)
    }

    /// A call was signed that pays `amount_msat`, and `max_fee_msat` to those who route it, by HTLCs that begin until `until_ms`.
    /// Asked for again, the larger amounts and the later time count. Returns the changed entries.
    pub(super) fn sign(
        &mut self,
        payment_hash: [u8; 32],
        (amount_msat, max_fee_msat): (u64, u64),
        until_ms: u64,
        now_ms: u64,
    ) -> Vec<Put> {
        let mut puts = self.forget(now_ms);
        let hash160 = hash160(&payment_hash);
        let new = Payment {
            version: VERSION,
            payment_hash: sha256::Hash::from_byte_array(payment_hash),
            amount_msat,
            max_fee_msat,
            until_ms,
            in_flight_sat: 0,
            paid_sat: 0,
        };
        let known = self.payments.get(&hash160);
        let payment = known.cloned().map_or(new, |known| Payment {
            amount_msat: known.amount_msat.max(amount_msat),
            max_fee_msat: known.max_fee_msat.max(max_fee_msat),
            until_ms: known.until_ms.max(until_ms),
            ..known
        });
        if known != Some(&payment) {
            puts.push(put(&hash160, Some(&payment)));
            self.ends.insert((payment.until_ms, hash160));
            self.payments.insert(hash160, payment);
        }
        puts
    }

    /// Compares a change of a channel with the payments that were signed. Nothing counts before it is [taken](Self::take).
    pub(super) fn matched(&self, change: &Change, now_ms: u64) -> Matched {
        let mut matched = Matched { requested: Vec::new(), unrequested_sat: 0, touched: BTreeMap::new() };
        let mut back_sat = change.back_sat();
        let mut gone: Vec<&Htlc> = change.gone.iter().filter(|htlc| htlc.outgoing).collect();
        // What came back is other HTLCs' first: in doubt a payment was made.
        gone.sort_by_key(|htlc| self.payments.contains_key(&htlc.payment_hash160));
        for htlc in gone {
            let failed = htlc.amount_sat <= back_sat;
            if failed {
                back_sat -= htlc.amount_sat;
            }
            if let Some(payment) = self.touch(&mut matched.touched, htlc) {
                payment.in_flight_sat = payment.in_flight_sat.saturating_sub(htlc.amount_sat);
                payment.paid_sat = payment.paid_sat.saturating_add(if failed { 0 } else { htlc.amount_sat });
            }
        }
        for htlc in change.begun.iter().filter(|htlc| htlc.outgoing) {
            let payment = self.touch(&mut matched.touched, htlc);
            let is_requested = payment.as_ref().is_some_and(|payment| payment.has_room(htlc.amount_sat, now_ms));
            let hash = payment.map(|payment| {
                payment.in_flight_sat = payment.in_flight_sat.saturating_add(htlc.amount_sat);
                payment.payment_hash
            });
            match hash.filter(|_| is_requested) {
                Some(hash) => matched.requested.push(hash),
                None => matched.unrequested_sat = matched.unrequested_sat.saturating_add(htlc.amount_sat),
            }
        }
        matched.unrequested_sat = matched.unrequested_sat.saturating_add(change.without_htlc_sat());
        matched
    }

    /// What was matched counts. Returns the changed entries.
    pub(super) fn take(&mut self, matched: Matched) -> Vec<Put> {
        let touched = matched.touched.into_iter().map(|(hash160, payment)| {
            let changed = put(&hash160, Some(&payment));
            self.payments.insert(hash160, payment);
            changed
        });
        touched.collect()
    }

    /// The payment hash of what was signed, of which scripts show this.
    pub(super) fn payment_hash(&self, hash160: &ripemd160::Hash) -> Option<[u8; 32]> {
        self.payments.get(hash160).map(|payment| payment.payment_hash.to_byte_array())
    }

    /// All of them, to be shown, with the channels that carry each.
    pub(super) fn views(&self, carried: &BTreeMap<ripemd160::Hash, BTreeSet<OutPoint>>) -> Vec<PaymentView> {
        let view = |(hash160, payment): (&ripemd160::Hash, &Payment)| PaymentView {
            payment_hash: payment.payment_hash.to_string(),
            approved_msat: payment.amount_msat,
            max_fee_msat: payment.max_fee_msat,
            expires_ms: Some(payment.until_ms),
            out_msat: payment.left_msat(),
            in_msat: 0,
            preimage_known: false,
            channels: carried.get(hash160).into_iter().flatten().map(ToString::to_string).collect(),
        };
        self.payments.iter().map(view).collect()
    }

    fn touch<'a>(&self, touched: &'a mut BTreeMap<ripemd160::Hash, Payment>, htlc: &Htlc) -> Option<&'a mut Payment> {
        match touched.entry(htlc.payment_hash160) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => {
                let payment = self.payments.get(new.key())?.clone();
                Some(new.insert(payment))
            }
        }
    }

    /// Forgets some that are over.
    fn forget(&mut self, now_ms: u64) -> Vec<Put> {
        let mut puts = Vec::new();
        for _ in 0..FORGET {
            if self.ends.first().is_none_or(|(end_ms, _)| *end_ms >= now_ms) {
                break;
            }
            let Some((_, hash160)) = self.ends.pop_first() else { break };
            let Some(payment) = self.payments.get(&hash160) else { continue };
            if payment.until_ms >= now_ms {
                self.ends.insert((payment.until_ms, hash160)); // it was asked for again
            } else if payment.in_flight_sat > 0 {
                self.ends.insert((now_ms.saturating_add(AGAIN_MS), hash160));
            } else {
                self.payments.remove(&hash160);
                puts.push(put(&hash160, None));
            }
        }
        puts
    }
}

impl Payment {
    fn left_msat(&self) -> u64 {
        self.in_flight_sat.saturating_add(self.paid_sat).saturating_mul(1_000)
    }

    /// Whether an HTLC of this amount may begin.
    fn has_room(&self, amount_sat: u64, now_ms: u64) -> bool {
        let left_msat = self.left_msat().saturating_add(amount_sat.saturating_mul(1_000));
        now_ms <= self.until_ms && left_msat <= self.amount_msat.saturating_add(self.max_fee_msat)
    }
}

impl Change {
    /// From `before`, or from nothing, to `newest`.
    pub(super) fn between(before: Option<&Newest>, newest: &Newest) -> Self {
        let (were, ours_sat) = before.map_or((&[][..], newest.ours_sat), |before| (&before.htlcs, before.ours_sat));
        Self {
            begun: without(&newest.htlcs, were),
            gone: without(were, &newest.htlcs),
            ours_sat: (ours_sat, newest.ours_sat),
        }
    }

    /// By how much more is ours than without the HTLCs that came in and are gone: what failed is in it. Each output drops the
    /// thousandths of a satoshi, those of HTLCs that begin in our favour.
    fn back_sat(&self) -> u64 {
        let begun = self.begun.iter().filter(|htlc| htlc.outgoing);
        let begun_sat = begun.fold(0u64, |sum, htlc| sum.saturating_add(htlc.amount_sat).saturating_add(1));
        let came_sat = self
            .gone
            .iter()
            .filter(|htlc| !htlc.outgoing)
            .fold(0, |sum: u64, htlc| sum.saturating_add(htlc.amount_sat));
        self.ours_sat.1.saturating_add(begun_sat).saturating_sub(self.ours_sat.0).saturating_sub(came_sat)
    }

    /// By how much less is ours than the HTLCs that begin account for.
    fn without_htlc_sat(&self) -> u64 {
        let begun = self.begun.iter().filter(|htlc| htlc.outgoing).map(|htlc| htlc.amount_sat);
        self.ours_sat.0.saturating_sub(self.ours_sat.1).saturating_sub(begun.fold(0, u64::saturating_add))
    }
}

/// Those of `these` that `those` do not have, each as often as there are more of it. Both are sorted.
fn without(these: &[Htlc], those: &[Htlc]) -> Vec<Htlc> {
    let mut those = those.iter().peekable();
    let is_more = |htlc: &&Htlc| {
        while those.next_if(|other| other < htlc).is_some() {}
        those.next_if_eq(htlc).is_none()
    };
    these.iter().filter(is_more).copied().collect()
}

fn hash160(payment_hash: &[u8; 32]) -> ripemd160::Hash {
    ripemd160::Hash::hash(payment_hash)
}

fn put(hash160: &ripemd160::Hash, payment: Option<&Payment>) -> Put {
    let value = payment.map(|payment| serde_json::to_vec(payment).expect("numbers and text always encode"));
    Put { key: format!("{PAYMENT}{hash160}"), value }
}
