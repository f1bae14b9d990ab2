//! Targets whose world lives through many inputs: what fails is told as a recipe, made short and kept.

use std::time::{Duration, Instant};

use anyhow::bail;
use claviger_fuzz::{Target, World, recipe};
use fastrand::Rng;

use super::{Args, MAX_RSS_KIB, keep, report, rss_kib, timed};

/// Executions before a world ends in any case.
const EXECUTIONS: usize = 4_096;
/// The longest input; a recipe tells lengths in a byte.
const MAX_INPUT_BYTES: usize = 40;
/// Lines about a long run.
const REPORT_EVERY: u64 = 1_000_000;
/// A failure is not made shorter for longer than this.
const SHORTEN_FOR: Duration = Duration::from_secs(300);

type Begin = fn(u64) -> Box<dyn World>;

/// Runs worlds one after the other, each from its number and the seed alone.
pub(crate) fn run(target: &Target, begin: Begin, args: &Args) -> anyhow::Result<()> {
    for seed in target.seeds()? {
        timed(|| (target.fuzz)(&seed)).map_err(|why| keep(target, &seed, &why))?;
    }
    let (begun, mut runs, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    let goes_on = |runs| runs < args.runs && begun.elapsed() < Duration::from_secs(args.seconds);
    for number in args.world.. {
        if !goes_on(runs) {
            break;
        }
        let mut random = Rng::with_seed(args.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut world, mut inputs) = (begin(number), Vec::new());
        while inputs.len() < EXECUTIONS && !world.is_over() && goes_on(runs) {
            let length = random.usize(..=MAX_INPUT_BYTES);
            let input: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            inputs.push(input.clone());
            match timed(|| world.run(&input)) {
                Ok(took) => slowest = slowest.max(took),
                Err(why) => return Err(failed(target, begin, args.seed, number, inputs, &why)),
            }
            runs += 1;
            if runs.is_multiple_of(REPORT_EVERY) {
                report(target, runs, begun, slowest);
            }
        }
        if let Err(why) = timed(|| world.end()) {
            return Err(failed(target, begin, args.seed, number, inputs, &why));
        }
        if rss_kib() > MAX_RSS_KIB {
            bail!("{}: more than {MAX_RSS_KIB} KiB of memory after {runs} runs", target.name);
        }
    }
    report(target, runs, begun, slowest);
    Ok(())
}

/// Tells how to repeat a failure, and keeps the shortest way to it that is soon found.
fn failed(target: &Target, begin: Begin, seed: u64, number: u64, mut inputs: Vec<Vec<u8>>, why: &str) -> anyhow::Error {
    let executions = inputs.len();
    let begun = Instant::now();
    let mut piece = inputs.len().div_ceil(2);
    while piece > 0 && begun.elapsed() < SHORTEN_FOR {
        let mut at = 0;
        while at < inputs.len() && begun.elapsed() < SHORTEN_FOR {
            let mut fewer = inputs.clone();
            fewer.drain(at..(at + piece).min(inputs.len()));
            if fails(begin, number, &fewer) { inputs = fewer } else { at += piece }
        }
        piece /= 2;
    }
    let why = format!("--seed {seed} --world {number}, execution {executions}, {} needed: {why}", inputs.len());
    keep(target, &recipe(number, &inputs), &why)
}

fn fails(begin: Begin, number: u64, inputs: &[Vec<u8>]) -> bool {
    let play = || {
        let mut world = begin(number);
        inputs.iter().for_each(|input| world.run(input));
        world.end();
    };
    timed(play).is_err()
}
