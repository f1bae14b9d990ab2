//! The names of channels: a number that is never reused, inside LDK's `channel_keys_id`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const TAG: &[u8; 8] = b"claviger";
const VERSION: u8 = 1;

/// Draws channel numbers: microseconds since 1970, and always more than any number seen. LDK restores all its channels
/// before it opens a new one, so a clock that was set back does not repeat a number.
#[derive(Default)]
pub(crate) struct Dbids {
    highest: AtomicU64,
}

impl Dbids {
    pub(crate) fn next(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64);
        self.next_at(now)
    }

    fn next_at(&self, now: u64) -> u64 {
        let next = |highest: u64| now.max(highest + 1);
        match self.highest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |highest| Some(next(highest))) {
            Ok(highest) | Err(highest) => next(highest),
        }
    }

    pub(crate) fn seen(&self, dbid: u64) {
        self.highest.fetch_max(dbid, Ordering::SeqCst);
    }
}

/// `tag (8) | version (1) | inbound (1) | zero (14) | dbid, big endian (8)`.
pub(crate) fn channel_keys_id(dbid: u64, inbound: bool) -> [u8; 32] {
    let mut id = [0; 32];
    id[..8].copy_from_slice(TAG);
    id[8] = VERSION;
    id[9] = u8::from(inbound);
    id[24..].copy_from_slice(&dbid.to_be_bytes());
    id
}

/// The number of a channel; 0, which no signer knows, for an id that was not made here.
pub(crate) fn dbid(channel_keys_id: &[u8; 32]) -> u64 {
    let (head, number) = channel_keys_id.split_at(24);
    match number.try_into() {
        Ok(number) if head[..8] == *TAG && head[8] == VERSION => u64::from_be_bytes(number),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_keys_id_holds_its_number() {
        assert_eq!(dbid(&channel_keys_id(7, true)), 7);
        assert_eq!(dbid(&channel_keys_id(u64::MAX, false)), u64::MAX);
    }

    #[test]
    fn an_id_of_another_keys_manager_names_no_channel() {
        assert_eq!(dbid(&[9; 32]), 0);
    }

    #[test]
    fn numbers_grow_although_the_clock_is_set_back() {
        let dbids = Dbids::default();
        assert_eq!(dbids.next_at(100), 100);
        assert_eq!(dbids.next_at(100), 101);
        assert_eq!(dbids.next_at(50), 102);
        dbids.seen(1000);
        assert_eq!(dbids.next_at(200), 1001);
        assert_eq!(dbids.next_at(5000), 5000);
    }
}
