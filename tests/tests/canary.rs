//! Known secrets are put in; then everything an attacker could get hold of is searched for them (P8).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and says what it did

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Amount;
use claviger::keys::data_key;
use claviger::keys::passphrase::Passphrase;
use claviger_demo::node::{Keys, LdkNode, Store};
use claviger_demo::signer::{PASSPHRASE, Program};
use claviger_demo::world::{DEPOSIT, World, connect, wait};
use claviger_hsm::Envelope;
use claviger_tests::canary::{Canary, Sighting, scan_files, scan_process, scan_text};
use lightning::types::payment::PaymentHash;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

const CHANNEL: Amount = Amount::from_sat(1_000_000);

/// A signer that logs everything, the secrets it holds, and a node that works with them.
struct Scene {
    world: World,
    alice: LdkNode,
    bob: LdkNode,
    passphrase: Canary,
    data_key: Canary,
    seed: Canary,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::sealed(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test"))).unwrap();
        world.signer.configure(|config| config["log"]["level"] = "trace".into()).unwrap();
        world.signer.start().unwrap();

        let seed: [u8; 32] = std::array::from_fn(|at| (at * 37 + 11) as u8);
        let (file, bundle) = (world.dir().join("seed"), world.dir().join("alice.bundle"));
        std::fs::write(&file, seed).unwrap();
        let [file, out] = [&file, &bundle].map(|path| path.display().to_string());
        let import = ["--import", &file, "--format", "ldk-seed", "--out", &out];
        world.signer.cli(&[&["node", "add", "alice", "--kind", "ldk"][..], &import].concat()).unwrap();

        let alice = world.restart("alice", Keys::Remote(connect(&bundle).unwrap()), Arc::new(Store::in_memory()));
        let alice = alice.unwrap();
        world.chain.fund(&alice.script(), DEPOSIT);
        let bob = world.local_node("bob", 2).unwrap();
        let envelope = Envelope::read(&world.signer.dir().join("keyslots")).unwrap();
        let passphrase = Passphrase::copy_from(PASSPHRASE.as_bytes()).unwrap();
        let (key, _) = data_key::unlock(&envelope, &passphrase).unwrap();
        Self {
            alice,
            bob,
            passphrase: Canary::new("passphrase", PASSPHRASE.as_bytes()),
            data_key: key.expose(|key| Canary::new("data key", key)),
            seed: Canary::new("seed", &seed),
            world,
        }
    }

    /// A channel and payments over it: keys are derived, used and recorded.
    fn work(&self) {
        let Self { world, alice, bob, .. } = self;
        let both = [alice, bob];
        wait("a deposit", &both, || alice.balance() == DEPOSIT).unwrap();
        alice.connect(bob);
        wait("a connection", &both, || alice.is_connected(&bob.id())).unwrap();
        alice.open_channel(&bob.id(), CHANNEL, 0).unwrap();
        wait("a funding transaction", &both, || !world.chain.mempool().is_empty()).unwrap();
        world.mine(6, &both).unwrap();
        wait("a channel", &both, || !alice.history().ready.is_empty() && !bob.history().ready.is_empty()).unwrap();
        for (from, to, amount_msat) in [(alice, bob, 50_000_000), (bob, alice, 10_000_000), (alice, bob, 5_000_000)] {
            let hash = pay(from, to, amount_msat);
            wait("a payment", &both, || to.history().received.contains_key(&hash)).unwrap();
        }
    }

    fn all(&self) -> [Canary; 3] {
        [self.passphrase.clone(), self.data_key.clone(), self.seed.clone()]
    }

    /// What the daemon's memory shows to root.
    fn memory(&self, canaries: &[Canary]) -> Vec<Sighting> {
        scan_process(self.world.signer.pid().unwrap(), canaries).unwrap()
    }
}

/// Pays, as soon as gossip has made a route known.
fn pay(from: &LdkNode, to: &LdkNode, amount_msat: u64) -> PaymentHash {
    let paid = RefCell::new(None);
    wait("a route", &[from, to], || {
        *paid.borrow_mut() = from.keysend(to.id(), amount_msat).ok();
        paid.borrow().is_some()
    })
    .unwrap();
    paid.into_inner().unwrap()
}

