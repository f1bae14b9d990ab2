//! The reference pages in `docs/policy/` are the tables in the code. `UPDATE=1 cargo test -p claviger-policy --test docs`
//! rewrites them.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use claviger_policy::actions::{Action, Group};
use claviger_policy::facts::{FactId, Kind, Source, Unit};
use claviger_policy::limits::{Bound, Limit};
use claviger_policy::preset::{self, Preset};
use claviger_policy::reasons::Reason;

#[test]
fn the_page_of_facts_is_the_tables_of_actions_and_facts() {
    let mut page =
        String::from("## Actions\n\n| group | action | what | always carries | may carry |\n|---|---|---|---|---|\n");
    for group in Group::ALL {
        for action in group.actions() {
            let list = |always: bool| {
                let facts = FactId::of(action).iter().filter(|fact| fact.always(action) == always && !common(**fact));
                facts.map(|fact| format!("`{}`", fact.id())).collect::<Vec<_>>().join(", ")
            };
            page += &format!("| {} | `{action}` | {} | {} | {} |\n", group.id(), action.doc(), list(true), list(false));
        }
    }
    page += "\nEvery action always carries `hour_utc` and `weekday_utc`, and may carry `client`.\n";
    page += "\n## Facts\n\n| fact | type | unit | source | what | example |\n|---|---|---|---|---|---|\n";
    for fact in FactId::ALL {
        let unit = fact.unit().map_or("", Unit::text);
        let kind = fact.kind().cedar();
        page += &format!(
            "| `{}` | {kind} | {unit} | {} | {} | `{}` |\n",
            fact.id(),
            source(*fact),
            fact.doc(),
            fact.example()
        );
    }
    check("facts.md", &page);
}

fn common(fact: FactId) -> bool {
    Action::ALL.iter().all(|action| FactId::of(*action).contains(&fact))
}

/// Where a fact comes from; where that differs, for which actions it is the node's word.
fn source(fact: FactId) -> String {
    let carries = || Action::ALL.iter().filter(|action| FactId::of(**action).contains(&fact));
    let claimed = carries().filter(|action| fact.source(**action) == Source::Claimed).collect::<Vec<_>>();
    let other = carries().map(|action| fact.source(*action)).find(|source| *source != Source::Claimed);
    let base = other.map_or("", Source::id);
    match (other, &claimed[..]) {
        (_, []) => base.to_owned(),
        (None, _) => Source::Claimed.id().to_owned(),
        (Some(_), claimed) => {
            let ids = claimed.iter().map(|action| action.id()).collect::<Vec<_>>();
            format!("{base}; **claimed** for {}", ids.join(", "))
        }
    }
}

#[test]
fn the_page_of_reasons_is_the_table_of_reasons() {
    let mut page = String::from("| id | means | retry | next step |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let retry = if reason.retry() { "yes" } else { "no" };
        page += &format!("| `{}` | {} | {retry} | {} |\n", reason.id(), reason.meaning(), reason.hint());
    }
    check("reasons.md", &page);
}

#[test]
fn the_page_of_limits_is_the_table_of_limits() {
    let mut page = String::from("| limit | from | to | stricter is | what |\n|---|---|---|---|---|\n");
    for limit in Limit::ALL {
        let (least, most) = limit.range();
        let stricter = if limit.bound() == Bound::AtLeast { "higher" } else { "lower" };
        page +=
            &format!("| `{}` | {} | {} | {stricter} | {} |\n", limit.id(), grouped(least), grouped(most), limit.doc());
    }
    check("limits.md", &page);
}

#[test]
fn every_preset_has_its_page() {
    let mut index = String::from("| preset | for |\n|---|---|\n");
    for preset in Preset::all() {
        let name = preset.name;
        index += &format!("| [`{name}`](preset-{name}.md) | {} |\n", preset.doc);
        let expanded = preset::expand(name, &BTreeMap::new()).unwrap();
        let mut page = format!("{}\n\n", preset.doc);
        page += &preset.docs().map(|doc| format!("- {doc}\n")).collect::<String>();
        page += "\n## Numbers\n\nIn msat: 1,000 are a satoshi. Each goes under `[numbers]`; what is left out has its default.\n\n";
        page += "| number | default | in sat | bounds |\n|---|---|---|---|\n";
        for (number, default) in preset.numbers() {
            page += &format!(
                "| `{}` | {} | {} | {} |\n",
                number.name,
                grouped(default),
                grouped(default / 1_000),
                number.doc
            );
        }
        page += "\n## Budgets\n\nEach node has its own.\n\n| budget | counts | of | window | limit in msat |\n|---|---|---|---|---|\n";
        for budget in &expanded.budgets {
            let actions = budget.actions.iter().map(|action| action.id()).collect::<Vec<_>>().join(", ");
            let fact = budget.fact.map_or("count", FactId::id);
            let hours = budget.window_s / 3_600;
            page += &format!("| `{}` | `{fact}` | {actions} | {hours} h | {} |\n", budget.name, grouped(budget.limit));
        }
        page += &format!("\n## Rules\n\n```cedar\n{}```\n", expanded.cedar);
        check(&format!("preset-{name}.md"), &page);
    }
    check("presets.md", &index);
}

#[test]
fn numbers_are_the_only_facts_with_units() {
    assert!(FactId::ALL.iter().all(|fact| matches!(fact.kind(), Kind::Number(_)) == fact.unit().is_some()));
}

/// 1_000_000 as toml and people read it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join("_")
}

/// Compares what stands between the page's two markers with `table`, or puts it there.
fn check(page: &str, table: &str) {
    const BEGIN: &str = "<!-- generated: begin -->\n";
    const END: &str = "<!-- generated: end -->\n";
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy")).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (old, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, [head, BEGIN, table, END, tail].concat()).unwrap();
    } else {
        assert_eq!(old, table, "docs/policy/{page} is out of date: UPDATE=1 cargo test -p claviger-policy --test docs");
    }
}
