//! The actor of one node: takes requests one at a time, and lets an answer out only when its record is durable (P1).
//!
//! While a commit is on its way to the disk the actor works on the next request. If a commit fails, or vls panics, the
//! state machine is dropped and built again from the journal, and what was not acknowledged is refused (P6).

mod ahead;
mod conduct;
mod flights;
mod operator;
mod rebuilds;
mod refusals;
mod seat;
mod work;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

pub use self::operator::AdoptFailed;

use self::ahead::Question;
use self::conduct::Conduct;
use self::flights::Flights;
use self::seat::Seat;
use self::work::Turns;
use super::clock::NodeClock;
use super::engine::{NodeSpec, Settings};
use super::lnd::Drafter;
use super::mailbox::{Bounds, Mailbox, Rejected};
use super::persist::ChainStart;
use super::pool::{Account, Pool};
use super::recent::{Recent, Unrecorded};
use super::status::NodeStatus;
use crate::chain::{Attestor, ChainBlock, SinkError, TrackerPosition};
use crate::facts::{Fact, Unit};
use crate::journal::Journal;
use crate::names::NodeName;
use crate::pipeline::{Outcome, Request, Responder};
use crate::reasons::{Reason, Refusal};

/// What actors need to know of the chain besides blocks.
pub trait ChainFacts: Send + Sync {
    /// Refuses with [`Reason::ChainStale`] if the view of the chain, or `node`'s tracker, is too old to sign by.
    fn require_fresh(&self, node: &NodeName) -> Result<(), Refusal>;

    /// Where a new node starts to follow the chain; `None` until a tip is known.
    fn start(&self) -> Option<ChainStart>;

    /// The height of the tip, if one is known.
    fn height(&self) -> Option<u32> {
        None
    }
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
    /// Once the node was built, and if its kind has one.
    drafter: RwLock<Option<Drafter>>,
    /// Somebody was asked to help with what waits, and has not found that there is nothing to do.
    helped: AtomicBool,
    flights: Arc<Flights>,
    status: Mutex<NodeStatus>,
    conduct: Arc<Mutex<Conduct>>,
    account: Account,
    clock: Arc<NodeClock>,
    recent: Arc<Recent>,
    /// With the counter, a request's name in the journal: differs from those of earlier runs.
    run: u32,
    requests: AtomicU64,
}

/// What waits in the mailbox.
enum Work {
    Request(Arc<Question>, Responder),
    Block(Step, Arc<ChainBlock>, SyncSender<Result<TrackerPosition, SinkError>>),
    /// Build the node if it is not there.
    Wake,
    /// Record how many refusals were left out.
    Tally,
    /// The operator looks, or orders.
    Operator(operator::Call),
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
            drafter: RwLock::default(),
            helped: AtomicBool::new(false),
            flights: Arc::default(),
            status,
            conduct: Arc::new(Mutex::new(Conduct::new(Instant::now()))),
            account: Account::default(),
            clock: Arc::default(),
            recent: Arc::default(),
            run: u32::from_be_bytes(run),
            requests: AtomicU64::new(0),
        })
    }

    /// Queues a request. `respond` is called once, from a signing thread or the journal's.
    pub fn submit(self: &Arc<Self>, request: Request, respond: Responder) {
        let bytes = request.message.len();
        let respond = self.recent.watching(&self.spec.name, self.spec.kind, &self.clock, &request, respond);
        match self.mailbox.push(Work::Request(Arc::new(Question::new(request)), respond), bytes) {
            Ok(first) => {
                self.schedule(first);
                if !first && self.wants_help() {
                    self.pool.help(Arc::new(Turns(self.clone())));
                }
            }
            Err(Rejected::Full(Work::Request(_, respond), waiting)) => {
                let detail = format!("{} requests of {} bytes are unanswered", waiting.items, waiting.bytes);
                let items = Fact::count("unanswered_requests", waiting.items as u64);
                let bytes = Fact::number("unanswered_bytes", waiting.bytes as u64, Unit::Bytes);
                respond(self.refused(Refusal::new(Reason::NodeBusy, detail).with_fact(items).with_fact(bytes)));
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
        if !self.spec.kind.follows_chain() {
            return None; // it follows no chain here
        }
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
        (status.refused, status.left_out, status.held_back) = lock(&self.conduct).figures(Instant::now());
        status
    }

    /// A refusal that is not in the journal, if it is one of the last.
    pub fn unrecorded(&self, request: &str) -> Option<Unrecorded> {
        self.recent.find(request)
    }

    /// What the run's number is, and how many names were given in it.
    pub fn names_given(&self) -> (u32, u64) {
        (self.run, self.requests.load(Ordering::Relaxed))
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

/// What these locks guard is whole between statements; a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
