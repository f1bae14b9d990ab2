//! A fixed pool of signing threads that gives every node its turn.
//!
//! A node is an actor: its requests wait in a [`Mailbox`] and are handled by one thread at a time, so a node is serial
//! inside and nodes are parallel. A turn is bounded, in requests and in time, and then goes to the end of the line, so that
//! no node starves the others (P6).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::keys::memory::scrub_stack;

/// How many items an actor handles in one turn.
pub const ITEMS_PER_TURN: usize = 8;

/// An actor begins no further item when its turn has lasted this long: the largest commitments take a hundred times as
/// long as the smallest.
pub const TIME_PER_TURN: Duration = Duration::from_millis(20);

/// Something that takes turns on the pool.
pub trait Turn: Send + Sync {
    /// Handles up to [`ITEMS_PER_TURN`] items, for about [`TIME_PER_TURN`]. Returns whether more wait.
    fn turn(&self) -> bool;
}

/// The threads and the line of actors that have work.
pub struct Pool {
    line: Arc<Line>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    waiting: VecDeque<Arc<dyn Turn>>,
    closed: bool,
}

impl Pool {
    /// Starts `threads` workers; 0 means one per core.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let line = Arc::new(Line::default());
        let workers = (0..threads)
            .map(|n| {
                let line = line.clone();
                std::thread::Builder::new().name(format!("signing-{n}")).spawn(move || line.work())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { line, workers: Mutex::new(workers) })
    }

    /// Puts `actor` at the end of the line. The caller's mailbox sees to it that an actor stands there once. When the pool
    /// is closed, the caller's thread takes the actor's turns: whoever waits for what it handles must not wait for ever.
    pub fn schedule(&self, actor: Arc<dyn Turn>) {
        let mut line = self.line.lock();
        if line.closed {
            drop(line);
            return while turn(&*actor) {};
        }
        line.waiting.push_back(actor);
        drop(line);
        self.line.changed.notify_one();
    }

