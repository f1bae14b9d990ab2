//! `policy simulate` and `policy replay`: what was decided, decided again.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::sync_channel;

use bitcoin::Network;
use clap::Args;
use claviger_policy::budget::Budgets;
use claviger_policy::bundle::Bundle;
use claviger_policy::tooling::{self, Candidate, Differing, Event, History, HistoryError, MAX_LINE_BYTES};
use serde_json::json;

use super::applied;
use super::offline::load;
use crate::cli::admin::{self, Daemon};
use crate::cli::{CliError, Output, time};

/// Which stretch of history.
#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// What `claviger policy export` wrote; the running signer's journal if absent.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Only what was decided within this time: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    since: Option<u64>,
}

/// `policy simulate`: each request that `candidate` would have decided otherwise.
pub(super) fn simulate(
    data_dir: &Path,
    candidate: &Path,
    args: &HistoryArgs,
    network: Network,
    output: &Output,
) -> Result<(), CliError> {
    let Told { lines, network, read, total } = told(data_dir, args, network)?;
    let candidate = load(candidate, network)?;
    let mut history = History::read(lines).map_err(unread)?;
    // Approvals were given under the newest; where a group means the same there, they count.
    let newest = bundles(&history, network)?.into_iter().max_by_key(Bundle::version);
    let mut budgets = Budgets::default();
    let with = Candidate::new(candidate.policy(), newest.as_ref().map(Bundle::policy), &mut budgets);
    let mut bar = output.bar("simulating", total);
    let mut progress = |_| {
        bar.at(read.get());
        true
    };
    let differing = |differing: Differing| output.line(&json!({ "differing": differing }), || differing.to_string());
    let report = tooling::simulate(since(history.events(), args.since), with, differing, &mut progress);
    drop(bar);
    history.finish().map_err(unread)?;
    output.result(&json!({ "report": report }), || report.to_string());
    Ok(())
}

/// `policy replay`: whether every verdict comes out again, byte for byte.
pub(super) fn replay(data_dir: &Path, args: &HistoryArgs, network: Network, output: &Output) -> Result<(), CliError> {
    let Told { lines, network, read, total } = told(data_dir, args, network)?;
    let mut history = History::read(lines).map_err(unread)?;
    let bundles = bundles(&history, network)?;
    let mut bar = output.bar("replaying", total);
    let mut progress = |_| {
        bar.at(read.get());
        true
    };
    let bundle = |hash| bundles.iter().find(|bundle| bundle.hash() == hash);
    let report = tooling::replay(since(history.events(), args.since), bundle, &mut progress);
    drop(bar);
    history.finish().map_err(unread)?;
    output.result(&report, || report.to_string());
    if report.reproduces() {
        return Ok(());
    }
    let missed = report.decisions - report.reproduced;
    Err(CliError::new(
        format!("{missed} of {} decisions are not reproduced", report.decisions),
        "Run `claviger journal verify`; if the journal is whole, report this with the version that decided.",
    ))
}

type Lines = Box<dyn Iterator<Item = Result<String, Error>>>;

/// A history that is being told.
struct Told {
    lines: Lines,
    network: Network,
    /// How much is read, of how much: bytes of a file, lines of a signer's, whose number nobody knows.
    read: Rc<Cell<u64>>,
    total: Option<u64>,
}

/// From the file that is named, or from the signer that runs.
fn told(data_dir: &Path, args: &HistoryArgs, network: Network) -> Result<Told, CliError> {
    let read = Rc::new(Cell::new(0));
    let so_far = Rc::clone(&read);
    let Some(path) = &args.history else {
        let daemon = admin::connect(data_dir)?;
        let network = applied::network(&applied::info(&daemon)?)?;
        let lines = of_signer(daemon, args.since).inspect(move |_| so_far.set(so_far.get() + 1));
        return Ok(Told { lines: Box::new(lines), network, read, total: None });
    };
    let failed = |error: Error| {
        CliError::new(format!("cannot read {}: {error}", path.display()), "Give what `claviger policy export` wrote.")
    };
    let file = File::open(path).map_err(failed)?;
    let total = Some(file.metadata().map_err(failed)?.len());
    let mut file = BufReader::new(file);
    let lines = std::iter::from_fn(move || {
        let line = line(&mut file)?;
        so_far.set(so_far.get() + line.as_ref().map_or(0, String::len) as u64 + 1);
        Some(line)
    });
    Ok(Told { lines: Box::new(lines), network, read, total })
}

/// The lines that the signer tells, a few ahead of who reads them.
fn of_signer(daemon: Daemon, since_s: Option<u64>) -> impl Iterator<Item = Result<String, Error>> {
    const AHEAD: usize = 256;
    let (lines, told) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        let told = applied::history(&daemon, since_s, |line| {
            let _ = lines.send(Ok(line)); // whoever read may have seen enough
        });
        if let Err(CliError { error, hint, .. }) = told {
            let _ = lines.send(Err(Error::other(format!("{error}. {hint}"))));
        }
    });
    told.into_iter()
}

/// The next line, of bounded length, without its end.
fn line(file: &mut impl BufRead) -> Option<Result<String, Error>> {
    let mut line = String::new();
    match file.take(MAX_LINE_BYTES as u64 + 1).read_line(&mut line) {
        Ok(0) => None,
        Ok(_) if line.len() > MAX_LINE_BYTES => Some(Err(Error::new(ErrorKind::FileTooLarge, "the line is too long"))),
        Ok(_) => {
            line.truncate(line.trim_end_matches(['\n', '\r']).len());
            Some(Ok(line))
        }
        Err(error) => Some(Err(error)),
    }
}

/// The bundles of a history, read.
fn bundles<I: Iterator<Item = Result<String, Error>>>(
    history: &History<I>,
    network: Network,
) -> Result<Vec<Bundle>, CliError> {
    let parsed = history.bundles().iter().map(|(hash, files)| {
        Bundle::parse(files.clone(), network).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            let hint = errors.first().map(|error| error.hint.clone()).unwrap_or_default();
            CliError::new(format!("the bundle {hash} of the history: {first}"), hint)
        })
    });
    parsed.collect()
}

/// What was decided at most `seconds` ago, and what became of it.
fn since(events: impl Iterator<Item = Event>, seconds: Option<u64>) -> impl Iterator<Item = Event> {
    let from_ms = seconds.map_or(0, |seconds| time::now_ms().saturating_sub(seconds.saturating_mul(1_000)));
    events.filter(move |event| match event {
        Event::Decided(record) => record.request.time_ms >= from_ms,
        Event::Settled { at_ms, .. } | Event::Released { at_ms, .. } => *at_ms >= from_ms,
    })
}

fn unread(error: HistoryError) -> CliError {
    CliError::new(&error, error.hint())
}
