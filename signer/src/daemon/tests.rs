//! The daemon against its administrators: several at once, half-way, and in the wrong order.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use claviger_hsm::Argon2id;
use claviger_proto::v1::{
    BackupRequest, DoctorRequest, NodeAddRequest, NodeRemoveRequest, NodeRevokeRequest, OrderRequest, SeedImport,
};
use tokio::runtime::Runtime;

use super::unsealed::{gone, put};
use super::*;
use crate::admin::api::{AdminApi, FailureKind, Sink};
use crate::journal::{Commit, Decision, HOUSE};
use crate::keys::data_key;
use crate::keys::passphrase::Passphrase;

/// An unsealed daemon that never hears of a chain.
pub(super) struct World {
    _temporary: tempfile::TempDir,
    pub(super) daemon: Arc<Daemon>,
    _runtime: Runtime,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&temporary.path().join("data")).unwrap();
        let cost = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };
        let (envelope, _) = data_key::create(&passphrase(), cost).unwrap();
        envelope.write(&dir.keyslots()).unwrap();
        let mut config = Config::new(bitcoin::Network::Regtest);
        config.link.listen = ([127, 0, 0, 1], 0).into();
        config.chain.cookie_file = Some(temporary.path().join("cookie"));
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let lock = dir.lock().unwrap();
        let daemon = Arc::new(Daemon::new(dir, lock, config, Hardening::none(), runtime.handle().clone()));
        let world = Self { _temporary: temporary, daemon, _runtime: runtime };
        let _ = world.daemon.open(&passphrase());
        world
    }

    pub(super) fn reopen(&self) -> Result<usize, AdminFailure> {
        self.daemon.close(Reason::Sealed);
        self.daemon.open(&passphrase())
    }

    pub(super) fn unsealed(&self) -> Arc<Unsealed> {
        self.daemon.unsealed().unwrap()
    }

    pub(super) fn add(&self, name: &str, seed: Option<[u8; 32]>) -> Result<(), AdminFailure> {
        self.daemon.node_add(request(name, seed)).map(drop)
    }

    fn remove(&self, name: &str) -> Result<(), AdminFailure> {
        self.daemon.node_remove(&NodeRemoveRequest { name: name.to_owned(), confirm: name.to_owned() })
    }

    /// Names and node ids.
    fn nodes(&self) -> Vec<(String, String)> {
        self.daemon.node_list().unwrap().into_iter().map(|node| (node.name, node.node_id)).collect()
    }

    /// Everything recorded for `tenant`.
    fn recorded(&self, tenant: &str) -> Vec<String> {
        self.unsealed().journal.load(tenant).unwrap().into_keys().collect()
    }

    /// Records `count` decisions on `tenant`.
    pub(super) fn decide(&self, tenant: &str, count: u64) {
        let journal = self.unsealed().journal.clone();
        for n in 1..=count {
            let decision = Decision::unasked(format!("{tenant}-{n}"), n, "test");
            let commit = Commit { tenant: tenant.to_owned(), puts: vec![], decision: Some(decision) };
            journal.submit(commit, Box::new(|result| result.unwrap()));
        }
        journal.load(tenant).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemon.close(Reason::ShuttingDown);
    }
}

/// Collects what it is given.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Sink<T> for List<T> {
    fn put(&mut self, element: T) -> bool {
        self.0.push(element);
        true
    }
    fn offer(&mut self, element: T) -> bool {
        self.put(element)
    }
    fn is_read(&self) -> bool {
        true
    }
}

pub(super) fn passphrase() -> Passphrase {
    Passphrase::copy_from(b"correct horse").unwrap()
}

fn request(name: &str, seed: Option<[u8; 32]>) -> NodeAddRequest {
    let import =
        seed.map(|seed| SeedImport { format: "ldk-seed".to_owned(), secret: seed.to_vec(), passphrase: vec![] });
    NodeAddRequest { name: name.to_owned(), kind: "ldk".to_owned(), import, ..NodeAddRequest::default() }
}

