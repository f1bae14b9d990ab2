//! What an actor does in its turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::ahead::Question;
use super::seat::{Seat, drop_engine};
use super::{Actor, Step, Work, lock};
use claviger_policy::tooling::{Event, Record};

use crate::chain::{Attestor, ChainBlock, SinkError, TrackerPosition, apply_block, revert_block};
use crate::facts::Fact;
use crate::journal::{Commit, CommitError, Decision, Health, Put};
use crate::lightning::engine::{Engine, Handled};
use crate::lightning::guard::{self, Row};
use crate::lightning::pool::{Account, Ended, ITEMS_PER_TURN, TIME_PER_TURN, Turn};
use crate::lightning::record::Recorded;
use crate::lightning::status::Phase;
use crate::pipeline::{Outcome, Responder};
use crate::reasons::{Reason, Refusal};

/// Blocks between two prunings of what is long over.
const PRUNE_EVERY: u32 = 6;

/// What the items of a turn have to be recorded waits this long for the next one's, so that one flush serves them.
const TIME_PER_FLUSH: Duration = Duration::from_millis(1);

/// Lets an `Arc<Actor>` take turns.
pub(super) struct Turns(pub(super) Arc<Actor>);

impl Turn for Turns {
    fn turn(&self) -> Ended {
        let actor = &self.0;
        let begun = Instant::now();
        {
            let mut seat = actor.sit_down();
            for n in 0..ITEMS_PER_TURN {
                if n > 0 && begun.elapsed() >= TIME_PER_TURN {
                    break;
                }
                if n > 0 && begun.elapsed() >= TIME_PER_FLUSH {
                    actor.house.journal.wake();
                }
                let Some(work) = actor.mailbox.pop() else { break };
                actor.work(&mut seat, work);
            }
            actor.note_status(&seat);
        }
        Ended { more: actor.mailbox.end_turn(), took: begun.elapsed() }
    }

    fn account(&self) -> &Account {
        &self.0.account
    }

    fn help(&self) -> Option<Duration> {
        self.0.draft_ahead()
    }

    /// Writes what the turn has to be recorded: nobody else has to come for it.
    fn finish(&self) {
        self.0.house.journal.write();
    }
}

impl Actor {
    fn work(self: &Arc<Self>, seat: &mut Seat, work: Work) {
        match work {
            Work::Request(question, respond) => self.request(seat, question, respond),
            Work::Block(step, block, reply) => self.block(seat, step, &block, reply),
            Work::Wake => drop(self.engine(seat)),
            Work::Tally => self.record_tally(),
            Work::Operator(call) => call(self, seat),
            Work::Retire(done) => {
                for work in self.mailbox.close() {
                    if let Work::Request(question, respond) = work {
                        self.mailbox.release(question.request.message.len());
                        respond(self.refused(Refusal::new(Reason::Sealed, "the node is shutting down")));
                    }
                }
                self.record_tally();
                self.land_all();
                drop_engine(seat);
                *self.drafter.write().unwrap_or_else(PoisonError::into_inner) = None;
                lock(&self.status).phase = Phase::Stopped;
                let _ = done.send(()); // whoever asked may be gone
            }
        }
    }

