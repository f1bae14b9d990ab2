//! What the signer knows of an lnd node's channels: learnt from the transactions that it is asked to sign.
//!
//! A channel begins with the secret that revokes its commitments (DeriveSharedKey, a *reservation*), and is known from the
//! first commitment of its counterparty on, number 0, which also tells how commitments are numbered (BOLT 3 hides the
//! number behind a mask). Only commitments of the counterparty pay our static payment key: that tells the two sides' apart,
//! unless we own so little that neither may have an output of ours; such a commitment is taken for either side's.

use std::collections::{BTreeMap, HashMap};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use super::adopt::AdoptError;
use super::channel::{Asked, Channel, Output, Side, VERSION, tweak};
use super::htlcs::Htlcs;
use super::keys::Keys;
use super::messages::Announced;
use super::states::States;
use super::transactions::AskedHtlc;
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::reasons::{Reason, Refusal};

const CHANNEL: &str = "lnd/channel/";
const RESERVATION: &str = "lnd/reservation/";

/// Channels, and reservations that became none: more are refused, or the oldest forgotten.
const MAX_CHANNELS: usize = 16_384;
const MAX_RESERVATIONS: usize = 16_384;

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
    /// By the counterparty's commitment that was signed last.
    by_commitment: HashMap<Txid, OutPoint>,
    states: States,
    htlcs: Htlcs,
    /// Of all channels together.
    unproven_states: u64,
}

/// Commitments' secrets were made for a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reservation {
    version: u8,
    /// Of the key that the secrets come from.
    root_index: u32,
}

/// A commitment that may be signed, and what its channel is then.
pub struct Judged {
    /// Whose it is.
    pub side: Side,
    /// Counted from 0.
    pub number: u64,
    /// The channel begins with it.
    pub is_new: bool,
    /// It is ours and closes the channel: not the first one, which lnd has signed when a channel opens.
    pub closes: bool,
    /// What the counterparty's last commitment pays us, in sat.
    pub ours_sat: u64,
    /// By how much that is less than what the one before paid, in sat.
    pub decrease_sat: u64,
    /// What its first commitment gave the counterparty, in sat.
    pub given_sat: u64,
    /// Of the channel, before this commitment, if anybody keeps count.
    pub unproven_states: Option<u64>,
    /// The channel's, as far as lnd told it.
    pub peer: Option<PublicKey>,
    others: Vec<Output>,
    funding: OutPoint,
    channel: Channel,
}

/// A channel's entry is damaged, or newer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} cannot be read")]
pub struct ChannelUnreadable(String);

