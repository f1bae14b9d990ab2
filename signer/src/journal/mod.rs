//! Decisions, state and (later) budgets in one hash-chained, encrypted, group-committed store (P1).
//!
//! Skeleton of the interface the other rooms build on; see the module's files for the parts.

use crate::reasons::Reason;

/// Whose records: `house` for the signer's own, otherwise a node's name.
pub type Tenant = String;

/// What becomes durable together: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Whose state changes.
    pub tenant: Tenant,
    /// Changed entries only; the last put of a key wins.
    pub puts: Vec<Put>,
    /// The verdict this commit records, if it records one.
    pub decision: Option<Decision>,
}

/// One changed entry. The journal counts versions; the caller does not.
#[derive(Clone, Debug)]
pub struct Put {
    /// Names the entry within its tenant, e.g. `channel/…`.
    pub key: String,
    /// The new value, or `None` to delete.
    pub value: Option<Vec<u8>>,
}

/// One line of the append-only decision log. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// What `claviger explain` takes.
    pub request: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The message's name, e.g. `SignRemoteCommitmentTx2`.
    pub action: String,
    /// `peer:dbid` in hex and decimal, where the message concerns a channel.
    pub channel: Option<String>,
    /// What was decided.
    pub verdict: Verdict,
    /// SHA-256 of the request as received, hex.
    pub request_sha256: String,
    /// SHA-256 of the reply as sent, hex; absent for refusals.
    pub reply_sha256: Option<String>,
}

/// The closed set of verdicts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Signed or answered.
    Permit,
    /// Refused: reason id and detail.
    Deny {
        /// From the table of reasons.
        reason: String,
        /// What was compared.
        detail: String,
    },
    /// Failed; never a permit.
    Fault {
        /// What failed.
        detail: String,
    },
}

impl Verdict {
    /// A denial for `reason`.
    pub fn deny(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Deny { reason: reason.id().to_owned(), detail: detail.into() }
    }
}
