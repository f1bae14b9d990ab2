//! One channel of an lnd node, as its commitments tell: whose each is, whether it may follow, and what it closes.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use super::keys::{Family, KeyPath, Keys};
use super::shared_key;
use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

pub(super) const VERSION: u8 = 1;

/// An output of ours that is worth more than this is in every commitment of the counterparty: no dust limit is higher.
pub(super) const SURELY_AN_OUTPUT_SAT: u64 = 10_000;

/// By how much our commitments may be behind the counterparty's: a peer that is slow to sign holds back updates of ours,
/// which are no more than we may offer HTLCs (BOLT 2: 483), and a few fees.
const MAX_APART: u64 = 1_024;

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    pub(super) version: u8,
    /// What the funding output holds.
    pub capacity_sat: u64,
    /// What the counterparty's first commitment gave it.
    #[serde(default)]
    pub given_sat: u64,
    /// The index of our funding key.
    pub our_index: u32,
    /// The counterparty's funding key.
    pub counterparty_key: PublicKey,
    /// The index of the key that our commitments' secrets come from.
    pub(super) root_index: u32,
    /// Hides the numbers of commitments.
    mask: u64,
    /// The index of our payment key, once a commitment paid it.
    payment_index: Option<u32>,
    /// The counterparty's commitment that was signed last.
    counterparty: Commitment,
    /// That one may have been ours: we own too little to tell.
    is_either: bool,
    /// Our first commitment, which lnd has signed when a channel opens, to see whether it could.
    first: Option<Txid>,
    /// Our commitment that was signed to close the channel.
    holder: Option<Commitment>,
    /// A mutual close was signed.
    pub(super) closing: bool,
    /// States that were replaced and are not proven to be revoked, as far as anybody keeps count ([`super::states`]).
    #[serde(default)]
    pub unproven_states: u64,
    /// The newest state that is proven to be revoked.
    #[serde(default)]
    pub revoked: Option<u64>,
    /// It was taken over, and no commitment of the counterparty's was seen yet: that has about the number of ours.
    #[serde(default)]
    pub(super) adopted: bool,
    /// The counterparty's node, as lnd told it: in the channel's announcement, or in the backup it was taken over from.
    #[serde(default)]
    pub peer: Option<PublicKey>,
}

/// What is known of a channel that is taken over.
pub(super) struct Adoption {
    pub(super) capacity_sat: u64,
    pub(super) our_index: u32,
    pub(super) counterparty_key: PublicKey,
    pub(super) root_index: u32,
    pub(super) mask: u64,
    pub(super) payment_index: u32,
    /// Of our newest commitment.
    pub(super) number: u64,
    pub(super) peer: PublicKey,
}

/// A commitment that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// Counted from 0.
    pub number: u64,
    /// Its id.
    pub txid: Txid,
    /// What it pays our payment key; nothing if the commitment is ours.
    pub ours_sat: u64,
    /// Its other outputs but the anchors: the counterparty's balance, and HTLCs.
    #[serde(default)]
    pub others: u32,
    /// What they hold.
    #[serde(default)]
    pub others_sat: u64,
}

/// A commitment that is to be signed, as its transaction tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The funding output.
    pub funding: OutPoint,
    /// What it holds.
    pub capacity_sat: u64,
    /// The index of our funding key in it, and the counterparty's key.
    pub our_index: u32,
    /// The other key.
    pub counterparty_key: PublicKey,
    /// The number behind its mask.
    pub obscured: u64,
    /// Of the commitment.
    pub txid: Txid,
    /// Outputs that pay payment keys of ours: the key's index, and sat.
    pub pays: Vec<(u32, u64)>,
    /// The other outputs but the two anchors.
    pub others: Vec<Output>,
}

/// An output of a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its place.
    pub vout: u32,
    /// What it holds.
    pub sat: u64,
    /// Whom it pays.
    pub script: ScriptBuf,
}

/// Whose commitment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The counterparty's.
    Counterparty,
    /// Ours.
    Holder,
    /// We own too little to tell.
    Either,
}

impl Channel {
    /// A channel that begins with this commitment of its counterparty, number 0.
    pub(super) fn begin(asked: &Asked, root_index: u32) -> Self {
        let payment_index = asked.pays.first().map(|(index, _)| *index);
        let ours_sat = asked.pays.iter().filter(|(index, _)| Some(*index) == payment_index).map(|(_, sat)| sat).sum();
        Self {
            version: VERSION,
            capacity_sat: asked.capacity_sat,
            given_sat: asked.others_sat(),
            our_index: asked.our_index,
            counterparty_key: asked.counterparty_key,
            root_index,
            mask: asked.obscured,
            payment_index,
            counterparty: Commitment::of(asked, 0, ours_sat),
            is_either: false,
            first: None,
            holder: None,
            closing: false,
            unproven_states: 0,
            revoked: None,
            adopted: false,
            peer: None,
        }
    }

