//! A bucket of tokens that fills with time: how much may be spent at once, and how fast it comes back.

use std::time::{Duration, Instant};

/// What is left of an allowance. Tokens are whatever the owner counts: bytes, lines, seconds.
#[derive(Clone, Debug)]
pub struct Bucket {
    size: f64,
    per_second: f64,
    /// Below zero: owed.
    level: f64,
    as_of: Instant,
}

impl Bucket {
    /// A full bucket of `size` tokens, of which `per_second` come back.
    pub fn full(size: f64, per_second: f64, now: Instant) -> Self {
        Self { size, per_second, level: size, as_of: now }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.level >= 1.0;
        if there {
            self.level -= 1.0;
        }
        there
    }

    /// Takes `tokens`, if need be on credit, of which there is never more than `longest` of filling pays back. Returns
    /// how long that takes from now; zero if nothing is owed.
    pub fn charge(&mut self, tokens: f64, longest: Duration, now: Instant) -> Duration {
        self.fill(now);
        self.level = (self.level - tokens).max(-longest.as_secs_f64() * self.per_second);
        self.owed()
    }

    /// How long it takes from `now` until nothing is owed.
    pub fn owed_at(&mut self, now: Instant) -> Duration {
        self.fill(now);
        self.owed()
    }

    /// Whether it is as if nothing had ever been taken.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.size
    }

    fn owed(&self) -> Duration {
        Duration::from_secs_f64((-self.level).max(0.0) / self.per_second)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of);
        self.as_of += passed;
        self.level = (self.level + passed.as_secs_f64() * self.per_second).min(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_taken_comes_back_with_time_and_no_more() {
        let begun = Instant::now();
        let mut bucket = Bucket::full(2.0, 1.0, begun);
        assert_eq!([(); 3].map(|()| bucket.take(begun)), [true, true, false]);
        assert!(bucket.take(begun + SECOND));
        assert!(!bucket.take(begun + SECOND));
        assert!(!bucket.is_full(begun + 2 * SECOND));
        assert!(bucket.is_full(begun + 60 * SECOND));
        assert_eq!([(); 3].map(|()| bucket.take(begun + 60 * SECOND)), [true, true, false]);
    }

    #[test]
    fn debts_are_paid_back_and_bounded() {
        let begun = Instant::now();
        let mut bucket = Bucket::full(10.0, 2.0, begun);
        assert_eq!(bucket.charge(10.0, 5 * SECOND, begun), Duration::ZERO);
        assert_eq!(bucket.charge(4.0, 5 * SECOND, begun), 2 * SECOND);
        assert_eq!(bucket.owed_at(begun + SECOND), SECOND);
        assert_eq!(bucket.charge(1_000.0, 5 * SECOND, begun + SECOND), 5 * SECOND, "the longest");
        assert_eq!(bucket.owed_at(begun + 6 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let begun = Instant::now() + SECOND;
        let mut bucket = Bucket::full(1.0, 1.0, begun);
        assert!(bucket.take(begun));
        assert!(!bucket.take(begun - SECOND));
        assert!(!bucket.take(begun));
    }
}
