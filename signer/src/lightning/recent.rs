//! Refusals on their way out: those in the journal get a line in the log; those that decided nothing are in no journal,
//! and the last of each node are kept here, in memory, for `claviger explain`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::NodeClock;
use super::guard;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{Outcome, Request, Responder};
use crate::reasons::{Reason, Refusal};

/// So many are kept per node.
pub const KEPT: usize = 128;

/// A refusal and what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// What `claviger explain` takes.
    pub request: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The message's name.
    pub action: String,
    /// `peer:dbid`, where the message concerns a channel.
    pub channel: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

/// The last [`KEPT`] of one node.
#[derive(Default)]
pub struct Recent(Mutex<VecDeque<Unrecorded>>);

impl Recent {
    /// `respond`, with an eye on refusals.
    pub fn watching(
        self: &Arc<Self>,
        node: &NodeName,
        kind: NodeKind,
        clock: &Arc<NodeClock>,
        request: &Request,
        respond: Responder,
    ) -> Responder {
        let (recent, node, clock) = (Arc::clone(self), node.clone(), Arc::clone(clock));
        let (number, channel) = (request.message.first_chunk::<2>().copied(), request.channel);
        Box::new(move |outcome| {
            if let Outcome::Refused { request, refusal } = &outcome
                && !request.is_empty()
            {
                let row = number.and_then(|number| guard::row(kind, &number).ok());
                let action = match (row, number) {
                    (Some(row), _) => row.name.to_owned(),
                    (None, Some(number)) => format!("message {}", u16::from_be_bytes(number)),
                    (None, None) => "no message".to_owned(),
                };
                if is_recorded(refusal.reason, row.is_some_and(guard::Row::needs_tip)) {
                    log(&node, request, &action, refusal);
                } else {
                    let (request, refusal) = (request.clone(), refusal.clone());
                    let channel = channel.map(|channel| channel.to_string());
                    recent.keep(Unrecorded { request, at_ms: clock.now_ms(), action, channel, refusal });
                }
            }
            respond(outcome);
        })
    }

    /// Keeps one more; the oldest goes if there are too many.
    pub fn keep(&self, refused: Unrecorded) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(refused);
    }

    /// The one under this name.
    pub fn find(&self, request: &str) -> Option<Unrecorded> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().find(|refused| refused.request == request).cloned()
    }
}

/// Whether the journal knows of a refusal: not where nothing was decided and the node asks again. A stale view of the
/// chain turns a message away before anything is looked at, if its answer depends on the tip.
fn is_recorded(reason: Reason, needs_tip: bool) -> bool {
    match reason {
        Reason::JournalUnavailable | Reason::NodeRestarting | Reason::NodeBusy | Reason::Sealed => false,
        Reason::ChainStale => !needs_tip,
        _ => true,
    }
}

/// One refusal in one line.
fn log(node: &NodeName, request: &str, action: &str, refusal: &Refusal) {
    let facts: Vec<_> = refusal.facts.iter().map(ToString::to_string).collect();
    let facts = facts.join(", ");
    tracing::warn!(%node, request, action, reason = refusal.reason.id(), facts, "refused: {}", refusal.detail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_found_and_older_ones_are_forgotten() {
        let recent = Recent::default();
        for n in 0..=KEPT as u64 {
            let refusal = Refusal::new(Reason::NodeBusy, "full");
            let request = format!("alice-{n}");
            recent.keep(Unrecorded { request, at_ms: n, action: "Ecdh".to_owned(), channel: None, refusal });
        }
        assert_eq!(recent.find("alice-0"), None);
        assert_eq!(recent.find("alice-1").map(|refused| refused.at_ms), Some(1));
    }
}
