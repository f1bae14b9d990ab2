//! How a refusal leaves: recorded or counted, and held back if the node is refused too often.

use std::sync::Arc;
use std::time::Instant;

use super::conduct::TALLY_AFTER;
use super::work::{Asked, unrecorded};
use super::{Actor, Work, lock};
use crate::journal::{Commit, Put};
use crate::lightning::record;
use crate::pipeline::{Outcome, Responder};
use crate::reasons::Refusal;

impl Actor {
    /// Records a refusal, or counts it, then answers, at once or later. No thread waits for that, and what the node asks
    /// meanwhile is answered.
    pub(super) fn refuse(self: &Arc<Self>, asked: Asked, refusal: Refusal, puts: Vec<Put>, respond: Responder) {
        let now = Instant::now();
        let spent = now.saturating_duration_since(asked.begun);
        let treatment = lock(&self.conduct).refused(refusal.reason, spent, now);
        // Without a decision there is nothing to explain.
        let name = if treatment.recorded { self.next_name() } else { String::new() };
        let decision = treatment.recorded.then(|| asked.decision(&name, self.clock.now_ms(), Err(&refusal)));
        if treatment.tally {
            let actor = Arc::downgrade(self);
            let record = move || {
                if let Some(actor) = actor.upgrade() {
                    let _ = actor.push_urgent(Work::Tally); // retired: that was recorded
                }
            };
            self.pool.later(now + TALLY_AFTER, Box::new(record));
        }
        let pool = Arc::downgrade(&self.pool);
        self.send(Commit { tenant: self.spec.name.to_string(), puts, decision }, move |result| {
            let refusal = result.map_or_else(|error| unrecorded(&error), |()| refusal);
            let answer = move || respond(Outcome::Refused { request: name, refusal });
            match pool.upgrade().filter(|_| !treatment.hold.is_zero()) {
                Some(pool) => pool.later(now + treatment.hold, Box::new(answer)),
                None => answer(),
            }
        });
    }

    /// Records how many refusals were left out since the last count.
    pub(super) fn record_tally(self: &Arc<Self>) {
        let tally = lock(&self.conduct).take_tally();
        if tally.is_empty() {
            return;
        }
        let decision = record::tally(&self.next_name(), self.clock.now_ms(), &tally);
        let conduct = self.conduct.clone();
        let commit = Commit { tenant: self.spec.name.to_string(), puts: Vec::new(), decision: Some(decision) };
        self.send(commit, move |result| {
            if result.is_err() {
                lock(&conduct).return_tally(&tally);
            }
        });
    }
}
