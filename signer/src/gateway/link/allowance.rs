//! How much one certificate may send, over all of its connections: every byte below TLS counts, so that whatever they are,
//! whole messages, the smallest HTTP/2 frames or the largest, reading them takes a bounded share of the signer (P6).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// This many seconds' worth may come at once.
const BURST_S: f64 = 4.0;

/// What else counts, in bytes: a connection, for its handshake, and a stream; and what a refused stream, or one that is
/// ended for what was sent, counts beyond that.
pub(super) const CONNECTION_BYTES: usize = 32 * 1024;
pub(super) const OFFENCE_BYTES: usize = 256 * 1024;

/// A connection is not left unread for longer: its pings must be answered.
const LONGEST: Duration = Duration::from_secs(4);

/// One certificate's bytes.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<Bucket>);

impl Allowance {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let per_second = bytes_per_s as f64;
        Self(Mutex::new(Bucket::full(per_second * BURST_S, per_second, Instant::now())))
    }

    /// `bytes` were taken. Returns for how long no more is read, if for any time.
    pub(super) fn charge(&self, bytes: usize) -> Option<Duration> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(bucket.charge(bytes as f64, LONGEST, Instant::now())).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn hostile_streams_wait_for_their_allowance_and_honest_ones_do_not() {
        let allowance = Allowance::new(4 << 20);
        assert_eq!(allowance.charge(15 * MIB), None, "the largest commitments of a hundred channels at once");
        assert!(allowance.charge(16 * MIB).is_some_and(|pause| pause > Duration::from_secs(1)));
        assert!(allowance.charge(usize::MAX).is_some_and(|pause| pause <= LONGEST), "pings are still answered");
    }
}