impl Channels {
    /// Takes the channels out of a node's entries.
    pub fn restore(entries: &mut BTreeMap<String, Vec<u8>>) -> Result<Self, ChannelUnreadable> {
        let states = States::restore(entries).map_err(|error| ChannelUnreadable(error.0))?;
        let mut channels = Self { states, ..Self::default() };
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
            self.by_commitment.extend(channel.last().map(|last| (last.txid, outpoint)));
            self.unproven_states += channel.unproven_states;
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

    /// The channel whose counterparty's last commitment this is.
    pub fn with_commitment(&self, txid: &Txid) -> Option<OutPoint> {
        self.by_commitment.get(txid).copied()
    }

    /// States of all channels that were replaced and are not proven to be revoked; `None` if lnd has no watchtower.
    pub fn unproven_states(&self) -> Option<u64> {
        self.states.watched().then_some(self.unproven_states)
    }

    /// lnd speaks with a watchtower. Returns the changed entry.
    pub fn watch(&mut self) -> Option<Put> {
        self.states.watch()
    }

    /// An HTLC is signed for the counterparty, said to be behind this output of its commitment.
    pub fn htlc(&mut self, htlc: &AskedHtlc) {
        self.states.htlc(htlc.output, &htlc.script);
        self.htlcs.note(htlc);
    }

    /// All channels, and what is known of their HTLCs.
    pub(super) fn all(&self) -> (impl Iterator<Item = (&OutPoint, &Channel)>, &Htlcs) {
        (self.channels.iter(), &self.htlcs)
    }

    /// The number of a commitment of the counterparty's that is asked for, if there is one to hold it against.
    pub(super) fn asked_number(&self, asked: &Asked) -> Option<u64> {
        let channel = self.channels.get(&asked.funding).filter(|channel| !channel.adopted)?;
        let number = channel.number(asked);
        (channel.side(asked, number) == Side::Counterparty).then_some(number)
    }

    /// A channel is announced: the node at its other end is the one that its first announcement names. Returns the changed
    /// entry.
    pub(super) fn announce(&mut self, announced: &Announced) -> Result<Option<Put>, Refusal> {
        let Some(funding) = self.by_index.get(&announced.our_index) else { return Ok(None) };
        let channel = self.channels.get_mut(funding).expect("indices are those of channels");
        let foreign = |detail: String| Err(Refusal::new(Reason::GossipForeign, detail));
        if channel.counterparty_key != announced.counterparty_key {
            return foreign(format!("the other funding key is not that of the channel {funding}"));
        }
        match channel.peer {
            Some(peer) if peer != announced.peer => {
                foreign(format!("the channel {funding} is one with {peer}, not with {}", announced.peer))
            }
            Some(_) => Ok(None),
            None => {
                channel.peer = Some(announced.peer);
                Ok(Some(put(&format!("{CHANNEL}{funding}"), Some(&*channel))))
            }
        }
    }

    /// A penalty was signed for this output, the counterparty's balance behind `script`. Returns the number of the state
    /// that this proves to be revoked, and the changed entries.
    pub fn prove(&mut self, output: &OutPoint, script: &ScriptBuf) -> Option<(u64, Vec<Put>)> {
        let (funding, number, put_state) = self.states.prove(output, script)?;
        let channel = self.channels.get_mut(&funding)?;
        channel.unproven_states = channel.unproven_states.saturating_sub(1);
        channel.revoked = channel.revoked.max(Some(number));
        self.unproven_states = self.unproven_states.saturating_sub(1);
        Some((number, vec![put_state, put(&format!("{CHANNEL}{funding}"), Some(&*channel))]))
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

    /// Takes a channel over that was opened before. Returns the changed entries; none if it is known.
    pub(super) fn adopt(&mut self, funding: OutPoint, channel: Channel) -> Result<Option<Vec<Put>>, AdoptError> {
        if self.channels.contains_key(&funding) {
            return Ok(None);
        }
        let index = channel.our_index;
        let other_root = |known: &Reservation| known.root_index != channel.root_index;
        if self.by_index.contains_key(&index) || self.reservations.get(&index).is_some_and(other_root) {
            return Err(AdoptError::KeyInUse);
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(AdoptError::Full);
        }
        let mut puts = vec![put(&format!("{CHANNEL}{funding}"), Some(&channel))];
        if self.reservations.remove(&index).is_some() {
            puts.push(put::<Reservation>(&format!("{RESERVATION}{index}"), None));
        }
        self.by_index.insert(index, funding);
        self.channels.insert(funding, channel);
        Ok(Some(puts))
    }

    /// Judges a commitment. `thawed` is asked before a channel takes a new state. Nothing is remembered before it is
    /// [recorded](Self::record).
    pub fn judge(&self, asked: &Asked, thawed: impl Fn() -> Result<(), Refusal>) -> Result<Judged, Refusal> {
        let Some(channel) = self.channels.get(&asked.funding) else {
            thawed()?;
            let channel = self.begin(asked)?;
            return Ok(Judged::new(asked, Side::Counterparty, 0, channel, None, self.states.watched()));
        };
        channel.require_same(asked)?;
        let (number, before_sat) = (channel.number(asked), channel.ours_sat());
        let mut channel = channel.clone();
        let side = channel.take(asked, number, thawed)?;
        Ok(Judged::new(asked, side, number, channel, Some(before_sat), self.states.watched()))
    }

    /// Remembers what was judged. Returns the changed entries.
    pub fn record(&mut self, judged: Judged) -> Vec<Put> {
        let Judged { funding, mut channel, others, .. } = judged;
        let before = self.channels.get(&funding);
        if before == Some(&channel) {
            return Vec::new();
        }
        let numbered = |channel: &Channel| channel.last().map(|last| (last.number, last.txid));
        let (before, last) = (before.and_then(numbered), numbered(&channel));
        let mut puts = Vec::new();
        if let Some((number, txid)) = last.filter(|last| before != Some(*last)) {
            if let Some((_, replaced)) = &before {
                self.by_commitment.remove(replaced);
            }
            self.by_commitment.insert(txid, funding);
            self.htlcs.sign(txid, &others, before.map(|(_, replaced)| replaced));
            let (more, changed) = self.states.sign(funding, (number, txid), &others, before);
            channel.unproven_states += more;
            self.unproven_states += more;
            puts = changed;
        }
        puts.push(put(&format!("{CHANNEL}{funding}"), Some(&channel)));
        if judged.is_new {
            self.reservations.remove(&channel.our_index);
            puts.push(put::<Reservation>(&format!("{RESERVATION}{}", channel.our_index), None));
            self.by_index.insert(channel.our_index, funding);
        }
        self.channels.insert(funding, channel);
        puts
    }

    /// Judges a mutual close that pays us `ours_sat` and costs `fee_sat` together. Returns the peer, as far as lnd told it.
    pub fn judge_close(&self, funding: &OutPoint, ours_sat: u64, fee_sat: u64) -> Result<Option<PublicKey>, Refusal> {
        let channel = self.channels.get(funding).ok_or_else(|| unknown(funding))?;
        let owed_sat = channel.ours_sat();
        if ours_sat.saturating_add(fee_sat) >= owed_sat {
            return Ok(channel.peer);
        }
        let detail = format!("it pays us {ours_sat} sat at a fee of {fee_sat} sat; the last commitment {owed_sat} sat");
        let fact = Fact::number("close_pays_us", ours_sat, Unit::Sat).at_least(owed_sat.saturating_sub(fee_sat));
        Err(Refusal::new(Reason::CloseValue, detail).with_fact(fact))
    }

    /// A mutual close is signed. Returns the changed entry.
    pub fn close(&mut self, funding: &OutPoint) -> Option<Put> {
        let channel = self.channels.get_mut(funding)?;
        let begins = !std::mem::replace(&mut channel.closing, true);
        begins.then(|| put(&format!("{CHANNEL}{funding}"), Some(&*channel)))
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

    /// The channel that begins with the counterparty's commitment number 0.
    fn begin(&self, asked: &Asked) -> Result<Channel, Refusal> {
        if let Some(other) = self.by_index.get(&asked.our_index) {
            let detail = format!("funding key {} belongs to the channel {other}", asked.our_index);
            return Err(Refusal::new(Reason::ChannelUnknown, detail));
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(Refusal::new(Reason::NodeBusy, format!("the node has {MAX_CHANNELS} channels")));
        }
        let reservation = self.reservations.get(&asked.our_index).ok_or_else(|| unknown(&asked.funding))?;
        Ok(Channel::begin(asked, reservation.root_index))
    }
}

impl Judged {
    /// `before_sat` is what the commitment before paid us; a channel that begins has none.
    fn new(asked: &Asked, side: Side, number: u64, channel: Channel, before_sat: Option<u64>, watched: bool) -> Self {
        let closes = side == Side::Holder && channel.closes_with(&asked.txid);
        let (ours_sat, given_sat, is_new) = (channel.ours_sat(), channel.given_sat, before_sat.is_none());
        let decrease_sat = before_sat.unwrap_or_default().saturating_sub(ours_sat);
        let (unproven_states, peer) = (watched.then_some(channel.unproven_states), channel.peer);
        let (funding, others) = (asked.funding, asked.others.clone());
        Self {
            side,
            number,
            is_new,
            closes,
            ours_sat,
            decrease_sat,
            given_sat,
            unproven_states,
            peer,
            others,
            funding,
            channel,
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
