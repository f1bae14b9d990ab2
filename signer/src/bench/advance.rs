//! State advances: five messages each, in closed loops, one per node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Transaction;
use serde::Serialize;

use super::rig::{BenchError, Rig};
use super::{Effort, percentile_us};
use crate::chain::ChainSink;
use crate::journal::store::{DelayStore, LoggedStore, MemoryStore, Store};
use crate::journal::{FlushMode, Options};
use crate::lightning::driver::{MiniChain, Script};
use crate::names::NodeName;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Advance {
    /// Nodes at work.
    pub nodes: usize,
    /// HTLCs on both commitments.
    pub htlcs: usize,
    /// `memory` or `logged`.
    pub store: &'static str,
    /// What each flush takes longer.
    pub flush_delay_ms: u64,
    /// `group`, or `each`: one flush for every message.
    pub mode: &'static str,
    /// Of all nodes together.
    pub advances_per_s: f64,
    /// Median of one advance.
    pub p50_ms: f64,
    /// And its 99th percentile.
    pub p99_ms: f64,
}

/// Each way is measured this often, in turns with the others, and its median counts: what the machine gives differs from
/// one second to the next.
const ROUNDS: usize = 3;

pub(super) fn measure(effort: Effort, progress: &dyn Fn(&str)) -> Result<Vec<Advance>, BenchError> {
    let mut rows = Vec::new();
    for htlcs in [0, 10] {
        let script = record(effort.advances, htlcs)?;
        for nodes in [1, 64] {
            let mut rounds: Vec<Vec<Advance>> = Vec::new();
            for round in 1..=ROUNDS {
                progress(&format!("{nodes} nodes, {htlcs} HTLCs: round {round} of {ROUNDS}"));
                rounds.push(round_of(&script, effort, nodes, htlcs)?);
            }
            rows.extend(medians(rounds));
        }
    }
    Ok(rows)
}

fn round_of(script: &Script, effort: Effort, nodes: usize, htlcs: usize) -> Result<Vec<Advance>, BenchError> {
    let mut short = script.clone();
    short.advances.truncate(effort.slow_advances);
    let mut rows = Vec::new();
    for store in ["memory", "logged"] {
        for flush_delay_ms in [0, 4] {
            for mode in ["group", "each"] {
                let script = if mode == "each" && flush_delay_ms > 0 { &short } else { script };
                rows.push(play(script, nodes, htlcs, store, flush_delay_ms, mode)?);
            }
        }
    }
    Ok(rows)
}

/// Of each way, the round whose rate is the median.
fn medians(rounds: Vec<Vec<Advance>>) -> Vec<Advance> {
    let ways = rounds.first().map_or(0, Vec::len);
    let median = |way: usize| {
        let mut of_way: Vec<&Advance> = rounds.iter().filter_map(|round| round.get(way)).collect();
        of_way.sort_by(|a, b| a.advances_per_s.total_cmp(&b.advances_per_s));
        of_way.get(of_way.len() / 2).map(|advance| (*advance).clone())
    };
    (0..ways).filter_map(median).collect()
}

/// The session that all nodes play.
pub(super) fn record(advances: usize, htlcs: usize) -> Result<Script, BenchError> {
    let rig = Rig::new(Arc::new(MemoryStore::new()), Options::default())?;
    let node = rig.add("recorder")?;
    let confirm = |funding: &Transaction| {
        let block = MiniChain::default().mine(vec![funding.clone()]);
        // A block that does not fit shows at the first advance.
        let _ = rig.nodes.connect(&node, block);
    };
    let mut ask = |channel, message| rig.ask(&node, channel, message);
    Ok(Script::record(&mut ask, 1, confirm, advances, htlcs)?)
}

/// One measurement: all `nodes` play `script`.
pub(super) fn play(
    script: &Script,
    nodes: usize,
    htlcs: usize,
    store: &'static str,
    flush_delay_ms: u64,
    mode: &'static str,
) -> Result<Advance, BenchError> {
    let dir = tempdir()?;
    let inner: Arc<dyn Store> = match store {
        "logged" => Arc::new(
            LoggedStore::open(&dir.0.join("journal.redb"), LoggedStore::DEFAULT_CACHE).map_err(BenchError::system)?,
        ),
        _ => Arc::new(MemoryStore::new()),
    };
    let store_with_delay: Arc<dyn Store> = match flush_delay_ms {
        0 => inner,
        delay => Arc::new(DelayStore::new(inner, Duration::from_millis(delay))),
    };
    let flush = if mode == "each" { FlushMode::Each } else { FlushMode::Group };
    let rig = Rig::new(store_with_delay, Options { flush, ..Options::default() })?;
    let block = MiniChain::default().mine(vec![script.funding.clone()]);
    let names: Vec<NodeName> = (0..nodes).map(|n| rig.add(&format!("node-{n}"))).collect::<Result<_, _>>()?;
    in_parallel(&names, |name| {
        for (channel, message) in &script.opening {
            rig.must(name, *channel, message.clone())?;
        }
        rig.nodes.connect(name, block.clone()).map_err(BenchError::system)?;
        Ok(Vec::new())
    })?;
    let started = Instant::now();
    let mut times = in_parallel(&names, |name| {
        let advance = |messages: &Vec<crate::lightning::driver::Asked>| {
            let started = Instant::now();
            for (channel, message) in messages {
                rig.must(name, *channel, message.clone())?;
            }
            Ok(started.elapsed())
        };
        script.advances.iter().map(advance).collect()
    })?;
    let elapsed = started.elapsed();
    Ok(Advance {
        nodes,
        htlcs,
        store,
        flush_delay_ms,
        mode,
        advances_per_s: times.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: percentile_us(&mut times, 0.5) / 1e3,
        p99_ms: percentile_us(&mut times, 0.99) / 1e3,
    })
}

/// Does `work` for all names at once and gathers the times.
fn in_parallel(
    names: &[NodeName],
    work: impl Fn(&NodeName) -> Result<Vec<Duration>, BenchError> + Sync,
) -> Result<Vec<Duration>, BenchError> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || work(name))).collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().map_err(|_| BenchError::System("a client failed".to_owned()))??);
        }
        Ok(times)
    })
}

/// A directory that goes when dropped.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Result<Scratch, BenchError> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(BenchError::system)?;
    let path = std::env::temp_dir().join(format!("claviger-bench-{}", hex::encode(random)));
    std::fs::create_dir(&path).map_err(BenchError::system)?;
    Ok(Scratch(path))
}
