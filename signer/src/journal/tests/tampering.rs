//! A store that was changed behind the journal's back: found, and the first bad record is named.

use std::path::Path;

use super::super::record;
use super::super::store::{LoggedStore, MemoryStore, Order, StoreError};
use super::*;

const LAST: u64 = 20;

/// A journal with every kind of record, closed.
fn filled() -> MemoryStore {
    let store = MemoryStore::new();
    fill(open(store.clone()));
    store
}

fn fill(journal: Journal) {
    for n in 1..=LAST {
        let tenant = if n % 3 == 0 { "bob" } else { "alice" };
        journal.commit(commit(tenant, n, &format!("channel/{}", n % 7), &[n as u8; 50])).unwrap();
    }
    verified(&journal);
}

fn check(store: &MemoryStore) -> Result<Verified, JournalError> {
    verify(store, &cipher(), &mut |_| true)
}

fn damage(key: &str, what: DamageKind) -> Result<Verified, JournalError> {
    Err(Damage { key: key.to_owned(), what }.into())
}

#[test]
fn an_untouched_journal_verifies() {
    let verified = check(&filled()).unwrap();
    assert_eq!((verified.decisions, verified.entries, verified.checkpoints), (LAST, 13, 3));
}

#[test]
fn a_changed_byte_in_any_record_is_named() {
    let store = filled();
    let mut keys = Vec::new();
    store.tamper(|rows| keys.extend(rows.iter().map(|(key, (_, value))| (key.clone(), value.len()))));
    for (key, length) in keys {
        for at in [0, 1, 20, length / 2, length - 1] {
            store.tamper(|rows| rows.get_mut(&key).unwrap().1[at] ^= 0x40);
            match check(&store) {
                Err(JournalError::Damaged(found)) => assert_eq!((found.key.as_str(), at), (key.as_str(), at)),
                Err(JournalError::WrongKey | JournalError::NewerFormat { .. }) if key == META => {}
                other => panic!("byte {at} of '{key}': {other:?}"),
            }
            store.tamper(|rows| rows.get_mut(&key).unwrap().1[at] ^= 0x40);
        }
        store.tamper(|rows| rows.get_mut(&key).unwrap().0 += 1);
        assert!(check(&store).is_err(), "version of '{key}'");
        store.tamper(|rows| rows.get_mut(&key).unwrap().0 -= 1);
    }
    check(&store).unwrap();
}

#[test]
fn a_missing_record_is_found() {
    let store = filled();
    let mut keys = Vec::new();
    store.tamper(|rows| keys.extend(rows.keys().cloned()));
    for key in keys {
        let mut taken = None;
        store.tamper(|rows| taken = rows.remove(&key));
        let expected = match key.split('/').next().unwrap() {
            "entry" => damage("head", DamageKind::State { found: 12, expected: 13 }),
            // The next checkpoint names the missing one; the last is named by the head.
            "check" if key == record::checkpoint_key(LAST) => damage(&key, DamageKind::Missing),
            "check" if key == record::checkpoint_key(8) => damage(&record::checkpoint_key(16), DamageKind::Checkpoint),
            "check" => damage(&record::checkpoint_key(LAST), DamageKind::Checkpoint),
            _ => damage(&key, DamageKind::Missing),
        };
        assert_eq!(check(&store), expected, "without '{key}'");
        store.tamper(|rows| drop(rows.insert(key, taken.unwrap())));
    }
    check(&store).unwrap();
}

#[test]
fn swapped_records_are_named() {
    let store = filled();
    for (one, other) in [
        ("entry/alice/channel/1", "entry/alice/channel/2"),
        ("entry/alice/channel/1", "entry/bob/channel/1"),
        ("log/00000000000000000003", "log/00000000000000000004"),
    ] {
        let swap = |rows: &mut BTreeMap<String, (u64, Vec<u8>)>| {
            let (a, b) = (rows[one].clone(), rows[other].clone());
            rows.insert(one.to_owned(), b);
            rows.insert(other.to_owned(), a);
        };
        store.tamper(swap);
        assert_eq!(check(&store), damage(one, DamageKind::Record(BadRecord::Authentication)));
        store.tamper(swap);
    }
}

