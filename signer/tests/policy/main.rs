//! `claviger policy` as a security team runs it, without a daemon and without a data directory: the worked example, and
//! everything that may be wrong with a bundle.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

mod applied;
mod bad_input;
mod history;
mod signing;

/// The repository's worked example.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy/examples/treasury-team")
}

/// A copy of it in `dir` that may be changed.
fn copy(dir: &Path, name: &str) -> PathBuf {
    fn all(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
            if entry.is_dir() { all(&entry, &to) } else { fs::copy(entry, to).map(|_| ()).unwrap() }
        }
    }
    let to = dir.join(name);
    all(&example(), &to);
    to
}

/// Replaces a text in a file of a bundle.
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has no {from}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// Exit code, stdout and stderr of `claviger policy ARGS`.
fn policy(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    // A home that is not there: nothing of it may be needed.
    let output = command.env("HOME", "/nowhere").arg("policy").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_worked_example_is_checked_tested_and_shown() {
    let example = example();
    let (code, stdout, stderr) = policy(&["check", "--strict", "--network", "regtest", text(&example)]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.starts_with("version 1: 6 rules, 16 tests, 0 warnings\nsha256 "), "{stdout}");
    let (code, stdout, _) = policy(&["test", "--network", "regtest", text(&example)]);
    assert_eq!((code, stdout.as_str()), (Some(0), "16 passed, 0 failed\n"));
    let (code, stdout, _) = policy(&["show", "--network", "regtest", text(&example)]);
    assert!(code == Some(0) && stdout.contains("\nbudget hourly: "), "{stdout}");
    let (_, stdout, _) = policy(&["show", "--cedar", "--network", "regtest", text(&example)]);
    assert!(stdout.contains("@id(\"nothing-at-night\")"), "{stdout}");
    let (_, stdout, _) = policy(&["--json", "show", "--network", "regtest", text(&example)]);
    let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&shown["version"], shown["rules"].as_array().unwrap().len()), (&1.into(), 6));
}

#[test]
fn a_test_that_fails_says_what_was_expected_and_why_and_the_command_fails() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = copy(dir.path(), "policy");
    edit(&bundle.join("policy.toml"), "limit = 2_000_000_000", "limit = 1_000_000_000");
    let (code, stdout, stderr) = policy(&["test", "--network", "regtest", text(&bundle)]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("treasury.test.toml:14:1: FAILED"), "{stdout}");
    assert!(stdout.contains("a payment within the hour's 2 M sat passes"), "{stdout}");
    assert!(stderr.contains("tests failed\n  hint: Correct the policy, or the test"), "{stderr}");
}

#[test]
fn a_diff_tells_what_changes_in_meaning_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (copy(dir.path(), "old"), copy(dir.path(), "new"));
    edit(&new.join("rules.cedar"), "// What may not.", "// What may never be.");
    let diff = |json: &[&str]| policy(&[json, &["diff", "--network", "regtest", text(&old), text(&new)]].concat());
    let (code, stdout, _) = diff(&["--json"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "{\"changes\":[]}\n"));
    edit(&new.join("policy.toml"), "limit = 2_000_000_000", "limit = 3_000_000_000");
    edit(&new.join("policy.toml"), "version = 1", "version = 2");
    let (_, stdout, _) = diff(&[]);
    let changed = stdout.lines().filter(|line| line.contains("hourly")).collect::<Vec<_>>();
    assert!(matches!(changed[..], [line] if line.contains("2000000000") && line.contains("3000000000")), "{stdout}");
    assert!(!stdout.contains("rule "), "a comment is no change: {stdout}");
}

#[test]
fn every_preset_starts_with_a_bundle_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, stdout, _) = policy(&["--json", "presets"]);
    let presets: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let names: Vec<_> = presets.as_array().unwrap().iter().map(|preset| preset["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 6);
    for name in names {
        let bundle = dir.path().join(name);
        assert_eq!(policy(&["init", text(&bundle), "--preset", name]).0, Some(0));
        let (code, stdout, stderr) = policy(&["check", "--strict", text(&bundle)]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        assert_eq!(policy(&["test", text(&bundle)]).0, Some(0), "{name}");
        let (code, stdout, _) = policy(&["presets", name]);
        assert!(code == Some(0) && stdout.contains("max_chain_fee_msat"), "{stdout}");
        // What is there is not written over.
        assert_eq!(policy(&["init", text(&bundle), "--preset", name]).0, Some(1));
    }
    let (code, _, stderr) = policy(&["init", text(&dir.path().join("x")), "--preset", "routing"]);
    assert!(code == Some(1) && stderr.contains("Use one of: routing-node, merchant"), "{stderr}");
    assert!(!dir.path().join("x").exists());
}

/// The commands of `docs/policy/getting-started.md` that need no signer do what the page says, word for word.
#[test]
fn what_the_getting_started_does_without_a_signer_works_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "treasury-team");
    let page = getting_started();
    run_blocks(dir.path(), page.split("## 5.").next().unwrap(), 4);
}

fn getting_started() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy/getting-started.md")).unwrap()
}

/// Runs a page's blocks of commands, `many` at least, in `dir`, which is the home too, and compares what it shows right after
/// one with what they print. Returns all that was printed.
fn run_blocks(dir: &Path, page: &str, many: usize) -> String {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_claviger"), bin.join("claviger")).unwrap();
    let path = format!("{}:{}", text(&bin), std::env::var("PATH").unwrap());
    let blocks: Vec<_> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= many, "{blocks:?}");
    let mut printed = String::new();
    for block in blocks {
        let mut shell = Command::new("sh");
        shell.args(["-ec", block]).current_dir(dir).env("PATH", &path).env("HOME", dir);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let after = page.split(block).nth(1).unwrap().trim_start_matches("```").trim_start();
        if let Some(shown) = after.strip_prefix("```text\n") {
            assert!(stdout.ends_with(shown.split("```").next().unwrap()), "{block}\n{stdout}");
        }
        printed += &stdout;
    }
    printed
}

#[test]
fn what_is_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("policy.toml")).unwrap();
    for path in [dir.path().join("policy.toml"), dir.path().join("nothing")] {
        let (code, stdout, stderr) = policy(&["check", text(&path)]);
        assert_eq!(code, Some(1));
        assert!(stdout.contains("cannot be read") && stderr.contains("an error"), "{stdout}{stderr}");
    }
}
