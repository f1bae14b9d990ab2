//! Whose turn it is on a busy machine: the threads between a question and its answer come at once, as long as all of them
//! together use little of it.
//!
//! An answer goes from thread to thread and waits for a flush. None of that takes long, but on a busy processor a thread that
//! wakes waits until whoever runs has had its turn, which may be milliseconds, several times over. Where it is permitted
//! (`LimitRTPRIO=2`), the threads that [`answers`] names therefore have a real-time priority. A node that floods the signer must not take the machine
//! with it: a thread that comes before all of them looks ten times a second, and when they have used more than a quarter of
//! the machine they take short turns among all others, until they use less again.

use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::keys::memory::{Thread, Turns};

/// How often the watch looks, and so how long a flood may come first.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much of the machine those that come first may use: one part of this many.
const PART: u32 = 4;
/// Looks with little use after which they come first again.
const QUIET_LOOKS: u32 = 10;

/// The highest priority that is needed.
pub const PRIORITIES: u64 = 2;
/// Before the others, so that it looks whatever they do.
const WATCH: Turns = Turns::AtOnce(2);
const FIRST: Turns = Turns::AtOnce(1);

/// The threads between a question and its answer.
struct Answering {
    threads: Vec<(Thread, Duration)>,
    turns: Turns,
    /// Somebody looks after them.
    watched: bool,
    pace: Pace,
}

static ANSWERING: Mutex<Answering> =
    Mutex::new(Answering { threads: Vec::new(), turns: Turns::Short, watched: false, pace: Pace { quiet: 0 } });

/// Has those that answer come first from now on. Call it before any of them starts; threads that this one starts take short turns, as
/// it does. An error says why all of them do.
pub fn come_first() -> io::Result<()> {
    let short = Thread::this().take(Turns::Short);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let (ready, watching) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("turns".to_owned()).spawn(move || {
        let taken = Thread::this().take(WATCH);
        let watches = taken.is_ok();
        let _ = ready.send(taken); // who waits for it is there
        if watches {
            lock().begin();
            watch(cores);
        }
    })?;
    watching.recv().unwrap_or(Ok(())).and(short)
}

/// Looks after them for good.
fn watch(cores: u32) {
    let mut looked = Instant::now();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let passed = looked.elapsed();
        looked += passed;
        lock().look(passed * cores / PART);
    }
}

/// The calling thread is between questions and answers until it ends.
pub fn answers() {
    MEMBER.with_borrow_mut(|member| *member = Some(Member::join()));
}

/// Where those that answer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They come first.
    First,
    /// They would, and have used much of the machine.
    Busy,
    /// They may not.
    Among,
}

/// Where those that answer stand now.
pub fn standing() -> Standing {
    let answering = lock();
    match (answering.watched, answering.turns) {
        (false, _) => Standing::Among,
        (true, FIRST) => Standing::First,
        (true, _) => Standing::Busy,
    }
}

thread_local! {
    static MEMBER: RefCell<Option<Member>> = const { RefCell::new(None) };
}

/// Takes the thread off the list when it ends: its number may become another's.
struct Member(Thread);

impl Member {
    fn join() -> Self {
        let thread = Thread::this();
        let mut answering = lock();
        let _ = thread.take(answering.turns); // if it may not, it answers later
        answering.threads.push((thread, thread.used().unwrap_or_default()));
        Self(thread)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        lock().threads.retain(|(thread, _)| *thread != self.0);
    }
}

fn lock() -> MutexGuard<'static, Answering> {
    ANSWERING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answering {
    fn begin(&mut self) {
        self.watched = true;
        self.turn(FIRST);
    }

    /// Lets them come first or not, by what they have used since the last look, of which `enough` is the most.
    fn look(&mut self, enough: Duration) {
        let mut spent = Duration::ZERO;
        for (thread, before) in &mut self.threads {
            if let Ok(used) = thread.used() {
                spent += used.saturating_sub(*before);
                *before = used;
            }
        }
        let turns = self.pace.next(self.turns == FIRST, spent, enough);
        self.turn(if turns { FIRST } else { Turns::Short });
    }

    fn turn(&mut self, turns: Turns) {
        if self.turns == turns {
            return;
        }
        self.turns = turns;
        for (thread, _) in &self.threads {
            if let Err(error) = thread.take(turns) {
                tracing::warn!(%error, ?turns, "a thread that answers does not take its turns so");
            }
        }
        tracing::debug!(?turns, "how answers take their turns");
    }
}

/// Since when they have used little.
struct Pace {
    quiet: u32,
}

impl Pace {
    /// Whether they come first next, if they did or not, and have `spent` so much.
    fn next(&mut self, first: bool, spent: Duration, enough: Duration) -> bool {
        self.quiet = if spent <= enough { self.quiet.saturating_add(1) } else { 0 };
        if first { self.quiet > 0 } else { self.quiet > QUIET_LOOKS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_does_not_come_first_and_a_busy_moment_is_forgiven() {
        let (little, much, enough) = (Duration::from_millis(3), Duration::from_millis(80), Duration::from_millis(50));
        let mut pace = Pace { quiet: 0 };
        let mut first = true;
        let mut looks = |spent: &[Duration]| {
            let told = spent.iter().map(|spent| {
                first = pace.next(first, *spent, enough);
                first
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(looks(&[little, enough, much]), [true, true, false], "at the first look");
        assert!(!looks(&[much; 30]).contains(&true), "as long as it lasts");
        assert!(!looks(&[little; 10]).contains(&true), "and a while longer");
        assert_eq!(looks(&[little, little, much]), [true, true, false]);
    }

    #[test]
    fn threads_that_answer_are_known_until_they_end() {
        let known = |thread| lock().threads.iter().any(|(known, _)| *known == thread);
        let (told, tells) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            answers();
            told.send(Thread::this()).expect("listening");
            let _ = ends.recv();
        });
        let answering = tells.recv().expect("it runs");
        assert!(known(answering));
        drop(end);
        thread.join().expect("no panic");
        assert!(!known(answering));
    }
}