#[test]
fn a_truncated_log_is_found() {
    let store = filled();
    store.tamper(|rows| rows.retain(|key, _| !key.starts_with("log/") || record::number_of(key) < Some(15)));
    assert_eq!(check(&store), damage(&record::log_key(15), DamageKind::Missing));
    let store = filled();
    store.tamper(|rows| drop(rows.remove(&record::log_key(LAST))));
    assert_eq!(check(&store), damage(&record::log_key(LAST), DamageKind::Missing));
}

/// A head from an older copy leaves newer decisions beyond the end.
#[test]
fn an_older_head_is_found() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    journal.commit(commit("alice", 1, "a", b"1")).unwrap();
    let mut head = None;
    store.tamper(|rows| head = rows.get(HEAD).cloned());
    journal.commit(commit("alice", 2, "b", b"2")).unwrap();
    store.tamper(|rows| drop(rows.insert(HEAD.to_owned(), head.unwrap())));
    assert_eq!(check(&store), damage(&record::log_key(2), DamageKind::Unexpected));
}

/// P7: one entry put back to older, once valid contents. It authenticates; the whole does not.
#[test]
fn an_entry_rolled_back_is_found_when_opening() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    journal.commit(commit("alice", 1, "channel/1", b"state 1")).unwrap();
    let mut old = None;
    store.tamper(|rows| old = rows.get("entry/alice/channel/1").cloned());
    journal.commit(commit("alice", 2, "channel/1", b"state 2")).unwrap();
    drop(journal);
    store.tamper(|rows| drop(rows.insert("entry/alice/channel/1".to_owned(), old.unwrap())));
    let state = Damage { key: "head".to_owned(), what: DamageKind::State { found: 1, expected: 1 } };
    assert_eq!(check(&store), Err(state.clone().into()));
    let opened = Journal::open(Arc::new(store), cipher(), Options::default());
    assert_eq!(opened.err(), Some(JournalError::Damaged(state)));
}

/// Two histories under one key: a decision from the other one authenticates, and does not fit the chain.
#[test]
fn a_decision_from_another_history_breaks_the_chain() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    journal.commit(commit("alice", 1, "a", b"1")).unwrap();
    drop(journal);
    let other = MemoryStore::new();
    store.tamper(|rows| other.tamper(|copy| copy.clone_from(rows)));
    for (store, first) in [(&store, 2), (&other, 12)] {
        let journal = open(store.clone());
        for n in first..first + 3 {
            journal.commit(commit("alice", n, "a", b"n")).unwrap();
        }
    }
    let key = record::log_key(3);
    let mut foreign = None;
    other.tamper(|rows| foreign = rows.get(&key).cloned());
    store.tamper(|rows| drop(rows.insert(key.clone(), foreign.unwrap())));
    assert_eq!(check(&store), damage(&key, DamageKind::Chain));
}

#[test]
fn records_of_unknown_kinds_are_named() {
    for key in ["entry", "log/7", "log/00000000000000000099", "other", "check/00000000000000000000", "~", "Ω"] {
        let store = filled();
        store.tamper(|rows| drop(rows.insert(key.to_owned(), (1, vec![1; 60]))));
        assert_eq!(check(&store), damage(key, DamageKind::Unexpected));
    }
}

#[test]
fn another_data_key_is_a_named_error() {
    let other = RecordCipher::new(Secret::new(Zeroizing::new([8; 32])));
    let opened = Journal::open(Arc::new(filled()), other, Options::default());
    assert_eq!(opened.err(), Some(JournalError::WrongKey));
}

