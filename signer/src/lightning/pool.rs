//! A fixed pool of signing threads that gives every node its turn.
//!
//! A node is an actor: its requests wait in a mailbox and are handled by one thread at a time, so a node is serial inside
//! and nodes are parallel. A turn is bounded, in requests and in time. Who comes next is decided by the time that
//! each has had, not by the number of its turns: a node with the largest commitments gets no more of the threads than one
//! with the smallest, and one that was away stands before all that were not (P6).

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::keys::memory::{scrub_stack, spawn};
use crate::turns;

/// How many items an actor handles in one turn: lnd asks for the signatures on a commitment and on eight of its HTLCs at once, and one
/// flush serves a turn.
pub const ITEMS_PER_TURN: usize = 10;

/// An actor begins no further item when its turn has lasted this long: the largest commitments take a hundred times as
/// long as the smallest.
pub const TIME_PER_TURN: Duration = Duration::from_millis(4);

/// Something that takes turns on the pool.
pub trait Turn: Send + Sync {
    /// Handles up to [`ITEMS_PER_TURN`] items, for about [`TIME_PER_TURN`].
    fn turn(&self) -> Ended;

    /// The same one for every turn of the same actor.
    fn account(&self) -> &Account;

    /// Does a part of what waits for the actor while another thread has its turn; returns what the actor is charged, or `None` if
    /// there is nothing to do.
    fn help(&self) -> Option<Duration> {
        None
    }

    /// What is left to do after a turn, while others may take the actor's next one already. May wait for the disk.
    fn finish(&self) {}
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether more items wait.
    pub more: bool,
    /// What the actor is charged.
    pub took: Duration,
}

/// When an actor's next turn falls due, in time spent by all: start-time fair queueing.
#[derive(Debug, Default)]
pub struct Account(Mutex<Duration>);

impl Account {
    /// Its place, if it stands in line now: who used no time has none saved.
    fn due(&self, now: Duration) -> Duration {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *due = now.max(*due);
        *due
    }

    fn charge(&self, took: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += took;
    }
}

/// The threads and the line of actors that have work.
pub struct Pool {
    line: Arc<Line>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// Something to be done later, which takes no time to speak of.
pub type Errand = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    /// By when their turns fall due, then by arrival.
    waiting: BTreeMap<(Duration, u64), Arc<dyn Turn>>,
    errands: BTreeMap<(Instant, u64), Errand>,
    /// Whom somebody without a turn may help.
    helped: VecDeque<Arc<dyn Turn>>,
    arrivals: u64,
    /// When the turn fell due that began last.
    now: Duration,
    closed: bool,
}

impl LineState {
    fn stand(&mut self, actor: Arc<dyn Turn>) {
        self.arrivals += 1;
        self.waiting.insert((actor.account().due(self.now), self.arrivals), actor);
    }
}

/// What a worker does next.
enum Next {
    Turn(Arc<dyn Turn>),
    Help(Arc<dyn Turn>),
    Errand(Errand),
}

impl Pool {
    /// Starts `threads` workers; 0 means one per core, and one more, as one of them may be waiting for the disk.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from) + 1,
            n => n,
        };
        let line = Arc::new(Line::default());
        let workers = (0..threads)
            .map(|n| {
                let line = line.clone();
                spawn(&format!("signing-{n}"), move || {
                    turns::answers();
                    line.work();
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { line, workers: Mutex::new(workers) })
    }

    /// Puts `actor` in line. The caller's mailbox sees to it that an actor stands there once. When the pool is closed, the
    /// caller's thread takes the actor's turns: whoever waits for what it handles must not wait for ever.
    pub fn schedule(&self, actor: Arc<dyn Turn>) {
        let mut line = self.line.lock();
        if line.closed {
            drop(line);
            while turn(&*actor).more {}
            return finish(&*actor);
        }
        line.stand(actor);
        drop(line);
        self.line.changed.notify_one();
    }

    /// Has `actor` helped for as long as there is something to do for it and no turn waits for a thread.
    pub fn help(&self, actor: Arc<dyn Turn>) {
        self.line.help(actor);
        self.line.changed.notify_one();
    }

    /// Has `errand` done at `when`, or as soon as the pool closes. No thread waits for that.
    pub fn later(&self, when: Instant, errand: Errand) {
        let mut line = self.line.lock();
        if line.closed {
            drop(line);
            return run(errand);
        }
        line.arrivals += 1;
        let number = line.arrivals;
        line.errands.insert((when, number), errand);
        drop(line);
        self.line.changed.notify_one();
    }

    /// Lets the workers finish the line, do what was left for later, and joins them.
    pub fn close(&self) {
        let helped = {
            let mut line = self.line.lock();
            line.closed = true;
            std::mem::take(&mut line.helped)
        };
        drop(helped); // they own the pool, as it owns them
        self.line.changed.notify_all();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            // An errand may have dropped the last owner of the pool.
            if worker.thread().id() != std::thread::current().id() && worker.join().is_err() {
                tracing::error!("a signing thread died");
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `actor` among those who are helped; they have no claim to it.
    fn help(&self, actor: Arc<dyn Turn>) {
        let mut state = self.lock();
        if !state.closed {
            state.helped.push_back(actor);
        }
    }

    fn work(&self) {
        while let Some(next) = self.next() {
            match next {
                Next::Errand(errand) => run(errand),
                Next::Help(actor) => {
                    if let Some(took) = help(&*actor) {
                        actor.account().charge(took);
                        self.help(actor);
                    }
                }
                Next::Turn(actor) => {
                    let ended = turn(&*actor);
                    actor.account().charge(ended.took);
                    if ended.more {
                        self.lock().stand(actor.clone());
                        self.changed.notify_one();
                    }
                    finish(&*actor);
                }
            }
        }
        scrub_stack();
    }

    /// What comes next; `None` when the pool is closed and nothing is left.
    fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        loop {
            let mut patience = None;
            if let Some(first) = state.errands.first_entry() {
                let wait = first.key().0.saturating_duration_since(Instant::now());
                if state.closed || wait.is_zero() {
                    return state.errands.pop_first().map(|(_, errand)| Next::Errand(errand));
                }
                patience = Some(wait);
            }
            if let Some(((due, _), actor)) = state.waiting.pop_first() {
                state.now = state.now.max(due);
                return Some(Next::Turn(actor));
            }
            if state.closed {
                return None;
            }
            if let Some(actor) = state.helped.pop_front() {
                return Some(Next::Help(actor));
            }
            state = match patience {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

/// One turn. A panic ends the turn, not the thread, which other nodes need too (P6); what the actor has left comes next.
fn turn(actor: &dyn Turn) -> Ended {
    catch_unwind(AssertUnwindSafe(|| actor.turn())).unwrap_or_else(|_| {
        tracing::error!("a node's turn ended with a panic");
        Ended { more: true, took: TIME_PER_TURN }
    })
}

/// A part of what waits. A panic ends the help.
fn help(actor: &dyn Turn) -> Option<Duration> {
    catch_unwind(AssertUnwindSafe(|| actor.help())).unwrap_or_else(|_| {
        tracing::error!("helping a node ended with a panic");
        None
    })
}

fn finish(actor: &dyn Turn) {
    if catch_unwind(AssertUnwindSafe(|| actor.finish())).is_err() {
        tracing::error!("what is left to do after a turn ended with a panic");
    }
}

fn run(errand: Errand) {
    if catch_unwind(AssertUnwindSafe(errand)).is_err() {
        tracing::error!("what a node left for later ended with a panic");
    }
}

#[cfg(test)]
mod tests;
