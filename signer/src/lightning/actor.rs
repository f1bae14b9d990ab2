//! The actor of one node: takes requests one at a time, and lets an answer out only when its record is durable (P1).
//!
//! While a commit is on its way to the disk the actor works on the next request. If a commit fails, or vls panics, the
//! state machine is dropped and built again from the journal, and what was not acknowledged is refused (P6).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::NodeClock;
use super::engine::{Engine, NodeSpec, Settings, first_entries};
use super::messages::{self, Row};
use super::persist::ChainStart;
use super::pool::{Bounds, ITEMS_PER_TURN, Mailbox, Pool, Rejected, Turn};
use super::record::Recorded;
use super::status::{NodeStatus, Phase};
use crate::chain::{Attestor, ChainBlock, SinkError, TrackerPosition, apply_block, revert_block};
use crate::journal::{Commit, CommitError, Health, Journal, JournalError, Put};
use crate::names::NodeName;
use crate::pipeline::{Outcome, Request, Responder};
use crate::reasons::{Reason, Refusal};

/// Blocks between two prunings of what is long over.
const PRUNE_EVERY: u32 = 6;

/// What actors need to know of the chain besides blocks.
pub trait ChainFacts: Send + Sync {
    /// Refuses with [`Reason::ChainStale`] if the view of the chain, or `node`'s tracker, is too old to sign by.
    fn require_fresh(&self, node: &NodeName) -> Result<(), Refusal>;

    /// Where a new node starts to follow the chain; `None` until a tip is known.
    fn start(&self) -> Option<ChainStart>;
}

/// What all actors share.
pub struct House {
    /// Where everything is recorded.
    pub journal: Arc<Journal>,
    /// Our own view of the chain.
    pub chain: Arc<dyn ChainFacts>,
    /// The key that vouches for its blocks.
    pub attestor: Arc<Attestor>,
    /// What each node may do.
    pub settings: Settings,
}

/// One node's actor.
pub struct Actor {
    spec: NodeSpec,
    house: Arc<House>,
    pool: Arc<Pool>,
    mailbox: Mailbox<Work>,
    seat: Mutex<Seat>,
    flights: Arc<Flights>,
    status: Mutex<NodeStatus>,
    clock: NodeClock,
    /// With the counter, a request's name in the journal: differs from those of earlier runs.
    run: u32,
    requests: AtomicU64,
}

/// What waits in the mailbox.
enum Work {
    Request(Request, Responder),
    Block(Step, Arc<ChainBlock>, SyncSender<Result<TrackerPosition, SinkError>>),
    /// Build the node if it is not there.
    Wake,
    /// Let go of the node and of its keys.
    Retire(SyncSender<()>),
}

/// Which way a block moves the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It becomes the tip.
    Connect,
    /// It was the tip and is removed.
    Disconnect,
}

/// The state machine, or when it may be built again. Whoever has the turn sits here.
#[derive(Default)]
struct Seat {
    engine: Option<Engine>,
    rebuilds: Rebuilds,
}

/// Commits on their way, and whether one failed.
#[derive(Default)]
struct Flights {
    count: Mutex<usize>,
    landed: Condvar,
    /// A commit failed: what the state machine remembers is not what the journal holds.
    broken: AtomicBool,
}

