//! A fixed pool of signing threads that gives every node its turn.
//!
//! A node is an actor: its requests wait in a mailbox and are handled by one thread at a time, so a node is serial inside
//! and nodes are parallel. A turn is bounded, in requests and in time. Who comes next is decided by the time that
//! each has had, not by the number of its turns: a node with the largest commitments gets no more of the threads than one
//! with the smallest, and one that was away stands before all that were not (P6).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::keys::memory::{scrub_stack, spawn};
use crate::turns;

/// How many items an actor handles in one turn.
pub const ITEMS_PER_TURN: usize = 8;

/// An actor begins no further item when its turn has lasted this long: the largest commitments take a hundred times as
/// long as the smallest.
pub const TIME_PER_TURN: Duration = Duration::from_millis(4);

/// Something that takes turns on the pool.
pub trait Turn: Send + Sync {
    /// Handles up to [`ITEMS_PER_TURN`] items, for about [`TIME_PER_TURN`].
    fn turn(&self) -> Ended;

    /// The same one for every turn of the same actor.
    fn account(&self) -> &Account;

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
        self.line.lock().closed = true;
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

    fn work(&self) {
        while let Some(next) = self.next() {
            match next {
                Next::Errand(errand) => run(errand),
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
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Counts down, reporting each turn with its name; each one is said to have taken `cost`.
    struct Countdown {
        name: char,
        left: Mutex<usize>,
        cost: Duration,
        report: Sender<char>,
        account: Account,
    }

    impl Countdown {
        fn turns(name: char, left: usize, cost_ms: u64, report: &Sender<char>) -> Arc<dyn Turn> {
            let (report, cost) = (report.clone(), Duration::from_millis(cost_ms));
            Arc::new(Self { name, left: Mutex::new(left), cost, report, account: Account::default() })
        }
    }

    impl Turn for Countdown {
        fn turn(&self) -> Ended {
            let mut left = self.left.lock().expect("not poisoned");
            *left -= 1;
            self.report.send(self.name).expect("listening");
            Ended { more: *left > 0, took: self.cost }
        }

        fn account(&self) -> &Account {
            &self.account
        }
    }

    /// Holds the only thread until all actors stand in line, or for good.
    struct Gate(Mutex<Receiver<()>>, Account);

    impl Turn for Gate {
        fn turn(&self) -> Ended {
            let _ = self.0.lock().expect("not poisoned").recv();
            Ended { more: false, took: Duration::ZERO }
        }

        fn account(&self) -> &Account {
            &self.1
        }
    }

    /// The turns that one thread gives to actors that stand in line together.
    fn order(actors: impl FnOnce(&Sender<char>) -> Vec<Arc<dyn Turn>>) -> String {
        let (report, reported) = channel();
        let (open, gate) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.schedule(Arc::new(Gate(Mutex::new(gate), Account::default())));
        actors(&report).into_iter().for_each(|actor| pool.schedule(actor));
        open.send(()).expect("the gate waits");
        pool.close();
        reported.try_iter().collect()
    }

    #[test]
    fn hostile_load_of_one_node_leaves_another_its_share_of_the_time() {
        let order =
            order(|report| vec![Countdown::turns('h', 1_000, 300, report), Countdown::turns('b', 300, 4, report)]);
        assert_eq!(order.len(), 1_300, "closing finishes the line");
        // 75 turns of 4 ms for each of 300 ms.
        let between = order.split('h').skip(1).take(3).map(str::len).collect::<Vec<_>>();
        assert_eq!(between, [75, 75, 75]);
    }

    #[test]
    fn hostile_load_of_many_nodes_delays_a_quiet_one_by_one_turn_of_each() {
        let heavy = ['h', 'i', 'j', 'k'];
        let order = order(|report| {
            let mut actors: Vec<_> = heavy.map(|name| Countdown::turns(name, 50, 20, report)).into();
            actors.push(Countdown::turns('q', 1, 1, report));
            actors
        });
        assert_eq!(order.find('q'), Some(heavy.len()));
    }

    #[test]
    fn honest_nodes_with_equal_work_take_turns() {
        let order = order(|report| vec![Countdown::turns('a', 50, 4, report), Countdown::turns('b', 50, 4, report)]);
        assert_eq!(order, "ab".repeat(50));
    }

    #[test]
    fn who_was_away_has_no_time_saved_and_who_was_heavy_stands_behind() {
        let account = Account::default();
        assert_eq!(account.due(Duration::from_secs(7)), Duration::from_secs(7), "as if it had had its share");
        account.charge(Duration::from_secs(1));
        assert_eq!(account.due(Duration::from_secs(7)), Duration::from_secs(8));
        assert_eq!(account.due(Duration::from_secs(9)), Duration::from_secs(9));
    }

    /// Panics as often as told, then is done.
    struct Panicking(Mutex<usize>, Sender<()>, Account);

    impl Turn for Panicking {
        fn turn(&self) -> Ended {
            {
                let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(less) = left.checked_sub(1) {
                    *left = less;
                    panic!("a defect of the actor");
                }
            }
            self.1.send(()).expect("listening");
            Ended { more: false, took: Duration::ZERO }
        }

        fn account(&self) -> &Account {
            &self.2
        }
    }

    #[test]
    fn a_panic_ends_a_turn_but_neither_the_thread_nor_the_actor() {
        let (done, outcome) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.later(Instant::now(), Box::new(|| panic!("a defect of an errand")));
        pool.schedule(Arc::new(Panicking(Mutex::new(3), done, Account::default())));
        outcome.recv().expect("the actor had its turn after its panics");
        pool.close();
    }

    #[test]
    fn a_closed_pool_leaves_nobody_waiting() {
        let (report, reported) = channel();
        let pool = Pool::start(1).expect("threads");
        pool.close();
        pool.schedule(Countdown::turns('a', 20, 1, &report));
        pool.later(Instant::now() + HOUR, Box::new(move || report.send('b').expect("listening")));
        assert_eq!(reported.try_iter().count(), 21);
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn an_errand_waits_for_its_time_without_a_thread_and_is_done_when_the_pool_closes() {
        let (report, reported) = channel();
        let pool = Pool::start(1).expect("threads");
        let (first, last) = (report.clone(), report.clone());
        pool.later(Instant::now() + HOUR, Box::new(move || last.send('z').expect("listening")));
        pool.later(Instant::now() + Duration::from_millis(5), Box::new(move || first.send('a').expect("listening")));
        assert_eq!(reported.recv(), Ok('a'), "the thread wakes by itself");
        pool.schedule(Countdown::turns('b', 1, 1, &report));
        assert_eq!(reported.recv(), Ok('b'), "nobody waits for the last");
        pool.close();
        assert_eq!(reported.recv(), Ok('z'));
    }
}
