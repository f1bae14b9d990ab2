//! Honest nodes never meet a refusal: thousands of random operations of real LDK nodes over a real daemon.
//!
//! Each town is a chain, a signer and some nodes. Payments of every kind run at once while nodes and signer stop, feerates
//! swing, channels close in every way and the chain is reorganised. At the end every channel is closed, and every satoshi
//! is where it should be. The preset that an appliance begins with is in force, and its history is decided again.
//!
//! `CLAVIGER_TEST_OPERATIONS` says how many operations there are in all towns together, `CLAVIGER_TEST_SEED` which.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // what fails may panic, and the numbers are the result

mod day;
mod ending;
mod ledger;
mod payments;
mod policy;
mod town;

use fastrand::Rng;

use self::day::Day;
use self::town::{Plan, Town};

const OPERATIONS: u64 = 2_000;
const TOWNS: u64 = 3;
const SEED: u64 = 0x5eed;

/// The signed node forwards; both kinds of neighbours pay through it and to it.
const LINE: Plan = Plan {
    name: "line",
    signed: &["alice"],
    plain: &["bob", "carol"],
    channels: &[("carol", "alice"), ("alice", "bob"), ("bob", "alice")],
    anchors: false,
};

/// Everybody can pay himself around, the signed node forwards or is gone around.
const TRIANGLE: Plan = Plan {
    name: "triangle",
    signed: &["alice"],
    plain: &["bob", "carol"],
    channels: &[("alice", "bob"), ("bob", "carol"), ("carol", "alice")],
    anchors: true,
};

/// Two nodes of one signer, in the middle of the others.
const STAR: Plan = Plan {
    name: "star",
    signed: &["alice", "anna"],
    plain: &["bob", "carol"],
    channels: &[("alice", "anna"), ("bob", "alice"), ("anna", "bob"), ("anna", "carol")],
    anchors: true,
};

/// A number from the environment.
/// One of `from`.
pub(crate) fn pick<'a, T>(random: &mut Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn live_through(plan: &'static Plan) {
    let operations = setting("CLAVIGER_TEST_OPERATIONS", OPERATIONS).div_ceil(TOWNS);
    let seed = setting("CLAVIGER_TEST_SEED", SEED);
    println!("{}: {operations} operations, CLAVIGER_TEST_SEED={seed}", plan.name);
    // Each town has its own sequence.
    let random = Rng::with_seed(seed ^ plan.name.len() as u64);
    let mut day = Day::new(Town::new(plan), random);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        day.run(operations);
        ending::settle(&mut day);
    }));
    if let Err(panic) = lived {
        println!("{}: CLAVIGER_TEST_SEED={seed}; the last operations:\n{}", plan.name, day.ledger.last());
        println!("refused: {:#?}", day.town.refused());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn honest_operations_around_a_signed_node_in_the_middle_are_never_refused() {
    live_through(&LINE);
}

#[test]
fn honest_operations_in_a_circle_with_a_signed_node_are_never_refused() {
    live_through(&TRIANGLE);
}

#[test]
fn honest_operations_of_two_nodes_on_one_signer_are_never_refused() {
    live_through(&STAR);
}
