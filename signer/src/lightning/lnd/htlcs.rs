//! What the HTLCs of the commitments that were signed last are, for whoever looks at the channels.
//!
//! A commitment shows outputs; which of them are HTLCs, and of what kind, shows when lnd asks for their signatures, one by
//! one, before the commitment or after it. Kept in memory only: the next update tells all of it again.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bitcoin::{ScriptBuf, Txid};

use super::channel::Output;
use super::transactions::AskedHtlc;
use crate::lightning::standing::{HtlcView, PaymentHash};

/// Outputs that are kept, of all channels. HTLCs of further commitments stay untold.
const MAX_OUTPUTS: usize = 131_072;
/// Commitments that were not asked for before their HTLCs, and HTLCs of one that are kept: no commitment has more.
const MAX_EARLY: usize = 64;
const MAX_HTLCS: usize = 966;

/// The HTLCs of the newest commitment of each channel.
#[derive(Default)]
pub(super) struct Htlcs {
    signed: HashMap<Txid, BTreeMap<u32, Place>>,
    /// Of all of them.
    outputs: usize,
    early: VecDeque<(Txid, BTreeMap<u32, Told>)>,
}

/// An output that may be an HTLC's.
struct Place {
    sat: u64,
    script: ScriptBuf,
    htlc: Option<HtlcView>,
}

/// What lnd said of an output.
struct Told {
    script: ScriptBuf,
    htlc: HtlcView,
}

impl Htlcs {
    /// lnd asks for the signature on an HTLC.
    pub(super) fn note(&mut self, asked: &AskedHtlc) {
        let (txid, vout) = (asked.output.txid, asked.output.vout);
        let told = Told::from(asked);
        if let Some(places) = self.signed.get_mut(&txid) {
            return places.get_mut(&vout).into_iter().for_each(|place| place.take(&told));
        }
        match self.early.iter_mut().find(|(early, _)| *early == txid) {
            Some((_, htlcs)) if htlcs.len() < MAX_HTLCS => drop(htlcs.insert(vout, told)),
            Some(_) => {}
            None => {
                if self.early.len() == MAX_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back((txid, BTreeMap::from([(vout, told)])));
            }
        }
    }

    /// The commitment `txid` was signed in place of `before`; `others` are its outputs that may be HTLCs.
    pub(super) fn sign(&mut self, txid: Txid, others: &[Output], before: Option<Txid>) {
        if let Some(places) = before.and_then(|before| self.signed.remove(&before)) {
            self.outputs -= places.len();
        }
        let known = self.early.iter().position(|(early, _)| *early == txid);
        let told = known.and_then(|at| self.early.remove(at)).map(|(_, told)| told).unwrap_or_default();
        let others = others.iter().filter(|other| other.script.is_p2wsh());
        let place = |other: &Output| (other.vout, Place { sat: other.sat, script: other.script.clone(), htlc: None });
        let mut places: BTreeMap<_, _> = others.map(place).collect();
        if self.outputs + places.len() > MAX_OUTPUTS {
            return;
        }
        for (vout, told) in told {
            places.get_mut(&vout).into_iter().for_each(|place| place.take(&told));
        }
        self.outputs += places.len();
        self.signed.insert(txid, places);
    }

    /// What is known of the HTLCs of a commitment.
    pub(super) fn of(&self, txid: &Txid) -> impl Iterator<Item = &HtlcView> {
        self.signed.get(txid).into_iter().flat_map(BTreeMap::values).filter_map(|place| place.htlc.as_ref())
    }
}

impl Place {
    /// Believes what was said of it if it is that output.
    fn take(&mut self, told: &Told) {
        if (self.sat, &self.script) == (told.htlc.amount_sat, &told.script) {
            self.htlc = Some(told.htlc.clone());
        }
    }
}

impl From<&AskedHtlc> for Told {
    fn from(asked: &AskedHtlc) -> Self {
        let htlc = HtlcView {
            incoming: !asked.outgoing,
            amount_sat: asked.sat,
            payment_hash: PaymentHash::Hash160(asked.payment_hash160),
            cltv_expiry: asked.expiry_height,
        };
        Self { script: asked.script.clone(), htlc }
    }
}
