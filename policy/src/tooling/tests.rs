//! The worked example holds what it says, and each tool finds exactly what there is to find.

use std::path::Path;

use bitcoin::Network;

use super::*;
use crate::actions::Action;
use crate::budget::{Budgets, ReservationKey};
use crate::bundle::{Bundle, Files};
use crate::decide::{self, State};
use crate::facts::FactId;
use crate::grant::Grants;
use crate::request::Request;

const DAY_MS: u64 = 86_400_000;
/// 2026-12-01T10:00:00Z.
const MORNING_MS: u64 = 1_796_119_200_000;

fn example() -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy/examples/treasury-team");
    let mut files = Files::default();
    for folder in ["", "lists"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the example") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.strip_prefix(&root).expect("below it").to_str().expect("text").to_owned();
                files.add(&name, std::fs::read(&path).expect("a file")).expect("a part");
            }
        }
    }
    files
}

/// The example with a text replaced in one of its files.
fn altered(file: &str, from: &str, to: &str) -> Files {
    let mut files = Files::default();
    for (name, contents) in example().iter() {
        let text = String::from_utf8(contents.to_vec()).expect("text");
        assert!(name != file || text.contains(from), "{file} has no {from}");
        let text = if name == file { text.replacen(from, to, 1) } else { text };
        files.add(name, text.into_bytes()).expect("a part");
    }
    files
}