#[test]
fn a_node_added_by_several_at_once_is_added_once_and_keeps_its_keys() {
    let world = World::new();
    for name in ["a", "b", "c", "d"] {
        let added = thread::scope(|scope| {
            let adding = [(); 4].map(|()| scope.spawn(|| world.add(name, None).is_ok()));
            adding.map(|thread| thread.join().unwrap())
        });
        assert_eq!(added.iter().filter(|added| **added).count(), 1);
    }
    let before = world.nodes();
    world.reopen().unwrap();
    assert_eq!(world.nodes(), before, "what runs is what is recorded");
}

#[test]
fn a_revocation_is_not_undone_by_a_renewal_at_the_same_time() {
    let world = World::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.add(name, None).unwrap();
        let serial = world.daemon.node_show(name).unwrap().certificates.remove(0).serial;
        let revoke = NodeRevokeRequest { name: name.to_owned(), serial };
        thread::scope(|scope| {
            scope.spawn(|| world.daemon.node_renew(name).unwrap());
            scope.spawn(|| world.daemon.node_revoke(&revoke).unwrap());
        });
        let certificates = world.daemon.node_show(name).unwrap().certificates;
        assert_eq!(certificates.iter().map(|known| known.revoked).collect::<Vec<_>>(), [true, false]);
    }
}

#[test]
fn a_removed_node_leaves_nothing_and_its_name_begins_afresh() {
    let world = World::new();
    let house = world.recorded(HOUSE);
    world.add("alice", None).unwrap();
    let before = world.nodes();
    world.remove("alice").unwrap();
    assert_eq!(world.recorded("alice"), [""; 0]);
    assert_eq!(world.recorded(HOUSE), house);

    // A crash between forgetting the keys and erasing the state leaves the state.
    let state = Commit { tenant: "alice".to_owned(), puts: vec![put("state", vec![1])], decision: None };
    world.unsealed().journal.commit(state).unwrap();
    world.add("alice", None).unwrap();
    assert_eq!(world.recorded("alice"), [""; 0]);
    assert_ne!(world.nodes(), before);
}

