//! A backup gives back what it was made of, and nothing else passes for one.

#![allow(clippy::unwrap_used)] // what fails may panic

mod segments;

use std::sync::Arc;

use claviger_hsm::{Argon2id, Envelope};

use super::*;
use crate::journal::store::{MemoryStore, Row, Store, StoredPut};
use crate::journal::{Commit, Decision, Journal, Options, Put};
use crate::keys::data_key::{self, DataKey, NewSlot};
use crate::keys::passphrase::Passphrase;
use crate::keys::purpose::{Purpose, subkey};

const COST: Argon2id = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };

/// An appliance: its data key, its key slots, its journal.
struct Scene {
    data_key: Arc<DataKey>,
    header: Header,
    journal: Arc<Journal>,
}

impl Scene {
    fn new() -> Self {
        let (envelope, data_key) = data_key::create(&passphrase(), COST).unwrap();
        let keyslots = String::from_utf8(envelope.encode()).unwrap();
        let header =
            Header { made_ms: 1_700_000_000_000, keyslots, config: "network = \"regtest\"\n".to_owned(), link: None };
        let journal = open(&data_key, Arc::new(MemoryStore::new()));
        Self { data_key: Arc::new(data_key), header, journal: Arc::new(journal) }
    }

    /// Records decisions and entries, an old one anew each time.
    fn decide(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.journal.commit(commit(n)).unwrap();
        }
    }

    fn backup(&self) -> Vec<u8> {
        let cipher = self.data_key.cipher(Purpose::Backup);
        let mut file = Vec::new();
        let mut out = |bytes: Vec<u8>| {
            file.extend_from_slice(&bytes);
            true
        };
        let contents = write(&self.journal, &self.header, &cipher, &mut out).unwrap();
        assert_eq!(contents.bytes, file.len() as u64);
        file
    }

    /// The rows of `file`, once all of it is good.
    fn read(&self, file: &[u8]) -> Result<Vec<Row>, BackupError> {
        let mut all = Vec::new();
        let mut take = |rows: Vec<Row>| {
            all.extend(rows);
            Ok(())
        };
        Closed::read(file)?.open(&self.data_key).check(&mut take)?;
        Ok(all)
    }
}

fn passphrase() -> Passphrase {
    Passphrase::copy_from(b"one").unwrap()
}

fn open(data_key: &DataKey, store: Arc<dyn Store>) -> Journal {
    let options = Options { checkpoint_every: 4, ..Options::default() };
    Journal::open(store, data_key.cipher(Purpose::Records), options).unwrap()
}

fn commit(n: u64) -> Commit {
    let decision = Decision::unasked(format!("alice-{n}"), n, "test");
    let put = |key: String| Put { key, value: Some(n.to_be_bytes().to_vec()) };
    Commit {
        tenant: "alice".to_owned(),
        puts: vec![put("last".to_owned()), put(format!("cold/{n}"))],
        decision: Some(decision),
    }
}

/// A store of `rows`.
fn store(rows: Vec<Row>) -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let put = |Row { key, version, value }| StoredPut { key, version, value: Some(value) };
    store.apply(&rows.into_iter().map(put).collect::<Vec<_>>()).unwrap();
    Arc::new(store)
}

/// Where the frames of `file` begin, and where it ends.
fn frames(file: &[u8]) -> Vec<usize> {
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let mut starts = vec![22 + number(18)];
    while let Some(at) = starts.last().copied().filter(|at| *at < file.len()) {
        starts.push(at + 5 + number(at + 1));
    }
    starts
}

#[test]
fn what_is_restored_is_what_was_there_when_the_backup_began() {
    let scene = Scene::new();
    scene.decide(1..30);
    let rows = scene.read(&scene.backup()).unwrap();
    scene.decide(30..40);

    let restored = open(&scene.data_key, store(rows));
    assert_eq!(restored.load("alice").unwrap()["last"], 29u64.to_be_bytes());
    assert_eq!(restored.get("alice", "cold/7").unwrap(), Some(7u64.to_be_bytes().to_vec()));
    assert_eq!(restored.tail(1).unwrap()[0].decision.request, "alice-29");
    restored.commit(commit(30)).unwrap();
    assert_eq!(restored.verify(&mut |_| true).unwrap().decisions, 30);
}

#[test]
fn a_backup_under_load_is_of_one_moment_and_keeps_nobody_waiting() {
    let scene = Scene::new();
    let cipher = scene.data_key.cipher(Purpose::Backup);
    let mut decided = 0;
    for before in 0..12 {
        scene.decide(decided + 1..decided + 1 + before);
        decided += before;
        let (mut file, mut meanwhile) = (Vec::new(), decided);
        let mut out = |bytes: Vec<u8>| {
            file.extend_from_slice(&bytes);
            // Durable between two pieces of the backup.
            meanwhile += 3;
            scene.decide(meanwhile - 2..meanwhile + 1);
            true
        };
        write(&scene.journal, &scene.header, &cipher, &mut out).unwrap();
        let restored = open(&scene.data_key, store(scene.read(&file).unwrap()));
        let entries = restored.load("alice").unwrap();
        let of_last = entries.get("last").map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        assert_eq!(of_last, restored.stats().last_seq, "entries and decisions of one moment");
        assert!((decided..meanwhile).contains(&of_last), "{decided} {of_last} {meanwhile}");
        decided = meanwhile;
    }
}

