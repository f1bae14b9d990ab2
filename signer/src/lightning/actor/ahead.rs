//! What threads without a turn do for an actor while one has its turn: they draft answers to requests that wait, as far as
//! that needs nothing of the state machine.
//!
//! The turn takes requests from the front, who helps from the back, and neither waits for the other: a draft is a matter of the
//! request and of keys alone, and a turn that finds none makes its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Actor, Work, lock};
use crate::lightning::lnd::Draft;
use crate::pipeline::Request;

/// A request, and what was done of it before its turn.
pub(super) struct Question {
    pub(super) request: Request,
    ahead: Mutex<Ahead>,
}

enum Ahead {
    Nothing,
    /// Somebody drafts it, or has found that it cannot be drafted.
    Begun,
    /// And how long that took.
    Drafted(Box<Draft>, Duration),
}

impl Question {
    pub(super) fn new(request: Request) -> Self {
        Self { request, ahead: Mutex::new(Ahead::Nothing) }
    }

    /// Whether it is the caller's to draft.
    fn begin(&self) -> bool {
        let mut ahead = lock(&self.ahead);
        let is_new = matches!(*ahead, Ahead::Nothing);
        if is_new {
            *ahead = Ahead::Begun;
        }
        is_new
    }

    /// Its draft, if there is one by now, and how long that took. Nobody begins one any more.
    pub(super) fn take(&self) -> Option<(Draft, Duration)> {
        match std::mem::replace(&mut *lock(&self.ahead), Ahead::Begun) {
            Ahead::Drafted(draft, took) => Some((*draft, took)),
            Ahead::Nothing | Ahead::Begun => None,
        }
    }
}

impl Actor {
    /// Whether somebody who has nothing else to do could help with what waits, and nobody was asked yet.
    pub(super) fn wants_help(&self) -> bool {
        let drafts = self.drafter.read().unwrap_or_else(PoisonError::into_inner).is_some();
        drafts && self.mailbox.waiting() > 0 && !self.helped.swap(true, Ordering::Relaxed)
    }

    /// Drafts one answer; returns how long that took, or `None` if there is nothing to draft.
    pub(super) fn draft_ahead(&self) -> Option<Duration> {
        // Held meanwhile: who retires waits for it, and then nobody has keys.
        let drafter = self.drafter.read().unwrap_or_else(PoisonError::into_inner);
        let question = drafter.as_ref().and_then(|_| {
            self.mailbox.pick_last(|work| match work {
                Work::Request(question, _) if question.begin() => Some(question.clone()),
                _ => None,
            })
        });
        let (Some(drafter), Some(question)) = (drafter.as_ref(), question) else {
            self.helped.store(false, Ordering::Relaxed);
            return None;
        };
        let begun = Instant::now();
        // If that panics, it does so again in the turn, where it is known what follows.
        let draft = catch_unwind(AssertUnwindSafe(|| drafter.draft(&question.request.message)));
        let took = begun.elapsed();
        if let Ok(Some(draft)) = draft {
            *lock(&question.ahead) = Ahead::Drafted(Box::new(draft), took);
        }
        Some(took)
    }
}
