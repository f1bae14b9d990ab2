//! The entries of one node's budgets in the journal: a version byte, a tag, then CBOR (RFC 8949).
//!
//! | entry | tag | holds | changes with |
//! |---|---|---|---|
//! | `budget/clock` | `c` | the latest time that was acted on | each change |
//! | `budget/spent/<window>/<number>` | `s` | one chunk of a window, and whose it is | settling |
//! | `budget/reserved/<key>` | `r` | one reservation | reserving, holding, settling, releasing |
//!
//! `<window>` is a digest of the budget's name, its fact and the values of its scopes, all of which the record repeats.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::Change;
use super::part::Part;
use super::reservation::{Charge, MAX_CHARGES, Reservation, ReservationKey, State};
use super::scope::{Scope, ScopeKey};
use super::window::{Chunk, SLOTS, Slot};
use crate::facts::FactId;

/// What the keys of all entries begin with.
pub const PREFIX: &str = "budget/";

const VERSION: u8 = 1;
const CLOCK: &str = "budget/clock";
const SPENT: &str = "budget/spent/";
const RESERVED: &str = "budget/reserved/";
const CLOCK_TAG: u8 = b'c';
const SPENT_TAG: u8 = b's';
const RESERVED_TAG: u8 = b'r';

/// An entry of the budgets cannot be read. Nothing may be permitted without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetsUnreadable {
    /// Written by a later version.
    #[error("the budgets' entry {key} has version {version}; this is version {VERSION}")]
    Newer {
        /// The entry's key.
        key: String,
        /// Its version.
        version: u8,
    },
    /// Not what a version wrote.
    #[error("the budgets' entry {0} is damaged")]
    Damaged(String),
}

impl BudgetsUnreadable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "Run the version that wrote the journal, or a later one.",
            Self::Damaged(_) => "Run `claviger journal verify`; restore a backup of the data directory if it fails.",
        }
    }
}

/// Whose window: budget, fact, values of scopes.
#[derive(Serialize, Deserialize)]
struct Owner(String, Option<String>, Vec<(String, String)>);

/// Whose, how long its amounts are kept, and slots of [`SLOT_BYTES`] each.
#[derive(Serialize, Deserialize)]
struct SpentRecord(Owner, u64, ByteBuf);

const SLOT_BYTES: usize = 8 + 8;

/// State, end, and for each charge: whose, window, held, spent.
#[derive(Serialize, Deserialize)]
struct ReservedRecord(u8, u64, Vec<(Owner, u64, u64, u64)>);

pub(super) fn clock(clock_ms: u64) -> Change {
    Change { key: CLOCK.to_owned(), value: Some(encode(CLOCK_TAG, &clock_ms)) }
}

pub(super) fn chunk(budget: &str, fact: Option<FactId>, scope: &ScopeKey, chunk: &Chunk) -> Change {
    let owner = Owner::new(budget, fact, scope);
    let slots = chunk.slots.iter().flat_map(|slot| [slot.at_ms.to_be_bytes(), slot.amount.to_be_bytes()]);
    let slots = ByteBuf::from(slots.flatten().collect::<Vec<_>>());
    let key = spent_key(&owner, chunk.number);
    Change { key, value: Some(encode(SPENT_TAG, &SpentRecord(owner, chunk.window_ms, slots))) }
}

pub(super) fn chunk_gone(budget: &str, fact: Option<FactId>, scope: &ScopeKey, number: u64) -> Change {
    Change { key: spent_key(&Owner::new(budget, fact, scope), number), value: None }
}

pub(super) fn reservation(key: &ReservationKey, reservation: Option<&Reservation>) -> Change {
    let value = reservation.map(|Reservation { state, expires_ms, charges }| {
        let charge = |charge: &Charge| {
            let owner = Owner::new(&charge.budget, charge.fact, &charge.scope);
            (owner, charge.window_ms, charge.held, charge.spent)
        };
        encode(RESERVED_TAG, &ReservedRecord(*state as u8, *expires_ms, charges.iter().map(charge).collect()))
    });
    Change { key: format!("{RESERVED}{}", hex::encode(key.0)), value }
}

