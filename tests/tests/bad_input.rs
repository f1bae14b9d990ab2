//! What an operator, a node or a disk can do wrong: each mistake has its own error with the next step, a non-zero exit,
//! and loses nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and says what it did

use std::path::Path;
use std::time::Duration;

use claviger_demo::signer::{CommandFailed, PASSPHRASE, Program};
use claviger_demo::world::{PATIENCE, World, wait};
use claviger_ldk::link::{Bundle, ConnectError, Down, Link, LinkOptions, LinkState};
use serde_json::Value;

const CLAVIGER: &str = env!("CARGO_BIN_EXE_claviger-under-test");

/// Needs no daemon, and none may run.
const VERIFY_OFFLINE: [&str; 3] = ["journal", "verify", "--offline"];

fn world() -> World {
    World::new(Program::binary(CLAVIGER)).expect("an unsealed signer")
}

/// The error and the hint of a command that failed as it should: exit code 1 and one JSON value on stderr.
fn refused(result: Result<Value, CommandFailed>) -> (String, String) {
    let failed = result.expect_err("it should not have succeeded");
    assert_eq!(failed.code, Some(1), "{failed}");
    // The daemon's log may stand before the error.
    let line = failed.stderr.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{failed}"));
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    assert!(!text("hint").is_empty(), "no next step: {failed}");
    (text("error"), text("hint"))
}

fn nodes(world: &World) -> Vec<Value> {
    world.signer.cli(&["node", "list"]).expect("listed")["nodes"].as_array().cloned().unwrap_or_default()
}

/// What makes the first node that node: its key and its certificates.
fn identity(world: &World) -> [Value; 3] {
    ["name", "node_id", "certificates"].map(|key| nodes(world)[0][key].clone())
}

fn why_down(link: &Link) -> Option<String> {
    match link.state() {
        LinkState::Down(Down::Denied(refusal)) => refusal.reasons.first().map(|reason| reason.id.clone()),
        _ => None,
    }
}

fn link(bundle: &Path) -> Result<Link, ConnectError> {
    Link::connect(&Bundle::load(bundle).expect("a bundle"), LinkOptions::default(), PATIENCE)
}

#[test]
fn wrong_passphrases_are_told_apart_from_damage_and_slow_down() {
    let world = world();
    world.signer.cli(&["seal"]).unwrap();
    let guess = || refused(world.signer.cli_with_input(&["unseal", "--passphrase-fd", "0"], "not the passphrase"));
    let mut tried = 0;
    let slowed = loop {
        let (error, hint) = guess();
        if error.starts_with("too many wrong passphrases; the next attempt is possible in ") {
            break hint;
        }
        assert_eq!(error, "wrong passphrase");
        tried += 1;
        assert!(tried < 12, "guessing is not slowed down");
    };
    assert!(tried >= 3, "mistakes that cost no waiting: {tried}");
    assert!(slowed.starts_with("Wait, then try again"), "{slowed}");
    // The right one waits like the others, and opens then.
    wait("the right passphrase to be let in", &[], || world.signer.cli_with_passphrase(&["unseal"]).is_ok()).unwrap();
}

#[test]
fn unsealing_twice_and_asking_a_sealed_signer_say_so() {
    let world = world();
    let (error, _) = refused(world.signer.cli_with_passphrase(&["unseal"]));
    assert_eq!(error, "the signer is unsealed already");
    world.signer.cli(&["seal"]).unwrap();
    world.signer.cli(&["seal"]).expect("sealing what is sealed does nothing");
    let (error, hint) = refused(world.signer.cli(&["node", "list"]));
    assert!(error.contains("sealed") && hint.contains("claviger unseal"), "{error}: {hint}");
    let (error, _) = refused(world.signer.cli_with_input(&["unseal", "--passphrase-fd", "0"], ""));
    assert_eq!(error, "the passphrase is empty");
    world.signer.cli_with_passphrase(&["unseal"]).expect("opens again");
}

#[test]
fn a_signer_opens_again_as_soon_as_it_is_sealed_and_its_nodes_come_back() {
    let world = world();
    let bundle = world.signer.add_node("alice", "ldk").unwrap();
    let options = LinkOptions { longest_pause: Duration::from_millis(200), ..LinkOptions::default() };
    let live = Link::connect(&Bundle::load(&bundle).unwrap(), options, PATIENCE).unwrap();
    for _ in 0..5 {
        world.signer.cli(&["seal"]).unwrap();
        world.signer.cli_with_passphrase(&["unseal"]).expect("nothing holds the journal");
        wait("the node to come back", &[], || live.state() == LinkState::Up).unwrap();
    }
}

#[test]
fn a_second_daemon_on_one_directory_is_refused_and_the_first_goes_on() {
    let world = world();
    let pid = world.signer.pid().unwrap();
    let (error, hint) = refused(world.signer.cli(&["run"]));
    assert_eq!(error, format!("{} is in use by process {pid}", world.signer.dir().display()));
    assert!(hint.starts_with("Stop that process first"), "{hint}");
    assert_eq!(world.signer.cli(&["status"]).unwrap()["sealed"], false);
}