/// How often something is looked at again before it is a finding.
fn eventually_nothing(look: impl Fn() -> Vec<Sighting>) -> Vec<Sighting> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let found = look();
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn no_text_file_argument_or_core_shows_a_secret() {
    // The daemon forbids core files itself: it must do so against a parent that allows them.
    let limit = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let cwd = tempfile::tempdir().unwrap();
    std::env::set_current_dir(cwd.path()).unwrap();
    let mut scene = Scene::new();
    scene.work();
    let canaries = scene.all();
    let signer = &scene.world.signer;

    let commands: [&[&str]; 8] = [
        &["status"],
        &["node", "show", "alice"],
        &["slots", "list"],
        &["journal", "export"],
        &["journal", "tail", "-n", "1000"],
        &["node", "show", "nobody"],
        &["node", "remove", "alice", "--confirm", "x"],
        &["unseal", "--passphrase-fd", "0"],
    ];
    for args in commands {
        let output = signer.output(args, PASSPHRASE).unwrap();
        assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{args:?} says something");
        assert_eq!(scan_text(&args.join(" "), &[output.stdout, output.stderr].concat(), &canaries), []);
    }

    let proc = Path::new("/proc").join(signer.pid().unwrap().to_string());
    for name in ["cmdline", "environ"] {
        // Root alone reads these of a process that is not dumpable.
        match std::fs::read(proc.join(name)) {
            Ok(bytes) => assert_eq!(scan_text(name, &bytes, &canaries), []),
            Err(error) => skip(&format!("cannot read {name} of the daemon: {error}")),
        }
    }

    let log = std::fs::read(signer.log_path()).unwrap();
    assert!(log.windows(6).any(|word| word == b" TRACE" || word == b"TRACE "), "the log is at trace level");
    assert_eq!(scan_text("log", &log, &canaries), []);
    assert_eq!(scan_files(signer.dir(), &canaries).unwrap(), []);

    kill_process(Pid::from_raw(signer.pid().unwrap() as i32).unwrap(), Signal::ABORT).unwrap();
    let end = scene.world.signer.stop().unwrap();
    assert_eq!(end.signal(), Some(Signal::ABORT.as_raw()), "{end}");
    assert!(!end.core_dumped(), "{end}");
    assert_eq!(scan_files(cwd.path(), &canaries).unwrap(), []);
    assert_eq!(scan_files(scene.world.signer.dir(), &canaries).unwrap(), [], "after a crash");
}

#[test]
#[allow(clippy::print_stdout, reason = "the report is part of the test")]
fn memory_shows_no_passphrase_and_no_data_key_and_after_seal_no_seed() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root reads the daemon's memory");
    }
    let scene = Scene::new();
    scene.work();
    let status = scene.world.signer.cli(&["status"]).unwrap();
    let protection = status["memory"]["secrets"].as_str().unwrap().to_owned();
    let in_secret_pages = protection == "memfd_secret";
    println!("secrets are in pages of kind: {protection}");
    if !in_secret_pages {
        println!("FALLBACK IN USE: root may read the data key while the signer is unsealed");
    }

    let passphrase = eventually_nothing(|| scene.memory(std::slice::from_ref(&scene.passphrase)));
    assert_eq!(passphrase, [], "the passphrase while unsealed");
    let data_key = eventually_nothing(|| scene.memory(std::slice::from_ref(&scene.data_key)));
    if in_secret_pages {
        assert_eq!(data_key, [], "the data key while unsealed");
    } else {
        println!("data key while unsealed: {data_key:#?}");
    }
    let seeds = scene.memory(std::slice::from_ref(&scene.seed));
    println!("seed copies while unsealed ({}): {seeds:#?}", seeds.len());

    scene.world.signer.cli(&["seal"]).unwrap();
    assert_eq!(eventually_nothing(|| scene.memory(&scene.all())), [], "after seal");
}

/// Says loudly that something was not checked. Continuous integration must check everything.
fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "not checked: {why}");
    eprintln!("NOT CHECKED: {why}");
}
