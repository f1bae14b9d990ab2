//! The reference pages in `docs/` are the tables in the code. `UPDATE=1 cargo test -p claviger --test docs` rewrites them.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs;
use std::path::PathBuf;

use claviger::metrics::Metric;
use claviger::{config, reasons::Reason};

#[test]
fn the_reasons_page_is_the_table_of_reasons() {
    let mut rows = String::from("| id | means | retry | next step |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let retry = if reason.retry() { "yes" } else { "no" };
        rows += &format!("| `{}` | {} | {retry} | {} |\n", reason.id(), reason.meaning(), reason.hint());
    }
    check("reasons.md", &rows);
}

#[test]
fn the_configuration_page_holds_the_table_of_keys() {
    check("configuration.md", &config::reference());
}

#[test]
fn the_metrics_page_is_the_table_of_metrics() {
    let mut rows = String::from("| name | type | labels | tells |\n|---|---|---|---|\n");
    for metric in Metric::ALL {
        let labels = metric.labels().iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        rows += &format!("| `{}` | {} | {labels} | {} |\n", metric.name(), metric.kind(), metric.meaning());
    }
    check("metrics.md", &rows);
}

/// Compares what stands between the page's two markers with `table`, or puts it there.
fn check(page: &str, table: &str) {
    const BEGIN: &str = "<!-- generated: begin -->\n";
    const END: &str = "<!-- generated: end -->\n";
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (old, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, [head, BEGIN, table, END, tail].concat()).unwrap();
    } else {
        assert_eq!(old, table, "docs/{page} is out of date: UPDATE=1 cargo test -p claviger --test docs");
    }
}
