//! When a node that failed is built again.

use std::time::{Duration, Instant};

use crate::reasons::{Reason, Refusal};

/// Keeps a node that fails over and over from spending all its turns on being built.
#[derive(Default)]
pub(super) struct Rebuilds {
    last: Option<Instant>,
    streak: u32,
    /// How long the last one took.
    cost: Duration,
}

impl Rebuilds {
    /// A failure this long after the pause is the first of a streak.
    const QUIET: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(5);
    /// A node that goes on failing spends at most a fifth of a thread's time on being built (P6).
    const PAUSE_PER_COST: u32 = 4;

    pub(super) fn failed(&mut self) {
        let quiet = self.last.is_none_or(|last| last.elapsed() > Self::QUIET + self.pause());
        self.streak = if quiet { 1 } else { self.streak.saturating_add(1) };
        self.last = Some(Instant::now());
    }

    pub(super) fn took(&mut self, cost: Duration) {
        self.cost = cost;
    }

    /// The first failure of a streak costs nothing, the second 100 ms, and so on up to 5 s, or longer if building does.
    fn pause(&self) -> Duration {
        match self.streak {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(50 << n.min(7)).min(Self::LONGEST).max(self.cost * Self::PAUSE_PER_COST),
        }
    }

    pub(super) fn wait_over(&self) -> Result<(), Refusal> {
        match self.last {
            Some(last) if last.elapsed() < self.pause() => {
                let detail = format!("the node failed {} times in a row and is built again shortly", self.streak);
                Err(Refusal::new(Reason::NodeRestarting, detail))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_keeps_failing_is_built_less_and_less_often() {
        let mut rebuilds = Rebuilds::default();
        assert_eq!(rebuilds.wait_over(), Ok(()));
        rebuilds.failed();
        assert_eq!(rebuilds.pause(), Duration::ZERO, "a single failure costs nothing");
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                rebuilds.failed();
                rebuilds.pause()
            })
            .collect();
        assert!(pauses.is_sorted() && pauses[0] > Duration::ZERO);
        assert_eq!(pauses[7], Rebuilds::LONGEST);
        rebuilds.took(Duration::from_secs(3));
        assert_eq!(rebuilds.pause(), Duration::from_secs(12), "a large node waits in proportion");
        assert_eq!(rebuilds.wait_over().map_err(|r| r.reason), Err(Reason::NodeRestarting));
    }
}
