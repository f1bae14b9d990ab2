//! What a commit costs: run with `cargo test --release -p claviger journal::tests::cost -- --ignored --nocapture`.

use std::time::Instant;

use super::super::store::{MemoryStore, RedbStore};
use super::*;

/// Measures CPU per commit of a 4 KB channel record and a decision, in groups of 64.
#[test]
#[ignore = "a measurement, not a test"]
fn cpu_per_commit() {
    let directory = tempfile::tempdir().unwrap();
    measure("memory", Arc::new(MemoryStore::new()));
    measure("redb", Arc::new(RedbStore::open(&directory.path().join("journal.redb"), 64 << 20).unwrap()));
}

fn measure(name: &str, store: Arc<dyn Store>) {
    const ROUNDS: u64 = 150;
    const GROUP: u64 = 64;
    let journal = Journal::open(store, cipher(), Options::default()).unwrap();
    let value = vec![7; 4096];
    let (start, cpu) = (Instant::now(), cpu_time());
    for round in 0..ROUNDS {
        for node in 0..GROUP {
            let commit = commit(&format!("node-{node}"), round, "channel/1", &value);
            journal.submit(commit, Box::new(|result| result.unwrap()));
        }
        settle(&journal);
    }
    let commits = (ROUNDS * GROUP) as u32;
    let (cpu, wall) = ((cpu_time() - cpu) / commits, start.elapsed() / commits);
    println!("{name}: {cpu:?} CPU, {wall:?} elapsed per commit, {} flushes", journal.stats().flushes);
}

/// User and system time of this process, from its clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
