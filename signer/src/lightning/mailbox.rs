//! What waits for one actor, and how much of it one node may have unanswered (P6).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// What `pick` makes of the last item that waits and of which it makes something.
    pub fn pick_last<R>(&self, pick: impl FnMut(&T) -> Option<R>) -> Option<R> {
        self.lock().waiting.iter().rev().find_map(pick)
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

    #[test]
    fn whoever_looks_from_the_back_finds_the_last_that_waits_and_takes_nothing() {
        let mailbox = Mailbox::new(BOUNDS);
        for item in 1..=3 {
            assert!(mailbox.push(item, 1).is_ok());
        }
        assert_eq!(mailbox.waiting(), 3);
        assert_eq!(mailbox.pick_last(|item| (item % 2 == 0).then_some(*item)), Some(2));
        assert_eq!(mailbox.pick_last(|item| (*item > 3).then_some(*item)), None);
        assert_eq!(mailbox.pop(), Some(1));
        assert_eq!(mailbox.waiting(), 2);
    }
}
