//! Who comes when, and who is helped.

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
    let order = order(|report| vec![Countdown::turns('h', 1_000, 300, report), Countdown::turns('b', 300, 4, report)]);
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

/// Has one turn, during which it waits until somebody has helped with all of its parts.
struct Helped {
    parts: Mutex<usize>,
    report: Sender<char>,
    done: Mutex<Receiver<()>>,
    tell: Sender<()>,
    account: Account,
}

impl Turn for Helped {
    fn turn(&self) -> Ended {
        let _ = self.done.lock().expect("not poisoned").recv();
        self.report.send('t').expect("listening");
        Ended { more: false, took: Duration::ZERO }
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn help(&self) -> Option<Duration> {
        let mut parts = self.parts.lock().expect("not poisoned");
        let Some(left) = parts.checked_sub(1) else {
            self.tell.send(()).expect("listening");
            return None;
        };
        *parts = left;
        self.report.send('h').expect("listening");
        Some(Duration::from_secs(1))
    }
}

impl Helped {
    fn with(parts: usize, report: &Sender<char>) -> Arc<Self> {
        let (tell, done) = channel();
        let (parts, done) = (Mutex::new(parts), Mutex::new(done));
        Arc::new(Self { parts, report: report.clone(), done, tell, account: Account::default() })
    }
}

#[test]
fn a_thread_without_a_turn_helps_whoever_has_one_and_the_helped_one_is_charged() {
    let (report, reported) = channel();
    let pool = Pool::start(2).expect("threads");
    let helped = Helped::with(3, &report);
    pool.schedule(helped.clone());
    pool.help(helped.clone());
    assert_eq!(reported.iter().take(4).collect::<String>(), "hhht");
    pool.close();
    assert_eq!(helped.account.due(Duration::ZERO), Duration::from_secs(3));
}

#[test]
fn turns_come_before_help_and_a_closed_pool_helps_nobody_and_keeps_nobody() {
    let (report, reported) = channel();
    let (open, gate) = channel();
    let pool = Pool::start(1).expect("threads");
    pool.schedule(Arc::new(Gate(Mutex::new(gate), Account::default())));
    let helped = Helped::with(2, &report);
    pool.help(helped.clone());
    pool.schedule(Countdown::turns('a', 3, 1, &report));
    open.send(()).expect("the gate waits");
    pool.close();
    assert!(reported.try_iter().collect::<String>().starts_with("aaa"));
    pool.help(helped.clone());
    assert_eq!(Arc::strong_count(&helped), 1);
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
