//! What the signer knows of an lnd node's channels: learnt from the transactions that it is asked to sign.
//!
//! A channel begins with the secret that revokes its commitments (DeriveSharedKey, a *reservation*), and is known from the
//! first commitment of its counterparty on, number 0, which also tells how commitments are numbered (BOLT 3 hides the
//! number behind a mask). Only commitments of the counterparty pay our static payment key: that tells the two sides' apart,
//! unless we own so little that neither may have an output of ours; such a commitment is taken for either side's.

use std::collections::{BTreeMap, HashMap};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::keys::{Family, KeyPath, Keys};
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::reasons::{Reason, Refusal};

const CHANNEL: &str = "lnd/channel/";
const RESERVATION: &str = "lnd/reservation/";
const VERSION: u8 = 1;

/// Channels, and reservations that became none: more are refused, or the oldest forgotten.
const MAX_CHANNELS: usize = 16_384;
const MAX_RESERVATIONS: usize = 16_384;

/// An output of ours that is worth more than this is in every commitment of the counterparty: no dust limit is higher.
const SURELY_AN_OUTPUT_SAT: u64 = 10_000;

/// By how much our commitments may be behind the counterparty's: a peer that is slow to sign holds back updates of ours,
/// which are no more than we may offer HTLCs (BOLT 2: 483), and a few fees.
const MAX_APART: u64 = 1_024;

/// All channels of a node.
#[derive(Default)]
pub struct Channels {
    channels: BTreeMap<OutPoint, Channel>,
    /// By the index of our funding key.
    reservations: BTreeMap<u32, Reservation>,
    /// By the index of our funding key: the channel it became.
    by_index: HashMap<u32, OutPoint>,
    /// Points that were computed of commitments that may be ours.
    points: HashMap<OutPoint, (u64, PublicKey)>,
}

/// Commitments' secrets were made for a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reservation {
    version: u8,
    /// Of the key that the secrets come from.
    root_index: u32,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    version: u8,
    /// What the funding output holds.
    pub capacity_sat: u64,
    /// The index of our funding key.
    pub our_index: u32,
    /// The counterparty's funding key.
    pub counterparty_key: PublicKey,
    /// The index of the key that our commitments' secrets come from.
    root_index: u32,
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
    closing: bool,
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

/// A channel's entry is damaged, or newer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} cannot be read")]
pub struct ChannelUnreadable(String);