    /// One request, from its bytes to a commit on its way.
    fn request(self: &Arc<Self>, seat: &mut Seat, question: Arc<Question>, respond: Responder) {
        let request = &question.request;
        let slot = Slot { actor: self.clone(), bytes: request.message.len() };
        let respond: Responder = Box::new(move |outcome| {
            drop(slot);
            respond(outcome);
        });
        let draft = question.take();
        let begun = Instant::now() - draft.as_ref().map_or(Duration::ZERO, |(_, took)| *took);
        if let Health::Faulted(error) = self.house.journal.health() {
            return respond(self.refused(unrecorded(&error)));
        }
        let row = match guard::row(self.spec.kind, &request.message) {
            Ok(row) => row,
            Err(refusal) => {
                return self.commit(Asked::new(None, question.clone(), begun), Err(refusal), Vec::new(), respond);
            }
        };
        if row.needs_tip()
            && let Err(refusal) = self.house.chain.require_fresh(&self.spec.name)
        {
            return respond(self.refused(refusal));
        }
        let engine = match self.engine(seat) {
            Ok(engine) => engine,
            // Nothing was decided: the node asks again.
            Err(refusal) if refusal.reason.retry() => return respond(self.refused(refusal)),
            Err(refusal) => {
                return self.commit(Asked::new(Some(row), question.clone(), begun), Err(refusal), Vec::new(), respond);
            }
        };
        match catch_unwind(AssertUnwindSafe(|| engine.handle(row, request, draft.map(|(draft, _)| draft)))) {
            Ok(handled) => {
                // A half-done change must not become durable: the refusal is recorded, the change is not.
                let puts = if handled.distrust { Vec::new() } else { handled.puts };
                if handled.distrust {
                    self.fault(seat, row.name);
                }
                let Handled { facts, policy, came_to, .. } = handled;
                let asked = Asked { facts, policy, came_to, ..Asked::new(Some(row), question.clone(), begun) };
                self.commit(asked, handled.reply, puts, respond);
            }
            Err(_) => {
                // The panic's message may quote memory; the panic hook says where it was.
                self.fault(seat, row.name);
                let refusal = Refusal::new(Reason::Fault, format!("the state machine gave up on {}", row.name));
                self.commit(Asked::new(Some(row), question.clone(), begun), Err(refusal), Vec::new(), respond);
            }
        }
    }

    /// Records the verdict with what changed, then lets the outcome out. Requests that only ask wait for what was
    /// submitted before, so that nothing they tell is ahead of the journal.
    fn commit(self: &Arc<Self>, asked: Asked, reply: Result<Vec<u8>, Refusal>, puts: Vec<Put>, respond: Responder) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(refusal) => return self.refuse(asked, refusal, puts, respond),
        };
        let name = self.next_name();
        let recorded = asked.row.is_none_or(Row::is_recorded);
        let decision = recorded.then(|| asked.decision(&name, self.clock.now_ms(), Ok(&reply)));
        self.send(Commit { tenant: self.spec.name.to_string(), puts, decision }, move |result| {
            respond(match result {
                Ok(()) => Outcome::Reply(reply),
                Err(error) => Outcome::Refused { request: name, refusal: unrecorded(&error) },
            });
        });
    }

    /// Puts a commit on its way and keeps count of it.
    pub(super) fn send(self: &Arc<Self>, commit: Commit, done: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        // Not the actor: who waits for the last landing may count on the journal being nobody else's then.
        let (flights, name) = (self.flights.clone(), self.spec.name.clone());
        flights.take_off();
        let landed = move |result: Result<(), CommitError>| {
            if result.is_err() {
                flights.broken.store(true, Ordering::SeqCst);
            }
            // The thread that tells serves all nodes; what a front door does with its answer must not end it.
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                tracing::error!(node = %name, "an answer could not be handed over");
            }
            flights.land();
        };
        self.house.journal.enqueue(commit, Box::new(landed)); // written at the end of the turn
    }

    /// Waits until nothing is on its way.
    pub(super) fn land_all(&self) {
        self.house.journal.write();
        self.flights.wait();
    }

    /// One block, with the answer after its commit.
    fn block(
        self: &Arc<Self>,
        seat: &mut Seat,
        step: Step,
        block: &ChainBlock,
        reply: SyncSender<Result<TrackerPosition, SinkError>>,
    ) {
        let engine = match self.engine(seat).and_then(|machine| machine.vls()) {
            Ok(engine) => engine,
            Err(refusal) => return drop(reply.send(Err(SinkError::Busy(refusal.detail)))),
        };
        let moved = catch_unwind(AssertUnwindSafe(|| move_tracker(engine, step, block, &self.house.attestor)));
        let (tip, puts) = match moved {
            Ok(Ok(moved)) => moved,
            Ok(Err(error @ SinkError::Apply(_))) => return drop(reply.send(Err(error))),
            // The state machine may be a block ahead of the journal.
            Ok(Err(_)) | Err(_) => {
                self.fault(seat, "block");
                return drop(reply.send(Err(SinkError::Busy("the state machine gave up on the block".to_owned()))));
            }
        };
        self.note_status(seat);
        let position = TrackerPosition { node: self.spec.name.clone(), height: tip.0, hash: tip.1 };
        let commit = Commit { tenant: self.spec.name.to_string(), puts, decision: None };
        self.send(commit, move |result| {
            let outcome = result.map(|()| position).map_err(|error| SinkError::Busy(error.to_string()));
            let _ = reply.send(outcome); // the follower may have stopped
        });
        if step == Step::Connect && tip.0.is_multiple_of(PRUNE_EVERY) {
            self.prune(seat);
        }
    }

    /// Apart from the block, which is on its way: what goes wrong here must not keep the chain out.
    fn prune(self: &Arc<Self>, seat: &mut Seat) {
        let Some(Ok(engine)) = seat.engine.as_mut().map(|machine| machine.vls()) else { return };
        match catch_unwind(AssertUnwindSafe(|| engine.prune())) {
            Ok(Ok(puts)) => self.send(Commit { tenant: self.spec.name.to_string(), puts, decision: None }, drop),
            Ok(Err(_)) | Err(_) => self.fault(seat, "pruning"),
        }
    }

    pub(super) fn note_status(&self, seat: &Seat) {
        // The state machine may have failed with its locks held; then there is nothing to tell.
        let facts = seat.engine.as_ref().and_then(|engine| catch_unwind(AssertUnwindSafe(|| engine.facts())).ok());
        let mut status = lock(&self.status);
        if status.phase != Phase::Stopped {
            status.note(facts);
        }
    }
}

