//! The decision that a request leaves in the journal. Holds digests of request and reply, never their bytes.

use std::collections::BTreeMap;

use claviger_policy::tooling::{Event, Record};
use sha2::{Digest, Sha256};

use super::guard::Row;
use super::lnd::adopt::Adopted;
use super::orders::{Given, Order};
use crate::facts::Fact;
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
    pub(super) reply: Result<&'a [u8], &'a Refusal>,
    /// What a permit looked at; a refusal has facts of its own.
    pub(super) facts: Vec<Fact>,
    /// What the spending policy decided.
    pub(super) policy: Vec<Record>,
    /// What payments came to.
    pub(super) came_to: Vec<Event>,
}

impl Recorded<'_> {
    /// The line of the log.
    pub(super) fn decision(self) -> Decision {
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
            facts: self.reply.err().map_or(self.facts, |refusal| refusal.facts.clone()),
            policy: self.policy.into_iter().map(|record| Record { id: self.name.to_owned(), ..record }).collect(),
            came_to: self.came_to,
            request_sha256: digest(&self.request.message),
            reply_sha256: self.reply.ok().map(digest),
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

/// Stands for refusals that have no line of their own: how many there were, by reason.
pub(super) fn tally(name: &str, at_ms: u64, left_out: &BTreeMap<&'static str, u64>) -> Decision {
    let counts: Vec<_> = left_out.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    let verdict = Verdict::deny(Reason::LeftOut, counts.join(", "));
    Decision { verdict, request_sha256: digest(&[]), ..Decision::unasked(name.to_owned(), at_ms, "Tally") }
}

/// The line of the log for an operator's order.
pub(super) fn order(name: &str, order: &Order, given: &Given) -> Decision {
    Decision {
        channel: order.channel().map(|channel| channel.to_string()),
        facts: order.facts(given),
        request_sha256: digest(&[]),
        ..Decision::unasked(name.to_owned(), given.at_ms, order.action())
    }
}

/// The line of the log for channels that an operator had taken over.
pub(super) fn adoption(name: &str, at_ms: u64, adopted: &Adopted, by: &str) -> Decision {
    let channels = adopted.adopted.iter().map(|funding| Fact::text("channel", funding.to_string()));
    Decision {
        facts: [Fact::text("by", by.to_owned())].into_iter().chain(channels.take(MAX_CHANNELS)).collect(),
        request_sha256: digest(&[]),
        ..Decision::unasked(name.to_owned(), at_ms, "AdoptChannels")
    }
}

/// Channels that one line names.
const MAX_CHANNELS: usize = 1_024;

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
