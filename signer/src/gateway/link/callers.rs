//! Who is shaking hands. Anybody can dial; nobody can keep others from it (P6).
//!
//! A caller that takes its time makes way for a new one: first for one from its own address, and when all places are taken,
//! the one that has waited longest at the address that has the most. An honest handshake takes milliseconds.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::bucket::Bucket;

/// Handshakes that one address may begin: this many at once, and then so many a second. Each takes the time of a signature.
const HANDSHAKES: f64 = 512.0;
const HANDSHAKES_PER_S: f64 = 64.0;

/// Log lines about one address: this many at once, and then one in ten seconds; and about all together.
const LINES: f64 = 16.0;
const LINES_PER_S: f64 = 0.1;
const LINES_OF_ALL: f64 = 256.0;
const LINES_OF_ALL_PER_S: f64 = 2.0;

/// Addresses that are remembered.
const MAX_KNOWN: usize = 4_096;

/// The callers of a link server.
pub(in crate::gateway) struct Callers {
    limit: usize,
    per_address: usize,
    state: Mutex<State>,
}

struct State {
    next_id: u64,
    /// By address and arrival. Dropping the sender asks the handshake to make way.
    shaking: BTreeMap<(IpAddr, u64), oneshot::Sender<()>>,
    known: HashMap<IpAddr, Known>,
    lines: Bucket,
    left_out: u64,
}

struct Known {
    handshakes: Bucket,
    lines: Bucket,
}

/// A handshake's place; given back when dropped.
pub(in crate::gateway) struct Handshake {
    callers: Arc<Callers>,
    key: (IpAddr, u64),
    /// Ends when another one needs the place.
    pub(in crate::gateway) make_way: oneshot::Receiver<()>,
}

/// Leave to write one line to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Line {
    /// Lines that were left out before, over all addresses.
    pub(in crate::gateway) left_out: Option<u64>,
}

impl Callers {
    /// At most `limit` handshakes at once, and at most `per_address` from one address.
    pub(in crate::gateway) fn new(limit: usize, per_address: usize) -> Arc<Self> {
        let lines = Bucket::full(LINES_OF_ALL, LINES_OF_ALL_PER_S, Instant::now());
        let state = State { next_id: 0, shaking: BTreeMap::new(), known: HashMap::new(), lines, left_out: 0 };
        Arc::new(Self { limit, per_address, state: Mutex::new(state) })
    }

    /// A place for a handshake with `address`; `None` if it began too many of late.
    pub(in crate::gateway) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let address = network(address);
        let mut state = self.lock();
        if !state.known(address).handshakes.take(Instant::now()) {
            return None;
        }
        if state.of(address).count() >= self.per_address {
            let oldest = state.of(address).next();
            state.end(oldest);
        } else if state.shaking.len() >= self.limit {
            let oldest = state.of_busiest();
            state.end(oldest);
        }
        state.next_id += 1;
        let key = (address, state.next_id);
        let (evict, make_way) = oneshot::channel();
        state.shaking.insert(key, evict);
        Some(Handshake { callers: self.clone(), key, make_way })
    }

    /// Whether something about `address` may be logged now; if not, it is counted.
    pub(in crate::gateway) fn line(&self, address: IpAddr) -> Option<Line> {
        let (address, now) = (network(address), Instant::now());
        let mut state = self.lock();
        if state.known(address).lines.take(now) && state.lines.take(now) {
            let left_out = std::mem::take(&mut state.left_out);
            return Some(Line { left_out: Some(left_out).filter(|count| *count > 0) });
        }
        state.left_out += 1;
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn known(&mut self, address: IpAddr) -> &mut Known {
        let now = Instant::now();
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&address) {
            self.known.retain(|_, known| !(known.handshakes.is_full(now) && known.lines.is_full(now)));
            if self.known.len() >= MAX_KNOWN {
                self.known.clear(); // from so many addresses, no count by address holds anybody back
            }
        }
        self.known.entry(address).or_insert_with(|| Known {
            handshakes: Bucket::full(HANDSHAKES, HANDSHAKES_PER_S, now),
            lines: Bucket::full(LINES, LINES_PER_S, now),
        })
    }

    /// The handshakes of one address, oldest first.
    fn of(&self, address: IpAddr) -> impl Iterator<Item = (IpAddr, u64)> {
        self.shaking.range((address, 0)..=(address, u64::MAX)).map(|(key, _)| *key)
    }

    /// The oldest handshake of the address that has the most.
    fn of_busiest(&self) -> Option<(IpAddr, u64)> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for (address, _) in self.shaking.keys() {
            *counts.entry(*address).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let busiest = |(address, _): &(IpAddr, u64)| counts.get(address) == Some(&most);
        self.shaking.keys().copied().filter(busiest).min_by_key(|(_, id)| *id)
    }

    fn end(&mut self, key: Option<(IpAddr, u64)>) {
        if let Some(key) = key {
            self.shaking.remove(&key);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.callers.lock().end(Some(self.key));
    }
}

