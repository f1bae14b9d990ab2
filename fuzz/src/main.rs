//! `claviger-fuzz TARGET`: mutates seeds, asks the target, keeps what crashes, and says what it did.

#![allow(clippy::print_stdout, reason = "a command line says what it did")]

mod worlds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use claviger_fuzz::mutate::mutate;
use claviger_fuzz::{TARGETS, Target, dictionary, last_panic, remember_panics};
use fastrand::Rng;

/// Inputs that were mutated further, besides the seeds.
const POOL: usize = 1_024;
/// A single execution may not take longer, nor the process more memory.
const HANG: Duration = Duration::from_secs(1);
const MAX_RSS_KIB: u64 = 512 << 10;

/// Fuzzes one target, or all in turn.
#[derive(Parser)]
struct Args {
    /// link_frames, guard_decoder, channel, or all.
    target: String,
    /// Seconds for each target.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Executions of each target; ends the run before its time.
    #[arg(long, default_value_t = u64::MAX)]
    runs: u64,
    /// Repeats a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first world of a target that has worlds.
    #[arg(long, default_value_t = 0)]
    world: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let chosen: Vec<_> = TARGETS.iter().filter(|t| args.target == "all" || t.name == args.target).collect();
    if chosen.is_empty() {
        bail!("there is no target '{}': link_frames, guard_decoder, channel or all", args.target);
    }
    remember_panics();
    chosen.into_iter().try_for_each(|target| match target.begin {
        None => run(target, &args),
        Some(begin) => worlds::run(target, begin, &args),
    })
}

fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let (mut random, words) = (Rng::with_seed(args.seed), dictionary());
    let mut pool = target.seeds().context("the corpus cannot be read")?;
    if pool.is_empty() {
        pool.push(Vec::new());
    }
    pool.iter().try_for_each(|seed| execute(target, seed).map(drop))?;
    let (begun, mut runs, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    while runs < args.runs && begun.elapsed() < Duration::from_secs(args.seconds) {
        let mut input = pool[random.usize(..pool.len())].clone();
        let other = pool[random.usize(..pool.len())].clone();
        mutate(&mut random, &mut input, &words, &other, target.max_bytes);
        slowest = slowest.max(execute(target, &input)?);
        runs += 1;
        // Without a measure of coverage: some mutants of mutants, so that depth is reached.
        if random.usize(..64) == 0 {
            if pool.len() < POOL {
                pool.push(input);
            } else {
                let at = random.usize(..POOL);
                pool[at] = input;
            }
        }
        if runs.is_multiple_of(256) && rss_kib() > MAX_RSS_KIB {
            bail!("{}: more than {MAX_RSS_KIB} KiB of memory after {runs} runs", target.name);
        }
    }
    report(target, runs, begun, slowest);
    Ok(())
}

fn report(target: &Target, runs: u64, begun: Instant, slowest: Duration) {
    let seconds = begun.elapsed().as_secs_f64();
    let (per_second, rss_mib) = (runs as f64 / seconds, rss_kib() / 1_024);
    println!(
        "{}: {runs} runs in {seconds:.1} s ({per_second:.0}/s), slowest {slowest:.2?}, {rss_mib} MiB",
        target.name
    );
}

/// One execution; an input that fails is kept.
fn execute(target: &Target, input: &[u8]) -> anyhow::Result<Duration> {
    timed(|| (target.fuzz)(input)).map_err(|why| keep(target, input, &why))
}

/// The time of the processor that `f` took, or why it fails.
fn timed(f: impl FnOnce()) -> Result<Duration, String> {
    let begun = processor_time();
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let took = processor_time().saturating_sub(begun);
    match outcome {
        Ok(()) if took < HANG => Ok(took),
        Ok(()) => Err(format!("it takes {took:.2?}")),
        Err(_) => Err(last_panic()),
    }
}

/// Keeps an input that fails with its corpus.
fn keep(target: &Target, input: &[u8], why: &str) -> anyhow::Error {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let path = target.corpus().join(format!("crash-{hash:016x}"));
    match std::fs::write(&path, input) {
        Ok(()) => anyhow!("{}: {why}; kept as {}", target.name, path.display()),
        Err(error) => anyhow!("{}: {why}; {} cannot be written: {error}", target.name, path.display()),
    }
}

/// What this thread had of the processor: others on the machine make nothing slower.
fn processor_time() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
