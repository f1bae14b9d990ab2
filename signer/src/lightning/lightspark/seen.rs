//! Events that were answered: the same event gets the same answer (P5), another one under its name gets none, and an
//! old one is too late. What is too late need not be remembered.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::put;
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::lightning::clock::NodeClock;
use crate::reasons::{Reason, Refusal};

/// An event is answered so long after it was made.
const FRESH_MS: u64 = 15 * 60 * 1_000;
/// Its maker's clock may be so far ahead.
const AHEAD_MS: u64 = 2 * 60 * 1_000;
/// With each answer so many old ones are forgotten: more than one, so that their number falls.
const FORGET: usize = 4;
/// In front of an event's id.
const EVENT: &str = "lightspark/event/";

/// The answered events that are not too old.
#[derive(Default)]
pub(super) struct Seen {
    events: BTreeMap<String, Answered>,
    by_time: BTreeSet<(u64, String)>,
}

/// Version 1 of the entry `lightspark/event/id`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    version: u8,
    at_ms: u64,
    /// By the account's clock, which never shows less again: what was forgotten stays too old (P7).
    answered_ms: u64,
    body_sha256: sha256::Hash,
    #[serde(with = "serde_bytes")]
    reply: Vec<u8>,
}

impl Seen {
    /// Takes its entries out of `entries`. The clock goes on from the last answer.
    pub(super) fn restore(entries: &mut BTreeMap<String, Vec<u8>>, clock: &NodeClock) -> Option<Self> {
        let mut seen = Self::default();
        let keys: Vec<String> = entries
            .range(EVENT.to_owned()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(EVENT))
            .collect();
        for key in keys {
            let answered: Answered = ciborium::from_reader(&entries.remove(&key)?[..]).ok()?;
            if answered.version != 1 {
                return None;
            }
            clock.raise(answered.answered_ms);
            seen.keep(key.strip_prefix(EVENT)?.to_owned(), answered);
        }
        Some(seen)
    }

    /// The answer that `event`, with this body, got before; nothing if it is new. Refuses what is old, or replayed.
    pub(super) fn answered(&self, event: &Event, body: &[u8], now_ms: u64) -> Result<Option<Vec<u8>>, Refusal> {
        let age_ms = now_ms.saturating_sub(event.at_ms);
        if age_ms > FRESH_MS || event.at_ms.saturating_sub(now_ms) > AHEAD_MS {
            let fact = Fact::number("age", age_ms / 1_000, Unit::Seconds).at_most(FRESH_MS / 1_000);
            let detail = format!("the event is of {} ms, now is {now_ms} ms since 1970", event.at_ms);
            return Err(Refusal::new(Reason::EventStale, detail).with_fact(fact));
        }
        let Some(answered) = self.events.get(&event.id) else { return Ok(None) };
        if answered.body_sha256 != sha256::Hash::hash(body) {
            return Err(Refusal::new(Reason::EventReused, format!("event {} had another body", event.id)));
        }
        Ok(Some(answered.reply.clone()))
    }

    /// Remembers an answer, and forgets some that are too old. Returns the changed entries.
    pub(super) fn put(&mut self, event: &Event, body: &[u8], reply: &[u8], now_ms: u64) -> Vec<Put> {
        let old_ms = now_ms.saturating_sub(FRESH_MS);
        let mut puts = Vec::with_capacity(FORGET + 1);
        while puts.len() < FORGET && self.by_time.first().is_some_and(|(at_ms, _)| *at_ms < old_ms) {
            let Some((_, id)) = self.by_time.pop_first() else { break };
            self.events.remove(&id);
            puts.push(Put { key: format!("{EVENT}{id}"), value: None });
        }
        let body_sha256 = sha256::Hash::hash(body);
        let answered =
            Answered { version: 1, at_ms: event.at_ms, answered_ms: now_ms, body_sha256, reply: reply.to_vec() };
        let mut value = Vec::new();
        ciborium::into_writer(&answered, &mut value).expect("a Vec grows");
        puts.push(put(format!("{EVENT}{}", event.id), value));
        self.keep(event.id.clone(), answered);
        puts
    }

    fn keep(&mut self, id: String, answered: Answered) {
        self.by_time.insert((answered.at_ms, id.clone()));
        self.events.insert(id, answered);
    }
}