impl Actor {
    /// An actor for `spec`, which builds its node when it is first asked.
    pub fn new(spec: NodeSpec, house: Arc<House>, pool: Arc<Pool>, bounds: Bounds) -> Arc<Self> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).expect("the operating system provides randomness");
        let status = Mutex::new(NodeStatus::new(&spec));
        Arc::new(Self {
            spec,
            house,
            pool,
            mailbox: Mailbox::new(bounds),
            seat: Mutex::default(),
            flights: Arc::default(),
            status,
            clock: NodeClock::default(),
            run: u32::from_be_bytes(run),
            requests: AtomicU64::new(0),
        })
    }

    /// Queues a request. `respond` is called once, from a signing thread or the journal's.
    pub fn submit(self: &Arc<Self>, request: Request, respond: Responder) {
        let bytes = request.message.len();
        match self.mailbox.push(Work::Request(request, respond), bytes) {
            Ok(first) => self.schedule(first),
            Err(Rejected::Full(Work::Request(_, respond), waiting)) => {
                let detail = format!("{} requests of {} bytes are unanswered", waiting.items, waiting.bytes);
                respond(self.refused(Refusal::new(Reason::NodeBusy, detail)));
            }
            Err(Rejected::Closed(Work::Request(_, respond))) => {
                respond(self.refused(Refusal::new(Reason::Sealed, "the node is shutting down")));
            }
            Err(_) => {} // what comes back is what was pushed
        }
    }

    /// Moves the node's tracker by one block; returns when that is durable.
    pub fn step(self: &Arc<Self>, step: Step, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
        let (reply, outcome) = std::sync::mpsc::sync_channel(1);
        self.push_urgent(Work::Block(step, block, reply)).map_err(|()| SinkError::Gone)?;
        outcome.recv().unwrap_or(Err(SinkError::Gone))
    }

    /// Where the node's tracker stands; if the node is not there, or about to be built again, asks for that instead.
    pub fn position(self: &Arc<Self>) -> Option<TrackerPosition> {
        let broken = self.flights.broken.load(Ordering::SeqCst);
        let tip = self.status().tip.filter(|_| !broken);
        if tip.is_none() {
            self.wake();
        }
        tip.map(|(height, hash)| TrackerPosition { node: self.spec.name.clone(), height, hash })
    }

    /// Builds the node if it is not there.
    pub fn wake(self: &Arc<Self>) {
        let _ = self.push_urgent(Work::Wake); // closed: nothing to build
    }

    /// Takes no more requests, refuses those that wait, finishes what is being recorded, and drops the node.
    pub fn retire(self: &Arc<Self>) {
        let (done, gone) = std::sync::mpsc::sync_channel(1);
        if self.push_urgent(Work::Retire(done)).is_ok() {
            let _ = gone.recv(); // an error means that the pool is closed already
        }
    }

    /// What `status` shows.
    pub fn status(&self) -> NodeStatus {
        let mut status = lock(&self.status).clone();
        status.unanswered = self.mailbox.unanswered().items;
        status
    }

    fn push_urgent(self: &Arc<Self>, work: Work) -> Result<(), ()> {
        self.schedule(self.mailbox.push_urgent(work).map_err(drop)?);
        Ok(())
    }

    fn schedule(self: &Arc<Self>, first: bool) {
        if first {
            self.pool.schedule(Arc::new(Turns(self.clone())));
        }
    }

    fn refused(&self, refusal: Refusal) -> Outcome {
        Outcome::Refused { request: self.next_name(), refusal }
    }

    /// A name for `claviger explain`.
    fn next_name(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:08x}-{number}", self.spec.name, self.run)
    }
}

/// Lets an `Arc<Actor>` take turns.
struct Turns(Arc<Actor>);

impl Turn for Turns {
    fn turn(&self) -> bool {
        let actor = &self.0;
        {
            let mut seat = lock(&actor.seat);
            for work in std::iter::from_fn(|| actor.mailbox.pop()).take(ITEMS_PER_TURN) {
                actor.work(&mut seat, work);
            }
            actor.note_status(&seat);
        }
        actor.mailbox.end_turn()
    }
}

impl Actor {
    fn work(self: &Arc<Self>, seat: &mut Seat, work: Work) {
        match work {
            Work::Request(request, respond) => self.request(seat, request, respond),
            Work::Block(step, block, reply) => self.block(seat, step, &block, reply),
            Work::Wake => drop(self.engine(seat)),
            Work::Retire(done) => {
                for work in self.mailbox.close() {
                    if let Work::Request(request, respond) = work {
                        self.mailbox.release(request.message.len());
                        respond(self.refused(Refusal::new(Reason::Sealed, "the node is shutting down")));
                    }
                }
                self.flights.wait();
                drop_engine(seat);
                lock(&self.status).phase = Phase::Stopped;
                let _ = done.send(()); // whoever asked may be gone
            }
        }
    }

    /// One request, from its bytes to a commit on its way.
    fn request(self: &Arc<Self>, seat: &mut Seat, request: Request, respond: Responder) {
        let bytes = request.message.len();
        let actor = self.clone();
        let respond: Responder = Box::new(move |outcome| {
            actor.mailbox.release(bytes);
            respond(outcome);
        });
        if let Health::Faulted(error) = self.house.journal.health() {
            return respond(self.refused(unrecorded(&error)));
        }
        let row = match messages::row(self.spec.kind, &request.message) {
            Ok(row) => row,
            Err(refusal) => return self.commit(None, &request, Err(refusal), Vec::new(), respond),
        };
        if row.needs_tip
            && let Err(refusal) = self.house.chain.require_fresh(&self.spec.name)
        {
            return respond(self.refused(refusal));
        }
        let engine = match self.engine(seat) {
            Ok(engine) => engine,
            Err(refusal) => return respond(self.refused(refusal)),
        };
        match catch_unwind(AssertUnwindSafe(|| engine.handle(row, &request))) {
            Ok(handled) => {
                // A half-done change must not become durable: the refusal is recorded, the change is not.
                let puts = if handled.distrust { Vec::new() } else { handled.puts };
                if handled.distrust {
                    self.fault(seat, row.name);
                }
                self.commit(Some(row), &request, handled.reply, puts, respond);
            }
            Err(_) => {
                // The panic's message may quote memory; the panic hook says where it was.
                self.fault(seat, row.name);
                let refusal = Refusal::new(Reason::Fault, format!("the state machine gave up on {}", row.name));
                self.commit(Some(row), &request, Err(refusal), Vec::new(), respond);
            }
        }
    }