fn bundle(files: Files) -> Bundle {
    Bundle::parse(files, Network::Regtest).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The example with more rules.
fn with_rules(rules: &str) -> Bundle {
    let mut files = example();
    files.add("more.cedar", rules.into()).expect("a part");
    bundle(files)
}

fn lints(bundle: &Bundle) -> Vec<Lint> {
    lint(bundle).into_iter().map(|finding| finding.lint).collect()
}

#[test]
fn the_worked_example_is_checked_without_a_warning_and_passes_its_tests() {
    let (report, bundle) = check(example(), Network::Regtest);
    assert_eq!((&report.errors[..], &report.findings[..]), (&[][..], &[][..]), "{report}");
    let tested = test(&bundle.expect("no errors"));
    assert!(tested.passes(), "{tested}");
    assert_eq!(tested.passed, 16);
}

#[test]
fn a_test_that_fails_says_what_was_expected_what_was_found_and_why() {
    let report = test(&bundle(altered("policy.toml", "limit = 2_000_000_000", "limit = 1_999_999_999")));
    let failure = report.failed.first().expect("a failure");
    assert_eq!(failure.name, "a payment within the hour's 2 M sat passes");
    let [expect, rules] = &failure.differences[..] else { panic!("{failure:?}") };
    assert_eq!((expect.expected.as_str(), expect.found.as_str()), ("permit", "needs-approval"));
    assert_eq!((rules.expected.as_str(), rules.found.as_str()), ("spend", "none"));
    assert!(report.to_string().contains("treasury.test.toml:14:1: FAILED a payment within"), "{report}");
}

#[test]
fn a_permit_without_a_bound_is_found_and_its_bounded_twin_is_not() {
    let forward = "@id(\"forward\")\npermit (principal, action == Action::\"Forward\", resource)";
    let unbounded = lints(&with_rules(&format!("{forward};")));
    assert_eq!(unbounded, [Lint::UnboundedAmount { rule: "forward".into(), action: Action::Forward }]);
    assert_eq!(lints(&with_rules(&format!("{forward} when {{ context.amount_msat <= 5 }};"))), []);
}

#[test]
fn rules_that_change_nothing_are_found() {
    let never = "@id(\"never\")\nforbid (principal, action == Action::\"Keysend\", resource)
        when { context.amount_msat > 5 && context.amount_msat < 5 };";
    assert_eq!(lints(&with_rules(never)), [Lint::Unreachable { rule: "never".into() }]);
    let narrower = "@id(\"narrower\")\npermit (principal == Node::\"alice\", action == Action::\"Keysend\", resource);";
    assert_eq!(lints(&with_rules(narrower)), [Lint::Redundant { rule: "narrower".into(), by: "spend".into() }]);
    let overriding = "@id(\"stop\")\nforbid (principal, action in Action::\"Settle\", resource);";
    let found = lints(&with_rules(overriding));
    assert!(found.contains(&Lint::Overridden { rule: "settle".into(), by: "stop".into() }), "{found:?}");
    let of_its_own =
        "@id(\"of-its-own\")\nforbid (principal == Node::\"alice\", action == Action::\"Keysend\", resource);";
    assert_eq!(lints(&with_rules(of_its_own)), []);
}

#[test]
fn names_that_stand_for_nothing_or_for_two_things_are_found() {
    let unknown = lints(&bundle(altered("rules.cedar", "contains(\"exchange\")", "contains(\"exchagne\")")));
    let list = Lint::UnknownList {
        rule: "sweeps-only-to-the-exchange".into(),
        fact: "destination_lists",
        list: "exchagne".into(),
    };
    assert_eq!(unknown, [list]);
    let reused = lints(&bundle(altered("policy.toml", "name = \"channels\"", "name = \"treasury\"")));
    assert_eq!(reused, [Lint::NameReused { name: "treasury".into(), first: "a budget", second: "an approval group" }]);
    let all_of_them = lints(&bundle(altered("policy.toml", "of = 2", "of = 3")));
    assert_eq!(all_of_them, [Lint::NeverMetFromWithin { group: "treasury".into(), role: "treasurer".into(), of: 3 }]);
}

#[test]
fn the_diff_is_in_meaning() {
    let before = bundle(example());
    let noted = bundle(altered("rules.cedar", "// What may not.", "// What may not,  really."));
    assert_eq!(diff(Some(&before), &noted).changes, []);
    let lines = |file, from, to| diff(Some(&before), &bundle(altered(file, from, to))).to_string();
    assert_eq!(
        lines("policy.toml", "limit = 2_000_000_000", "limit = 3_000_000_000"),
        "~ budget hourly limit: 2000000000 -> 3000000000"
    );
    assert_eq!(lines("policy.toml", ", \"carol@example.org\"]", "]"), "- role treasurer carol@example.org: holds it");
    assert_eq!(
        lines("rules.cedar", "context.unknown_destinations > 0", "context.unknown_destinations > 1"),
        "~ rule unknown-destinations where unknown_destinations: at least 1 -> at least 2"
    );
    assert_eq!(
        lines("rules.cedar", "Action::\"Gossip\", ", ""),
        "~ rule run-channels actions: UpdateChannel, IssueInvoice, Gossip, Ecdh -> UpdateChannel, IssueInvoice, Ecdh"
    );
}

/// Payments of alice, one every ten minutes, as the example's policy decides them, with what became of each.
fn history(policy: &Bundle, payments: u64) -> Vec<Event> {
    let (mut budgets, mut events) = (Budgets::default(), Vec::new());
    let grants = Grants::new("appliance", "alice");
    for index in 0..payments {
        let at_ms = MORNING_MS - DAY_MS + index * 600_000;
        let request = Request::new("alice", Action::PayInvoice, at_ms)
            .with(FactId::AmountMsat, 100_000_000 + index % 7 * 50_000_000)
            .with(FactId::Payee, "03cd")
            .with(FactId::PaymentHash, format!("{index:064x}"));
        let (id, key) = (format!("request-{index}"), format!("payment:{index}"));
        let reservation = ReservationKey::new(&key);
        let state = State { budgets: &budgets, grants: &grants };
        let inputs = decide::inputs(policy.policy(), state, &request, Some(&reservation), at_ms);
        let verdict = decide::judge(policy.policy(), &request, &inputs);
        let permits = verdict.permits();
        if permits {
            budgets.reserve(&policy.policy().budgets, &request, &reservation, at_ms + DAY_MS, at_ms).expect("counted");
        }
        let record = Record { id, bundle: policy.hash(), request, key: key.clone(), inputs, verdict };
        events.push(Event::Decided(Box::new(record)));
        let node = "alice".to_owned();
        match index % 3 {
            _ if !permits => {}
            0 => {
                budgets.release("alice", &reservation, at_ms + 1);
                events.push(Event::Released { node, key, at_ms: at_ms + 1 });
            }
            _ => {
                budgets.settle("alice", &reservation, &[], at_ms + 1);
                events.push(Event::Settled { node, key, amounts: Default::default(), at_ms: at_ms + 1 });
            }
        }
    }
    events
}

#[test]
fn history_is_reproduced_with_its_own_bundle_and_a_forged_verdict_is_found() {
    let policy = bundle(example());
    let mut events = history(&policy, 600);
    let report = replay(events.clone(), |hash| (hash == policy.hash()).then_some(&policy), |_| true);
    assert!(report.reproduces(), "{report}");
    assert_eq!(report.decisions, 600);

    let Some(Event::Decided(record)) =
        events.iter_mut().find(|event| matches!(event, Event::Decided(record) if !record.verdict.permits()))
    else {
        panic!("a refusal")
    };
    record.verdict = crate::verdict::Verdict::Permit(Default::default());
    let forged = record.id.clone();
    let report = replay(events, |_| Some(&policy), |_| true);
    assert_eq!((report.reproduced, report.differing), (599, 1));
    assert_eq!(report.listed[0].id, forged);
}

#[test]
fn a_simulation_of_the_same_policy_differs_in_nothing_and_of_another_in_exactly_what_it_changes() {
    let policy = bundle(example());
    let events = history(&policy, 600);
    let run = |candidate: &Bundle| {
        let mut listed = Vec::new();
        let mut budgets = Budgets::default();
        let with = Candidate::new(candidate.policy(), Some(policy.policy()), &mut budgets);
        let report = simulate(events.iter().cloned(), with, |differing| listed.push(differing.id), |_| true);
        (report, listed)
    };
    assert_eq!(run(&policy).1, Vec::<String>::new());

    let candidate = bundle(altered("rules.cedar", "context.hour_utc >= 22", "context.hour_utc >= 20"));
    let (report, listed) = run(&candidate);
    let evening: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Decided(record) if matches!(record.request.time_ms / 3_600_000 % 24, 20 | 21) => Some(record),
            _ => None,
        })
        .filter(|record| record.verdict.permits())
        .map(|record| record.id.clone())
        .collect();
    assert!(!evening.is_empty());
    assert_eq!(listed, evening);
    assert_eq!(report.newly_refused, evening.len() as u64);
    assert_eq!((report.newly_permitted, report.refused_otherwise), (0, 0));
    assert_eq!(report.by_cause.get("rule nothing-at-night"), Some(&report.newly_refused));
}