/// What counts as one address: an IPv6 caller has a whole /64 to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn evicted(handshake: &mut Handshake) -> bool {
        handshake.make_way.try_recv() == Err(TryRecvError::Closed)
    }

    #[test]
    fn hostile_handshakes_of_one_address_make_way_for_its_own_new_ones() {
        let callers = Callers::new(8, 2);
        let mut honest = callers.begin(address(1)).unwrap();
        let mut hostile: Vec<_> = (0..3).map(|_| callers.begin(address(2)).unwrap()).collect();
        assert!(evicted(&mut hostile[0]) && !evicted(&mut hostile[1]) && !evicted(&mut hostile[2]));
        assert!(!evicted(&mut honest));
        drop(hostile);
        let mut later: Vec<_> = (0..2).map(|_| callers.begin(address(2)).unwrap()).collect();
        assert!(!later.iter_mut().any(evicted), "places are given back");
    }

    #[test]
    fn hostile_handshakes_do_not_keep_another_address_out() {
        let callers = Callers::new(4, 3);
        let mut honest = callers.begin(address(1)).unwrap();
        let mut hostile: Vec<_> = (0..3).map(|_| callers.begin(address(2)).unwrap()).collect();
        let mut newcomer = callers.begin(address(3)).unwrap();
        assert!(evicted(&mut hostile[0]) && !evicted(&mut honest) && !evicted(&mut newcomer));
    }

    #[test]
    fn hostile_callers_shake_hands_at_a_bounded_rate_and_honest_ones_do_not_notice() {
        let callers = Callers::new(64, 16);
        let begun = (0..2_000).filter(|_| callers.begin(address(2)).is_some()).count();
        assert!((512..1_000).contains(&begun), "{begun}");
        assert!((0..100).all(|_| callers.begin(address(1)).is_some()), "a signer's nodes come back together");
    }

    #[test]
    fn hostile_callers_write_a_bounded_number_of_lines_and_what_is_left_out_is_counted() {
        let callers = Callers::new(64, 16);
        let written = (0..100).filter(|_| callers.line(address(2)).is_some()).count();
        assert_eq!(written, 16);
        assert_eq!(callers.line(address(1)), Some(Line { left_out: Some(84) }), "another is still heard");
        assert_eq!(callers.line(address(1)), Some(Line { left_out: None }));
    }

    #[test]
    fn hostile_addresses_without_number_take_bounded_memory() {
        let callers = Callers::new(64, 16);
        for n in 0..3 * MAX_KNOWN as u128 {
            drop(callers.begin(IpAddr::V6(Ipv6Addr::from_bits(n << 64 | 7))));
            let _ = callers.line(IpAddr::V6(Ipv6Addr::from_bits(n << 64)));
        }
        let state = callers.lock();
        assert!(state.known.len() <= MAX_KNOWN && state.shaking.is_empty());
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::2".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()), address(7));
    }
}