    /// Records the verdict with what changed, then lets the outcome out. Requests that only ask wait for what was
    /// submitted before, so that nothing they tell is ahead of the journal.
    fn commit(
        self: &Arc<Self>,
        row: Option<&'static Row>,
        request: &Request,
        reply: Result<Vec<u8>, Refusal>,
        puts: Vec<Put>,
        respond: Responder,
    ) {
        let name = self.next_name();
        let recorded = reply.is_err() || row.is_none_or(Row::is_recorded);
        let decision = recorded
            .then(|| Recorded { name: &name, at_ms: self.clock.now_ms(), row, request, reply: &reply }.decision());
        let outcome = match reply {
            Ok(reply) => Outcome::Reply(reply),
            Err(refusal) => Outcome::Refused { request: name.clone(), refusal },
        };
        self.send(Commit { tenant: self.spec.name.to_string(), puts, decision }, move |result| {
            respond(match result {
                Ok(()) => outcome,
                Err(error) => Outcome::Refused { request: name, refusal: unrecorded(&error) },
            });
        });
    }

    /// Puts a commit on its way and keeps count of it.
    fn send(self: &Arc<Self>, commit: Commit, done: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        // Not the actor: who waits for the last landing may count on the journal being nobody else's then.
        let (flights, name) = (self.flights.clone(), self.spec.name.clone());
        flights.take_off();
        let landed = move |result: Result<(), CommitError>| {
            if result.is_err() {
                flights.broken.store(true, Ordering::SeqCst);
            }
            // The journal's thread serves all nodes; what a front door does with its answer must not end it.
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                tracing::error!(node = %name, "an answer could not be handed over");
            }
            flights.land();
        };
        self.house.journal.submit(commit, Box::new(landed));
    }

    /// One block, with the answer after its commit.
    fn block(
        self: &Arc<Self>,
        seat: &mut Seat,
        step: Step,
        block: &ChainBlock,
        reply: SyncSender<Result<TrackerPosition, SinkError>>,
    ) {
        let engine = match self.engine(seat) {
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
    }

    /// The state machine, built from the journal if it is not there or cannot be trusted.
    fn engine<'a>(&self, seat: &'a mut Seat) -> Result<&'a mut Engine, Refusal> {
        if self.flights.broken.load(Ordering::SeqCst) {
            drop_engine(seat);
        }
        if seat.engine.is_none() {
            seat.rebuilds.wait_over()?;
            let built = self.build();
            if let Err(refusal) = &built
                && refusal.reason == Reason::Fault
            {
                lock(&self.status).fault(&refusal.detail);
                seat.rebuilds.failed();
            }
            seat.engine = Some(built?);
        }
        seat.engine.as_mut().ok_or_else(|| Refusal::new(Reason::NodeRestarting, "the node is not there"))
    }

    fn build(&self) -> Result<Engine, Refusal> {
        // What is still on its way belongs to the state that the journal is about to give back.
        self.flights.wait();
        let tenant = self.spec.name.as_str();
        let mut entries = self.house.journal.load(tenant).map_err(unloaded)?;
        self.flights.broken.store(false, Ordering::SeqCst);
        if entries.is_empty() {
            let puts = self.first_entries()?;
            let commit = Commit { tenant: tenant.to_owned(), puts: puts.clone(), decision: None };
            self.house.journal.commit(commit).map_err(|error| unrecorded(&error))?;
            entries = puts.into_iter().filter_map(|put| Some((put.key, put.value?))).collect();
        }
        let build = || Engine::restore(&self.spec, &self.house.settings, entries);
        match catch_unwind(AssertUnwindSafe(build)) {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(error)) => Err(Refusal::new(Reason::Fault, error.to_string())),
            Err(_) => Err(Refusal::new(Reason::Fault, "the node's state cannot be restored")),
        }
    }

    fn first_entries(&self) -> Result<Vec<Put>, Refusal> {
        let unknown = || Refusal::new(Reason::ChainStale, "no block is known yet from which the new node could start");
        let start = self.house.chain.start().ok_or_else(unknown)?;
        first_entries(&self.spec, start).map_err(|error| Refusal::new(Reason::Fault, error.to_string()))
    }

    /// vls failed halfway: nothing it remembers is used again.
    fn fault(&self, seat: &mut Seat, doing: &str) {
        tracing::error!(node = %self.spec.name, doing, "the node's state machine failed; it is built again from the journal");
        drop_engine(seat);
        seat.rebuilds.failed();
        lock(&self.status).fault(&format!("failed while handling {doing}"));
    }

    fn note_status(&self, seat: &Seat) {
        // The state machine may have failed with its locks held; then there is nothing to tell.
        let facts = seat.engine.as_ref().and_then(|engine| catch_unwind(AssertUnwindSafe(|| facts(engine))).ok());
        let mut status = lock(&self.status);
        if status.phase != Phase::Stopped {
            status.note(facts);
        }
    }
}

