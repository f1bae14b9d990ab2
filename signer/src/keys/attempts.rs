//! How fast passphrases may be guessed through a running daemon: after a few tries, exponentially slower.
//!
//! Not kept over restarts: whoever may restart the daemon may read the key slots and guess without it. What slows them
//! down is Argon2id.

use std::time::Duration;

/// Mistakes that cost no waiting.
const FREE: u32 = 3;
/// The first wait; it doubles with every further mistake.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Counts attempts since the last success. Times are readings of one monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    failed: u32,
    next_at: Duration,
}

/// The attempt came too early; nothing was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong passphrases; the next attempt is possible in {} s", wait.as_secs_f64().ceil())]
pub struct TooSoon {
    /// How long to wait.
    pub wait: Duration,
}

impl TooSoon {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Wait, then try again; attempts made meanwhile change nothing."
    }
}

impl Attempts {
    /// Asks to make an attempt at `now`. It counts as a mistake until `succeeded`: two attempts made at once count twice.
    pub fn begin(&mut self, now: Duration) -> Result<(), TooSoon> {
        if let Some(wait) = self.next_at.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(TooSoon { wait });
        }
        self.failed = self.failed.saturating_add(1);
        if let Some(doublings) = self.failed.checked_sub(FREE) {
            let wait = FIRST_WAIT.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
            self.next_at = now.saturating_add(wait);
        }
        Ok(())
    }

    /// The attempt begun last was right: forgets the mistakes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_after_the_free_mistakes_up_to_the_longest() {
        let mut attempts = Attempts::default();
        let mut now = at(100);
        let mut waits = Vec::new();
        for _ in 0..60 {
            assert_eq!(attempts.begin(now), Ok(()));
            let wait = attempts.clone().begin(now).err().map_or(at(0), |too_soon| too_soon.wait);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits[..13], [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(waits.last(), Some(&300));
    }

    #[test]
    fn an_early_attempt_is_refused_and_does_not_lengthen_the_wait() {
        let mut attempts = Attempts::default();
        for _ in 0..FREE {
            assert_eq!(attempts.begin(at(0)), Ok(()));
        }
        for _ in 0..1000 {
            assert_eq!(attempts.begin(Duration::from_millis(400)), Err(TooSoon { wait: Duration::from_millis(600) }));
        }
        assert_eq!(attempts.begin(at(1)), Ok(()));
    }

    #[test]
    fn success_forgets_the_mistakes() {
        let mut attempts = Attempts::default();
        for _ in 0..FREE {
            assert_eq!(attempts.begin(at(0)), Ok(()));
        }
        assert_eq!(attempts.begin(at(1)), Ok(()));
        attempts.succeeded();
        assert_eq!(attempts.begin(at(1)), Ok(()));
    }
}
