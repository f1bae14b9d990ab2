//! What was answered: the same event or operation gets the same answer (P5), and another one under its name gets none. An old
//! event is too late, and what is too late need not be remembered.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::sha256;
use serde::{Deserialize, Serialize};

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
/// An idempotency key is remembered so long. After that its operation is judged, and counted, as a new one.
const KEYS_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// A signature is remembered as long as what it is on can be signed: operations end within an hour.
const SIGNATURES_MS: u64 = 2 * 60 * 60 * 1_000;

/// What has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Lightspark's, by their ids.
    Event,
    /// The account's, by their idempotency keys.
    Operation,
    /// Signatures of the account's, by the digests of what they are on.
    Signature,
}

impl Kind {
    /// In front of a name.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Event => "lightspark/event/",
            Self::Operation => "lightspark/operation/",
            Self::Signature => "lightspark/signature/",
        }
    }

    const fn keep_ms(self) -> u64 {
        match self {
            Self::Event => FRESH_MS,
            Self::Operation => KEYS_MS,
            Self::Signature => SIGNATURES_MS,
        }
    }

    const fn reused(self) -> Reason {
        match self {
            Self::Event => Reason::EventReused,
            Self::Operation | Self::Signature => Reason::OperationReused,
        }
    }
}

/// What was answered of one kind and is not too old.
pub(super) struct Seen {
    kind: Kind,
    answered: BTreeMap<String, Answered>,
    by_time: BTreeSet<(u64, String)>,
}

/// Version 1 of the entries `lightspark/event/ID`, `lightspark/operation/KEY` and `lightspark/signature/DIGEST`.
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

/// Refuses an event that is older than [`FRESH_MS`], or further ahead than [`AHEAD_MS`].
pub(super) fn require_fresh(at_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    let age_ms = now_ms.saturating_sub(at_ms);
    if age_ms <= FRESH_MS && at_ms.saturating_sub(now_ms) <= AHEAD_MS {
        return Ok(());
    }
    let fact = Fact::number("age", age_ms / 1_000, Unit::Seconds).at_most(FRESH_MS / 1_000);
    let detail = format!("the event is of {at_ms} ms, now is {now_ms} ms since 1970");
    Err(Refusal::new(Reason::EventStale, detail).with_fact(fact))
}

impl Seen {
    /// Takes its entries out of `entries`. The clock goes on from the last answer.
    pub(super) fn restore(kind: Kind, entries: &mut BTreeMap<String, Vec<u8>>, clock: &NodeClock) -> Option<Self> {
        let mut seen = Self { kind, answered: BTreeMap::new(), by_time: BTreeSet::new() };
        let prefix = kind.prefix();
        for (key, entry) in entries.extract_if(prefix.to_owned().., |key, _| key.starts_with(prefix)) {
            let answered: Answered = ciborium::from_reader(&entry[..]).ok()?;
            if answered.version != 1 {
                return None;
            }
            clock.raise(answered.answered_ms);
            seen.keep(key.strip_prefix(prefix)?.to_owned(), answered);
        }
        Some(seen)
    }

    /// The answer that `name`, with this body, got before; nothing if it is new. Refuses another body.
    pub(super) fn answer(&self, name: &str, body_sha256: &sha256::Hash) -> Result<Option<Vec<u8>>, Refusal> {
        match self.answered.get(name) {
            None => Ok(None),
            Some(answered) if answered.body_sha256 == *body_sha256 => Ok(Some(answered.reply.clone())),
            Some(_) => Err(Refusal::new(self.kind.reused(), format!("{name} had another body"))),
        }
    }

    /// Remembers an answer to what was made at `at_ms`, and forgets some that are too old. Returns the changed entries.
    pub(super) fn put(
        &mut self,
        name: &str,
        at_ms: u64,
        body_sha256: sha256::Hash,
        reply: &[u8],
        now_ms: u64,
    ) -> Vec<Put> {
        let (prefix, old_ms) = (self.kind.prefix(), now_ms.saturating_sub(self.kind.keep_ms()));
        let mut puts = Vec::with_capacity(FORGET + 1);
        while puts.len() < FORGET && self.by_time.first().is_some_and(|(at_ms, _)| *at_ms < old_ms) {
            let Some((_, old)) = self.by_time.pop_first() else { break };
            self.answered.remove(&old);
            puts.push(Put { key: format!("{prefix}{old}"), value: None });
        }
        let answered = Answered { version: 1, at_ms, answered_ms: now_ms, body_sha256, reply: reply.to_vec() };
        let mut value = Vec::new();
        ciborium::into_writer(&answered, &mut value).expect("a Vec grows");
        puts.push(put(format!("{prefix}{name}"), value));
        self.keep(name.to_owned(), answered);
        puts
    }

    fn keep(&mut self, name: String, answered: Answered) {
        self.by_time.insert((answered.at_ms, name.clone()));
        self.answered.insert(name, answered);
    }
}
