//! A bundle follows another when as many people sign it as that one asks for, with the keys of `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{copy, edit, policy, text};

/// The worked example with keys that are at hand: `KEY` signs for the person of that name; alice has two.
pub(super) fn signed_world(dir: &Path) -> (PathBuf, PathBuf) {
    let mut signers = String::new();
    for key in ["alice", "alice2", "bob", "carol", "mallory"] {
        let file = dir.join(key);
        let mut made = Command::new("ssh-keygen");
        made.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", text(&file)]);
        assert!(ssh(&mut made), "openssh-client is needed");
        if key != "mallory" {
            let public = fs::read_to_string(file.with_extension("pub")).unwrap();
            signers += &format!("{}@example.org {public}", key.trim_end_matches('2'));
        }
    }
    let (old, new) = (copy(dir, "old"), copy(dir, "new"));
    for bundle in [&old, &new] {
        fs::write(bundle.join("allowed_signers"), &signers).unwrap();
    }
    edit(&new.join("policy.toml"), "version = 1", "version = 2");
    (old, new)
}

fn ssh(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}

/// Signs the bundle `new` with the key `key` over what `--text-to-sign` prints.
pub(super) fn sign(dir: &Path, new: &Path, key: &str) {
    let (code, stdout, _) = policy(&["check", "--text-to-sign", "--network", "regtest", text(new)]);
    assert_eq!(code, Some(0));
    let signatures = new.join("signatures");
    fs::create_dir_all(&signatures).unwrap();
    fs::rename(signature(dir, key, "claviger-policy", &stdout), signatures.join(format!("{key}.sig"))).unwrap();
}

/// A signature of the key over the text.
pub(super) fn signature(dir: &Path, name: &str, namespace: &str, signed: &str) -> PathBuf {
    let file = dir.join(format!("{name}.text"));
    fs::write(&file, signed).unwrap();
    let made = file.with_extension("text.sig");
    let _ = fs::remove_file(&made);
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-q", "-n", namespace, "-f", text(&dir.join(name)), text(&file)]);
    assert!(ssh(&mut command));
    made
}

fn follows(old: &Path, new: &Path) -> (Option<i32>, String, String) {
    policy(&["check", text(new), "--follows", text(old), "--network", "regtest"])
}

#[test]
fn two_people_who_sign_with_ssh_keygen_let_a_bundle_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = signed_world(dir.path());
    let (code, _, stderr) = follows(&old, &new);
    assert!(code == Some(1) && stderr.contains("0 of the 2 people"), "{stderr}");
    assert!(stderr.contains("claviger policy check DIR --text-to-sign"), "{stderr}");

    sign(dir.path(), &new, "alice");
    sign(dir.path(), &new, "alice2");
    let (code, _, stderr) = follows(&old, &new);
    assert!(code == Some(1) && stderr.contains("1 of the 2 people"), "one person with two keys: {stderr}");

    sign(dir.path(), &new, "bob");
    let (code, stdout, stderr) = follows(&old, &new);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "version 2 may follow 1: signed by alice@example.org, bob@example.org\n");
}

#[test]
fn a_signature_over_other_files_or_by_a_stranger_lets_nothing_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = signed_world(dir.path());
    sign(dir.path(), &new, "alice");
    sign(dir.path(), &new, "bob");
    assert_eq!(follows(&old, &new).0, Some(0));
    // Any change of any file that counts.
    edit(&new.join("lists/exchange.toml"), "exchange, hot", "exchange, warm");
    let (code, _, stderr) = follows(&old, &new);
    assert!(code == Some(1) && stderr.contains("signatures/alice.sig"), "{stderr}");
    edit(&new.join("lists/exchange.toml"), "exchange, warm", "exchange, hot");
    assert_eq!(follows(&old, &new).0, Some(0));
    // Who is nobody does not count, and is not passed over either.
    sign(dir.path(), &new, "mallory");
    let (code, _, stderr) = follows(&old, &new);
    assert!(code == Some(1) && stderr.contains("signatures/mallory.sig"), "{stderr}");
}

/// The bundle in force says who signs: a bundle that names its own signers is not signed by them.
#[test]
fn a_bundle_does_not_choose_who_signs_it() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = signed_world(dir.path());
    let mallory = fs::read_to_string(dir.path().join("mallory.pub")).unwrap();
    let signers = fs::read_to_string(new.join("allowed_signers")).unwrap();
    fs::write(new.join("allowed_signers"), format!("{signers}mallory@example.org {mallory}")).unwrap();
    edit(&new.join("policy.toml"), "[roles]", "[roles]\nintruder = [\"mallory@example.org\"]");
    edit(&new.join("policy.toml"), "[signing]\nrole = \"treasurer\"\nof = 2", "[signing]\nrole = \"intruder\"\nof = 1");
    sign(dir.path(), &new, "mallory");
    let (code, _, stderr) = follows(&old, &new);
    assert!(code == Some(1) && stderr.contains("signatures/mallory.sig"), "{stderr}");
}

#[test]
fn an_older_bundle_does_not_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = signed_world(dir.path());
    let (code, _, stderr) = follows(&new, &old);
    assert!(code == Some(1) && stderr.contains("version 1 is not above 2"), "{stderr}");
}
