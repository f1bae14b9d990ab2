//! Copies of the journal from every kind of moment put back, and the honest moves beside them (P7).

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use claviger_hsm::counter::file::FileCounter;
use claviger_hsm::{Argon2id, Counter, Envelope};
use claviger_proto::v1::{BundleFile, NodeAddRequest, NodeRemoveRequest, OrderRequest, PolicyApplyRequest};

use super::super::tests::{World, passphrase};
use super::now_ms;
use crate::admin::api::{AdminApi, FailureKind};
use crate::keys::data_key::{self, NewSlot};
use crate::keys::purpose::{Purpose, subkey};
use crate::lightning::orders::QUARANTINE;
use crate::reasons::Reason;

/// Files, and what is in them.
type Snapshot = Vec<(PathBuf, Vec<u8>)>;

/// A signer with a node, and its counter outside of the data directory.
struct Scene {
    world: World,
    counter: PathBuf,
    _outside: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let counter = outside.path().join("counter");
        let world = World::with(|config| {
            config.rollback.counter_file = counter.clone();
            config.rollback.every_s = 1;
            config.lnd.listen = Some(([127, 0, 0, 1], 0).into());
        });
        let scene = Self { world, counter, _outside: outside };
        scene.add("alice");
        scene
    }

    /// A node that takes orders without a chain.
    fn add(&self, name: &str) {
        let node = NodeAddRequest { name: name.to_owned(), kind: "lnd".to_owned(), ..NodeAddRequest::default() };
        self.world.daemon.node_add(node).unwrap();
    }

    fn remove(&self, name: &str) {
        let node = NodeRemoveRequest { name: name.to_owned(), confirm: name.to_owned() };
        self.world.daemon.node_remove(&node).unwrap();
    }

    /// The journal's files.
    fn journal(&self) -> Snapshot {
        let tree = self.world.daemon.dir.journal();
        [tree.with_extension("wal"), tree].map(|path| (path.clone(), fs::read(path).unwrap())).into()
    }

    /// Everything in the data directory.
    fn snapshot(&self) -> Snapshot {
        let files = fs::read_dir(self.world.daemon.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Starts with `files` in the place of those there.
    fn restore(&self, files: &Snapshot) {
        self.world.daemon.close(Reason::Sealed);
        files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        self.world.reopen().unwrap();
    }

    /// What the journal says was noticed, if alice is in quarantine.
    fn quarantine(&self) -> Option<String> {
        self.quarantine_of("alice")
    }

    fn quarantine_of(&self, node: &str) -> Option<String> {
        let entry = self.world.unsealed().journal.get(node, QUARANTINE).unwrap()?;
        Some(String::from_utf8(entry).unwrap())
    }

    fn order(&self, order: &str) -> bool {
        let request = OrderRequest { node: "alice".to_owned(), order: order.to_owned(), ..OrderRequest::default() };
        self.world.unsealed().order(&request, "uid 0".to_owned()).is_ok()
    }

    /// A quarantine outlasts restarts and thaws; the ceremony ends it.
    fn end_quarantine(&self) {
        self.world.reopen().unwrap();
        assert!(self.quarantine().is_some(), "a restart ends nothing");
        assert!(!self.order("thaw") && self.quarantine().is_some(), "a thaw ends nothing");
        assert!(self.order("restore"));
        assert_eq!(self.quarantine(), None);
        assert!(!self.order("restore"), "there is nothing to end");
        self.world.reopen().unwrap();
        assert_eq!(self.quarantine(), None);
    }
}

#[test]
fn an_old_copy_from_any_moment_ends_in_quarantine() {
    let scene = Scene::new();
    let mut copies = vec![("running", scene.journal())];
    scene.world.decide("alice", 3);
    copies.push(("running, after decisions", scene.journal()));
    scene.world.daemon.close(Reason::Sealed);
    copies.push(("sealed", scene.journal()));
    scene.world.reopen().unwrap();
    copies.push(("started again", scene.journal()));
    assert!(scene.order("freeze") && scene.order("thaw"));
    scene.world.reopen().unwrap();
    for (moment, copy) in copies {
        assert_eq!(scene.quarantine(), None, "{moment}");
        scene.restore(&copy);
        let why = scene.quarantine().unwrap_or_else(|| panic!("{moment}: not noticed"));
        assert!(why.contains("older than its counter"), "{moment}: {why}");
        scene.end_quarantine();
    }
}

/// Snapshots of the whole directory, each restored once the signer has gone on; and each one as it was, started again.
#[test]
fn a_snapshot_from_before_or_after_any_change_ends_in_quarantine_and_the_state_it_is_of_does_not() {
    let scene = Scene::new();
    let mut snapshots: Vec<(&str, Snapshot)> = Vec::new();
    let mut take = |moment| {
        scene.world.reopen().unwrap();
        assert_eq!(scene.quarantine(), None, "{moment}: started again, it is the latest");
        snapshots.push((moment, scene.snapshot()));
    };
    take("before a node is added");
    scene.add("bob");
    take("after a node was added");
    scene.remove("bob");
    take("after a node was removed");
    for version in [1, 2] {
        let numbers = format!("[numbers]\nmax_payment_msat = {version}000000\n");
        let content = format!("version = {version}\npreset = \"routing-node\"\n{numbers}").into_bytes();
        let files = vec![BundleFile { name: "policy.toml".to_owned(), content }];
        scene.world.daemon.policy_apply(PolicyApplyRequest { files, from_ms: 0 }, "uid 0").unwrap();
        take(if version == 1 { "between two policies" } else { "after the policy was changed" });
    }
    assert!(scene.order("freeze"));
    take("while the node is frozen");
    assert!(scene.order("thaw"));
    scene.world.daemon.close(Reason::Sealed);
    snapshots.push(("sealed", scene.snapshot()));
    scene.world.reopen().unwrap();
    snapshots.push(("unsealed again", scene.snapshot()));
    scene.world.decide("alice", 1);
    scene.world.reopen().unwrap();

    for (moment, snapshot) in snapshots {
        scene.restore(&snapshot);
        let why = scene.quarantine().unwrap_or_else(|| panic!("{moment}: not noticed"));
        assert!(why.contains("older than its counter"), "{moment}: {why}");
        let bob = scene.world.daemon.node_show("bob").is_ok();
        assert_eq!(bob, moment == "after a node was added", "{moment}");
        assert!(!bob || scene.quarantine_of("bob").is_some(), "every node that there was then");
        assert!(scene.order("restore"));
    }
}

/// The key slot file is turned, taken up, and forgets: a snapshot from each step brings the journal's keys along.
#[test]
fn a_snapshot_from_a_data_keys_rotation_ends_in_quarantine_and_the_rotation_goes_on() {
    let scene = Scene::new();
    scene.world.decide("alice", 200);
    scene.world.daemon.close(Reason::Sealed);
    let mut snapshots = vec![("before", scene.snapshot())];
    let file = scene.world.daemon.dir.keyslots();
    let mut envelope = Envelope::read(&file).unwrap();
    let (data_key, slot) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let slots = [(slot, NewSlot::Passphrase(passphrase(), Argon2id { memory_kib: 8, passes: 1, lanes: 1 }))];
    let turned = data_key::turn(&mut envelope, data_key, &slots).unwrap();
    envelope.write(&file).unwrap();
    snapshots.push(("turned", scene.snapshot()));
    {
        // As far as a kill let it get: a few rows.
        let store = crate::journal::store::LoggedStore::open(&scene.world.daemon.dir.journal(), 1 << 20).unwrap();
        let cipher = turned.cipher(Purpose::Records);
        let journal = crate::journal::Journal::open(std::sync::Arc::new(store), cipher, Default::default()).unwrap();
        assert!(journal.seals_with(&subkey(turned.current(), Purpose::Records)));
        let resealed = journal.reseal("").unwrap();
        assert!(resealed.last.is_some_and(|last| last.starts_with("entry/") || last.starts_with("log/")));
    }
    snapshots.push(("half-way", scene.snapshot()));
    let rotated = || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Envelope::read(&file).unwrap().previous().is_some() {
            assert!(Instant::now() < deadline, "the rotation does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    scene.world.reopen().unwrap();
    assert_eq!(scene.quarantine(), None, "a rotation is no setback");
    rotated();
    scene.world.reopen().unwrap();
    snapshots.push(("after", scene.snapshot()));
    scene.world.decide("alice", 1);
    scene.world.reopen().unwrap();
    assert_eq!(scene.quarantine(), None);

    for (moment, snapshot) in snapshots {
        scene.restore(&snapshot);
        assert!(scene.quarantine().is_some_and(|why| why.contains("older than its counter")), "{moment}");
        rotated();
        assert!(scene.world.unsealed().journal.verify(&mut |_| true).is_ok(), "{moment}");
        scene.end_quarantine();
    }
}

/// One file put back without the others.
#[test]
fn a_single_file_that_is_put_back_is_noticed_or_harmless() {
    let scene = Scene::new();
    let keyslots = scene.world.daemon.dir.keyslots();
    scene.world.daemon.close(Reason::Sealed);
    let (old_journal, old_counter) =
        (scene.journal(), vec![(scene.counter.clone(), fs::read(&scene.counter).unwrap())]);
    let old_keyslots = fs::read(&keyslots).unwrap();
    // Another slot: the same data key.
    let mut envelope = Envelope::read(&keyslots).unwrap();
    let (data_key, _) = data_key::unlock(&envelope, &passphrase()).unwrap();
    let cost = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };
    data_key::add(&mut envelope, &data_key, &NewSlot::Passphrase(passphrase(), cost)).unwrap();
    envelope.write(&keyslots).unwrap();
    scene.world.reopen().unwrap();
    scene.world.decide("alice", 3);
    scene.world.reopen().unwrap();

    scene.restore(&vec![(keyslots.clone(), old_keyslots.clone())]);
    assert_eq!(scene.quarantine(), None, "key slots open the journal of today, they say nothing of its age");
    scene.restore(&old_journal);
    assert!(scene.quarantine().is_some_and(|why| why.contains("older than its counter")), "the journal alone");
    scene.end_quarantine();
    scene.restore(&old_counter);
    assert!(scene.quarantine().is_some_and(|why| why.contains("counter was set back")), "the counter alone");
    scene.end_quarantine();
    // Both of one moment, from where a file counter can be copied: the limit of a file, which docs/rollback.md names.
    scene.restore(&[old_journal, old_counter].concat());
    assert_eq!(scene.quarantine(), None, "what a TPM's counter is for");

    // After a rotation, key slots of before open nothing.
    scene.world.daemon.close(Reason::Sealed);
    let mut envelope = Envelope::read(&keyslots).unwrap();
    let (data_key, slot) = data_key::unlock(&envelope, &passphrase()).unwrap();
    data_key::turn(&mut envelope, data_key, &[(slot, NewSlot::Passphrase(passphrase(), cost))]).unwrap();
    envelope.write(&keyslots).unwrap();
    scene.world.reopen().unwrap();
    while Envelope::read(&keyslots).unwrap().previous().is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.world.daemon.close(Reason::Sealed);
    let current = fs::read(&keyslots).unwrap();
    fs::write(&keyslots, old_keyslots).unwrap();
    let refused = scene.world.reopen().unwrap_err();
    assert_eq!((refused.kind, refused.hint.is_empty()), (FailureKind::Damaged, false), "{refused}");
    scene.restore(&vec![(keyslots, current)]);
    assert_eq!(scene.quarantine(), None);
}

#[test]
fn the_latest_state_is_never_in_quarantine() {
    let scene = Scene::new();
    for _ in 0..3 {
        scene.world.decide("alice", 2);
        scene.world.reopen().unwrap();
        assert_eq!(scene.quarantine(), None, "started again");
    }
    // Killed: what was on the disk at one time, journal and counter.
    let (journal, counter) = (scene.journal(), fs::read(&scene.counter).unwrap());
    scene.world.daemon.close(Reason::Sealed);
    fs::write(&scene.counter, counter).unwrap();
    scene.restore(&journal);
    assert_eq!(scene.quarantine(), None, "killed");
    // Sealed and put in the same state elsewhere, with its counter.
    scene.world.daemon.close(Reason::Sealed);
    let journal = scene.journal();
    journal.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    scene.restore(&journal);
    assert_eq!(scene.quarantine(), None, "moved");
}

#[test]
fn killed_between_journal_and_counter_is_no_setback() {
    let scene = Scene::new();
    scene.world.daemon.close(Reason::Sealed);
    let text = fs::read_to_string(&scene.counter).unwrap();
    let (rest, value) = text.trim_end().rsplit_once(' ').unwrap();
    let value: u64 = value.parse().unwrap();
    let set_to = |value: u64| {
        scene.world.daemon.close(Reason::Sealed);
        fs::write(&scene.counter, format!("{rest} {value}\n")).unwrap();
        scene.world.reopen().unwrap();
    };
    set_to(value - 1);
    assert_eq!(scene.quarantine(), None, "the journal noted a count that did not happen");
    set_to(value - 2);
    assert!(scene.quarantine().is_some_and(|why| why.contains("counter was set back")));
}

#[test]
fn a_journal_without_its_counter_ends_in_quarantine() {
    let scene = Scene::new();
    scene.world.daemon.close(Reason::Sealed);
    fs::remove_file(&scene.counter).unwrap();
    scene.world.reopen().unwrap();
    assert!(scene.quarantine().is_some_and(|why| why.contains("gone")));
    scene.end_quarantine();

    scene.world.daemon.close(Reason::Sealed);
    fs::remove_file(&scene.counter).unwrap();
    FileCounter::new(&scene.counter).create().unwrap();
    scene.world.reopen().unwrap();
    assert!(scene.quarantine().is_some_and(|why| why.contains("made anew")));
}

#[test]
fn a_clock_behind_the_last_decision_ends_in_quarantine_once() {
    let scene = Scene::new();
    let unsealed = scene.world.unsealed();
    let mut line = unsealed.line("test", "uid 0", []);
    line.at_ms = now_ms() + 3_600_000;
    unsealed.record_as(line, Vec::new()).unwrap();
    drop(unsealed);
    scene.world.reopen().unwrap();
    assert!(scene.quarantine().is_some_and(|why| why.contains("clock")));
    scene.end_quarantine();
}

#[test]
fn a_second_signer_on_the_same_counter_is_noticed_while_this_one_runs() {
    let scene = Scene::new();
    FileCounter::new(&scene.counter).increment().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while scene.quarantine().is_none() {
        assert!(Instant::now() < deadline, "not noticed");
        scene.world.decide("house", 1);
        std::thread::sleep(Duration::from_millis(100));
    }
}
