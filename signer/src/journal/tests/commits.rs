//! Order, durability and grouping of commits.

use super::super::store::MemoryStore;
use super::super::store::faulty::FaultyStore;
use super::*;

#[test]
fn what_was_committed_is_loaded_after_reopening() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    journal.commit(commit("alice", 1, "channel/1", b"one")).unwrap();
    journal.commit(commit("alice", 2, "channel/1", b"two")).unwrap();
    journal.commit(commit("bob", 3, "channel/1", b"bob's")).unwrap();
    journal.commit(commit("alice", 4, "invoice/1", b"paid")).unwrap();
    let gone = Put { key: "invoice/1".to_owned(), value: None };
    journal.commit(Commit { tenant: "alice".to_owned(), puts: vec![gone], decision: None }).unwrap();
    drop(journal);

    let journal = open(store);
    let entries = journal.load("alice").unwrap();
    assert_eq!(entries, BTreeMap::from([("channel/1".to_owned(), b"two".to_vec())]));
    assert_eq!(journal.get("bob", "channel/1").unwrap(), Some(b"bob's".to_vec()));
    assert_eq!(journal.get("alice", "invoice/1").unwrap(), None);
    assert_eq!((verified(&journal).decisions, verified(&journal).entries), (4, 2));
    // A deleted entry may come back.
    journal.commit(commit("alice", 5, "invoice/1", b"again")).unwrap();
    assert_eq!(journal.get("alice", "invoice/1").unwrap(), Some(b"again".to_vec()));
    assert_eq!(verified(&journal).entries, 3);
}

#[test]
fn a_tenant_whose_name_starts_like_another_sees_only_its_own() {
    let journal = open(MemoryStore::new());
    journal.commit(commit("bob", 1, "k", b"bob")).unwrap();
    journal.commit(commit("bob-2", 2, "k", b"bob-2")).unwrap();
    journal.commit(commit("bob2", 3, "k/deeper", b"bob2")).unwrap();
    assert_eq!(journal.load("bob").unwrap(), BTreeMap::from([("k".to_owned(), b"bob".to_vec())]));
    assert_eq!(journal.load("bob2").unwrap(), BTreeMap::from([("k/deeper".to_owned(), b"bob2".to_vec())]));
}

/// P1: no callback before the batch is on stable storage; one flush serves all that wait.
#[test]
fn callbacks_run_after_the_flush_in_order_of_submission() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let journal = open_shared(Arc::clone(&store) as Arc<dyn Store>);
    let outcomes = Outcomes::default();
    let before = store.applied();
    store.hold(true);
    journal.submit(commit("alice", 1, "a", b"1"), outcomes.of("first"));
    for name in ["a1", "a2", "a3"] {
        journal.submit(commit("alice", 2, "a", b"2"), outcomes.of(name));
        journal.submit(barrier("alice"), outcomes.of("alice's barrier"));
        journal.submit(commit("bob", 3, "b", b"3"), outcomes.of("bob"));
    }
    assert_eq!(outcomes.seen(), []);
    assert_eq!(journal.get("alice", "a").unwrap(), None);
    store.hold(false);
    settle(&journal);
    let names: Vec<_> = outcomes.seen().into_iter().map(|(name, result)| result.map(|()| name).unwrap()).collect();
    let round = |name| [name, "alice's barrier", "bob"];
    assert_eq!(names, [vec!["first"], [round("a1"), round("a2"), round("a3")].concat()].concat());
    assert!(store.applied() - before <= 3, "seven commits, {} flushes", store.applied() - before);
    assert_eq!(verified(&journal).decisions, 7);
}

#[test]
fn a_barrier_costs_no_flush_and_waits_for_its_own_tenant_only() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let journal = open_shared(Arc::clone(&store) as Arc<dyn Store>);
    let outcomes = Outcomes::default();
    let before = store.applied();
    journal.commit(barrier("alice")).unwrap();
    assert_eq!(store.applied(), before);
    store.hold(true);
    journal.submit(commit("alice", 1, "a", b"1"), outcomes.of("alice"));
    journal.submit(barrier("alice"), outcomes.of("alice's barrier"));
    journal.submit(barrier("bob"), outcomes.of("bob's barrier"));
    assert_eq!(outcomes.seen(), [("bob's barrier", Ok(()))]);
    store.hold(false);
    settle(&journal);
    assert_eq!(outcomes.seen()[1..], [("alice", Ok(())), ("alice's barrier", Ok(()))]);
    assert_eq!(store.applied(), before + 1);
}

