//! The anchor: which reading of a monotonic counter the journal goes with (P7).
//!
//! The journal notes the reading that comes next, then the counter is incremented. Killed in between, the journal is one
//! ahead; it is never behind, unless it is an older copy.

use claviger_hsm::Reading;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// The house's entry [`Anchor::KEY`], version 1, as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    version: u8,
    /// The counter, and how far it is or is about to be.
    pub reading: Reading,
    /// A time ahead of the clock that was noticed already, in milliseconds since the Unix epoch; else 0.
    pub noticed_ms: u64,
}

/// The entry is not of this version, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry '{}' cannot be read", Anchor::KEY)]
pub struct AnchorUnreadable;

/// What tells that a state may not be the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Setback {
    /// Others counted after this state was left.
    #[error("the journal is older than its counter by {by}: it is an old copy, or another signer runs on a copy of it")]
    Older {
        /// By how many counts.
        by: u64,
    },
    /// The counter is behind the journal.
    #[error("the journal's counter was set back")]
    CounterSetBack,
    /// The counter is another one.
    #[error("the counter is not the journal's: another machine's, or made anew")]
    OtherCounter,
    /// The counter is gone.
    #[error("the journal's counter is gone: deleted, or left on another machine")]
    CounterMissing,
    /// The counter was used, but not by this journal.
    #[error("the journal has never used its counter, but others have: it may be an old copy")]
    NeverAnchored,
    /// The system's clock is behind the journal's last decision.
    #[error("the clock is {} s behind the last decision", .by_ms / 1_000)]
    ClockSetBack {
        /// Milliseconds.
        by_ms: u64,
    },
}

impl Anchor {
    /// The entry's key.
    pub const KEY: &str = "anchor";
    /// How far a clock may be behind the last decision, in milliseconds: clocks are set right by small steps.
    pub const CLOCK_SLACK_MS: u64 = 60_000;

    /// An anchor at `reading`.
    pub fn new(reading: Reading, noticed_ms: u64) -> Self {
        Self { version: VERSION, reading, noticed_ms }
    }

    /// The entry's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and text always encode")
    }

    /// Reads what `encode` made.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnchorUnreadable> {
        serde_json::from_slice(bytes).ok().filter(|anchor: &Self| anchor.version == VERSION).ok_or(AnchorUnreadable)
    }

    /// Holds the journal's anchor, if it has one, against the counter `now`, if there is one.
    pub fn check(anchor: Option<&Self>, now: Option<&Reading>) -> Result<(), Setback> {
        let (noted, now) = match (anchor, now) {
            (None, None) => return Ok(()),
            // Made, and nothing counted yet: the first start was cut short.
            (None, Some(now)) if now.value == 1 => return Ok(()),
            (None, Some(_)) => return Err(Setback::NeverAnchored),
            (Some(_), None) => return Err(Setback::CounterMissing),
            (Some(anchor), Some(now)) => (anchor.reading, now),
        };
        if noted.id != now.id {
            return Err(Setback::OtherCounter);
        }
        match now.value.checked_sub(noted.value) {
            Some(0) => Ok(()),
            Some(by) => Err(Setback::Older { by }),
            None if now.value.checked_add(1) == Some(noted.value) => Ok(()),
            None => Err(Setback::CounterSetBack),
        }
    }

    /// Holds the clock against the time of the last decision, in milliseconds since the Unix epoch.
    pub fn check_clock(anchor: Option<&Self>, last_ms: u64, now_ms: u64) -> Result<(), Setback> {
        let by_ms = last_ms.saturating_sub(now_ms);
        let known = anchor.is_some_and(|anchor| last_ms <= anchor.noticed_ms);
        if by_ms <= Self::CLOCK_SLACK_MS || known { Ok(()) } else { Err(Setback::ClockSetBack { by_ms }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reading(id: u8, value: u64) -> Reading {
        Reading { id: [id; 16], value }
    }

    fn check(noted: Option<Reading>, now: Option<Reading>) -> Result<(), Setback> {
        Anchor::check(noted.map(|noted| Anchor::new(noted, 0)).as_ref(), now.as_ref())
    }

    #[test]
    fn a_journal_that_is_not_the_latest_is_told_from_one_that_is() {
        let noted = Some(reading(1, 7));
        assert_eq!(check(None, None), Ok(()), "the first start");
        assert_eq!(check(None, Some(reading(1, 1))), Ok(()), "the first start again");
        assert_eq!(check(noted, Some(reading(1, 7))), Ok(()));
        assert_eq!(check(noted, Some(reading(1, 6))), Ok(()), "killed before the counter was incremented");
        assert_eq!(check(None, Some(reading(1, 2))), Err(Setback::NeverAnchored));
        assert_eq!(check(noted, None), Err(Setback::CounterMissing));
        assert_eq!(check(noted, Some(reading(2, 7))), Err(Setback::OtherCounter));
        assert_eq!(check(noted, Some(reading(1, 9))), Err(Setback::Older { by: 2 }));
        assert_eq!(check(noted, Some(reading(1, 5))), Err(Setback::CounterSetBack));
    }

    #[test]
    fn a_clock_set_back_is_noticed_once() {
        let anchor = Anchor::new(reading(1, 1), 500_000);
        assert_eq!(Anchor::check_clock(None, 500_000, 440_000), Ok(()), "a small step");
        assert_eq!(Anchor::check_clock(None, 500_000, 439_999), Err(Setback::ClockSetBack { by_ms: 60_001 }));
        assert_eq!(Anchor::check_clock(Some(&anchor), 500_000, 0), Ok(()), "known");
        assert_eq!(Anchor::check_clock(Some(&anchor), 500_001, 0), Err(Setback::ClockSetBack { by_ms: 500_001 }));
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_no_other_version() {
        let anchor = Anchor::new(reading(3, 4), 5);
        assert_eq!(Anchor::decode(&anchor.encode()), Ok(anchor));
        let newer = Anchor { version: 2, ..anchor };
        assert_eq!(Anchor::decode(&newer.encode()), Err(AnchorUnreadable));
        assert_eq!(Anchor::decode(b""), Err(AnchorUnreadable));
    }
}