#[test]
fn nodes_are_added_once_and_removed_only_when_confirmed() {
    let world = world();
    let bundle = world.signer.add_node("alice", "ldk").unwrap();
    let other = world.dir().join("other.bundle").display().to_string();
    let (error, hint) = refused(world.signer.cli(&["node", "add", "alice", "--kind", "ldk", "--out", &other]));
    assert_eq!(error, "node 'alice' exists");
    assert!(hint.contains("claviger node renew"), "{hint}");
    assert!(!Path::new(&other).exists(), "no bundle of a node that was not added");

    let taken = bundle.display().to_string();
    let (error, _) = refused(world.signer.cli(&["node", "add", "bob", "--kind", "ldk", "--out", &taken]));
    assert_eq!(error, format!("{taken} exists"));
    let (error, _) = refused(world.signer.cli(&["node", "show", "bob"]));
    assert_eq!(error, "there is no node 'bob'");
    let (error, _) = refused(world.signer.cli(&["node", "add", "No Name", "--kind", "ldk", "--out", &other]));
    assert!(error.contains("No Name"), "{error}");

    let usage = world.signer.cli(&["node", "remove", "alice"]).unwrap_err();
    assert_eq!(usage.code, Some(2), "{usage}");
    assert!(usage.stderr.contains("--confirm <NAME>"), "{usage}");
    let (error, hint) = refused(world.signer.cli(&["node", "remove", "alice", "--confirm", "alicia"]));
    assert_eq!(error, "the confirmation does not match the name");
    assert!(hint.contains("--confirm"), "{hint}");
    assert_eq!(nodes(&world).len(), 1);

    world.signer.cli(&["node", "remove", "alice", "--confirm", "alice"]).unwrap();
    assert_eq!(nodes(&world), [] as [Value; 0]);
}

#[test]
fn a_seed_makes_one_node_and_its_removal_spares_the_others() {
    let world = world();
    let add = |name: &str| {
        let [seed, out] = ["seed", name].map(|file| world.dir().join(file).display().to_string());
        std::fs::write(&seed, [7; 32]).unwrap();
        world
            .signer
            .cli(&["node", "add", name, "--kind", "ldk", "--import", &seed, "--format", "ldk-seed", "--out", &out])
    };
    add("alice").unwrap();
    let (error, hint) = refused(add("bob"));
    assert_eq!(error, "node 'alice' has these keys");
    assert!(hint.contains("claviger node renew"), "{hint}");
    let (error, _) = refused(add("house"));
    assert!(error.contains("'house' is not a node name"), "{error}");
    let (error, _) = refused(world.signer.cli(&["node", "remove", "house", "--confirm", "house"]));
    assert!(error.contains("'house' is not a node name"), "{error}");
    assert_eq!(nodes(&world).len(), 1);
}

#[test]
fn seeds_that_cannot_be_taken_over_are_refused_without_being_shown() {
    let world = world();
    let file = world.dir().join("seed");
    let out = world.dir().join("alice.bundle").display().to_string();
    let import = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let file = file.display().to_string();
        let format = ["--import", &file, "--format", "ldk-seed", "--out", &out];
        world.signer.cli(&[&["node", "add", "alice", "--kind", "ldk"][..], &format].concat())
    };
    let (error, _) = refused(import(b"f00df00d"));
    assert!(error.starts_with("8 bytes that are neither a seed"), "{error}");
    let (error, _) = refused(import(&[b'x'; 2_000]));
    assert!(error.contains("longer than"), "{error}");
    assert_eq!(nodes(&world), [] as [Value; 0]);
    import(&[7; 32]).expect("a seed of 32 bytes");

    let words = |name: &str, passphrase: &str| {
        let out = world.dir().join(name).display().to_string();
        let file = file.display().to_string();
        let add = ["node", "add", name, "--kind", "ldk", "--import", &file, "--format", "bip39", "--out", &out];
        let passphrase_fd = ["--mnemonic-passphrase-fd", "0"];
        world
            .signer
            .cli_with_input(&[&add[..], if passphrase.is_empty() { &[] } else { &passphrase_fd }].concat(), passphrase)
    };
    let (error, hint) = refused(words("bob", ""));
    assert_eq!(error, "the input is not a mnemonic");
    assert!(hint.contains("--format"), "{hint}");
    std::fs::write(&file, "abandon ".repeat(11) + "about\n").unwrap();
    let [with, without] = ["TREZOR", ""].map(|passphrase| {
        words(if passphrase.is_empty() { "carol" } else { "bob" }, passphrase).expect("a mnemonic")["node"]["node_id"].clone()
    });
    assert_ne!(with, without, "the passphrase counts");
}