#[test]
fn a_newer_format_is_a_named_error() {
    let store = filled();
    store.tamper(|rows| rows.get_mut(META).unwrap().1[16..18].copy_from_slice(&7u16.to_be_bytes()));
    let opened = Journal::open(Arc::new(store), cipher(), Options::default());
    assert_eq!(opened.err(), Some(JournalError::NewerFormat { found: 7 }));
}

#[test]
fn a_changed_byte_in_the_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    fill(open(LoggedStore::open(&path, 1 << 20).unwrap()));
    let rows =
        LoggedStore::open(&path, 1 << 20).unwrap().view().unwrap().page("", "~", Order::Ascending, 1000).unwrap();
    let intact = std::fs::read(&path).unwrap();
    for row in rows {
        let tail = &row.value[row.value.len() - 24..];
        let mut bytes = intact.clone();
        for at in intact.windows(tail.len()).enumerate().filter(|(_, window)| *window == tail).map(|(at, _)| at) {
            bytes[at + 5] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        match verify(&LoggedStore::open(&path, 1 << 20).unwrap(), &cipher(), &mut |_| true) {
            Err(JournalError::Damaged(damage)) => assert_eq!(damage.key, row.key),
            Err(JournalError::WrongKey) if row.key == META => {}
            other => panic!("{}: {other:?}", row.key),
        }
    }
}

/// P6: whatever stands in the file, it ends in an answer or a named error, never in a panic.
#[test]
fn a_file_damaged_anywhere_never_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    fill(open(LoggedStore::open(&path, 1 << 20).unwrap()));
    let intact = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..150 {
        let mut bytes = intact.clone();
        for _ in 0..=round % 4 {
            // Most of the file is unused: aim at what is not zero.
            let start = random.usize(..bytes.len());
            let at = (start..bytes.len()).chain(0..start).find(|&at| bytes[at] != 0).unwrap();
            bytes[at] ^= random.u8(..) | 1;
        }
        if round % 10 == 9 {
            bytes.truncate(random.usize(..bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = try_everything(&path);
    }
}

fn try_everything(path: &Path) -> Result<(), JournalError> {
    let store = Arc::new(LoggedStore::open(path, 1 << 20)?);
    let _ = verify(&*store, &cipher(), &mut |_| true);
    let journal = Journal::open(store, cipher(), Options::default())?;
    let _ = journal.load("alice");
    let _ = journal.commit(commit("bob", 1, "a", b"1"));
    let _ = journal.verify(&mut |_| true);
    drop(journal);
    Ok(())
}

#[test]
fn errors_name_the_record_and_the_next_step() {
    let damage = Damage { key: record::log_key(7), what: DamageKind::Chain };
    assert_eq!(damage.seq(), Some(7));
    assert_eq!(
        damage.to_string(),
        "the journal's record 'log/00000000000000000007': it does not continue the chain of decisions"
    );
    for error in [JournalError::WrongKey, StoreError::Full.into(), damage.into()] {
        assert!(error.hint().ends_with('.'));
    }
}

/// An entry that is rolled back or removed while the signer runs, and its neighbours, who go on (P7).
#[test]
fn entries_changed_under_a_running_journal_are_not_loaded() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    let key = record::entry_key("alice", "a");
    journal.commit(commit("alice", 1, "a", b"revoked")).unwrap();
    journal.commit(commit("bob", 2, "b", b"bob's")).unwrap();
    let mut old = None;
    store.tamper(|rows| old = rows.get(&key).cloned());
    journal.commit(commit("alice", 3, "a", b"in force")).unwrap();
    assert_eq!(journal.load("alice").unwrap()["a"], b"in force");

    let state = |found| Damage::new("entry/alice/", DamageKind::State { found, expected: 1 });
    for (tampered, found) in [(old, 1), (None, 0)] {
        store.tamper(|rows| match tampered {
            Some(row) => drop(rows.insert(key.clone(), row)),
            None => drop(rows.remove(&key)),
        });
        assert_eq!(journal.load("alice"), Err(JournalError::Damaged(state(found))));
        assert_eq!(journal.load("bob").unwrap()["b"], b"bob's");
    }
}
