//! The amounts of one window: exact where they are few, and rounded against the spender where they are many.
//!
//! A window is a row of chunks of at most [`SLOTS`] amounts, each with its time. A chunk that is full takes the amounts
//! of the rest of its 64th part of the window into its last slot, which moves to the time of the latest: what it holds
//! slides out later than it might, by less than a [`CHUNKS`]th of the window, and never earlier. So a window is at most
//! some [`CHUNKS`] chunks, whatever is spent, and spending changes one of them.

/// A full chunk lasts for this part of the window.
pub(super) const CHUNKS: u64 = 64;

/// Amounts that a chunk tells apart.
pub(super) const SLOTS: usize = 8;

/// What was spent at one time, in the budget's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) at_ms: u64,
    pub(super) amount: u64,
}

/// Amounts that are recorded together, in the order of their times. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Names the chunk's entry; rises along the row.
    pub(super) number: u64,
    /// How long its amounts are kept: the longest window since they were spent.
    pub(super) window_ms: u64,
    pub(super) slots: Vec<Slot>,
}

/// What counts for one key of a budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) chunks: Vec<Chunk>,
    /// What reservations hold. Follows from the reservations, as does `holders`.
    pub(super) reserved: u128,
    /// Reservations that are not settled.
    pub(super) holders: usize,
}

impl Chunk {
    fn first_ms(&self) -> u64 {
        self.slots.first().map_or(0, |slot| slot.at_ms)
    }

    pub(super) fn last_ms(&self) -> u64 {
        self.slots.last().map_or(0, |slot| slot.at_ms)
    }

    fn is_dead(&self, now_ms: u64) -> bool {
        self.last_ms().saturating_add(self.window_ms) <= now_ms
    }

    /// Whether the amount found room.
    fn take(&mut self, amount: u64, window_ms: u64, now_ms: u64) -> bool {
        if self.window_ms < window_ms {
            return false;
        }
        let (first_ms, full) = (self.first_ms(), self.slots.len() >= SLOTS);
        match self.slots.last_mut() {
            Some(last) if last.at_ms == now_ms || full => {
                if last.at_ms != now_ms && now_ms.saturating_sub(first_ms) >= window_ms / CHUNKS {
                    return false;
                }
                last.at_ms = now_ms;
                last.amount = last.amount.saturating_add(amount); // far above any limit then
            }
            _ => self.slots.push(Slot { at_ms: now_ms, amount }),
        }
        true
    }
}

impl Window {
    /// Counts `amount` at `now_ms`, which is not before what was counted last. Returns the chunk that changed.
    pub(super) fn spend(&mut self, amount: u64, window_ms: u64, now_ms: u64) -> &Chunk {
        let found = self.chunks.last_mut().is_some_and(|chunk| chunk.take(amount, window_ms, now_ms));
        if !found {
            let number = self.chunks.last().map_or(0, |chunk| chunk.number + 1);
            self.chunks.push(Chunk { number, window_ms, slots: vec![Slot { at_ms: now_ms, amount }] });
        }
        self.chunks.last().expect("a chunk took the amount or was pushed for it")
    }

    /// Drops the chunks that have slid out, and returns their numbers.
    pub(super) fn forget(&mut self, now_ms: u64) -> Vec<u64> {
        let dead = self.chunks.extract_if(.., |chunk| chunk.is_dead(now_ms));
        dead.map(|chunk| chunk.number).collect()
    }

    /// Keeps what is still known for `window_ms` at least. Returns the chunks that changed.
    pub(super) fn lengthen(&mut self, window_ms: u64, now_ms: u64) -> impl Iterator<Item = &Chunk> {
        let short = move |chunk: &&mut Chunk| chunk.window_ms < window_ms && !chunk.is_dead(now_ms);
        self.chunks.iter_mut().filter(short).map(move |chunk| {
            chunk.window_ms = window_ms;
            &*chunk
        })
    }

    /// The amounts that count at `now_ms` in a window of `window_ms`, each with the time from which it does not.
    pub(super) fn counting(&self, window_ms: u64, now_ms: u64) -> impl Iterator<Item = (u64, u64)> {
        let slots = self.chunks.iter().flat_map(move |chunk| {
            let lasts_ms = window_ms.min(chunk.window_ms);
            chunk.slots.iter().map(move |slot| (slot.at_ms.saturating_add(lasts_ms), slot.amount))
        });
        slots.filter(move |(until_ms, _)| *until_ms > now_ms)
    }

    /// Whether anything may still count.
    pub(super) fn is_live(&self, now_ms: u64) -> bool {
        self.holders > 0 || self.chunks.iter().any(|chunk| !chunk.is_dead(now_ms))
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.holders == 0 && self.chunks.is_empty()
    }
}