#[test]
fn a_backup_with_any_byte_changed_or_missing_is_refused() {
    let scene = Scene::new();
    scene.decide(1..6);
    let file = scene.backup();
    scene.read(&file).unwrap();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(scene.read(&changed).is_err(), "byte {at}");
    }
    let starts = frames(&file);
    for at in 0..file.len() {
        let part = starts.iter().filter(|start| **start <= at).count() as u64;
        let expected = if at < 22 { BackupError::NotABackup } else { BackupError::Truncated { part } };
        assert_eq!(scene.read(&file[..at]), Err(expected), "cut to {at}");
    }
    assert_eq!(scene.read(&[&file[..], b"x"].concat()), Err(BackupError::TooLong));
}

#[test]
fn parts_are_neither_left_out_nor_moved_nor_taken_from_another_backup() {
    let scene = Scene::new();
    let big = Put { key: "big".to_owned(), value: Some(vec![7; 2 * FRAME]) };
    scene.journal.commit(Commit { tenant: "bob".to_owned(), puts: vec![big], decision: None }).unwrap();
    scene.decide(1..3);
    let file = scene.backup();
    let (starts, other) = (frames(&file), scene.backup());
    let [first, second, end] = starts[..] else { panic!("two parts, not {starts:?}") };
    assert_eq!(frames(&other), starts);
    scene.read(&file).unwrap();

    let (head, one, two) = (&file[..first], &file[first..second], &file[second..end]);
    let mut renamed = [head, one].concat();
    renamed[first] = 1;
    let mut later = scene.header.clone();
    later.made_ms += 1;
    for (forged, part) in
        [([head, two].concat(), 1), ([head, two, one].concat(), 1), (renamed, 1), ([head, one, one, two].concat(), 2)]
    {
        assert_eq!(scene.read(&forged), Err(BackupError::Damaged { part }));
    }
    // The same content under another header is another backup.
    let changed = Scene { header: later, journal: scene.journal.clone(), data_key: scene.data_key.clone() };
    let foreign = changed.backup();
    let mixed = [&file[..first], &foreign[frames(&foreign)[0]..]].concat();
    assert_eq!(scene.read(&mixed), Err(BackupError::Damaged { part: 1 }));
}

#[test]
fn a_backup_of_another_key_or_version_or_of_something_else_is_named() {
    let (scene, other) = (Scene::new(), Scene::new());
    let mut file = scene.backup();
    assert_eq!(other.read(&file), Err(BackupError::Damaged { part: 1 }));
    assert_eq!(scene.read(b"claviger-keyslots 2 00"), Err(BackupError::NotABackup));
    file[17] = 2;
    assert_eq!(scene.read(&file), Err(BackupError::NewerVersion { found: 2 }));
    file[16..22].copy_from_slice(&[0, 1, 255, 255, 255, 255]);
    assert_eq!(scene.read(&file), Err(BackupError::Damaged { part: 0 }), "no memory for what a length claims");
}

#[test]
fn a_backup_made_while_the_data_key_is_rotated_opens_with_the_key_slots_in_it() {
    let before = Scene::new();
    before.decide(1..10);
    let mut envelope = Envelope::decode(before.header.keyslots.as_bytes()).unwrap();
    let (data_key, slot) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let slots = [(slot, NewSlot::Passphrase(passphrase(), COST))];
    let data_key = Arc::new(data_key::turn(&mut envelope, data_key, &slots).unwrap());
    let header = Header { keyslots: String::from_utf8(envelope.encode()).unwrap(), ..before.header.clone() };
    let of = |data_key: &Arc<DataKey>| Scene {
        data_key: data_key.clone(),
        header: header.clone(),
        journal: before.journal.clone(),
    };

    let (waiting, turned) = (of(&before.data_key), of(&data_key));
    assert!(turned.read(&waiting.backup()).is_ok(), "the new key slots, and a daemon that has not taken the key up");
    before.journal.turn(subkey(data_key.current(), Purpose::Records));
    before.decide(10..20);
    let mixed = turned.backup();
    assert_eq!(open(&data_key, store(turned.read(&mixed).unwrap())).verify(&mut |_| true).unwrap().decisions, 19);
    assert_eq!(before.read(&mixed), Err(BackupError::Damaged { part: 1 }), "the key before opens nothing made later");
}

#[test]
fn the_reader_who_leaves_ends_the_work() {
    let scene = Scene::new();
    scene.decide(1..3);
    let cipher = scene.data_key.cipher(Purpose::Backup);
    assert_eq!(write(&scene.journal, &scene.header, &cipher, &mut |_| false), Err(BackupError::Interrupted));
}
