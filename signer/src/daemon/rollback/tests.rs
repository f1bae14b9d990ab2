//! Copies of the journal from every kind of moment put back, and the honest moves beside them (P7).

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs;
use std::time::{Duration, Instant};

use claviger_hsm::Counter;
use claviger_hsm::counter::file::FileCounter;
use claviger_proto::v1::{NodeAddRequest, OrderRequest};

use super::super::tests::World;
use super::now_ms;
use crate::admin::api::AdminApi;
use crate::lightning::orders::QUARANTINE;
use crate::reasons::Reason;

/// A signer with a node, and its counter outside of the data directory.
struct Scene {
    world: World,
    counter: std::path::PathBuf,
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
        // Takes orders without a chain.
        let alice = NodeAddRequest { name: "alice".to_owned(), kind: "lnd".to_owned(), ..NodeAddRequest::default() };
        world.daemon.node_add(alice).unwrap();
        Self { world, counter, _outside: outside }
    }

    fn journal(&self) -> Vec<u8> {
        fs::read(self.world.daemon.dir.journal()).unwrap()
    }

    /// Starts with another journal in place.
    fn put_back(&self, journal: &[u8]) {
        self.world.daemon.close(Reason::Sealed);
        fs::write(self.world.daemon.dir.journal(), journal).unwrap();
        self.world.reopen().unwrap();
    }

    /// What the journal says was noticed, if alice is in quarantine.
    fn quarantine(&self) -> Option<String> {
        let entry = self.world.unsealed().journal.get("alice", QUARANTINE).unwrap()?;
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
        scene.put_back(&copy);
        let why = scene.quarantine().unwrap_or_else(|| panic!("{moment}: not noticed"));
        assert!(why.contains("older than its counter"), "{moment}: {why}");
        scene.end_quarantine();
    }
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
    scene.put_back(&journal);
    assert_eq!(scene.quarantine(), None, "killed");
    // Sealed and put in the same state elsewhere, with its counter.
    scene.world.daemon.close(Reason::Sealed);
    let journal = scene.journal();
    fs::remove_file(scene.world.daemon.dir.journal()).unwrap();
    scene.put_back(&journal);
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