/// A request that the journal hears of.
pub(super) struct Asked {
    /// Absent for a message that is not in the table.
    row: Option<&'static Row>,
    question: Arc<Question>,
    /// When its turn came.
    pub(super) begun: Instant,
    /// What a permit looked at.
    facts: Vec<Fact>,
    /// What the spending policy decided.
    policy: Vec<Record>,
    /// What payments came to.
    came_to: Vec<Event>,
}

impl Asked {
    fn new(row: Option<&'static Row>, question: Arc<Question>, begun: Instant) -> Self {
        let (facts, policy, came_to) = (Vec::new(), Vec::new(), Vec::new());
        Self { row, question, begun, facts, policy, came_to }
    }

    /// The line of the log, for what the request came to.
    pub(super) fn decision(self, name: &str, at_ms: u64, reply: Result<&[u8], &Refusal>) -> Decision {
        Recorded {
            name,
            at_ms,
            row: self.row,
            request: &self.question.request,
            reply,
            facts: self.facts,
            policy: self.policy,
            came_to: self.came_to,
        }
        .decision()
    }
}

/// What an unanswered request takes of its node's bounds, until it is answered or given up.
struct Slot {
    actor: Arc<Actor>,
    bytes: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.actor.mailbox.release(self.bytes);
    }
}

type Moved = ((u32, bitcoin::BlockHash), Vec<Put>);

fn move_tracker(engine: &mut Engine, step: Step, block: &ChainBlock, attestor: &Attestor) -> Result<Moved, SinkError> {
    let concerned = engine.concerned(block);
    let effect = match step {
        Step::Connect => {
            let effect = apply_block(engine.node(), block, attestor, &concerned)?;
            engine.note_block(block, &effect);
            effect
        }
        Step::Disconnect => {
            let effect = revert_block(engine.node(), block, attestor, &concerned)?;
            engine.revert_block(block);
            effect
        }
    };
    let puts = engine.block_changes(&effect).map_err(|refusal| SinkError::Busy(refusal.detail))?;
    Ok(((effect.height, effect.hash), puts))
}

pub(super) fn unrecorded(error: &CommitError) -> Refusal {
    let reason = match error {
        CommitError::Invalid(_) => Reason::Fault,
        CommitError::Closed => Reason::Sealed,
        CommitError::Poisoned => Reason::NodeRestarting,
        CommitError::Store(_) | CommitError::Fenced => Reason::JournalUnavailable,
    };
    Refusal::new(reason, error.to_string())
}
