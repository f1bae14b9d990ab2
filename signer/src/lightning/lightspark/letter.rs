//! What Lightspark is to be told of an event: its answer, or that its jobs are declined. Where an account calls back, the letter
//! is recorded with what was decided, and stays until it was delivered (P1).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::event::{Method, SubEvent};
use super::put;
use crate::journal::Put;
use crate::reasons::{Reason, Refusal};

/// In front of an event's id.
const PREFIX: &str = "lightspark/letter/";

/// Version 1 of the entry `lightspark/letter/ID`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    version: u8,
    /// When it was written: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The number of the event's kind.
    method: u16,
    /// Whether the event's jobs are declined.
    pub declines: bool,
    /// The variables of the mutation, in JSON.
    #[serde(with = "serde_bytes")]
    pub variables: Vec<u8>,
}

/// Variables hold what was released (P8).
impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("method", &self.method).field("declines", &self.declines).finish_non_exhaustive()
    }
}

impl Letter {
    /// What is told of `event` after it was answered with `reply`, or refused. Nothing if there is nothing to say, or if
    /// Lightspark has no mutation for it: of what is refused, that are jobs alone, and they alone are declined.
    pub fn of(event: &SubEvent, reply: Result<&[u8], &Refusal>, at_ms: u64) -> Option<Self> {
        let (declines, variables) = match (event, reply) {
            (_, Ok([])) => return None,
            (_, Ok(reply)) => (false, reply.to_vec()),
            (SubEvent::Sign(jobs), Err(refusal)) if is_final(refusal) => {
                let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
                (true, json!({ "payload_ids": ids }).to_string().into_bytes())
            }
            (_, Err(_)) => return None,
        };
        Some(Self { version: 1, at_ms, method: event.method() as u16, declines, variables })
    }

    /// What kind of event it answers.
    pub fn method(&self) -> Option<Method> {
        Method::ALL.iter().copied().find(|method| *method as u16 == self.method)
    }

    /// Reads an entry.
    fn read(entry: &[u8]) -> Option<Self> {
        let letter = ciborium::from_reader(entry).ok();
        letter.filter(|letter: &Self| letter.version == 1 && letter.method().is_some())
    }

    /// The entry of the letter about `event`.
    pub(super) fn put(&self, event: &str) -> Put {
        let mut value = Vec::new();
        ciborium::into_writer(self, &mut value).expect("a Vec grows");
        put(format!("{PREFIX}{event}"), value)
    }
}

/// What is late, or a copy of something else, may be one that somebody kept: nothing is told of it. What may work later is not
/// declined for good.
fn is_final(refusal: &Refusal) -> bool {
    !refusal.reason.retry() && !matches!(refusal.reason, Reason::Fault | Reason::EventStale | Reason::EventReused)
}

/// The letters among an account's entries, by the ids of their events; `None` in place of one that cannot be read.
pub fn letters(entries: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (&str, Option<Letter>)> {
    let found = entries.range(PREFIX.to_owned()..).map_while(|(key, entry)| Some((key.strip_prefix(PREFIX)?, entry)));
    found.map(|(event, entry)| (event, Letter::read(entry)))
}

/// Takes the letters out of `entries`; `false` if one cannot be read. They are others' to deliver.
pub(super) fn take(entries: &mut BTreeMap<String, Vec<u8>>) -> bool {
    let is_good = letters(entries).all(|(_, letter)| letter.is_some());
    entries.retain(|key, _| !key.starts_with(PREFIX));
    is_good
}

/// The letter about `event` was delivered, or never will be.
pub fn gone(event: &str) -> Put {
    Put { key: format!("{PREFIX}{event}"), value: None }
}
