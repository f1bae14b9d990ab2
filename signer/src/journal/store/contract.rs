//! What every store promises, run over each implementation.

use std::sync::Arc;

use super::faulty::FaultyStore;
use super::torn::{TornDisk, TornDisks};
use super::{
    DelayStore, LoggedStore, MAX_ROW, MemoryStore, Order, RedbStore, Row, Store, StoreError, StoredPut, View,
    prefix_end, scan,
};

/// Opens the same store again, after the last handle was dropped.
type Reopen<'a> = &'a dyn Fn() -> Arc<dyn Store>;

#[test]
fn memory_keeps_the_contract() {
    let store = MemoryStore::new();
    contract(&|| Arc::new(store.clone()));
}

#[test]
fn redb_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract(&|| Arc::new(RedbStore::open(&directory.path().join("rows"), 1 << 20).unwrap()));
}

#[test]
fn redb_keeps_the_contract_on_a_simulated_disk() {
    let disk = TornDisk::new(1);
    contract(&|| Arc::new(disk.open().unwrap()));
}

#[test]
fn a_tree_with_a_write_ahead_file_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract(&|| Arc::new(LoggedStore::open(&directory.path().join("rows"), 1 << 20).unwrap()));
    let disks = TornDisks::new(1);
    contract(&|| Arc::new(disks.open().unwrap()));
}

#[test]
fn wrappers_keep_the_contract() {
    let store = MemoryStore::new();
    contract(&|| Arc::new(DelayStore::new(Arc::new(store.clone()), std::time::Duration::from_micros(1))));
    let store = MemoryStore::new();
    contract(&|| Arc::new(FaultyStore::new(Arc::new(store.clone()))));
}

/// The whole contract; `open` starts with an empty store.
fn contract(open: Reopen<'_>) {
    versions_decide(open);
    a_batch_is_all_or_nothing(open);
    rows_survive_reopening(open);
    views_do_not_move(open);
    pages_are_in_order(open);
    large_rows_have_a_limit(open);
    recovery_keeps_everything(open);
    any_batches_come_to_what_they_say(open);
}

fn put(key: &str, version: u64, value: &[u8]) -> StoredPut {
    StoredPut { key: key.to_owned(), version, value: Some(value.to_vec()) }
}

fn delete(key: &str, version: u64) -> StoredPut {
    StoredPut { key: key.to_owned(), version, value: None }
}

fn get(store: &dyn Store, key: &str) -> Option<(u64, Vec<u8>)> {
    let view = store.view().unwrap();
    let row = view.get(key).unwrap();
    assert_eq!(view.version(key).unwrap(), row.as_ref().map(|row| row.version));
    row.map(|row| (row.version, row.value))
}

fn versions_decide(open: Reopen<'_>) {
    let store = open();
    store.apply(&[put("v/a", 5, b"five")]).unwrap();

    store.apply(&[put("v/a", 5, b"five")]).expect("the same row again is harmless");
    let conflict = StoreError::Conflict { key: "v/a".to_owned(), version: 5 };
    assert_eq!(store.apply(&[put("v/a", 5, b"other")]), Err(conflict.clone()));
    assert_eq!(store.apply(&[delete("v/a", 5)]), Err(conflict));
    let stale = StoreError::Stale { key: "v/a".to_owned(), stored: 5, offered: 4 };
    assert_eq!(store.apply(&[put("v/a", 4, b"four")]), Err(stale.clone()));
    assert_eq!(store.apply(&[delete("v/a", 4)]), Err(stale));
    assert_eq!(get(&*store, "v/a"), Some((5, b"five".to_vec())));

    store.apply(&[put("v/a", 9, b"nine")]).unwrap();
    assert_eq!(get(&*store, "v/a"), Some((9, b"nine".to_vec())));
    store.apply(&[delete("v/a", 10)]).unwrap();
    assert_eq!(get(&*store, "v/a"), None);
    store.apply(&[delete("v/a", 10), delete("v/never", 1)]).expect("deleting nothing is harmless");
    store.apply(&[put("v/a", 1, b"")]).expect("a deleted row leaves no version behind");
    assert_eq!(get(&*store, "v/a"), Some((1, Vec::new())));
}

fn a_batch_is_all_or_nothing(open: Reopen<'_>) {
    let store = open();
    store.apply(&[put("b/head", 7, b"head"), put("b/gone", 7, b"still here")]).unwrap();
    let batch = [put("b/a", 6, b"a"), delete("b/gone", 8), put("b/head", 6, b"older"), put("b/z", 6, b"z")];
    assert!(matches!(store.apply(&batch), Err(StoreError::Stale { .. })));
    assert_eq!(get(&*store, "b/a"), None);
    assert_eq!(get(&*store, "b/z"), None);
    assert_eq!(get(&*store, "b/gone"), Some((7, b"still here".to_vec())));
    let batch = [put("b/a", 8, b"a"), delete("b/gone", 8), put("b/head", 8, b"newer")];
    store.apply(&batch).unwrap();
    store.apply(&batch).expect("a repeated batch is harmless");
    assert_eq!(get(&*store, "b/a"), Some((8, b"a".to_vec())));
    assert_eq!(get(&*store, "b/gone"), None);
    store.apply(&[]).expect("an empty batch is harmless");
}

