//! Sealed anew row by row: nothing changes but the key.

use super::store::MemoryStore;
use super::*;

fn key(byte: u8) -> Secret<32> {
    Secret::init(|key| key.fill(byte))
}

/// Seals everything anew with key `byte`, up to the last row.
fn turned(journal: &Journal, byte: u8) {
    journal.turn(key(byte));
    let mut next = Some(String::new());
    while let Some(after) = next {
        next = journal.reseal(&after).unwrap().last;
    }
}

fn reopened(store: &Arc<MemoryStore>, cipher: RecordCipher) -> Result<Journal, JournalError> {
    Journal::open(store.clone(), cipher, Options::default())
}

#[test]
fn everything_is_sealed_anew_while_others_commit_and_the_old_key_opens_nothing() {
    let store = Arc::new(MemoryStore::default());
    let journal = open_shared(store.clone());
    for n in 1..=100 {
        journal.commit(commit("alice", n, &format!("channel/{}", n % 40), b"state")).unwrap();
    }
    let before = journal.decisions(1, 200).unwrap();
    journal.turn(key(8));
    let mut next = Some(String::new());
    for n in 101.. {
        let Some(after) = next else { break };
        next = journal.reseal(&after).unwrap().last;
        journal.commit(commit("bob", n, "state", b"later")).unwrap();
    }
    journal.retire();
    assert_eq!(journal.decisions(1, 100).unwrap(), before[..100]);
    let whole = verified(&journal);
    let entries = journal.load("alice").unwrap();
    assert_eq!(entries.len(), 40);
    drop(journal);

    assert_eq!(reopened(&store, cipher()).map(drop), Err(JournalError::WrongKey));
    let journal = reopened(&store, RecordCipher::new(key(8))).unwrap();
    assert_eq!((verified(&journal).decisions, journal.load("alice").unwrap()), (whole.decisions, entries));
}

#[test]
fn what_was_left_half_done_opens_with_both_keys_and_is_finished_from_the_start() {
    let store = Arc::new(MemoryStore::default());
    let journal = open_shared(store.clone());
    for n in 1..=100 {
        journal.commit(commit("alice", n, &format!("channel/{n}"), b"state")).unwrap();
    }
    journal.turn(key(8));
    journal.reseal("").unwrap();
    drop(journal);

    let between = || RecordCipher::between(key(8), Some(key(7)));
    assert!(reopened(&store, RecordCipher::new(key(8))).is_err());
    let journal = reopened(&store, between()).unwrap();
    assert_eq!((verified(&journal).entries, journal.load("alice").unwrap().len()), (100, 100));
    drop(journal);
    let journal = reopened(&store, between()).unwrap();
    let mut next = Some(String::new());
    while let Some(after) = next {
        next = journal.reseal(&after).unwrap().last;
    }
    drop(journal);
    let journal = reopened(&store, RecordCipher::new(key(8))).unwrap();
    assert_eq!(verified(&journal).entries, 100);
    turned(&journal, 9);
    drop(journal);
    assert!(reopened(&store, RecordCipher::new(key(9))).is_ok());
}

#[test]
fn a_row_that_neither_key_opens_is_named_and_left_alone() {
    let store = Arc::new(MemoryStore::default());
    let journal = open_shared(store.clone());
    journal.commit(commit("alice", 1, "channel", b"state")).unwrap();
    let row = store.view().unwrap().get("entry/alice/channel").unwrap().unwrap();
    let mut value = row.value.clone();
    *value.last_mut().unwrap() ^= 1;
    let version = row.version + 1;
    store.apply(&[store::StoredPut { key: row.key.clone(), version, value: Some(value.clone()) }]).unwrap();
    turned(&journal, 8);
    assert_eq!(store.view().unwrap().get(&row.key).unwrap().unwrap().value, value);
    assert!(journal.verify(&mut |_| true).is_err());
}
