//! The decision that a request leaves in the journal. Holds digests of request and reply, never their bytes.

use sha2::{Digest, Sha256};

use super::guard::Row;
use crate::journal::{Decision, Verdict};
use crate::pipeline::Request;
use crate::reasons::{Reason, Refusal};

/// One request and what came of it.
pub(super) struct Recorded<'a> {
    pub(super) name: &'a str,
    pub(super) at_ms: u64,
    /// Absent for a message that is not in the table.
    pub(super) row: Option<&'a Row>,
    pub(super) request: &'a Request,
    pub(super) reply: &'a Result<Vec<u8>, Refusal>,
}

impl Recorded<'_> {
    /// The line of the log.
    pub(super) fn decision(&self) -> Decision {
        let verdict = match self.reply {
            Ok(_) => Verdict::Permit,
            Err(refusal) if refusal.reason == Reason::Fault => Verdict::Fault { detail: refusal.detail.clone() },
            Err(refusal) => Verdict::deny(refusal.reason, refusal.detail.clone()),
        };
        let channel = self.request.channel.map(|channel| format!("{}:{}", hex::encode(channel.peer_id), channel.dbid));
        Decision {
            request: self.name.to_owned(),
            at_ms: self.at_ms,
            action: self.action(),
            channel,
            verdict,
            request_sha256: digest(&self.request.message),
            reply_sha256: self.reply.as_ref().ok().map(|reply| digest(reply)),
        }
    }

    fn action(&self) -> String {
        match (self.row, self.request.message.split_first_chunk::<2>()) {
            (Some(row), _) => row.name.to_owned(),
            (None, Some((number, _))) => format!("message {}", u16::from_be_bytes(*number)),
            (None, None) => "no message".to_owned(),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
