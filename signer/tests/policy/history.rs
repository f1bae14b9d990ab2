//! Simulation and replay over a month of decisions.

use std::fs;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use claviger_policy::actions::Action;
use claviger_policy::budget::{Budgets, ReservationKey};
use claviger_policy::bundle::{Bundle, Files};
use claviger_policy::decide::{self, State};
use claviger_policy::facts::FactId;
use claviger_policy::grant::Grants;
use claviger_policy::request::Request;
use claviger_policy::tooling::{Event, Record};
use claviger_policy::verdict::Verdict;

use super::{copy, edit, policy, text};

const DECISIONS: u64 = 5_000;
/// Eight minutes: 180 decisions a day, four weeks in all.
const STEP_MS: u64 = 8 * 60_000;
/// 2026-12-01T00:00:00Z.
const FROM_MS: u64 = 1_796_083_200_000;

fn bundle(dir: &Path) -> Bundle {
    let mut files = Files::default();
    for name in ["policy.toml", "rules.cedar", "treasury.test.toml", "allowed_signers", "lists/exchange.toml"] {
        files.add(name, fs::read(dir.join(name)).unwrap()).unwrap();
    }
    Bundle::parse(files, Network::Regtest).unwrap()
}

/// A month of payments of all sizes, and the file that tells of it.
fn history(dir: &Path, policy: &Bundle) -> (Vec<Record>, PathBuf) {
    let (mut budgets, grants) = (Budgets::default(), Grants::new("appliance", "alice"));
    let (mut lines, mut records) = (vec![policy.files().to_line()], Vec::new());
    for index in 0..DECISIONS {
        let now_ms = FROM_MS + index * STEP_MS;
        let request = Request::new("alice", Action::PayInvoice, now_ms)
            .with(FactId::AmountMsat, (index * 7_919 % 997) * 1_000_000)
            .with(FactId::Payee, "03cd")
            .with(FactId::PaymentHash, format!("{index:064x}"));
        let (id, key) = (format!("alice-00000001-{index}"), format!("payment:{index}"));
        let reservation = ReservationKey::new(&key);
        let state = State { budgets: &budgets, grants: &grants };
        let (inputs, verdict) = {
            let inputs = decide::inputs(policy.policy(), state, &request, Some(&reservation), now_ms);
            let verdict = decide::judge(policy.policy(), &request, &inputs);
            (inputs, verdict)
        };
        let permits = verdict.permits();
        let record = Record { id, bundle: policy.hash(), request: request.clone(), key: key.clone(), inputs, verdict };
        lines.push(Event::Decided(Box::new(record.clone())).to_line());
        records.push(record);
        if permits {
            let definitions = &policy.policy().budgets;
            budgets.reserve(definitions, &request, &reservation, now_ms + 3_600_000, now_ms).unwrap();
            budgets.settle("alice", &reservation, &[], now_ms + 1);
            let settled =
                Event::Settled { node: "alice".to_owned(), key, amounts: Default::default(), at_ms: now_ms + 1 };
            lines.push(settled.to_line());
        }
    }
    let file = dir.join("history.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    (records, file)
}

#[test]
fn a_month_is_reproduced_and_a_candidate_differs_in_exactly_what_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let active = copy(dir.path(), "active");
    let (records, file) = history(dir.path(), &bundle(&active));
    let simulate = |candidate: &Path, json: &[&str]| {
        let args = ["simulate", "--network", "regtest", "--candidate", text(candidate), "--history", text(&file)];
        let (code, stdout, stderr) = policy(&[json, &args].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    };
    let (code, stdout, stderr) = policy(&["replay", "--network", "regtest", "--history", text(&file)]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "5000 of 5000 decisions reproduced\n");
    let same = simulate(&active, &[]);
    assert_eq!(same, "0 of 5000 would now be refused; 0 newly permitted; 0 refused otherwise\n");

    // Two hours of the evening less: what was permitted then is denied, and so is what needed an approval.
    let candidate = copy(dir.path(), "candidate");
    edit(&candidate.join("rules.cedar"), "context.hour_utc >= 22", "context.hour_utc >= 20");
    let evening = |record: &&Record| matches!(record.request.time_ms / 3_600_000 % 24, 20 | 21);
    let expected: Vec<_> = records.iter().filter(evening).collect();
    let refused = expected.iter().filter(|record| record.verdict.permits()).count();
    let otherwise = expected.len() - refused;
    assert!(refused > 100 && otherwise > 100);
    let stdout = simulate(&candidate, &[]);
    let listed: Vec<_> = stdout.lines().filter(|line| line.starts_with("alice-")).collect();
    let ids: Vec<_> = listed.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids, expected.iter().map(|record| record.id.as_str()).collect::<Vec<_>>());
    let summary =
        format!("\n{refused} of 5000 would now be refused; 0 newly permitted; {otherwise} refused otherwise\n");
    assert!(stdout.contains(&summary), "{stdout}");
    assert!(listed[0].contains("permit -> deny") && listed[0].contains("nothing-at-night"), "{}", listed[0]);
    let lines: Vec<serde_json::Value> =
        simulate(&candidate, &["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), expected.len() + 1);
    assert_eq!(lines[0]["differing"]["id"], expected[0].id);
    assert_eq!(lines.last().unwrap()["report"]["newly_refused"], refused);
}

#[test]
fn a_verdict_that_was_changed_in_the_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let active = copy(dir.path(), "active");
    let policy_in_force = bundle(&active);
    let (mut records, file) = history(dir.path(), &policy_in_force);
    let forged = records.iter_mut().find(|record| !record.verdict.permits()).unwrap();
    forged.verdict = Verdict::Permit(Default::default());
    let id = forged.id.clone();
    let lines = records.iter().map(|record| Event::Decided(Box::new(record.clone())).to_line());
    let lines: Vec<_> = [policy_in_force.files().to_line()].into_iter().chain(lines).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let (code, stdout, stderr) = policy(&["replay", "--network", "regtest", "--history", text(&file)]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with(&format!("{id}: recorded ")), "{stdout}");
    assert!(stdout.ends_with("4999 of 5000 decisions reproduced\n"), "{stdout}");
    assert!(stderr.contains("1 of 5000 decisions are not reproduced"), "{stderr}");

    // Without its bundle nothing can be said of a decision, and that is said.
    fs::write(&file, lines[1..].join("\n")).unwrap();
    let (code, stdout, _) = policy(&["replay", "--network", "regtest", "--history", text(&file)]);
    assert!(code == Some(1) && stdout.contains("5000 have a bundle that is not at hand"), "{stdout}");
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    for (contents, line) in [("x\n", 1), ("{\"bundle\":{\"policy.toml\":\"version = 1\"}}\n\n", 2)] {
        fs::write(&file, contents).unwrap();
        let (code, _, stderr) = policy(&["replay", "--history", text(&file)]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains(&format!("line {line} is not of a history")), "{stderr}");
    }
}