/// One node's part and its clock. Keys that do not begin with [`PREFIX`] are not looked at.
pub(super) fn read<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<(Part, u64), BudgetsUnreadable> {
    let (mut part, mut clock_ms, mut latest_ms) = (Part::default(), None, 0);
    let mut windows = BTreeMap::<String, (Owner, Vec<Chunk>)>::new();
    for (key, value) in entries.into_iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        let damaged = || BudgetsUnreadable::Damaged(key.to_owned());
        match value.first() {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION => {
                return Err(BudgetsUnreadable::Newer { key: key.to_owned(), version });
            }
            _ => return Err(damaged()),
        }
        if key == CLOCK {
            clock_ms = Some(decode::<u64>(CLOCK_TAG, value).ok_or_else(damaged)?);
        } else if let Some(name) = key.strip_prefix(RESERVED) {
            let mut id = [0; 32];
            hex::decode_to_slice(name, &mut id).map_err(|_| damaged())?;
            let record: ReservedRecord = decode(RESERVED_TAG, value).ok_or_else(damaged)?;
            part.put(ReservationKey(id), record.into_reservation().ok_or_else(damaged)?);
        } else {
            let record: SpentRecord = decode(SPENT_TAG, value).ok_or_else(damaged)?;
            let number = key.rsplit('/').next().and_then(|number| number.parse().ok()).ok_or_else(damaged)?;
            if spent_key(&record.0, number) != key {
                return Err(damaged());
            }
            let SpentRecord(owner, window_ms, slots) = record;
            let chunk = Chunk { number, window_ms, slots: unpack(&slots).ok_or_else(damaged)? };
            latest_ms = latest_ms.max(chunk.last_ms());
            windows.entry(owner.id()).or_insert_with(|| (owner, Vec::new())).1.push(chunk);
        }
    }
    for (owner, mut chunks) in windows.into_values() {
        chunks.sort_by_key(|chunk| chunk.number);
        let damaged = || BudgetsUnreadable::Damaged(spent_key(&owner, chunks[0].number));
        let in_order = chunks.windows(2).all(|pair| pair[0].last_ms() <= pair[1].slots[0].at_ms);
        let (budget, fact, scope) = owner.parts().filter(|_| in_order).ok_or_else(damaged)?;
        part.window_mut(&budget, fact, &scope).chunks = chunks;
    }
    // Nothing is recorded without its time.
    match clock_ms.unwrap_or(0) {
        clock_ms if clock_ms >= latest_ms => Ok((part, clock_ms)),
        _ => Err(BudgetsUnreadable::Damaged(CLOCK.to_owned())),
    }
}

impl Owner {
    fn new(budget: &str, fact: Option<FactId>, scope: &ScopeKey) -> Self {
        let values = scope.values().iter().map(|(scope, value)| (scope.id().to_owned(), value.clone()));
        Self(budget.to_owned(), fact.map(|fact| fact.id().to_owned()), values.collect())
    }

    /// The entry's name: two windows have the same only if they are the same.
    fn id(&self) -> String {
        let Self(budget, fact, scope) = self;
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        add(budget);
        add(fact.as_deref().unwrap_or_default());
        for (scope, value) in scope {
            add(scope);
            add(value);
        }
        hex::encode(&digest.finalize()[..16])
    }

    fn parts(&self) -> Option<(String, Option<FactId>, ScopeKey)> {
        let Self(budget, fact, scope) = self;
        let fact = match fact {
            None => None,
            Some(id) => Some(FactId::by_id(id)?),
        };
        let scope = scope.iter().map(|(scope, value)| Some((Scope::by_id(scope)?, value.clone())));
        Some((budget.clone(), fact, ScopeKey::new(scope.collect::<Option<_>>()?)?))
    }
}

impl ReservedRecord {
    fn into_reservation(self) -> Option<Reservation> {
        let Self(state, expires_ms, charges) = self;
        let state = [State::Open, State::Held, State::Settled].into_iter().find(|known| *known as u8 == state)?;
        let charge = |(owner, window_ms, held, spent): (Owner, u64, u64, u64)| {
            let (budget, fact, scope) = owner.parts()?;
            Some(Charge { budget, fact, scope, window_ms, held, spent })
        };
        if charges.len() > MAX_CHARGES {
            return None;
        }
        Some(Reservation { state, expires_ms, charges: charges.into_iter().map(charge).collect::<Option<_>>()? })
    }
}

fn spent_key(owner: &Owner, number: u64) -> String {
    format!("{SPENT}{}/{number}", owner.id())
}

fn unpack(bytes: &[u8]) -> Option<Vec<Slot>> {
    let (slots, rest) = bytes.as_chunks::<SLOT_BYTES>();
    let slots = slots.iter().map(|slot| {
        let (at_ms, amount) = (slot.first_chunk::<8>()?, slot.last_chunk::<8>()?);
        Some(Slot { at_ms: u64::from_be_bytes(*at_ms), amount: u64::from_be_bytes(*amount) })
    });
    let slots = slots.collect::<Option<Vec<_>>>()?;
    let in_order = slots.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms);
    (rest.is_empty() && (1..=SLOTS).contains(&slots.len()) && in_order).then_some(slots)
}

fn encode(tag: u8, record: &impl Serialize) -> Vec<u8> {
    let mut value = vec![VERSION, tag];
    ciborium::into_writer(record, &mut value).expect("plain data always encodes, and a Vec takes all of it");
    value
}

fn decode<T: DeserializeOwned>(tag: u8, value: &[u8]) -> Option<T> {
    let mut cbor = value.strip_prefix(&[VERSION, tag])?;
    let record = ciborium::from_reader(&mut cbor).ok()?;
    cbor.is_empty().then_some(record)
}
