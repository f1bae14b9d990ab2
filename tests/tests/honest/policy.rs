//! The policy that is in force over a town, and what is made of its history at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use claviger_demo::signer::SignerProcess;
use claviger_policy::actions::Action;
use claviger_policy::facts::FactId;
use claviger_policy::tooling::{Event, History, Record};

/// The preset that an appliance begins with.
const PRESET: &str = "routing-node";
/// Beyond what a town spends, in msat.
const AMPLE_MSAT: u64 = 1_000_000_000_000;
/// The numbers that a town would meet within a minute; they are for months.
const NUMBERS: &[&str] = &[
    "max_chain_fee_msat",
    "daily_bump_fees_msat",
    "max_payment_msat",
    "hourly_payments_msat",
    "daily_payments_msat",
    "daily_channels_msat",
];
/// What a candidate lets pass of a payment, in msat.
const CANDIDATE_MSAT: u64 = 20_000_000;

/// Puts the policy in force.
pub(crate) fn apply(signer: &SignerProcess) {
    let dir = bundle(signer.dir(), "in-force", 1, AMPLE_MSAT);
    signer.cli(&["policy", "apply", dir.to_str().unwrap()]).unwrap();
}

/// Every verdict comes out again, and a candidate that bounds payments differs in exactly those above its bound.
pub(crate) fn check_history(name: &str, signer: &SignerProcess) {
    let exported = signer.output(&["policy", "export"], "").unwrap();
    let exported = String::from_utf8(exported.stdout).unwrap();
    let file = signer.dir().join("history.jsonl");
    fs::write(&file, &exported).unwrap();
    let mut history = History::read(exported.lines().map(|line| Ok::<_, std::io::Error>(line.to_owned()))).unwrap();
    let decided: Vec<_> = history.events().filter_map(decision).collect();
    history.finish().unwrap();

    let begun = Instant::now();
    let replayed = signer.cli(&["policy", "replay", "--history", file.to_str().unwrap()]).unwrap();
    let replay_s = begun.elapsed().as_secs_f64();
    assert_eq!(replayed["decisions"], decided.len(), "{replayed}");
    assert_eq!(replayed["reproduced"], decided.len(), "{replayed}");

    let candidate = bundle(signer.dir(), "candidate", 2, CANDIDATE_MSAT);
    let begun = Instant::now();
    let (candidate, file) = (candidate.to_str().unwrap(), file.to_str().unwrap());
    let lines = signer.cli_lines(&["policy", "simulate", "--candidate", candidate, "--history", file]).unwrap();
    let simulate_s = begun.elapsed().as_secs_f64();
    let (report, differing) = lines.split_last().unwrap();
    let listed: Vec<_> = differing.iter().map(|line| line["differing"]["id"].as_str().unwrap()).collect();
    let expected: Vec<_> = decided.iter().filter(|record| is_large(record)).map(|record| record.id.as_str()).collect();
    assert_eq!(listed, expected, "{report}");
    println!(
        "{name}: {} verdicts reproduced in {replay_s:.1} s, simulated in {simulate_s:.1} s, {} refused by the candidate",
        decided.len(),
        listed.len()
    );
}

fn decision(event: Event) -> Option<Record> {
    match event {
        Event::Decided(record) => Some(*record),
        _ => None,
    }
}

fn is_large(record: &Record) -> bool {
    let is_payment = matches!(record.request.action, Action::PayInvoice | Action::Keysend);
    is_payment && record.verdict.permits() && record.request.number(FactId::AmountMsat) > Some(CANDIDATE_MSAT)
}

fn bundle(dir: &Path, name: &str, version: u32, max_payment_msat: u64) -> PathBuf {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    let numbers = NUMBERS.iter().map(|number| {
        let msat = if *number == "max_payment_msat" { max_payment_msat } else { AMPLE_MSAT };
        format!("{number} = {msat}\n")
    });
    let numbers: String = numbers.collect();
    let text = format!("version = {version}\npreset = \"{PRESET}\"\n\n[numbers]\n{numbers}");
    fs::write(dir.join("policy.toml"), text).unwrap();
    dir
}
