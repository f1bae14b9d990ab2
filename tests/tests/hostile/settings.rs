//! Safety is not policy (P3): no file, flag or environment variable opens what the rules close.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use bitcoin::Network;
use claviger::config::{Config, all_keys};
use claviger::harden::refuse_environment;
use claviger_demo::signer::Program;
use claviger_demo::world::World;
use claviger_policy::preset::Preset;

use crate::channel::Channel;
use crate::thief::{CLAVIGER, Scene, Thief};
use crate::{closing, value};

/// Where things are kept, and how often they are looked at: these say nothing about what may be signed. And a key that forbids more.
const PLACES: [&str; 27] = [
    "link.listen",
    "link.advertise",
    "link.names",
    "lnd.listen",
    "lnd.advertise",
    "lightspark.listen",
    "lightspark.public_url",
    "lightspark.api",
    "lightspark.api_ca_file",
    "limits.screening_key",
    "chain.url",
    "chain.cookie_file",
    "chain.user",
    "chain.password_file",
    "chain.poll_ms",
    "rollback.counter_file",
    "rollback.counter_tpm",
    "rollback.every_s",
    "checkpoints.key",
    "checkpoints.tpm",
    "checkpoints.module",
    "checkpoints.token",
    "checkpoints.curve",
    "checkpoints.pin_credential",
    "signer.secret_heap",
    "signer.confinement",
    "signer.allow_root",
];

/// What a value can be set to that is as far as possible from a careful one.
const EXTREMES: [i64; 8] = [i64::MAX, u32::MAX as i64, 1 << 20, 100_000, 3_600, 256, 90, 10];

/// An address of nobody here.
const STRANGER: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// As many confirmations as a configuration may ask for.
const DEEPEST: u32 = 100;

/// What `claviger run` takes. None of it says what may be signed.
const FLAGS: [&str; 6] = ["--data-dir", "--slot", "--passphrase-fd", "--passphrase-credential", "--json", "--help"];

/// Tries to take the channel, then the secret of a state that was signed to close: what no setting may allow.
fn attack(scene: &Scene) {
    let [one, other] = [7, 8].map(|dbid| Channel::open_unconfirmed(scene, dbid));
    scene.mine(DEEPEST);
    value::does_not_shift(&one);
    closing::closes_or_revokes(&closing::about_to_revoke(other));
}

/// Sets every key that is not a place to the `largest` value, or the smallest, that the configuration takes.
fn most_permissive(config: &mut toml::Table, largest: bool) {
    for key in all_keys() {
        if PLACES.contains(&format!("{}.{}", key.section, key.name).as_str()) {
            continue;
        }
        let Some(default) = config[key.section].get(key.name).cloned() else { continue };
        let mut extremes = EXTREMES.map(toml::Value::from).to_vec();
        if !largest {
            extremes = (0..=10).map(toml::Value::from).chain(extremes.into_iter().rev()).collect();
        }
        let candidates = match default {
            toml::Value::Integer(_) => extremes,
            toml::Value::Boolean(value) => vec![(!value).into()],
            toml::Value::String(_) => ["trace", "json", "none", "*"].map(Into::into).to_vec(),
            toml::Value::Array(_) => vec![vec!["*"].into(), vec![STRANGER].into()],
            _ => Vec::new(),
        };
        let accepted = candidates.into_iter().find(|candidate| {
            let mut tried = config.clone();
            tried[key.section][key.name] = candidate.clone();
            Config::parse(&tried.to_string(), Path::new("claviger.toml")).is_ok()
        });
        if let Some(accepted) = accepted {
            config[key.section][key.name] = accepted;
        }
    }
}

#[test]
fn hostile_no_configuration_opens_what_the_rules_close() {
    for largest in [true, false] {
        let scene = Scene::with("ldk", |config| most_permissive(config, largest));
        attack(&scene);
    }
}

/// Nothing at all, and each preset: a rule that permits everything stands beside it.
#[test]
fn hostile_no_policy_opens_what_the_rules_close() {
    let presets = Preset::all().iter().map(|preset| format!("preset = \"{}\"", preset.name));
    for preset in presets.chain([String::new()]) {
        let scene = Scene::new("ldk");
        let bundle = scene.world.dir().join("permissive");
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("policy.toml"), format!("version = 1\n{preset}\n")).unwrap();
        std::fs::write(bundle.join("all.cedar"), "@id(\"all\") permit (principal, action, resource);").unwrap();
        scene.world.signer.cli(&["policy", "apply", bundle.to_str().unwrap()]).unwrap();
        attack(&scene);
    }
}

#[test]
fn honest_every_key_of_the_configuration_is_tried() {
    let mut config: toml::Table = toml::from_str(&Config::new(Network::Regtest).to_commented_toml()).unwrap();
    let careful = config.clone();
    most_permissive(&mut config, true);
    for key in all_keys().filter(|key| !PLACES.contains(&format!("{}.{}", key.section, key.name).as_str())) {
        assert_ne!(
            config[key.section].get(key.name),
            careful[key.section].get(key.name),
            "{}.{}",
            key.section,
            key.name
        );
    }
}

#[test]
fn hostile_no_flag_says_what_may_be_signed() {
    let scene = Scene::new("ldk");
    let help = scene.world.signer.output(&["run", "--help"], "").unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with("--"));
    let found: BTreeSet<&str> = words.filter(|word| word.len() > 2).collect();
    assert_eq!(found, BTreeSet::from(FLAGS), "does a new flag say what may be signed?");
    attack(&scene);
}

/// The names in the program that look like variables of its environment, and those that other signers heed.
fn variables() -> BTreeSet<String> {
    let pattern = "(VLS|REMOTE_SIGNER|CLAVIGER|RUST)_[A-Z0-9_]+";
    let found = Command::new("grep").args(["-aoE", pattern, CLAVIGER]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let known = ["VLS_PERMISSIVE", "VLS_AUTOAPPROVE", "VLS_ONCHAIN_VALIDATION_DISABLE", "VLS_MAX_PROTOCOL_VERSION"];
    let known = known.into_iter().chain(["REMOTE_SIGNER_ALLOWLIST", "CLAVIGER_PERMISSIVE", "RUST_LOG"]);
    found.lines().chain(known).map(str::to_owned).collect()
}

#[test]
fn hostile_switches_of_other_signers_are_refused_by_name() {
    let scene = Scene::new("ldk");
    let forbidden: Vec<_> = variables().into_iter().filter(|name| refuse_environment([name]).is_err()).collect();
    assert!(forbidden.len() > 4, "{forbidden:?}");
    for name in forbidden {
        let program = Program::binary(CLAVIGER).with_variable(&name, "1");
        let ran = program.command(scene.world.signer.dir()).arg("run").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains(&name), "{name}: {said}");
    }
}

#[test]
fn hostile_no_environment_opens_what_the_rules_close() {
    let allowed = variables().into_iter().filter(|name| refuse_environment([name]).is_ok());
    let set = |program: Program, name: String| {
        // A thread needs a stack, whatever it signs.
        let value = if name == "RUST_MIN_STACK" { "8388608" } else { "1" };
        program.with_variable(&name, value)
    };
    let world = World::new(allowed.fold(Program::binary(CLAVIGER), set)).unwrap();
    let thief = Thief::new(&world, "alice", "ldk");
    attack(&Scene { world, thief });
}
