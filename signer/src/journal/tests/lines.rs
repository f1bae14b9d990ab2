//! The decision log as it is read: tail, pages, export, explain.

use super::super::store::MemoryStore;
use super::*;

fn numbers(lines: &[LogLine]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

fn filled(count: u64) -> Journal {
    let journal = open(MemoryStore::new());
    for n in 1..=count {
        journal.submit(commit("alice", n, "a", b"1"), Box::new(|result| result.unwrap()));
    }
    settle(&journal);
    journal
}

#[test]
fn decisions_are_numbered_from_one_without_gaps() {
    let journal = filled(300);
    assert_eq!(journal.stats().last_seq, 300);
    assert_eq!(numbers(&journal.tail(3).unwrap()), [298, 299, 300]);
    assert_eq!(numbers(&journal.tail(1000).unwrap()), (1..=300).collect::<Vec<_>>());
    assert_eq!(numbers(&journal.decisions(299, 10).unwrap()), [299, 300]);
    assert_eq!(numbers(&journal.decisions(0, 2).unwrap()), [1, 2]);
    assert_eq!(journal.decisions(301, 2).unwrap(), []);
    assert_eq!(numbers(&journal.decisions(1, 1000).unwrap()), (1..=300).collect::<Vec<_>>());
    assert_eq!(filled(0).tail(5).unwrap(), []);
}

#[test]
fn explain_finds_a_request_by_its_id() {
    let journal = filled(300);
    let line = journal.explain("alice-7").unwrap().unwrap();
    assert_eq!((line.seq, line.tenant.as_str(), &line.decision), (7, "alice", &decision(7)));
    assert_eq!(journal.explain("alice-301").unwrap(), None);
    assert_eq!(journal.explain("alice").unwrap(), None);
}

#[test]
fn a_line_exports_as_one_flat_json_object() {
    let journal = open(MemoryStore::new());
    let verdict = Verdict::Deny { reason: "limit".to_owned(), detail: "2 > 1".to_owned() };
    let decision = Decision { verdict, ..decision(1) };
    journal.commit(Commit { tenant: "alice".to_owned(), puts: vec![], decision: Some(decision) }).unwrap();
    let line = journal.tail(1).unwrap().remove(0);
    let json = serde_json::to_value(&line).unwrap();
    assert_eq!(json["seq"], 1);
    assert_eq!(json["tenant"], "alice");
    assert_eq!(json["request"], "alice-1");
    assert_eq!(json["verdict"]["deny"]["reason"], "limit");
    assert_eq!(json["hash"].as_str().unwrap().len(), 64);
    assert_eq!(serde_json::from_value::<LogLine>(json).unwrap(), line);
}

/// What docs/journal.md promises: anyone can follow the chain in an export.
#[test]
fn the_chain_can_be_followed_in_an_export() {
    use sha2::{Digest, Sha256};
    let journal = filled(3);
    let lines = journal.decisions(1, 1000).unwrap();
    for pair in lines.windows(2) {
        let body = [
            [pair[1].tenant.len() as u8].as_slice(),
            pair[1].tenant.as_bytes(),
            &serde_json::to_vec(&pair[1].decision).unwrap(),
        ]
        .concat();
        let hash = Sha256::new()
            .chain_update(b"claviger decision\0")
            .chain_update(hex::decode(&pair[0].hash).unwrap())
            .chain_update(pair[1].seq.to_be_bytes())
            .chain_update(body)
            .finalize();
        assert_eq!(pair[1].hash, hex::encode(hash));
    }
    assert_eq!(verified(&journal).head, lines[2].hash);
}

#[test]
fn checkpoints_come_every_so_many_decisions() {
    let journal = open(MemoryStore::new());
    for n in 1..=33 {
        journal.commit(commit("alice", n, "a", b"1")).unwrap();
    }
    assert_eq!(verified(&journal).checkpoints, 4);
    let mut last = None;
    let mut note = |progress| {
        last = Some(progress);
        true
    };
    journal.verify(&mut note).unwrap();
    assert_eq!(last, Some(Progress { done: 33 + 1, total: 34 }));
}

#[test]
fn a_check_ends_early_when_it_is_told_to() {
    let journal = open(MemoryStore::new());
    let puts = (0..2_000).map(|n| Put { key: format!("{n}"), value: Some(vec![1]) }).collect();
    journal.commit(Commit { tenant: "alice".to_owned(), puts, decision: None }).unwrap();
    assert_eq!(journal.verify(&mut |_| false), Err(JournalError::Interrupted));
    assert_eq!(verified(&journal).entries, 2_000);
}
