//! What changed since a moment is told once somebody asked, also over disks that fail.

use super::super::store::faulty::{Failure, FaultyStore};
use super::super::store::{MemoryStore, StoreError};
use super::*;

/// What changed since `since`, in a word each, and until when.
fn told(journal: &Journal, since: &Mark) -> (Vec<String>, Mark) {
    let changes = journal.changes(Some(since)).unwrap();
    let mut told = Vec::new();
    let mut each = |change: Change<'_>| {
        told.push(match change {
            Change::Row(row) => row.key.clone(),
            Change::Gone(key) => format!("gone {key}"),
            Change::Listed => "listed".to_owned(),
            Change::Kept(key) => format!("kept {key}"),
        });
        Ok::<_, JournalError>(())
    };
    changes.each(since, &mut each).unwrap();
    (told, changes.mark())
}

fn put(journal: &Journal, key: &str, value: Option<&[u8]>) {
    let put = Put { key: key.to_owned(), value: value.map(<[u8]>::to_vec) };
    journal.commit(Commit { tenant: "alice".to_owned(), puts: vec![put], decision: None }).unwrap();
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn what_changed_is_told_once_and_nothing_else() {
    let journal = open(MemoryStore::new());
    for n in 1..=5 {
        journal.commit(commit("alice", n, &format!("{n}"), b"before")).unwrap();
    }
    let begun = journal.changes(None).unwrap().mark();
    assert_eq!(told(&journal, &begun), (words(&["head"]), begun));
    put(&journal, "2", None);
    put(&journal, "3", Some(b"one"));
    put(&journal, "3", Some(b"two"));
    put(&journal, "new", Some(b"gone again"));
    put(&journal, "new", None);
    for n in 6..=8 {
        journal.commit(commit("bob", n, "state", b"later")).unwrap();
    }
    let (changed, then) = told(&journal, &begun);
    let log = |n: u64| format!("log/{n:020}");
    let expected = [
        words(&["head", "check/00000000000000000008", "gone entry/alice/2", "entry/alice/3", "gone entry/alice/new"]),
        vec!["entry/bob/state".to_owned(), log(6), log(7), log(8)],
    ];
    assert_eq!(changed, expected.concat());
    put(&journal, "4", Some(b"one"));
    assert_eq!(told(&journal, &then).0, words(&["head", "entry/alice/4"]));
}

/// What a batch changed that failed and was written after all is not at hand: everything is named instead.
#[test]
fn a_batch_of_unknown_outcome_is_told_by_naming_what_stayed() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let journal = open_shared(Arc::clone(&store) as Arc<dyn Store>);
    for key in ["1", "2", "cold/3"] {
        put(&journal, key, Some(b"before"));
    }
    let begun = journal.changes(None).unwrap().mark();
    for (failure, changed) in [
        (Failure::Before(StoreError::Full), words(&["head"])),
        (
            Failure::After(StoreError::Full),
            words(&[
                "head",
                "listed",
                "kept entry/alice/1",
                "kept entry/alice/2",
                "entry/alice/4",
                "log/00000000000000000001",
            ]),
        ),
    ] {
        store.fail(Some(failure));
        let lost = journal.commit(commit("alice", 4, "4", b"unknown"));
        assert_eq!(lost, Err(CommitError::Store(StoreError::Full)));
        assert!(matches!(journal.changes(Some(&begun)), Err(JournalError::Unavailable(_))));
        store.fail(None);
        while journal.health() != Health::Good {
            std::thread::sleep(Duration::from_millis(1));
        }
        journal.load("alice").unwrap();
        assert_eq!(told(&journal, &begun).0, changed);
    }
    let (_, then) = told(&journal, &begun);
    put(&journal, "2", None);
    assert_eq!(told(&journal, &then).0, words(&["head", "gone entry/alice/2"]), "remembered again");
}

#[test]
fn a_moment_that_the_journal_was_not_at_is_refused() {
    let (journal, other) = (open(MemoryStore::new()), open(MemoryStore::new()));
    for journal in [&journal, &other] {
        for n in 1..=5 {
            journal.commit(commit("alice", n, "a", b"one")).unwrap();
        }
    }
    let past = journal.changes(None).unwrap().mark();
    assert!(journal.changes(Some(&past)).is_ok());
    for wrong in [
        other.changes(None).unwrap().mark(),
        Mark { version: past.version + 1, ..past },
        Mark { decisions: past.decisions + 1, ..past },
        Mark { decisions: past.decisions - 1, ..past },
        Mark { hash: [0; 32], ..past },
        Mark { decisions: 0, ..past },
    ] {
        assert!(matches!(journal.changes(Some(&wrong)), Err(JournalError::Diverged)), "{wrong:?}");
    }
}