    /// A channel that was opened before.
    pub(super) fn adopt(known: &Adoption) -> Self {
        Self {
            version: VERSION,
            capacity_sat: known.capacity_sat,
            given_sat: 0,
            our_index: known.our_index,
            counterparty_key: known.counterparty_key,
            root_index: known.root_index,
            mask: known.mask,
            payment_index: Some(known.payment_index),
            counterparty: Commitment {
                number: known.number,
                txid: Txid::all_zeros(),
                ours_sat: 0,
                others: 0,
                others_sat: 0,
            },
            is_either: false,
            first: None,
            holder: None,
            closing: false,
            unproven_states: 0,
            revoked: None,
            adopted: true,
            peer: Some(known.peer),
        }
    }

    /// The same, where we own this much.
    pub(super) fn owning(mut self, ours_sat: u64) -> Self {
        self.counterparty.ours_sat = ours_sat;
        self.counterparty.others_sat = self.capacity_sat.saturating_sub(ours_sat);
        self
    }

    /// The indices of our funding and payment keys.
    pub(super) fn indices(&self) -> (u32, Option<u32>) {
        (self.our_index, self.payment_index)
    }

    /// The counterparty's commitment that was signed last, if that was here.
    pub(super) fn last(&self) -> Option<&Commitment> {
        Some(&self.counterparty).filter(|_| !self.adopted)
    }

    /// The commitment's number.
    pub(super) fn number(&self, asked: &Asked) -> u64 {
        asked.obscured ^ self.mask
    }

    /// Takes a commitment, whosever it is. `thawed` is asked before there is a new state.
    pub(super) fn take(
        &mut self,
        asked: &Asked,
        number: u64,
        thawed: impl Fn() -> Result<(), Refusal>,
    ) -> Result<Side, Refusal> {
        let side = match self.side(asked, number) {
            // What is frozen closes, and takes no new state.
            Side::Either if thawed().is_err() => Side::Holder,
            side => side,
        };
        match side {
            Side::Counterparty => self.advance(asked, number, thawed)?,
            Side::Either => {
                self.advance(asked, number, thawed)?;
                self.is_either = true;
            }
            Side::Holder => self.close_with(asked, number)?,
        }
        Ok(side)
    }

