//! Entries that are damaged, moved, or from a later version are refused.

use super::super::*;
use super::{Disk, HOUR_MS, hourly, key, pay};

const T: u64 = 1_000 * HOUR_MS;

fn entries() -> Vec<(String, Vec<u8>)> {
    let (mut budgets, mut disk) = (Budgets::default(), Disk::default());
    let defs = [Budget { scope: vec![Scope::Node, Scope::Payee], ..hourly(1_000) }];
    for id in 0..2 {
        let changes = budgets.reserve(&defs, &pay("alice", "shop", 10), &key(id), T + HOUR_MS, T).expect("fits");
        disk.write("alice", changes);
    }
    disk.write("alice", budgets.settle("alice", &key(1), &[], T));
    disk.read("alice").map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
}

fn load(entries: &[(String, Vec<u8>)]) -> Result<Budgets, BudgetsUnreadable> {
    let mut budgets = Budgets::default();
    budgets.load("alice", entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).map(|()| budgets)
}

#[test]
fn entries_are_read_as_they_were_written_and_those_of_others_are_passed_over() {
    let mut entries = entries();
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.split('/').nth(1).expect("two parts").to_owned()).collect();
    assert_eq!(keys, ["clock", "reserved", "reserved", "spent"]);
    let budgets = load(&entries).expect("readable");
    entries.push(("book/dust".into(), vec![]));
    assert_eq!(load(&entries), Ok(budgets));
}

#[test]
fn an_entry_of_a_later_version_is_refused_as_such() {
    for index in 0..entries().len() {
        let mut entries = entries();
        entries[index].1[0] = 2;
        assert_eq!(load(&entries), Err(BudgetsUnreadable::Newer { key: entries[index].0.clone(), version: 2 }));
    }
}

#[test]
fn a_damaged_entry_is_refused_and_named() {
    for index in 0..entries().len() {
        let whole = entries();
        let damaged = Err(BudgetsUnreadable::Damaged(whole[index].0.clone()));
        for length in 0..whole[index].1.len() {
            let mut entries = whole.clone();
            entries[index].1.truncate(length);
            assert_eq!(load(&entries), damaged, "cut to {length}");
        }
        for value in [vec![0; 4], [&whole[index].1[..], &[0]].concat(), vec![1, b'x', 0]] {
            let mut entries = whole.clone();
            entries[index].1 = value;
            assert_eq!(load(&entries), damaged);
        }
    }
}

#[test]
fn an_entry_under_another_key_is_refused() {
    let whole = entries();
    let spent = whole.iter().position(|(key, _)| key.starts_with("budget/spent/")).expect("there");
    for key in [
        "budget/spent/00000000000000000000000000000000/0".to_owned(),
        whole[spent].0.clone() + "0/1",
        "budget/x".into(),
    ] {
        let mut entries = whole.clone();
        entries[spent].0 = key.clone();
        assert_eq!(load(&entries), Err(BudgetsUnreadable::Damaged(key)));
    }
}

#[test]
fn amounts_later_than_the_clock_are_refused() {
    let clock = "budget/clock".to_owned();
    let without: Vec<_> = entries().into_iter().filter(|(key, _)| *key != clock).collect();
    assert_eq!(load(&without), Err(BudgetsUnreadable::Damaged(clock)));
    assert_eq!(load(&[]), load(&[("x".into(), vec![])]), "a node that spent nothing has no clock");
}
