//! How a node behaves. One that is refused again and again is answered ever more slowly, and its refusals take their place
//! in the journal at a bounded rate, with a count of those left out (P6, P11).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::reasons::Reason;

/// What was refused, in seconds of a signing thread: this much at once is nobody's business, and then a tenth of the time.
const PATIENCE_S: f64 = 10.0;
const PATIENCE_PER_S: f64 = 0.1;

/// The least that a refusal counts for: 1,000 at once and then 10 a second are answered at once.
const LEAST: Duration = Duration::from_millis(10);

/// The longest that an answer is held back.
const LONGEST: Duration = Duration::from_secs(10);

/// Refusals of one reason that are recorded one by one: this many at once, and then one a minute.
const RECORDS: f64 = 64.0;
const RECORDS_PER_S: f64 = 1.0 / 60.0;

/// How long after the first refusal that was left out their number is recorded.
pub(super) const TALLY_AFTER: Duration = Duration::from_secs(60);

/// What one node was refused in this run.
pub(super) struct Conduct {
    patience: Bucket,
    records: BTreeMap<&'static str, Records>,
    /// A count is on its way into the journal.
    tally_due: bool,
    refused: u64,
    left_out: u64,
}

/// The refusals of one reason.
struct Records {
    allowance: Bucket,
    /// Since the last count was recorded.
    left_out: u64,
}

/// What is done with one refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Treatment {
    /// It is recorded by itself; otherwise it is counted.
    pub(super) recorded: bool,
    /// The count is to be recorded after [`TALLY_AFTER`]; nobody was told so yet.
    pub(super) tally: bool,
    /// How long the answer is held back.
    pub(super) hold: Duration,
}

/// How many refusals were left out of the journal, by reason.
pub(super) type Tally = BTreeMap<&'static str, u64>;

impl Conduct {
    pub(super) fn new(now: Instant) -> Self {
        let patience = Bucket::full(PATIENCE_S, PATIENCE_PER_S, now);
        Self { patience, records: BTreeMap::new(), tally_due: false, refused: 0, left_out: 0 }
    }

    /// A request was refused for `reason` after it took `spent`. What may be asked again as it is does not slow a node
    /// down: the client does so by itself.
    pub(super) fn refused(&mut self, reason: Reason, spent: Duration, now: Instant) -> Treatment {
        self.refused += 1;
        let fresh = || Records { allowance: Bucket::full(RECORDS, RECORDS_PER_S, now), left_out: 0 };
        let records = self.records.entry(reason.id()).or_insert_with(fresh);
        let recorded = records.allowance.take(now);
        if !recorded {
            self.left_out += 1;
            records.left_out += 1;
        }
        let tally = !recorded && !std::mem::replace(&mut self.tally_due, true);
        let hold = match reason.retry() {
            true => Duration::ZERO,
            false => self.patience.charge(spent.max(LEAST).as_secs_f64(), LONGEST, now),
        };
        Treatment { recorded, tally, hold }
    }

    /// Takes the counts that are to be recorded now.
    pub(super) fn take_tally(&mut self) -> Tally {
        self.tally_due = false;
        let counts = self.records.iter_mut().map(|(reason, records)| (*reason, std::mem::take(&mut records.left_out)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Takes back counts that could not be recorded.
    pub(super) fn return_tally(&mut self, tally: &Tally) {
        for (reason, count) in tally {
            if let Some(records) = self.records.get_mut(reason) {
                records.left_out += count;
            }
        }
    }

    /// All refusals of this run, those that were not recorded one by one, and for how long the next is held back.
    pub(super) fn figures(&mut self, now: Instant) -> (u64, u64, Duration) {
        (self.refused, self.left_out, self.patience.owed_at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Duration = Duration::ZERO;

    #[test]
    fn hostile_repetition_is_answered_ever_more_slowly_up_to_a_bound() {
        let now = Instant::now();
        let mut conduct = Conduct::new(now);
        let holds: Vec<_> = (0..2_000).map(|_| conduct.refused(Reason::Malformed, NOTHING, now).hold).collect();
        assert!(holds.is_sorted());
        assert_eq!((holds[998], holds[1_999]), (NOTHING, LONGEST));
        assert!(holds[1_001] > NOTHING && holds[1_001] < Duration::from_secs(1), "not all at once");
        assert!(holds.iter().filter(|hold| NOTHING < **hold && **hold < LONGEST).count() > 50);
    }

    #[test]
    fn hostile_requests_that_take_long_are_slowed_by_their_time() {
        let now = Instant::now();
        let mut conduct = Conduct::new(now);
        let heavy = Duration::from_millis(250);
        let held = (0..100).position(|_| conduct.refused(Reason::Validation, heavy, now).hold > NOTHING);
        assert_eq!(held, Some(40), "ten seconds' worth");
    }

    #[test]
    fn honest_nodes_never_notice() {
        let mut now = Instant::now();
        let mut conduct = Conduct::new(now);
        // Every payment of a busy day is above the limit, and the chain keeps the node waiting meanwhile.
        for n in 0..50_000 {
            now += Duration::from_millis(150);
            assert_eq!(conduct.refused(Reason::Limit, Duration::from_millis(1), now).hold, NOTHING, "{n}");
            assert_eq!(conduct.refused(Reason::ChainPending, Duration::from_millis(50), now).hold, NOTHING, "{n}");
        }
    }

    #[test]
    fn a_node_that_mends_its_ways_is_forgiven() {
        let now = Instant::now();
        let mut conduct = Conduct::new(now);
        for _ in 0..100_000 {
            conduct.refused(Reason::Malformed, NOTHING, now);
        }
        assert_eq!(conduct.refused(Reason::Malformed, NOTHING, now + Duration::from_secs(11)).hold, NOTHING);
    }

    #[test]
    fn hostile_refusals_fill_the_journal_at_a_bounded_rate_and_each_is_recorded_or_counted() {
        let mut now = Instant::now();
        let mut conduct = Conduct::new(now);
        let (mut recorded, mut tallies, mut counted) = (0, 0, 0);
        for n in 0..60_000 {
            now += Duration::from_millis(1);
            let reason = if n % 2 == 0 { Reason::Malformed } else { Reason::MessageUnknown };
            let treatment = conduct.refused(reason, NOTHING, now);
            recorded += u64::from(treatment.recorded);
            tallies += u64::from(treatment.tally);
        }
        assert_eq!(recorded, 2 * 64, "of each reason, and the next in a minute");
        assert_eq!(tallies, 1, "one count at a time");
        counted += conduct.take_tally().values().sum::<u64>();
        assert_eq!(recorded + counted, 60_000);
        assert!(conduct.refused(Reason::Validation, NOTHING, now).recorded, "a flood of one reason hides no other");
        assert_eq!(conduct.take_tally(), Tally::new());
        assert!(conduct.refused(Reason::Malformed, NOTHING, now + TALLY_AFTER).recorded);
        assert!(conduct.refused(Reason::Malformed, NOTHING, now + TALLY_AFTER).tally, "the next count");
    }

    #[test]
    fn a_count_that_was_not_recorded_is_not_lost() {
        let now = Instant::now();
        let mut conduct = Conduct::new(now);
        for _ in 0..100 {
            conduct.refused(Reason::Malformed, NOTHING, now);
        }
        let tally = conduct.take_tally();
        assert_eq!(tally, Tally::from([("malformed", 36)]));
        conduct.return_tally(&tally);
        assert_eq!(conduct.take_tally(), tally);
    }
}
