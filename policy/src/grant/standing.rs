//! One grant: what was asked, who approved it, what was done with it, and how it stands.

use std::collections::BTreeMap;

use super::group::Approvals;
use super::intent::{Intent, Requester};
use crate::budget::ReservationKey;
use crate::facts::FactId;
use crate::request::Request;

/// A grant, approved or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is asked.
    pub intent: Intent,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// One approval a person.
    pub approvals: BTreeMap<String, Approval>,
    /// Who took it back.
    pub revoked: Option<Revocation>,
    /// What each request took, in msat, by what the request is known by if it comes again.
    pub(super) uses: BTreeMap<ReservationKey, u64>,
}

/// One person's approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The key, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// When it was given, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The signature, for auditors: `ssh-keygen -Y verify` takes it.
    pub signature: String,
}

/// Who took a grant back, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// In milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The caller of the administration socket, e.g. `uid 0`.
    pub by: String,
}

/// How a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Too few people approved yet.
    Waiting {
        /// Distinct people whose approval counts.
        have: u32,
        /// How many the group asks.
        need: u32,
    },
    /// Approved, and its time has not come.
    NotYet,
    /// Approved and usable.
    InForce,
    /// Every use was taken.
    UsedUp,
    /// Its time is over.
    Ended,
    /// Taken back.
    Revoked,
    /// Its group is gone, or means something else than what was signed.
    GroupChanged,
}

impl Grant {
    pub(super) fn new(intent: Intent, asked_ms: u64) -> Self {
        Self { intent, asked_ms, approvals: BTreeMap::new(), revoked: None, uses: BTreeMap::new() }
    }

    /// How it stands at `now_ms`, with the groups, roles and keys of today.
    pub fn standing(&self, approvals: &Approvals, now_ms: u64) -> Standing {
        let need = self.intent.of;
        if self.intent.has_ended(now_ms) {
            Standing::Ended
        } else if self.revoked.is_some() {
            Standing::Revoked
        } else if !approvals.mean(&self.intent) {
            Standing::GroupChanged
        } else if let have = self.approved_by(approvals)
            && have < need
        {
            Standing::Waiting { have, need }
        } else if !self.intent.is_valid(now_ms) {
            Standing::NotYet
        } else if self.uses.len() >= self.intent.uses as usize {
            Standing::UsedUp
        } else {
            Standing::InForce
        }
    }

    /// How many distinct people's approvals count today: each holds the role, did not ask, and signed with a key that is
    /// listed and was valid then.
    pub fn approved_by(&self, approvals: &Approvals) -> u32 {
        let counts = |person: &&str| {
            let approval = self.approvals.get(*person);
            !self.is_asked_by(person)
                && approval.is_some_and(|known| approvals.still_counts(&self.intent, person, known))
        };
        let count = approvals.people(&self.intent.role).filter(counts).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether `person` asked for it.
    pub fn is_asked_by(&self, person: &str) -> bool {
        matches!(&self.intent.requester, Requester::Person(requester) if requester == person)
    }

    /// How many uses are left.
    pub fn uses_left(&self) -> u32 {
        self.intent.uses.saturating_sub(u32::try_from(self.uses.len()).unwrap_or(u32::MAX))
    }

    /// What all uses took together, in msat, without fees.
    pub fn taken_msat(&self) -> u64 {
        self.uses.values().fold(0, |sum, taken_msat| sum.saturating_add(*taken_msat))
    }

    /// What `request` takes of it, in msat; `None` if uses or total do not suffice. A repeat under the same key takes one
    /// use, and of the total the largest amount it came with (P5).
    pub(super) fn takes_msat(&self, request: &Request, key: &ReservationKey) -> Option<u64> {
        let before_msat = self.uses.get(key).copied();
        if before_msat.is_none() && self.uses_left() == 0 {
            return None;
        }
        let before_msat = before_msat.unwrap_or(0);
        let takes_msat = request.number(FactId::AmountMsat).unwrap_or(0).max(before_msat);
        let others_msat = self.taken_msat() - before_msat;
        let fits = |max_msat| others_msat.saturating_add(takes_msat) <= max_msat;
        self.intent.max_total_msat.is_none_or(fits).then_some(takes_msat)
    }

    /// Whether it may be used at `now_ms` by a request known by `key`.
    pub(super) fn is_usable(&self, approvals: &Approvals, key: &ReservationKey, now_ms: u64) -> bool {
        match self.standing(approvals, now_ms) {
            Standing::InForce => true,
            Standing::UsedUp => self.uses.contains_key(key),
            _ => false,
        }
    }
}