    /// Whether this commitment of ours was signed to close the channel.
    pub(super) fn closes_with(&self, txid: &Txid) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.txid == *txid)
    }

    /// The counterparty's commitment that was signed last; of a channel that was taken over, what its backup told.
    pub(super) fn newest(&self) -> &Commitment {
        &self.counterparty
    }

    /// Our commitment that was signed to close the channel.
    pub(super) fn holder(&self) -> Option<&Commitment> {
        self.holder.as_ref()
    }

    /// Whether something was signed that closes it.
    pub(super) fn is_closing(&self) -> bool {
        self.closing || self.holder.is_some()
    }

    /// What the counterparty's last commitment pays us, in sat.
    pub fn ours_sat(&self) -> u64 {
        self.counterparty.ours_sat
    }

    /// The number of the commitment of ours that was signed to close the channel, or may have been: the first one is signed
    /// when the channel opens, and the same again when it closes without an update.
    pub(super) fn ours(&self) -> Option<u64> {
        let either = self.is_either.then_some(self.counterparty.number);
        let first = self.first.filter(|_| self.counterparty.number == 0).map(|_| 0);
        self.holder.as_ref().map(|holder| holder.number).or(either).or(first)
    }

    /// The per-commitment point of our commitment with this number.
    pub(super) fn point(&self, keys: &Keys, number: u64) -> Option<PublicKey> {
        let funding = keys.public(KeyPath::Channel(Family::Multisig, self.our_index));
        let root_key = keys.secret(KeyPath::Channel(Family::RevocationRoot, self.root_index));
        let root = shared_key::shared(&funding, &root_key);
        let secret = SecretKey::from_slice(&commitment_secret(&root, number)).ok()?;
        Some(secret.public_key(keys.secp()))
    }

    pub(super) fn require_same(&self, asked: &Asked) -> Result<(), Refusal> {
        let told = (asked.capacity_sat, asked.our_index, asked.counterparty_key);
        if told == (self.capacity_sat, self.our_index, self.counterparty_key) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::FundingMismatch,
            "the funding output's amount or keys are not those the channel began with",
        ))
    }

    /// What it pays our payment key of this channel; `None` if there is no such output.
    fn pays_us(&self, asked: &Asked) -> Option<u64> {
        let ours = |index: &u32| self.payment_index.is_none_or(|known| known == *index);
        let mut sats = asked.pays.iter().filter(|(index, _)| ours(index)).map(|(_, sat)| *sat).peekable();
        sats.peek()?;
        Some(sats.sum())
    }

    pub(super) fn side(&self, asked: &Asked, number: u64) -> Side {
        let holder = [self.first, self.holder.as_ref().map(|holder| holder.txid)];
        if holder.contains(&Some(asked.txid)) {
            return Side::Holder;
        }
        let last = &self.counterparty;
        if asked.txid == last.txid {
            return if self.is_either { Side::Either } else { Side::Counterparty };
        }
        if self.pays_us(asked).is_some() {
            return Side::Counterparty;
        }
        let is_first_of_ours = number == 0 && last.number == 0;
        let follows = self.adopted || number == last.number || number == last.number + 1;
        match () {
            () if is_first_of_ours || last.ours_sat > SURELY_AN_OUTPUT_SAT || !follows => Side::Holder,
            // Closing has begun: there is nothing new of the counterparty's.
            () if self.is_closing() => Side::Holder,
            () => Side::Either,
        }
    }

    /// A commitment of the counterparty: the last one, anew or changed as lnd does after a failed attempt, or the next.
    fn advance(&mut self, asked: &Asked, number: u64, thawed: impl Fn() -> Result<(), Refusal>) -> Result<(), Refusal> {
        let last = self.counterparty.number;
        let fact = Fact::count("commitment_number", number);
        if self.is_closing() {
            return Err(Refusal::new(Reason::UpdateAfterClose, "the channel is closing").with_fact(fact));
        }
        let follows = match self.adopted {
            true => number.abs_diff(last) <= MAX_APART,
            false => number == last || number == last + 1,
        };
        if !follows {
            let detail = format!("commitment {number} follows neither {last} nor repeats it");
            return Err(Refusal::new(Reason::CommitmentOrder, detail).with_fact(fact.exactly(last + 1)));
        }
        if asked.txid != self.counterparty.txid {
            thawed()?;
        }
        let ours_sat = self.pays_us(asked).unwrap_or(0);
        self.payment_index = self.payment_index.or(asked.pays.first().map(|(index, _)| *index));
        self.counterparty = Commitment::of(asked, number, ours_sat);
        (self.is_either, self.adopted) = (false, false);
        Ok(())
    }

    /// A commitment of ours: the first, as long as nothing happened; else the one that closes the channel, and then no other.
    fn close_with(&mut self, asked: &Asked, number: u64) -> Result<(), Refusal> {
        if number == 0 && self.counterparty.number == 0 && self.holder.is_none() {
            match self.first {
                Some(first) if first != asked.txid => {}
                _ => {
                    self.first = Some(asked.txid);
                    return Ok(());
                }
            }
        }
        let last = self.counterparty.number;
        if number < last.saturating_sub(MAX_APART) {
            let detail = format!("commitment {number} of ours is old: the counterparty's last one is {last}");
            let fact = Fact::count("commitment_number", number).at_least(last - MAX_APART);
            return Err(Refusal::new(Reason::CommitmentRevoked, detail).with_fact(fact));
        }
        match &self.holder {
            Some(holder) if holder.txid == asked.txid => Ok(()),
            Some(holder) => {
                let detail =
                    format!("commitment {} of ours was signed to close the channel, not {number}", holder.number);
                Err(Refusal::new(Reason::UpdateAfterClose, detail).with_fact(Fact::count("commitment_number", number)))
            }
            None => {
                self.holder = Some(Commitment::of(asked, number, 0));
                Ok(())
            }
        }
    }
}

impl Commitment {
    fn of(asked: &Asked, number: u64, ours_sat: u64) -> Self {
        Self { number, txid: asked.txid, ours_sat, others: asked.others.len() as u32, others_sat: asked.others_sat() }
    }
}

impl Asked {
    /// What the outputs that are neither ours nor anchors hold.
    fn others_sat(&self) -> u64 {
        self.others.iter().map(|other| other.sat).sum()
    }
}

/// BOLT 3, "Per-commitment Secret Requirements", for the commitment with this number.
fn commitment_secret(root: &[u8; 32], number: u64) -> [u8; 32] {
    let index = (1u64 << 48) - 1 - (number & ((1 << 48) - 1));
    let mut secret = *root;
    for bit in (0..48).rev().filter(|bit| index >> bit & 1 == 1) {
        secret[bit / 8] ^= 1 << (bit % 8);
        secret = sha256::Hash::hash(&secret).to_byte_array();
    }
    secret
}

/// What is added to a key for a commitment: `SHA256(per_commitment_point || basepoint)` (BOLT 3, "Key Derivation").
pub fn tweak(point: &PublicKey, basepoint: &PublicKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(&point.serialize());
    engine.input(&basepoint.serialize());
    sha256::Hash::from_engine(engine).to_byte_array()
}