fn facts(engine: &Engine) -> ((u32, bitcoin::BlockHash), usize) {
    let tip = {
        let tracker = engine.node().get_tracker();
        (tracker.height(), tracker.tip().0.block_hash())
    };
    (tip, engine.node().get_channels().len())
}

type Moved = ((u32, bitcoin::BlockHash), Vec<Put>);

fn move_tracker(engine: &mut Engine, step: Step, block: &ChainBlock, attestor: &Attestor) -> Result<Moved, SinkError> {
    let effect = match step {
        Step::Connect => apply_block(engine.node(), block, attestor)?,
        Step::Disconnect => revert_block(engine.node(), block, attestor)?,
    };
    engine.record_block(&effect).map_err(|refusal| SinkError::Busy(refusal.detail))?;
    if step == Step::Connect && effect.height.is_multiple_of(PRUNE_EVERY) {
        engine.prune();
    }
    let puts = engine.changes().map_err(|refusal| SinkError::Busy(refusal.detail))?;
    Ok(((effect.height, effect.hash), puts))
}

/// Drops the state machine, whatever state a panic left it in.
fn drop_engine(seat: &mut Seat) {
    let engine = seat.engine.take();
    if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
        tracing::error!("a node's state machine could not be dropped cleanly");
    }
}

fn unrecorded(error: &CommitError) -> Refusal {
    let reason = match error {
        CommitError::Invalid(_) => Reason::Fault,
        CommitError::Closed => Reason::Sealed,
        CommitError::Poisoned => Reason::NodeRestarting,
        CommitError::Store(_) | CommitError::Fenced => Reason::JournalUnavailable,
    };
    Refusal::new(reason, error.to_string())
}

fn unloaded(error: JournalError) -> Refusal {
    match error {
        JournalError::Unavailable(error) => unrecorded(&error),
        other => Refusal::new(Reason::Fault, other.to_string()),
    }
}

/// Keeps a node that fails over and over from spending all its turns on being built.
#[derive(Default)]
struct Rebuilds {
    last: Option<Instant>,
    streak: u32,
}

impl Rebuilds {
    /// A failure after a quiet minute is the first of a streak.
    const QUIET: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(5);

    fn failed(&mut self) {
        let quiet = self.last.is_none_or(|last| last.elapsed() > Self::QUIET);
        self.streak = if quiet { 1 } else { self.streak.saturating_add(1) };
        self.last = Some(Instant::now());
    }

    /// The first failure of a streak costs nothing, the second 100 ms, and so on up to 5 s.
    fn pause(&self) -> Duration {
        match self.streak {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(50 << n.min(7)).min(Self::LONGEST),
        }
    }

    fn wait_over(&self) -> Result<(), Refusal> {
        match self.last {
            Some(last) if last.elapsed() < self.pause() => {
                let detail = format!("the node failed {} times in a row and is built again shortly", self.streak);
                Err(Refusal::new(Reason::NodeRestarting, detail))
            }
            _ => Ok(()),
        }
    }
}

impl Flights {
    fn take_off(&self) {
        *lock(&self.count) += 1;
    }

    fn land(&self) {
        *lock(&self.count) -= 1;
        self.landed.notify_all();
    }

    /// Waits until none is on its way.
    fn wait(&self) {
        let mut count = lock(&self.count);
        while *count > 0 {
            count = self.landed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What these locks guard is whole between statements; a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_keeps_failing_is_built_less_and_less_often() {
        let mut rebuilds = Rebuilds::default();
        assert_eq!(rebuilds.wait_over(), Ok(()));
        rebuilds.failed();
        assert_eq!(rebuilds.pause(), Duration::ZERO, "a single failure costs nothing");
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                rebuilds.failed();
                rebuilds.pause()
            })
            .collect();
        assert!(pauses.is_sorted() && pauses[0] > Duration::ZERO);
        assert_eq!(pauses[7], Rebuilds::LONGEST);
        assert_eq!(rebuilds.wait_over().map_err(|r| r.reason), Err(Reason::NodeRestarting));
    }
}
