//! What a verdict costs, fact building included: `cargo run --release -p claviger-policy --example verdict`.
//!
//! Prints the median of single verdicts in ns, for the default preset alone and with 200 further rules.

#![allow(clippy::print_stdout)] // that is what it is for

use std::hint::black_box;
use std::time::Instant;

use claviger_policy::budget::Budgets;
use claviger_policy::decide::{State, decide};
use claviger_policy::grant::Grants;
use claviger_policy::sample;

const TIMES: u64 = 20_000;

fn main() {
    let (budgets, grants) = (Budgets::default(), Grants::new("bench", "alice"));
    let state = State { budgets: &budgets, grants: &grants };
    for further in [0, 200] {
        let policy = sample::policy(further).expect("a test compiles it");
        let mut took_ns = Vec::new();
        for at in 0..TIMES {
            let begun = Instant::now();
            let request = sample::request(at);
            let (_, verdict) = decide(&policy, state, &request, None, request.time_ms);
            took_ns.push(begun.elapsed().as_nanos());
            assert!(black_box(verdict).permits());
        }
        took_ns.sort_unstable();
        println!("{further} further rules: {} ns (p50 of {TIMES})", took_ns[took_ns.len() / 2]);
    }
}
