//! The reference pages in `docs/` are the tables in the code. `UPDATE=1 cargo test -p claviger --test docs` rewrites them.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs;
use std::path::PathBuf;

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
