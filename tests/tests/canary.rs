//! Known secrets are put in; then everything an attacker could get hold of is searched for them (P8).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and says what it did

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use lightning_signer::bitcoin::secp256k1::Secp256k1;
use lightning_signer::channel::ChannelId;
use lightning_signer::signer::derive::{KeyDerivationStyle, key_derive};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

const SEED: [u8; 32] = {
    let mut seed = [0; 32];
    let mut at = 0;
    while at < 32 {
        seed[at] = (at * 37 + 11) as u8;
        at += 1;
    }
    seed
};

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
    fn new(secret_heap: &str) -> Self {
        let mut world = World::sealed(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test"))).unwrap();
        let edit = |config: &mut toml::Table| {
            config["log"]["level"] = "trace".into();
            config["signer"]["secret_heap"] = secret_heap.into();
        };
        world.signer.configure(edit).unwrap();
        world.signer.start().unwrap();

        let (file, bundle) = (world.dir().join("seed"), world.dir().join("alice.bundle"));
        std::fs::write(&file, SEED).unwrap();
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
            data_key: key.current().expose(|key| Canary::new("data key", key)),
            seed: Canary::new("seed", &SEED),
            world,
        }
    }

    /// A channel and payments over it: keys are derived, used and recorded.
    fn work(&self) {
        self.open();
        self.pay();
    }

    fn open(&self) {
        let Self { world, alice, bob, .. } = self;
        let both = [alice, bob];
        wait("a deposit", &both, || alice.balance() == DEPOSIT).unwrap();
        alice.connect(bob);
        wait("a connection", &both, || alice.is_connected(&bob.id())).unwrap();
        alice.open_channel(&bob.id(), CHANNEL, 0).unwrap();
        wait("a funding transaction", &both, || !world.chain.mempool().is_empty()).unwrap();
        world.mine(6, &both).unwrap();
        wait("a channel", &both, || !alice.history().ready.is_empty() && !bob.history().ready.is_empty()).unwrap();
    }

    fn pay(&self) {
        let Self { alice, bob, .. } = self;
        let both = [alice, bob];
        for (from, to, amount_msat) in [(alice, bob, 50_000_000), (bob, alice, 10_000_000), (alice, bob, 5_000_000)] {
            let hash = pay(from, to, amount_msat);
            wait("a payment", &both, || to.history().received.contains_key(&hash)).unwrap();
        }
    }

    /// The keys of alice's node and of her only channel, as LDK derives them from the seed.
    fn derived(&self) -> Vec<Canary> {
        let channels = self.world.signer.cli(&["channel", "list", "alice"]).unwrap();
        let name = channels["channels"][0]["channel"].as_str().unwrap().to_owned();
        let (_, number) = name.rsplit_once(':').unwrap();
        let id = ChannelId::new_from_peer_id_and_oid(&self.alice.id().serialize(), number.parse().unwrap());
        let derive = key_derive(KeyDerivationStyle::Ldk, bitcoin::Network::Regtest);
        let (master, secp) = (derive.master_key(&SEED), Secp256k1::new());
        let (node_id, node) = derive.node_keys(&SEED, &secp);
        assert_eq!(node_id, self.alice.id());
        let keys_id = derive.keys_id(id, &derive.channels_seed(&SEED));
        let (funding, revocation, htlc, payment, delayed, commitments) =
            derive.channel_keys(&SEED, &keys_id, 0, &master, &secp);
        let keys = [
            ("node key", node.secret_bytes()),
            ("funding key", funding.secret_bytes()),
            ("revocation base key", revocation.secret_bytes()),
            ("HTLC base key", htlc.secret_bytes()),
            ("payment key", payment.secret_bytes()),
            ("delayed payment base key", delayed.secret_bytes()),
            ("commitment seed", commitments),
        ];
        keys.iter().map(|(name, key)| Canary::new(name, key)).collect()
    }

    /// What is seen of `canaries` while payments are signed.
    fn memory_at_work(&self, canaries: &[Canary]) -> Vec<Sighting> {
        let pid = self.world.signer.pid().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let scan = || {
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    seen.extend(scan_process(pid, canaries).unwrap());
                }
                seen
            };
            let scans = scope.spawn(scan);
            self.pay();
            done.store(true, Ordering::Relaxed);
            scans.join().unwrap()
        })
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
    let mut scene = Scene::new("auto");
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
fn memory_shows_no_secret_and_no_derived_key_while_signing_and_after_seal() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root reads the daemon's memory");
    }
    let scene = Scene::new("auto");
    let memory = scene.world.signer.cli(&["status"]).unwrap()["memory"].clone();
    println!("secrets are in {}, the heap is {}", memory["secrets"], memory["heap"]);
    if memory["heap"].as_str().is_none_or(|heap| !heap.starts_with("secret,") || heap.contains("LimitMEMLOCK")) {
        return skip("there is no secret heap here (kernel, lock limit)");
    }
    scene.open();
    let canaries = [scene.all().to_vec(), scene.derived()].concat();
    assert_eq!(scene.memory_at_work(&canaries), [], "while signing");
    assert_eq!(scene.memory(&canaries), [], "while unsealed");
    scene.world.signer.cli(&["seal"]).unwrap();
    assert_eq!(scene.memory(&canaries), [], "after seal");
}

#[test]
fn an_ordinary_heap_shows_derived_keys_to_root_but_neither_passphrase_nor_data_key_and_nothing_after_seal() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root reads the daemon's memory");
    }
    let scene = Scene::new("off");
    let protection = scene.world.signer.cli(&["status"]).unwrap()["memory"]["secrets"].clone();
    scene.work();
    let passphrase = eventually_nothing(|| scene.memory(std::slice::from_ref(&scene.passphrase)));
    assert_eq!(passphrase, [], "the passphrase while unsealed");
    let data_key = eventually_nothing(|| scene.memory(std::slice::from_ref(&scene.data_key)));
    if protection == "memfd_secret" {
        assert_eq!(data_key, [], "the data key while unsealed");
    } else {
        println!("FALLBACK IN USE ({protection}): data key while unsealed: {data_key:#?}");
    }
    // What the secret heap is for. That they are found here also shows that the other test looks for the right bytes.
    let derived = scene.derived();
    for canary in [&scene.seed].into_iter().chain(&derived) {
        let found = scene.memory(std::slice::from_ref(canary)).len();
        println!("{}: {found} in the ordinary heap while unsealed", canary.name);
        assert_ne!(found, 0, "{}", canary.name);
    }
    scene.world.signer.cli(&["seal"]).unwrap();
    let canaries = [scene.all().to_vec(), derived].concat();
    assert_eq!(eventually_nothing(|| scene.memory(&canaries)), [], "after seal");
}

/// Says loudly that something was not checked. Continuous integration must check everything.
fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "not checked: {why}");
    eprintln!("NOT CHECKED: {why}");
}
