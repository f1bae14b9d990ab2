//! What becomes durable together, and why it may not.

use claviger_policy::tooling::{Event, Record};

use crate::facts::Fact;
use crate::reasons::Reason;

use super::store::StoreError;

/// Whose records: `house` for the signer's own, otherwise a node's name. 1–64 of `a-z 0-9 -`.
pub type Tenant = String;

/// The largest value of an entry, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// The longest key of an entry, in bytes.
pub const MAX_KEY: usize = 512;
/// The largest encoded decision, in bytes.
pub const MAX_DECISION: usize = 256 << 10;

/// What becomes durable together: all of it or nothing. Without puts and decision it is a barrier: it completes
/// after every earlier commit of its tenant and costs no flush.
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
    /// Names the entry within its tenant, e.g. `channel/…`. Stands on disk in the clear.
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
    /// What a refusal compared; of an operator's order, who gave it and what it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// What the spending policy was asked and said, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Record>,
    /// What payments that it had permitted came to, as was known by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came_to: Vec<Event>,
    /// SHA-256 of the request as received, hex.
    pub request_sha256: String,
    /// SHA-256 of the reply as sent, hex; absent for refusals.
    pub reply_sha256: Option<String>,
}

impl Decision {
    /// A line of the whole node that no request led to: permitted, with nothing compared, asked or replied.
    pub fn unasked(name: String, at_ms: u64, action: &str) -> Self {
        Self {
            request: name,
            at_ms,
            action: action.to_owned(),
            channel: None,
            verdict: Verdict::Permit,
            facts: Vec::new(),
            policy: Vec::new(),
            came_to: Vec::new(),
            request_sha256: String::new(),
            reply_sha256: None,
        }
    }
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

/// Why a commit is not recorded. Nothing that depends on it may leave the signer (P1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The store failed; the journal tries by itself whether it is back.
    #[error("the journal cannot be written: {0}")]
    Store(StoreError),
    /// Another writer has written to the same store; this one stops for good (P7).
    #[error("another signer writes to the same journal")]
    Fenced,
    /// An earlier commit of this tenant failed; its state must be reloaded first.
    #[error("an earlier commit of this tenant failed; its state was not reloaded yet")]
    Poisoned,
    /// The commit itself is malformed: a bad name, or something too large.
    #[error("the commit cannot be recorded: {0}")]
    Invalid(InvalidCommit),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

impl CommitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(error) => error.hint(),
            Self::Fenced => "Stop the other signer, then restart this one; see docs/journal.md, \"A second writer\".",
            Self::Poisoned => "Nothing: the node is rebuilt from the journal by itself.",
            Self::Invalid(_) => "Report this with the request id; the request was not signed.",
            Self::Closed => "Start the signer again.",
        }
    }
}

/// What is wrong with a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommit {
    /// The tenant is not 1–64 of `a-z 0-9 -`.
    #[error("'{0}' is not a tenant name")]
    Tenant(String),
    /// The key is empty, too long, or holds control characters.
    #[error("not an entry key: {0:?}")]
    Key(String),
    /// The value or decision exceeds its limit.
    #[error("{what} has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// The entry's key, or `decision`.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl Commit {
    /// Whether this is an ordering barrier only.
    pub fn is_barrier(&self) -> bool {
        self.puts.is_empty() && self.decision.is_none()
    }

    /// Checks names and sizes.
    pub(super) fn check(&self) -> Result<(), InvalidCommit> {
        check_tenant(&self.tenant)?;
        for put in &self.puts {
            if put.key.is_empty() || put.key.len() > MAX_KEY || put.key.chars().any(char::is_control) {
                return Err(InvalidCommit::Key(put.key.chars().take(80).collect()));
            }
            let bytes = put.value.as_ref().map_or(0, Vec::len);
            if bytes > MAX_VALUE {
                return Err(InvalidCommit::TooLarge { what: put.key.clone(), bytes, limit: MAX_VALUE });
            }
        }
        Ok(())
    }
}

/// Checks a tenant's name.
pub(super) fn check_tenant(tenant: &str) -> Result<(), InvalidCommit> {
    let good = (1..=64).contains(&tenant.len())
        && tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(()) } else { Err(InvalidCommit::Tenant(tenant.chars().take(80).collect())) }
}