#[test]
fn the_signers_own_records_are_no_nodes() {
    let world = World::new();
    world.add("alice", None).unwrap();
    let recorded = world.recorded(HOUSE);
    assert_eq!(world.add(HOUSE, None).unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(world.remove(HOUSE).unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(world.recorded(HOUSE), recorded);
}

#[test]
fn one_seed_belongs_to_one_node() {
    let world = World::new();
    world.add("alice", Some([7; 32])).unwrap();
    let failure = world.add("bob", Some([7; 32])).unwrap_err();
    assert_eq!((failure.kind, failure.what.as_str()), (FailureKind::Exists, "node 'alice' has these keys"));
    world.add("bob", Some([8; 32])).unwrap();
    world.remove("alice").unwrap();
    world.add("carol", Some([7; 32])).unwrap();
}

#[test]
fn a_mnemonic_passphrase_that_is_not_text_is_not_taken_for_none() {
    let world = World::new();
    let words = "abandon ".repeat(11) + "about";
    let import = |passphrase: &[u8]| {
        let source = SeedImport { format: "bip39".into(), secret: words.clone().into(), passphrase: passphrase.into() };
        world.daemon.node_add(NodeAddRequest { import: Some(source), ..request("alice", None) }).map(drop)
    };
    assert_eq!(import(b"\xff").unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(world.nodes(), []);
    import(b"TREZOR").unwrap();
}

#[test]
fn a_ca_that_is_gone_is_not_replaced_in_silence() {
    for lost in [&["ca/key"][..], &["ca/certificate"], &["ca/key", "ca/certificate"]] {
        let world = World::new();
        world.add("alice", None).unwrap();
        world.unsealed().record(lost.iter().map(|key| gone((*key).to_owned())).collect()).unwrap();
        assert_eq!(world.reopen().unwrap_err().kind, FailureKind::Damaged, "{lost:?}");
    }
}

#[test]
fn a_signer_that_could_not_open_its_link_opens_once_it_can() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::with(|config| config.link.listen = taken.local_addr().unwrap());
    let failure = world.daemon.open(&passphrase()).unwrap_err();
    assert!(failure.kind == FailureKind::Fault && failure.what.starts_with("cannot listen on 127.0.0.1:"), "{failure}");
    assert!(world.daemon.status().sealed);
    drop(taken);
    world.daemon.open(&passphrase()).unwrap();
}

#[test]
fn no_node_is_added_to_a_signer_that_closes() {
    let world = World::new();
    let held = world.unsealed();
    let closing = thread::spawn({
        let daemon = world.daemon.clone();
        move || daemon.close(Reason::Sealed)
    });
    while held.change().is_ok() {
        thread::yield_now();
    }
    assert_eq!(held.add_node(request("alice", None)).map(drop), Err(AdminFailure::sealed()));
    drop(held);
    closing.join().unwrap();
    world.daemon.open(&passphrase()).unwrap();
    assert_eq!(world.nodes(), []);
}

/// Tells of each element and takes it when told to; stays until `left`.
struct Reader {
    at: Sender<()>,
    go_on: Receiver<()>,
}

/// The reader, what it tells of, and what lets it go on when dropped.
fn reader() -> (Reader, Receiver<()>, Sender<()>) {
    let ((at, told), (go_on, waits)) = (channel(), channel());
    (Reader { at, go_on: waits }, told, go_on)
}

impl<T> Sink<T> for Reader {
    fn put(&mut self, _: T) -> bool {
        let _ = self.at.send(());
        let _ = self.go_on.recv();
        true
    }
    fn offer(&mut self, element: T) -> bool {
        self.put(element)
    }
    fn put_while(&mut self, _: T, goes_on: &dyn Fn() -> bool) -> bool {
        let _ = self.at.send(());
        while goes_on() {
            thread::yield_now();
        }
        false
    }
    fn is_read(&self) -> bool {
        self.at.send(()).is_ok()
    }
}

#[test]
fn sealing_waits_for_no_reader() {
    let world = World::new();
    world.decide("alice", 1_200);
    let (mut reader, told, go_on) = reader();
    let daemon = world.daemon.clone();
    let export = thread::spawn(move || daemon.journal_export(1, &mut reader));
    told.recv().unwrap(); // it stands at the first line
    world.daemon.seal().unwrap();
    drop(go_on);
    assert_eq!(export.join().unwrap(), Err(AdminFailure::sealed()));
}

#[test]
fn a_backup_ends_when_the_signer_is_sealed_however_slow_its_reader() {
    let world = World::new();
    std::fs::write(world.daemon.dir.config(), "network = \"regtest\"\n").unwrap();
    let (mut reader, told, _go_on) = reader();
    let daemon = world.daemon.clone();
    let backup = thread::spawn(move || daemon.backup(&BackupRequest::default(), &mut reader));
    told.recv().unwrap(); // it stands at the first piece
    world.daemon.seal().unwrap();
    assert_eq!(backup.join().unwrap().map_err(|failure| failure.kind), Err(FailureKind::Sealed));
}

#[test]
fn a_check_of_the_journal_ends_when_the_signer_is_sealed() {
    let world = World::new();
    world.decide("alice", 1_200);
    let (mut reader, told, go_on) = reader();
    let daemon = world.daemon.clone();
    let check = thread::spawn(move || daemon.journal_verify(&mut reader));
    told.recv().unwrap();
    let sealing = thread::spawn({
        let daemon = world.daemon.clone();
        move || daemon.seal()
    });
    while !world.daemon.status().sealed {
        thread::yield_now();
    }
    drop(go_on);
    assert_eq!(check.join().unwrap().unwrap_err().what, "the check was interrupted");
    sealing.join().unwrap().unwrap();
}

#[test]
fn following_the_log_ends_with_its_reader() {
    let world = World::new();
    world.decide("alice", 3);
    let (mut reader, told, go_on) = reader();
    drop((told, go_on));
    assert_eq!(world.daemon.journal_tail(10, true, "alice", &mut reader), Ok(()));
}

#[test]
fn the_latest_decisions_of_one_node_are_found_behind_those_of_others() {
    let world = World::new();
    world.decide("alice", 700);
    world.decide("bob", 700);
    let tail = |lines, node| {
        let mut list = List::default();
        world.daemon.journal_tail(lines, false, node, &mut list).unwrap();
        list.0.iter().map(|decision| decision.sequence).collect::<Vec<_>>()
    };
    assert_eq!(tail(2, "alice"), [699, 700]);
    assert_eq!(tail(2, "bob"), [1_399, 1_400]);
    assert_eq!(tail(2, ""), [1_399, 1_400]);
    assert_eq!(tail(2, "carol"), [0; 0]);
    assert_eq!(tail(0, ""), [0; 0]);
    assert_eq!(tail(u32::MAX, "").len(), 1_400);
}

/// Each check's id and state, and the hints of those that are not well.
fn checks(reply: &claviger_proto::v1::DoctorReply) -> Vec<(String, String)> {
    for check in reply.checks.iter().filter(|check| check.state != "ok") {
        assert!(!check.fix.is_empty(), "{check:?} says what to do");
    }
    reply.checks.iter().map(|check| (check.id.clone(), check.state.clone())).collect()
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do_sealed_or_not() {
    let world = World::with(|config| config.limits.max_payment_msat = 5);
    world.add("alice", None).unwrap();
    world.add("bob", None).unwrap();
    let ask = |node: &str, repair| world.daemon.doctor(&DoctorRequest { node: node.to_owned(), repair, lnd: vec![] });
    let reply = ask("", false).unwrap();
    let found = checks(&reply);
    let has = |id: &str, state: &str| found.contains(&(id.to_owned(), state.to_owned()));
    // One slot, a test's process, no chain: as it is.
    assert!(has("data-dir", "ok") && has("key-slots", "warn") && has("hardening", "fail"), "{found:?}");
    assert!(has("sealed", "ok") && has("chain", "fail") && has("clock", "warn") && has("journal", "ok"), "{found:?}");
    assert!(has("certificates", "ok") && has("limits", "ok") && has("node", "fail"), "{found:?}");
    assert_eq!(found.iter().filter(|(id, _)| id == "node").count(), 2);
    assert_eq!(checks(&ask("bob", false).unwrap()).iter().filter(|(id, _)| id == "node").count(), 1);
    assert_eq!(ask("carol", false).unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(reply.repaired, [""; 0]);
    assert_eq!(ask("", true).unwrap().repaired.len(), 3, "the chain, and two nodes that are down");

    world.daemon.seal().unwrap();
    let sealed = checks(&ask("", false).unwrap());
    assert!(sealed.contains(&("sealed".to_owned(), "fail".to_owned())) && sealed.len() < found.len(), "{sealed:?}");
}

#[test]
fn orders_and_looks_at_a_node_that_is_not_there_say_why() {
    let world = World::new();
    world.add("alice", None).unwrap();
    let order = |node: &str, order: &str| {
        let request = OrderRequest { node: node.to_owned(), order: order.to_owned(), ..OrderRequest::default() };
        world.daemon.order(&request, "uid 0".to_owned()).unwrap_err()
    };
    assert_eq!(order("carol", "freeze").kind, FailureKind::NotFound);
    assert_eq!(order("alice", "melt").kind, FailureKind::Invalid);
    let failure = order("alice", "freeze");
    assert!(failure.kind == FailureKind::Fault && failure.what.contains("no block is known yet"), "{failure}");
    let failure = world.daemon.channel_list("alice").unwrap_err();
    assert!(failure.what.contains("cannot be looked at now") && !failure.hint.is_empty(), "{failure}");
}

#[test]
fn an_id_without_a_decision_is_told_from_one_that_was_never_given() {
    let world = World::new();
    world.add("alice", None).unwrap();
    world.decide("alice", 1);
    assert_eq!(world.daemon.explain("alice-1").unwrap().verdict, "permit");
    let hint = |request: &str| world.daemon.explain(request).unwrap_err().hint;
    let (run, _) = world.unsealed().nodes.get(&crate::names::NodeName::new("alice").unwrap()).unwrap().names_given();
    assert!(hint("what").starts_with("Take the id from"));
    assert!(hint("carol-00000000-1").starts_with("Its node does not run here"));
    assert!(hint(&format!("alice-{run:08x}-99")).starts_with("No request has had this id yet"));
    assert!(hint(&format!("alice-{:08x}-0", run.wrapping_add(1))).starts_with("If it was a refusal"));
}