#[test]
fn a_bundle_used_from_two_places_serves_the_first_until_it_leaves() {
    let world = world();
    let bundle = world.signer.add_node("alice", "ldk").unwrap();
    let first = link(&bundle).expect("connected");
    let options = LinkOptions { longest_pause: Duration::from_millis(200), ..LinkOptions::default() };
    let second = Link::start(&Bundle::load(&bundle).unwrap(), options).unwrap();
    wait("the second to be refused", &[], || why_down(&second).as_deref() == Some("link-in-use")).unwrap();
    let LinkState::Down(down) = second.state() else { panic!("the second is connected") };
    assert_eq!(down.hint(), "Stop the other process, or give each node its own bundle.");
    assert_eq!(first.state(), LinkState::Up, "the first is not disturbed");
    drop(first);
    wait("the second to be let in", &[], || second.state() == LinkState::Up).unwrap();
}

#[test]
fn a_revoked_bundle_is_shut_out_at_once_and_its_successor_let_in() {
    let world = world();
    let bundle = world.signer.add_node("alice", "ldk").unwrap();
    let live = link(&bundle).expect("connected");
    world.signer.cli(&["node", "revoke", "alice"]).unwrap();
    wait("the link to be closed", &[], || why_down(&live).as_deref() == Some("certificate-revoked")).unwrap();
    let error = link(&bundle).expect_err("revoked");
    assert_eq!(error.hint(), "Write a new bundle: `claviger node renew`.", "{error}");

    let (error, _) = refused(world.signer.cli(&["node", "revoke", "alice", "--serial", "00"]));
    assert!(error.contains("00"), "{error}");
    let renewed = world.dir().join("renewed.bundle");
    world.signer.cli(&["node", "renew", "alice", "--out", &renewed.display().to_string()]).unwrap();
    link(&renewed).expect("let in with the new bundle");
}

#[test]
fn a_damaged_store_is_named_at_unseal_and_its_backup_has_everything() {
    let mut world = world();
    world.signer.add_node("alice", "ldk").unwrap();
    let is_up = |world: &World| nodes(world)[0]["state"].as_str().is_some_and(|state| state.starts_with("ready"));
    wait("the node to run", &[], || is_up(&world)).unwrap();
    let before = identity(&world);
    assert!(world.signer.stop().unwrap().success());
    let journal = world.signer.dir().join("journal.redb");
    let good = std::fs::read(&journal).unwrap();

    let flipped = |every: usize| {
        let flip = |(at, byte): (usize, &u8)| if at % every == every / 2 { byte ^ 0x55 } else { *byte };
        good.iter().enumerate().map(flip).collect::<Vec<u8>>()
    };
    let mut header = good.clone();
    header[..64].iter_mut().for_each(|byte| *byte ^= 0xff);
    let damages = [
        ("header", header),
        ("body", flipped(97)),
        ("sparse", flipped(1_500)),
        ("cut", good[..good.len() / 2].to_vec()),
    ];
    for (name, bad) in damages {
        std::fs::write(&journal, &bad).unwrap();
        world.signer.start_sealed().unwrap();
        let (error, hint) = refused(world.signer.cli_with_passphrase(&["unseal"]));
        assert!(error.contains("journal"), "{name}: {error}");
        assert!(hint.contains("backup"), "{name}: {hint}");
        assert_eq!(world.signer.cli(&["status"]).unwrap()["sealed"], true, "{name}: stays sealed, and answers");
        world.signer.stop().unwrap();

        std::fs::write(&journal, &bad).unwrap();
        let (at_start, _) = refused(world.signer.cli_with_input(&["run", "--passphrase-fd", "0"], PASSPHRASE));
        assert_eq!(at_start, error, "{name}: `run` ends with the same error");

        std::fs::write(&journal, &bad).unwrap();
        let (offline, hint) = refused(world.signer.cli_with_passphrase(&VERIFY_OFFLINE));
        assert!(offline.contains("journal"), "{name}: {offline}");
        assert!(hint.contains("backup"), "{name}: {hint}");
    }

    std::fs::write(&journal, &good).unwrap();
    assert_eq!(world.signer.cli_with_passphrase(&VERIFY_OFFLINE).unwrap()["verified"], true);
    world.signer.start().unwrap();
    let (error, _) = refused(world.signer.cli_with_passphrase(&VERIFY_OFFLINE));
    assert!(error.contains("is in use by process"), "{error}");
    wait("the node to run again", &[], || is_up(&world)).unwrap();
    assert_eq!(identity(&world), before);
    assert_eq!(world.signer.cli(&["journal", "verify"]).unwrap()["verified"], true);
}

#[test]
fn damaged_key_slots_are_not_taken_for_a_wrong_passphrase() {
    let mut world = world();
    let slots = world.signer.dir().join("keyslots");
    let good = std::fs::read(&slots).unwrap();
    world.signer.stop().unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&slots, bad).unwrap();
    world.signer.start_sealed().unwrap();
    let (error, hint) = refused(world.signer.cli_with_passphrase(&["unseal"]));
    assert!(error.starts_with("the key slot file is damaged"), "{error}");
    assert!(hint.contains("backup"), "{hint}");
    std::fs::write(&slots, good).unwrap();
    world.signer.cli_with_passphrase(&["unseal"]).expect("opens with the file restored");
}