    /// Lets the workers finish the line and joins them.
    pub fn close(&self) {
        self.line.lock().closed = true;
        self.line.changed.notify_all();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            if worker.join().is_err() {
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

    fn work(&self) {
        while let Some(actor) = self.next() {
            if turn(&*actor) {
                self.lock().waiting.push_back(actor);
                self.changed.notify_one();
            }
        }
        scrub_stack();
    }

    /// The next actor in line; `None` when the pool is closed and the line is empty.
    fn next(&self) -> Option<Arc<dyn Turn>> {
        let mut state = self.lock();
        loop {
            if let Some(actor) = state.waiting.pop_front() {
                return Some(actor);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One turn. A panic ends the turn, not the thread, which other nodes need too (P6); what the actor has left comes next.
fn turn(actor: &dyn Turn) -> bool {
    catch_unwind(AssertUnwindSafe(|| actor.turn())).unwrap_or_else(|_| {
        tracing::error!("a node's turn ended with a panic");
        true
    })
}

/// What one node may have unanswered at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub items: usize,
    /// Their bytes together.
    pub bytes: usize,
}

/// The waiting work of one actor. An item counts against the bounds until it is [`released`](Mailbox::release), that is
/// until it is answered, not only until it is taken out.
pub struct Mailbox<T> {
    bounds: Bounds,
    state: Mutex<MailboxState<T>>,
}

struct MailboxState<T> {
    waiting: VecDeque<T>,
    unanswered: Bounds,
    in_line: bool,
    closed: bool,
}

/// The item was not taken; it comes back with the reason.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejected<T> {
    /// The bounds are reached: what is unanswered now.
    Full(T, Bounds),
    /// The mailbox is closed.
    Closed(T),
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    pub fn new(bounds: Bounds) -> Self {
        let unanswered = Bounds { items: 0, bytes: 0 };
        let state = MailboxState { waiting: VecDeque::new(), unanswered, in_line: false, closed: false };
        Self { bounds, state: Mutex::new(state) }
    }

    /// Adds an item of `bytes`. Returns whether the owner has to be scheduled.
    pub fn push(&self, item: T, bytes: usize) -> Result<bool, Rejected<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed(item));
        }
        let unanswered = state.unanswered;
        if unanswered.items >= self.bounds.items || unanswered.bytes.saturating_add(bytes) > self.bounds.bytes {
            return Err(Rejected::Full(item, unanswered));
        }
        state.unanswered = Bounds { items: unanswered.items + 1, bytes: unanswered.bytes + bytes };
        state.waiting.push_back(item);
        Ok(!std::mem::replace(&mut state.in_line, true))
    }

    /// Adds an item of the house before all others. It does not count against the bounds: a node that floods its own
    /// queue must not keep its blocks out.
    pub fn push_urgent(&self, item: T) -> Result<bool, Rejected<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed(item));
        }
        state.waiting.push_front(item);
        Ok(!std::mem::replace(&mut state.in_line, true))
    }

    /// Takes the first item out.
    pub fn pop(&self) -> Option<T> {
        self.lock().waiting.pop_front()
    }

    /// An item of `bytes` was answered.
    pub fn release(&self, bytes: usize) {
        let unanswered = &mut self.lock().unanswered;
        unanswered.items -= 1;
        unanswered.bytes -= bytes;
    }

    /// Ends a turn. Returns whether items wait; if none do, the next push schedules again.
    pub fn end_turn(&self) -> bool {
        let mut state = self.lock();
        state.in_line = !state.waiting.is_empty();
        state.in_line
    }

    /// Takes no more items and returns those that wait.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.drain(..).collect()
    }

    /// How much is unanswered.
    pub fn unanswered(&self) -> Bounds {
        self.lock().unanswered
    }

    fn lock(&self) -> MutexGuard<'_, MailboxState<T>> {
        // A queue is whole between any two statements here: nothing to distrust after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    const BOUNDS: Bounds = Bounds { items: 3, bytes: 100 };

    #[test]
    fn a_mailbox_counts_until_answered() {
        let mailbox = Mailbox::new(BOUNDS);
        assert_eq!(mailbox.push('a', 50), Ok(true));
        assert_eq!(mailbox.push('b', 50), Ok(false), "already in line");
        assert_eq!(mailbox.push('c', 1), Err(Rejected::Full('c', Bounds { items: 2, bytes: 100 })), "bytes");
        assert_eq!(mailbox.pop(), Some('a'));
        assert!(matches!(mailbox.push('c', 1), Err(Rejected::Full(..))), "taken out is not yet answered");
        mailbox.release(50);
        assert_eq!(mailbox.push('c', 1), Ok(false));
        assert_eq!(mailbox.push('d', 1), Ok(false));
        assert!(matches!(mailbox.push('e', 1), Err(Rejected::Full('e', Bounds { items: 3, bytes: 52 }))), "items");
    }

    #[test]
    fn an_emptied_mailbox_schedules_again_and_a_closed_one_takes_nothing() {
        let mailbox = Mailbox::new(BOUNDS);
        assert_eq!(mailbox.push(1, 1), Ok(true));
        assert_eq!(mailbox.pop(), Some(1));
        assert!(!mailbox.end_turn());
        assert_eq!(mailbox.push(2, 1), Ok(true));
        assert!(mailbox.end_turn(), "one waits");
        assert_eq!(mailbox.push_urgent(0), Ok(false));
        assert_eq!(mailbox.close(), vec![0, 2], "the house goes first");
        assert_eq!(mailbox.push(3, 1), Err(Rejected::Closed(3)));
    }

    /// Counts down, reporting each item with its name.
    struct Countdown {
        name: char,
        left: Mutex<usize>,
        report: Mutex<Sender<char>>,
    }

    impl Turn for Countdown {
        fn turn(&self) -> bool {
            let mut left = self.left.lock().expect("not poisoned");
            for _ in 0..ITEMS_PER_TURN.min(*left) {
                *left -= 1;
                self.report.lock().expect("not poisoned").send(self.name).expect("listening");
            }
            *left > 0
        }
    }

    /// Holds the only thread until both actors stand in line.
    struct Gate(Mutex<std::sync::mpsc::Receiver<()>>);

    impl Turn for Gate {
        fn turn(&self) -> bool {
            self.0.lock().expect("not poisoned").recv().expect("opened");
            false
        }
    }

    #[test]
    fn a_busy_node_does_not_starve_a_quiet_one() {
        let (report, reported) = channel();
        let actor = |name, left| {
            Arc::new(Countdown { name, left: Mutex::new(left), report: Mutex::new(report.clone()) }) as Arc<dyn Turn>
        };
        let (open, gate) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.schedule(Arc::new(Gate(Mutex::new(gate))));
        pool.schedule(actor('a', 1_000));
        pool.schedule(actor('b', 1));
        open.send(()).expect("the gate waits");
        pool.close();
        let order: Vec<char> = reported.try_iter().collect();
        assert_eq!(order.len(), 1_001, "closing finishes the line");
        assert_eq!(order.iter().position(|name| *name == 'b'), Some(ITEMS_PER_TURN), "after one turn of the other");
    }

    /// Panics as often as told, then is done.
    struct Panicking(Mutex<usize>, Mutex<Sender<()>>);

    impl Turn for Panicking {
        fn turn(&self) -> bool {
            {
                let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(less) = left.checked_sub(1) {
                    *left = less;
                    panic!("a defect of the actor");
                }
            }
            self.1.lock().expect("not poisoned").send(()).expect("listening");
            false
        }
    }

    #[test]
    fn a_panic_ends_a_turn_but_neither_the_thread_nor_the_actor() {
        let (done, outcome) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.schedule(Arc::new(Panicking(Mutex::new(3), Mutex::new(done))));
        outcome.recv().expect("the actor had its turn after its panics");
        pool.close();
    }

    #[test]
    fn a_closed_pool_leaves_nobody_waiting() {
        let (report, reported) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.close();
        pool.schedule(Arc::new(Countdown { name: 'a', left: Mutex::new(20), report: Mutex::new(report) }));
        assert_eq!(reported.try_iter().count(), 20);
    }
}
