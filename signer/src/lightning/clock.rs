//! Time for one node: never before what was seen already (P7).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lightning_signer::SendSync;
use lightning_signer::signer::StartingTimeFactory;
use lightning_signer::util::clock::Clock;

/// The system's clock with a floor: the highest time seen, which a restored node brings from its journal.
#[derive(Debug, Default)]
pub struct NodeClock {
    floor_ms: AtomicU64,
}

impl NodeClock {
    /// Milliseconds since the Unix epoch; a clock set back stands still instead.
    pub fn now_ms(&self) -> u64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let system_ms = u64::try_from(system.as_millis()).unwrap_or(u64::MAX);
        self.floor_ms.fetch_max(system_ms, Ordering::Relaxed).max(system_ms)
    }

    /// From now on no earlier time than `floor_ms` is told.
    pub fn raise(&self, floor_ms: u64) {
        self.floor_ms.fetch_max(floor_ms, Ordering::Relaxed);
    }
}

impl SendSync for NodeClock {}

impl Clock for NodeClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}

/// vls mixes this into the entropy of its auxiliary nonces and wants it unique per instance: it is random here.
#[derive(Debug)]
pub struct RandomStart;

impl SendSync for RandomStart {}

impl StartingTimeFactory for RandomStart {
    fn starting_time(&self) -> (u64, u32) {
        let (mut secs, mut nanos) = ([0; 8], [0; 4]);
        for part in [&mut secs[..], &mut nanos[..]] {
            getrandom::fill(part).expect("the operating system provides randomness");
        }
        (u64::from_be_bytes(secs), u32::from_be_bytes(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let clock = NodeClock::default();
        let now = clock.now_ms();
        clock.raise(now + 1_000_000);
        assert_eq!(clock.now_ms(), now + 1_000_000, "the system's clock is behind: time stands still");
        clock.raise(5);
        assert_eq!(clock.now(), Duration::from_millis(now + 1_000_000));
    }

    #[test]
    fn every_start_is_different() {
        assert_ne!(RandomStart.starting_time(), RandomStart.starting_time());
    }
}