#[test]
fn a_history_is_read_as_it_was_written_and_a_line_that_is_none_is_named() {
    let policy = bundle(example());
    let events = history(&policy, 100);
    let lines: Vec<_> = [policy.files().to_line()].into_iter().chain(events.iter().map(Event::to_line)).collect();
    let read = |lines: &[String]| {
        let mut history = History::read(lines.iter().cloned().map(Ok::<_, String>))?;
        let hashes: Vec<_> = history.bundles().keys().copied().collect();
        let events: Vec<_> = history.events().collect();
        history.finish().map(|()| (hashes, events))
    };
    assert_eq!(read(&lines), Ok((vec![policy.hash()], events)));
    assert_eq!(read(&[]), Ok((vec![], vec![])));

    let mut late = lines.clone();
    late.push(lines[0].clone());
    assert_eq!(read(&late), Err(HistoryError::LateBundle { line: late.len() as u64 }));
    let mut typo = lines.clone();
    typo[7] = typo[7].replacen("{\"", "{\"x", 1);
    assert!(matches!(read(&typo), Err(HistoryError::Foreign { line: 8, .. })), "{:?}", read(&typo));
    let mut astray = lines;
    astray[0] = astray[0].replacen("rules.cedar", "rules/a.cedar", 1);
    assert!(matches!(read(&astray), Err(HistoryError::Foreign { line: 1, .. })), "{:?}", read(&astray));
}

#[test]
fn a_simulation_that_is_told_to_stop_stops() {
    let policy = bundle(example());
    let events = history(&policy, 600);
    let mut budgets = Budgets::default();
    let report = simulate(events, Candidate::new(policy.policy(), None, &mut budgets), |_| {}, |_| false);
    assert!(report.stopped && report.decisions < 600, "{report:?}");
}

#[test]
fn an_explanation_has_the_facts_what_is_left_and_what_would_have_passed() {
    let policy = bundle(example());
    let request = Request::new("alice", Action::PayInvoice, MORNING_MS)
        .with(FactId::AmountMsat, 2_000_000_001)
        .with(FactId::Payee, "03cd")
        .with(FactId::PaymentHash, "e3b0");
    let (budgets, grants) = (Budgets::default(), Grants::new("appliance", "alice"));
    let state = State { budgets: &budgets, grants: &grants };
    let inputs = decide::inputs(policy.policy(), state, &request, None, MORNING_MS);
    let verdict = decide::judge(policy.policy(), &request, &inputs);
    let explained = explain(policy.policy(), &request, &inputs, &verdict, Some(&grants));
    assert_eq!(explained.verdict, Expected::NeedsApproval);
    assert_eq!(explained.approvals, ["treasury"]);
    assert_eq!(explained.passes, ["amount_msat at most 2000000000 (budget hourly)"]);
    let text = explained.to_string();
    assert!(text.contains("\n  budget      hourly: asked 2000000001, left 2000000000 of 2000000000 msat"), "{text}");
    assert!(text.contains("\n  fact        amount_msat = 2000000001 msat"), "{text}");
}

#[test]
fn what_is_shown_is_all_that_the_bundle_says() {
    let shown = show(&bundle(example()));
    assert_eq!(shown.rules.len(), 6);
    assert!(shown.cedar().contains("// rules.cedar\n@id(\"nothing-at-night\")"), "{}", shown.cedar());
    let text = shown.to_string();
    for line in ["\ngroup treasury: kind normal, of 2, role treasurer", "\nsigning: of 2, role treasurer"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn every_preset_is_checked_without_a_warning() {
    for preset in crate::preset::Preset::all() {
        let mut files = Files::default();
        let policy = format!("version = 1\npreset = \"{}\"\n", preset.name);
        files.add("policy.toml", policy.into_bytes()).expect("a part");
        assert_eq!(lints(&bundle(files)), [], "{}", preset.name);
    }
}