fn rows_survive_reopening(open: Reopen<'_>) {
    let store = open();
    store.apply(&[put("r/a", 1, b"a"), put("r/b", 2, b"b")]).unwrap();
    store.apply(&[delete("r/a", 3)]).unwrap();
    drop(store);
    let store = open();
    assert_eq!(get(&*store, "r/a"), None);
    assert_eq!(get(&*store, "r/b"), Some((2, b"b".to_vec())));
    assert!(matches!(store.apply(&[put("r/b", 1, b"")]), Err(StoreError::Stale { .. })));
}

fn views_do_not_move(open: Reopen<'_>) {
    let store = open();
    store.apply(&[put("w/a", 1, b"before")]).unwrap();
    let view = store.view().unwrap();
    store.apply(&[put("w/a", 2, b"after"), put("w/b", 2, b"new")]).unwrap();
    assert_eq!(view.get("w/a").unwrap().unwrap().value, b"before");
    assert_eq!(view.get("w/b").unwrap(), None);
    assert_eq!(get(&*store, "w/a"), Some((2, b"after".to_vec())));
}

fn pages_are_in_order(open: Reopen<'_>) {
    let store = open();
    let batch: Vec<_> = (0..1000).rev().map(|n| put(&format!("p/{n:04}"), 1, &[0; 100])).collect();
    store.apply(&batch).unwrap();
    store.apply(&[put("o/last", 1, b""), put("p0", 1, b""), put("p/", 1, b"")]).unwrap();

    let view = store.view().unwrap();
    let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    let end = prefix_end("p/");
    assert_eq!(keys(view.page("p/", &end, Order::Ascending, 3).unwrap()), ["p/", "p/0000", "p/0001"]);
    assert_eq!(keys(view.page("p/", &end, Order::Descending, 2).unwrap()), ["p/0999", "p/0998"]);
    assert_eq!(keys(view.page("p/0001", "p/0003", Order::Descending, 9).unwrap()), ["p/0002", "p/0001"]);
    assert_eq!(view.page("p/5", "p/4", Order::Ascending, 9).unwrap(), []);
    assert_eq!(view.page("q", "q", Order::Ascending, 9).unwrap(), []);

    let all = keys(scan(&*view, "p/", &end).collect::<Result<_, _>>().unwrap());
    assert_eq!(all.len(), 1001);
    assert!(all.is_sorted());
}

fn large_rows_have_a_limit(open: Reopen<'_>) {
    let store = open();
    let large = vec![7; 3 << 20];
    store.apply(&[put("l/a", 1, &large)]).unwrap();
    assert_eq!(get(&*store, "l/a"), Some((1, large)));
    let too_large = StoreError::TooLarge { key: "l/b".to_owned(), bytes: MAX_ROW + 1 };
    assert_eq!(store.apply(&[put("l/c", 1, b"c"), put("l/b", 1, &vec![0; MAX_ROW + 1])]), Err(too_large));
    assert_eq!(get(&*store, "l/c"), None);
}

fn recovery_keeps_everything(open: Reopen<'_>) {
    let store = open();
    store.apply(&[put("c/a", 1, b"a")]).unwrap();
    let old_view = store.view().unwrap();
    store.recover().expect("a view that is still held does not hinder");
    drop(old_view);
    assert_eq!(get(&*store, "c/a"), Some((1, b"a".to_vec())));
    store.apply(&[put("c/a", 2, b"b")]).unwrap();
}

/// Held against the store in memory, and the views that were taken on the way with it.
fn any_batches_come_to_what_they_say(open: Reopen<'_>) {
    let (mut store, model) = (open(), MemoryStore::new());
    let mut random = fastrand::Rng::with_seed(1);
    let mut views = Vec::new();
    let rows = |view: &dyn View, order, limit| view.page("x/", &prefix_end("x/"), order, limit).unwrap();
    for version in 1..400 {
        let mut keys: Vec<_> = (0..1 + random.u64(..4)).map(|_| random.u64(..40)).collect();
        keys.sort();
        keys.dedup();
        let batch: Vec<_> = keys
            .into_iter()
            .map(|key| format!("x/{key:02}"))
            .map(|key| match random.u64(..3) {
                0 => delete(&key, version),
                _ => put(&key, version, &vec![version as u8; random.usize(..3000)]),
            })
            .collect();
        store.apply(&batch).unwrap();
        model.apply(&batch).unwrap();
        match random.u64(..40) {
            0 => {
                views.clear(); // nobody reads them after the store
                drop(store);
                store = open();
            }
            1 => {
                views.clear(); // nor after a recovery
                store.recover().unwrap();
            }
            2..5 => views.push((store.view().unwrap(), model.view().unwrap())),
            _ => {}
        }
        let limit = 1 + random.usize(..30);
        for (found, expected) in views.iter().chain([&(store.view().unwrap(), model.view().unwrap())]) {
            for order in [Order::Ascending, Order::Descending] {
                assert_eq!(rows(&**found, order, limit), rows(&**expected, order, limit), "{version}");
            }
            let key = format!("x/{:02}", random.u64(..40));
            assert_eq!(found.get(&key).unwrap(), expected.get(&key).unwrap(), "{version}");
        }
    }
}