impl Channels {
    /// Takes the channels out of a node's entries.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, ChannelUnreadable> {
        let mut channels = Self::default();
        for (key, value) in entries.extract_if(.., |key, _| key.starts_with(CHANNEL) || key.starts_with(RESERVATION)) {
            channels.take(&key, &value).ok_or(ChannelUnreadable(key))?;
        }
        Ok(channels)
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Option<()> {
        if let Some(outpoint) = key.strip_prefix(CHANNEL) {
            let channel: Channel = serde_json::from_slice(value).ok()?;
            let outpoint = outpoint.parse().ok().filter(|_| channel.version == VERSION)?;
            self.by_index.insert(channel.our_index, outpoint);
            self.channels.insert(outpoint, channel);
        } else {
            let reservation: Reservation = serde_json::from_slice(value).ok()?;
            let index = key.strip_prefix(RESERVATION)?.parse().ok().filter(|_| reservation.version == VERSION)?;
            self.reservations.insert(index, reservation);
        }
        Some(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// The channel with this funding output.
    pub fn get(&self, funding: &OutPoint) -> Option<&Channel> {
        self.channels.get(funding)
    }

    /// The secrets of a channel with our funding key `our_index` are told: they come from the key `root_index`. A channel
    /// has one root: the same question again changes nothing, another one is refused.
    pub fn reserve(&mut self, our_index: u32, root_index: u32) -> Result<Vec<Put>, Refusal> {
        let known = match (self.by_index.get(&our_index), self.reservations.get(&our_index)) {
            (Some(funding), _) => self.channels.get(funding).map(|channel| channel.root_index),
            (None, Some(reservation)) => Some(reservation.root_index),
            (None, None) => None,
        };
        match known {
            Some(known) if known == root_index => return Ok(Vec::new()),
            Some(known) => {
                let detail = format!("the channel's secrets come from key {known}, not {root_index}");
                return Err(Refusal::new(Reason::SecretPurpose, detail));
            }
            None => {}
        }
        let reservation = Reservation { version: VERSION, root_index };
        let mut puts = vec![put(&format!("{RESERVATION}{our_index}"), Some(&reservation))];
        self.reservations.insert(our_index, reservation);
        if self.reservations.len() > MAX_RESERVATIONS
            && let Some((oldest, _)) = self.reservations.pop_first()
        {
            puts.push(put::<Reservation>(&format!("{RESERVATION}{oldest}"), None));
        }
        Ok(puts)
    }

    /// Judges a commitment and remembers it. `thawed` is asked before a channel takes a new state.
    pub fn commitment(
        &mut self,
        asked: &Asked,
        thawed: impl Fn() -> Result<(), Refusal>,
    ) -> Result<(Side, u64, Vec<Put>), Refusal> {
        if !self.channels.contains_key(&asked.funding) {
            thawed()?;
            return self.begin(asked).map(|puts| (Side::Counterparty, 0, puts));
        }
        let channel = self.channels.get_mut(&asked.funding).ok_or_else(|| unknown(&asked.funding))?;
        channel.require_same(asked)?;
        let number = asked.obscured ^ channel.mask;
        let side = match channel.side(asked, number) {
            // What is frozen closes, and takes no new state.
            Side::Either if thawed().is_err() => Side::Holder,
            side => side,
        };
        let before = channel.clone();
        match side {
            Side::Counterparty => channel.advance(asked, number, thawed)?,
            Side::Either => {
                channel.advance(asked, number, thawed)?;
                channel.is_either = true;
            }
            Side::Holder => channel.close_with(asked, number)?,
        }
        let changed = (before != *channel).then(|| put(&format!("{CHANNEL}{}", asked.funding), Some(&*channel)));
        Ok((side, number, changed.into_iter().collect()))
    }

    /// A mutual close that pays us `ours_sat` and costs `fee_sat` together.
    pub fn mutual_close(&mut self, funding: &OutPoint, ours_sat: u64, fee_sat: u64) -> Result<Vec<Put>, Refusal> {
        let channel = self.channels.get_mut(funding).ok_or_else(|| unknown(funding))?;
        let owed_sat = channel.counterparty.ours_sat;
        if ours_sat.saturating_add(fee_sat) < owed_sat {
            let detail =
                format!("it pays us {ours_sat} sat at a fee of {fee_sat} sat; the last commitment {owed_sat} sat");
            let fact = Fact::number("close_pays_us", ours_sat, Unit::Sat).at_least(owed_sat.saturating_sub(fee_sat));
            return Err(Refusal::new(Reason::CloseValue, detail).with_fact(fact));
        }
        if std::mem::replace(&mut channel.closing, true) {
            return Ok(Vec::new());
        }
        Ok(vec![put(&format!("{CHANNEL}{funding}"), Some(&*channel))])
    }

    /// Whether `tweaked_by` makes the key `basepoint` that of a commitment of ours that was signed to close a channel, or
    /// may have been: only what these pay is claimed by keys that belong to a commitment of ours.
    pub fn signed_to_close(&mut self, keys: &Keys, basepoint: &PublicKey, tweaked_by: &[u8; 32]) -> bool {
        let Self { channels, points, .. } = self;
        channels.iter().any(|(funding, channel)| {
            let Some(number) = channel.ours() else { return false };
            let point = match points.get(funding) {
                Some((known, point)) if *known == number => *point,
                _ => {
                    let Some(point) = channel.point(keys, number) else { return false };
                    points.insert(*funding, (number, point));
                    point
                }
            };
            tweak(&point, basepoint) == *tweaked_by
        })
    }

    /// A channel begins with the counterparty's commitment number 0.
    fn begin(&mut self, asked: &Asked) -> Result<Vec<Put>, Refusal> {
        if let Some(other) = self.by_index.get(&asked.our_index) {
            let detail = format!("funding key {} belongs to the channel {other}", asked.our_index);
            return Err(Refusal::new(Reason::ChannelUnknown, detail));
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(Refusal::new(Reason::NodeBusy, format!("the node has {MAX_CHANNELS} channels")));
        }
        let Some(reservation) = self.reservations.remove(&asked.our_index) else { return Err(unknown(&asked.funding)) };
        let payment_index = asked.pays.first().map(|(index, _)| *index);
        let ours_sat = asked.pays.iter().filter(|(index, _)| Some(*index) == payment_index).map(|(_, sat)| sat).sum();
        let channel = Channel {
            version: VERSION,
            capacity_sat: asked.capacity_sat,
            our_index: asked.our_index,
            counterparty_key: asked.counterparty_key,
            root_index: reservation.root_index,
            mask: asked.obscured,
            payment_index,
            counterparty: Commitment { number: 0, txid: asked.txid, ours_sat },
            is_either: false,
            first: None,
            holder: None,
            closing: false,
        };
        let puts = vec![
            put(&format!("{CHANNEL}{}", asked.funding), Some(&channel)),
            put::<Reservation>(&format!("{RESERVATION}{}", asked.our_index), None),
        ];
        self.by_index.insert(asked.our_index, asked.funding);
        self.channels.insert(asked.funding, channel);
        Ok(puts)
    }
}

impl Channel {
    /// What the counterparty's last commitment pays us, in sat.
    pub fn ours_sat(&self) -> u64 {
        self.counterparty.ours_sat
    }

    /// The number of the commitment of ours that was signed to close the channel, or may have been: the first one is signed
    /// when the channel opens, and the same again when it closes without an update.
    fn ours(&self) -> Option<u64> {
        let either = self.is_either.then_some(self.counterparty.number);
        let first = self.first.filter(|_| self.counterparty.number == 0).map(|_| 0);
        self.holder.as_ref().map(|holder| holder.number).or(either).or(first)
    }

    /// The per-commitment point of our commitment with this number.
    fn point(&self, keys: &Keys, number: u64) -> Option<PublicKey> {
        let funding = keys.public(KeyPath::Channel(Family::Multisig, self.our_index));
        let root_key = keys.secret(KeyPath::Channel(Family::RevocationRoot, self.root_index));
        let root = super::shared_key::shared(&funding, &root_key);
        let secret = SecretKey::from_slice(&commitment_secret(&root, number)).ok()?;
        Some(secret.public_key(keys.secp()))
    }

    fn require_same(&self, asked: &Asked) -> Result<(), Refusal> {
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

    fn side(&self, asked: &Asked, number: u64) -> Side {
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
        let follows = number == last.number || number == last.number + 1;
        match () {
            () if is_first_of_ours || last.ours_sat > SURELY_AN_OUTPUT_SAT || !follows => Side::Holder,
            // Closing has begun: there is nothing new of the counterparty's.
            () if self.closing || self.holder.is_some() => Side::Holder,
            () => Side::Either,
        }
    }

    /// A commitment of the counterparty: the last one, anew or changed as lnd does after a failed attempt, or the next.
    fn advance(&mut self, asked: &Asked, number: u64, thawed: impl Fn() -> Result<(), Refusal>) -> Result<(), Refusal> {
        let last = self.counterparty.number;
        let fact = Fact::count("commitment_number", number);
        if self.closing || self.holder.is_some() {
            return Err(Refusal::new(Reason::UpdateAfterClose, "the channel is closing").with_fact(fact));
        }
        if number != last && number != last + 1 {
            let detail = format!("commitment {number} follows neither {last} nor repeats it");
            return Err(Refusal::new(Reason::CommitmentOrder, detail).with_fact(fact.exactly(last + 1)));
        }
        if asked.txid != self.counterparty.txid {
            thawed()?;
        }
        let ours_sat = self.pays_us(asked).unwrap_or(0);
        self.payment_index = self.payment_index.or(asked.pays.first().map(|(index, _)| *index));
        self.counterparty = Commitment { number, txid: asked.txid, ours_sat };
        self.is_either = false;
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
                self.holder = Some(Commitment { number, txid: asked.txid, ours_sat: 0 });
                Ok(())
            }
        }
    }
}

fn unknown(funding: &OutPoint) -> Refusal {
    let detail = format!("the channel {funding} was not opened through this signer");
    Refusal::new(Reason::ChannelUnknown, detail)
}

fn put<T: Serialize>(key: &str, value: Option<&T>) -> Put {
    let value = value.map(|value| serde_json::to_vec(value).expect("numbers and text always encode"));
    Put { key: key.to_owned(), value }
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
