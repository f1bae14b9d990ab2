//! What the journal tells of a decision: all that a verdict depends on, beside the policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::ReservationKey;
use crate::bundle::BundleHash;
use crate::decide::Inputs;
use crate::facts::FactId;
use crate::request::Request;
use crate::verdict::Verdict;

/// A decision as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What `claviger explain` takes.
    pub id: String,
    /// The bundle that was in force.
    pub bundle: BundleHash,
    /// What was asked.
    pub request: Request,
    /// The text of the key that its reservations had; repeats of one request share it.
    pub key: String,
    /// What was looked up: budgets, lists, approvals.
    pub inputs: Inputs,
    /// What was answered.
    pub verdict: Verdict,
}

/// What happened, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A request was decided.
    Decided(Box<Record>),
    /// A permitted request succeeded.
    Settled {
        /// Whose.
        node: String,
        /// [`Record::key`].
        key: String,
        /// What it really came to.
        amounts: BTreeMap<FactId, u64>,
        /// In milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// A permitted request failed.
    Released {
        /// Whose.
        node: String,
        /// [`Record::key`].
        key: String,
        /// In milliseconds since the Unix epoch.
        at_ms: u64,
    },
}

impl Record {
    /// The key of its reservations.
    pub fn reservation(&self) -> ReservationKey {
        ReservationKey::new(&self.key)
    }
}