#[test]
fn each_mode_flushes_once_per_commit() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let options = Options { flush: FlushMode::Each, ..Options::default() };
    let journal = Journal::open(Arc::clone(&store) as Arc<dyn Store>, cipher(), options).unwrap();
    store.hold(true);
    for n in 0..10 {
        journal.submit(commit("alice", n, "a", b"1"), Box::new(|result| result.unwrap()));
    }
    store.hold(false);
    settle(&journal);
    assert_eq!((journal.stats().commits, journal.stats().flushes), (10, 10));
}

#[test]
fn a_malformed_commit_fails_alone_and_poisons_its_tenant() {
    let journal = open(MemoryStore::new());
    let bad = |key: &str, value: Vec<u8>| {
        let put = Put { key: key.to_owned(), value: Some(value) };
        journal.commit(Commit { tenant: "alice".to_owned(), puts: vec![put], decision: None })
    };
    assert_eq!(bad("", vec![]), Err(CommitError::Invalid(InvalidCommit::Key(String::new()))));
    assert_eq!(bad("fine", vec![]), Err(CommitError::Poisoned));
    journal.commit(commit("bob", 1, "fine", b"")).unwrap();
    journal.load("alice").unwrap();
    let too_large = InvalidCommit::TooLarge { what: "k".to_owned(), bytes: MAX_VALUE + 1, limit: MAX_VALUE };
    assert_eq!(bad("k", vec![0; MAX_VALUE + 1]), Err(CommitError::Invalid(too_large)));
    journal.load("alice").unwrap();
    assert_eq!(bad("new\nline", vec![]), Err(CommitError::Invalid(InvalidCommit::Key("new\nline".to_owned()))));
    journal.load("alice").unwrap();
    bad("fine", vec![]).unwrap();

    let elsewhere = InvalidCommit::Tenant("bob/k".to_owned());
    assert_eq!(journal.commit(commit("bob/k", 1, "k", b"")), Err(CommitError::Invalid(elsewhere.clone())));
    assert_eq!(journal.load("bob/k"), Err(JournalError::Name(elsewhere)));
}

/// P6: one node's panic reaches no other.
#[test]
fn a_panicking_callback_stops_nobody() {
    let journal = open(MemoryStore::new());
    journal.submit(commit("alice", 1, "a", b"1"), Box::new(|_| panic!("alice's own")));
    journal.commit(commit("bob", 2, "b", b"2")).unwrap();
    journal.commit(commit("alice", 3, "a", b"3")).unwrap();
}

#[test]
fn dropping_the_journal_finishes_what_was_submitted() {
    let store = MemoryStore::new();
    let journal = open(store.clone());
    let outcomes = Outcomes::default();
    for _ in 0..100 {
        journal.submit(commit("alice", 1, "a", b"1"), outcomes.of("commit"));
    }
    drop(journal);
    assert_eq!(outcomes.seen(), vec![("commit", Ok(())); 100]);
    let journal = open(store);
    assert_eq!(journal.stats().last_seq, 100);
    assert!(verified(&journal).checkpoints >= 1, "a clean close leaves a checkpoint");
}

#[test]
fn a_callback_may_own_the_last_reference() {
    let journal = Arc::new(open(MemoryStore::new()));
    let owned = Arc::clone(&journal);
    let (sender, done) = mpsc::sync_channel(1);
    journal.submit(
        commit("alice", 1, "a", b"1"),
        Box::new(move |result| {
            drop(owned);
            sender.send(result).unwrap();
        }),
    );
    drop(journal);
    assert_eq!(done.recv().unwrap(), Ok(()));
}

#[test]
fn many_threads_commit_at_once() {
    let journal = open(MemoryStore::new());
    std::thread::scope(|scope| {
        for node in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..50u64 {
                    journal.commit(commit(&format!("node-{node}"), n, "counter", &n.to_be_bytes())).unwrap();
                }
            });
        }
    });
    for node in 0..8 {
        assert_eq!(journal.get(&format!("node-{node}"), "counter").unwrap(), Some(49u64.to_be_bytes().to_vec()));
    }
    assert_eq!(verified(&journal).decisions, 400);
    assert_eq!(journal.stats().commits, 400);
}
