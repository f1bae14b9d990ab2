//! What every counter must do.

use claviger_hsm::counter::file::FileCounter;
use claviger_hsm::counter::{Age, Counter, CounterError, Reading};

/// A place for a counter, and what may happen to it.
trait Place {
    fn counter(&self) -> Box<dyn Counter + '_>;

    /// Somebody deletes the counter.
    fn delete(&self);

    /// The device is off for a while.
    fn power_cycle(&mut self);

    /// Whether a counter that was deleted and made anew is above all before it.
    const NEVER_BACK: bool;
}

struct File(tempfile::TempDir);

impl Place for File {
    fn counter(&self) -> Box<dyn Counter + '_> {
        Box::new(FileCounter::new(self.0.path().join("counter")))
    }

    fn delete(&self) {
        std::fs::remove_file(self.0.path().join("counter")).unwrap();
    }

    fn power_cycle(&mut self) {}

    const NEVER_BACK: bool = false;
}

#[cfg(feature = "tpm")]
impl Place for crate::tpm::Swtpm {
    fn counter(&self) -> Box<dyn Counter + '_> {
        Box::new(claviger_hsm::tpm::TpmCounter { tcti: self.tcti(), index: claviger_hsm::tpm::DEFAULT_INDEX })
    }

    fn delete(&self) {
        self.forget_index(claviger_hsm::tpm::DEFAULT_INDEX);
    }

    fn power_cycle(&mut self) {
        self.restart();
    }

    const NEVER_BACK: bool = true;
}

macro_rules! conformance {
    ($(#[$attribute:meta])* $name:ident: $make:ident) => {
        mod $name {

            #[test]
            $(#[$attribute])*
            fn it_goes_up_by_one_and_never_down() {
                super::it_goes_up_by_one_and_never_down(&mut super::$make());
            }

            #[test]
            $(#[$attribute])*
            fn one_that_is_missing_is_named_and_one_that_is_there_is_left_alone() {
                super::one_that_is_missing_is_named_and_one_that_is_there_is_left_alone(&super::$make());
            }

            #[test]
            $(#[$attribute])*
            fn one_that_was_deleted_and_made_anew_is_noticed() {
                super::one_that_was_deleted_and_made_anew_is_noticed(&super::$make());
            }
        }
    };
}

conformance!(file: in_a_file);
#[cfg(feature = "tpm")]
conformance!(#[ignore = "needs swtpm: hsm/tests/run"] tpm: in_a_tpm);

fn in_a_file() -> File {
    File(tempfile::tempdir().unwrap())
}

#[cfg(feature = "tpm")]
fn in_a_tpm() -> crate::tpm::Swtpm {
    crate::tpm::Swtpm::start()
}

fn it_goes_up_by_one_and_never_down(place: &mut impl Place) {
    let first = place.counter().create().expect("made");
    let mut last = first;
    for round in 1..=20 {
        let next = place.counter().increment().expect("counts");
        assert_eq!(next, Reading { value: last.value + 1, ..last });
        assert_eq!((last.age(&next), next.age(&next)), (Age::Older { by: 1 }, Age::Latest));
        assert_eq!(place.counter().read(), Ok(next), "reading changes nothing");
        assert_eq!(next.age(&last), Age::CounterSetBack);
        if round % 7 == 0 {
            place.power_cycle();
            assert_eq!(place.counter().read(), Ok(next), "it survives a restart");
        }
        last = next;
    }
    assert_eq!(first.age(&last), Age::Older { by: 20 });
}

fn one_that_is_missing_is_named_and_one_that_is_there_is_left_alone(place: &impl Place) {
    let counter = place.counter();
    for result in [counter.read(), counter.increment()] {
        let error = result.expect_err("there is none");
        assert!(matches!(error, CounterError::Missing(_)), "{error}");
        assert!(!error.hint().is_empty());
    }
    let made = counter.create().expect("made");
    assert!(matches!(counter.create(), Err(CounterError::Exists(_))));
    assert_eq!(counter.read(), Ok(made));
}

fn one_that_was_deleted_and_made_anew_is_noticed<P: Place>(place: &P) {
    let counter = place.counter();
    counter.create().expect("made");
    let anchor = counter.increment().and_then(|_| counter.increment()).expect("counts");
    place.delete();
    assert!(matches!(counter.read(), Err(CounterError::Missing(_))));
    let again = counter.create().expect("made anew");
    assert_eq!(anchor.age(&again), Age::OtherCounter);
    // However far it is brought, it does not pass for the one before.
    let mut now = again;
    while now.value <= anchor.value {
        now = counter.increment().expect("counts");
        assert_eq!(anchor.age(&now), Age::OtherCounter);
    }
    if P::NEVER_BACK {
        assert!(again.value > anchor.value, "{again:?} after {anchor:?}");
    }
}

/// The weakness of a file, said aloud: an older copy of it is an older counter.
#[test]
fn a_file_that_was_set_back_is_noticed_by_newer_state_only() {
    let place = in_a_file();
    let old = place.counter().create().unwrap();
    let path = place.0.path().join("counter");
    let copy = std::fs::read(&path).unwrap();
    let new = place.counter().increment().unwrap();
    std::fs::write(&path, copy).unwrap();
    let now = place.counter().read().unwrap();
    assert_eq!((new.age(&now), old.age(&now)), (Age::CounterSetBack, Age::Latest));
}

/// Whoever owns the TPM can make a counter with the same public face. It begins above the one that was there: state that
/// went back with it is older than it.
#[cfg(feature = "tpm")]
#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn a_counter_forged_over_a_deleted_one_makes_old_state_older_and_never_latest() {
    let tpm = in_a_tpm();
    let counter = Place::counter(&tpm);
    let old = counter.create().expect("made");
    let new = counter.increment().and_then(|_| counter.increment()).expect("counts");
    let public = tpm.index_as_made(claviger_hsm::tpm::DEFAULT_INDEX);
    tpm.delete();
    tpm.define_index(&public);
    assert!(matches!(counter.read(), Err(CounterError::Missing(_))), "it has no value yet");
    let forged = counter.increment().expect("counts");
    assert_eq!(forged.id, old.id, "the forgery looks alike");
    assert_eq!(old.age(&forged), Age::Older { by: forged.value - old.value });
    assert!(forged.value > new.value, "{forged:?} after {new:?}");
}

#[cfg(feature = "tpm")]
#[test]
#[ignore = "needs swtpm: hsm/tests/run"]
fn what_is_at_the_index_and_no_counter_is_left_alone() {
    let tpm = in_a_tpm();
    // Ordinary memory of the owner's, with a password of its own.
    let index = claviger_hsm::tpm::DEFAULT_INDEX;
    tpm.define_index(&[&index.to_be_bytes()[..], &[0, 0x0b, 0, 0x04, 0, 0x04, 0, 0, 0, 8]].concat());
    let counter = Place::counter(&tpm);
    for result in [counter.read(), counter.increment()] {
        assert!(matches!(result, Err(CounterError::Damaged(_))), "{result:?}");
    }
    assert!(matches!(counter.create(), Err(CounterError::Exists(_))));
}
