//! `claviger bench`: what this machine makes of the signer, measured in process, as ratios within one run.

mod advance;
mod baseline;
mod growth;
mod heap;
mod overhead;
mod raw;
mod rig;
mod verdict;

use std::time::Duration;

use serde::Serialize;

pub use rig::BenchError;

/// Everything that is measured. Times are microseconds unless the name says otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bare curve operations.
    pub raw: raw::Raw,
    /// State advances over stores, flush delays and ways of committing.
    pub advance: Vec<advance::Advance>,
    /// What a policy verdict costs beside a signature.
    pub verdict: Vec<verdict::Verdict>,
    /// What a state advance costs here and with vls-core alone.
    pub overhead: Vec<overhead::Overhead>,
    /// What the secret heap costs.
    pub heap: Vec<heap::Heap>,
    /// What operations cost as a node grows.
    pub growth: Vec<growth::Growth>,
    /// Resident memory of this process after all that, in MiB.
    pub rss_mb: f64,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// State advances of each node in one measurement.
    pub advances: usize,
    /// The same where every message has a slow flush of its own.
    pub slow_advances: usize,
    /// The numbers of open invoices to grow to.
    pub invoices: &'static [usize],
    /// The numbers of channels to grow to.
    pub channels: &'static [usize],
}

impl Effort {
    /// The full measurement: minutes.
    pub const FULL: Self =
        Self { advances: 48, slow_advances: 4, invoices: &[10, 1_000, 100_000], channels: &[1, 200, 2_000] };
    /// A quick look: seconds.
    pub const QUICK: Self = Self { advances: 8, slow_advances: 4, invoices: &[10, 1_000], channels: &[1, 50] };
}

/// Measures; tells `progress` what comes next.
pub fn run(effort: Effort, progress: &dyn Fn(&str)) -> Result<Report, BenchError> {
    progress("bare curve operations");
    let raw = raw::measure();
    let verdict = verdict::measure(progress)?;
    let overhead = overhead::measure(progress)?;
    let advance = advance::measure(effort, progress)?;
    let heap = heap::measure(effort.advances, progress)?;
    let growth = growth::measure(effort, progress)?;
    Ok(Report { raw, verdict, overhead, advance, heap, growth, rss_mb: rss_mb() })
}

/// The value below which `share` of the sorted `times` lie, in microseconds.
fn percentile_us(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or_default();
    kib / 1_024.0
}
