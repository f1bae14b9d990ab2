//! The command line word for word: what it prints, where, and with which exit code. After an intended change run with
//! `TRYCMD=overwrite` and read the difference.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn every_word_is_as_written_down() {
    let cases = trycmd::TestCases::new();
    // The help names the operator's home directory.
    cases.env("HOME", "/home/operator");
    for tool in ["chmod", "cp", "mkdir", "rm"] {
        cases.register_bin(tool, Path::new("/bin").join(tool));
    }
    cases.case("tests/cli/*.trycmd");
}

/// `claviger ARGS` on a data directory `data` in `dir`, with pipes for all three streams.
fn claviger(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.current_dir(dir).args(["--data-dir", "data"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, stdout and stderr of a command that reads `input`.
fn run(dir: &Path, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = claviger(dir, args).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have gone already
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn init(dir: &Path) {
    let quick = [
        "init",
        "--network",
        "regtest",
        "--allow-root",
        "--kdf-memory-kib",
        "64",
        "--kdf-passes",
        "1",
        "--passphrase-fd",
        "0",
    ];
    assert_eq!(run(dir, &quick, "first passphrase").0, Some(0));
}

/// Whoever owns the start of the signer, its environment or its file finds no switch that weakens a safety rule (P3).
#[test]
fn hostile_switches_do_not_start_the_signer() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let start = |variable: Option<&str>, flag: Option<&str>| {
        let mut command = claviger(dir.path(), &["run"]);
        command.args(flag).envs(variable.map(|name| (name, "1"))).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let variables = [
        "VLS_PERMISSIVE",
        "VLS_ONCHAIN_VALIDATION_DISABLE",
        "VLS_MAX_PROTOCOL_VERSION",
        "VLS_AUTOAPPROVE",
        "VLS_POLICY_FILTER",
        "REMOTE_SIGNER_ALLOWLIST",
        "vls_permissive",
    ];
    for name in variables {
        let (code, stderr) = start(Some(name), None);
        assert_eq!(code, Some(1), "{name}: {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
    for flag in ["--permissive", "--policy-filter=policy-revoke-not-closed:warn", "--dev", "--no-guard"] {
        assert_eq!(start(None, Some(flag)).0, Some(2), "{flag}");
    }
    let file = dir.path().join("data/claviger.toml");
    let honest = std::fs::read_to_string(&file).unwrap();
    for (section, line) in [
        ("", "policy_filter = [\"policy-revoke-new-commitment-signed:warn\"]"),
        ("", "permissive = true"),
        ("[policy]", "filter = []"),
        ("[guard]", "enabled = false"),
        ("[safety]", "revoke_after_close = \"warn\""),
    ] {
        // What belongs to no section stands before the first.
        let hostile = match section {
            "" => format!("{line}\n{honest}"),
            "[policy]" => honest.replace(section, &format!("{section}\n{line}")),
            _ => format!("{honest}\n{section}\n{line}\n"),
        };
        std::fs::write(&file, hostile).unwrap();
        let (code, stderr) = start(None, None);
        assert_eq!(code, Some(1), "{section} {line}: {stderr}");
        assert!(stderr.contains("unknown field"), "{stderr}");
    }
}

#[test]
fn results_are_on_stdout_and_errors_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    for json in [&["--json"][..], &[]] {
        let (code, stdout, stderr) = run(dir.path(), &[json, &["slots", "list"]].concat(), "");
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains("passphrase"), "{stdout}");
        let (code, stdout, stderr) = run(dir.path(), &[json, &["status"]].concat(), "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert!(stderr.contains("no daemon runs on data") && stderr.contains("hint"), "{stderr}");
        let (code, stdout, stderr) = run(dir.path(), &[json, &["status", "--verbose"]].concat(), "");
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains("--verbose"), "{stderr}");
    }
    let (code, stdout, stderr) = run(dir.path(), &["--help"], "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("First steps"), "{stdout}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = claviger(dir.path(), &["slots", "list"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_second_passphrase_opens_the_signer_and_the_first_can_go() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    std::fs::write(dir.path().join("old"), "first passphrase").unwrap();
    let add = ["slots", "add", "--passphrase-credential", "old", "--new-passphrase-fd", "0"];
    let mut child = claviger(dir.path(), &add).env("CREDENTIALS_DIRECTORY", ".").spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"second passphrase").unwrap();
    assert!(child.wait().unwrap().success());
    let test = |passphrase| run(dir.path(), &["slots", "test", "--passphrase-fd", "0"], passphrase);
    assert_eq!(test("first passphrase").1, "the passphrase opens slot 1\n");
    assert_eq!(test("second passphrase").1, "the passphrase opens slot 2\n");
    assert_eq!(run(dir.path(), &["slots", "remove", "1"], "").1, "slot 1 removed\n");
    assert_eq!((test("first passphrase").0, test("second passphrase").0), (Some(1), Some(0)));
}

/// Ends a command that waits for input it will not get.
struct Waiting(Child);

impl Waiting {
    fn wait_until(&mut self, condition: impl Fn() -> bool) {
        while !condition() {
            assert_eq!(self.0.try_wait().unwrap(), None, "the daemon ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn core_files_and_privileges_are_given_up_before_a_secret_is_read() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    // Enough of a daemon to be asked, and enough of a journal to be opened.
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(dir.path().join("data/journal.redb")).unwrap();
    let _socket = UnixListener::bind(dir.path().join("data/admin.sock")).unwrap();
    for args in [
        &["unseal", "--passphrase-fd", "0"][..],
        &["slots", "test", "--passphrase-fd", "0"],
        &["journal", "verify", "--offline", "--passphrase-fd", "0"],
        &["node", "add", "alice", "--kind", "ldk", "--import", "-", "--format", "ldk-seed"],
    ] {
        let mut child = Waiting(claviger(dir.path(), args).spawn().unwrap());
        let proc = Path::new("/proc").join(child.0.id().to_string());
        let read = |name| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
        while !read("status").contains("NoNewPrivs:\t1") || !read("limits").contains("Max core file size        0") {
            assert_eq!(child.0.try_wait().unwrap(), None, "{args:?} ended");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_journal_is_checked_without_a_daemon_by_who_has_the_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let verify = |passphrase| run(dir.path(), &["journal", "verify", "--offline", "--passphrase-fd", "0"], passphrase);
    let (code, _, stderr) = verify("first passphrase");
    assert_eq!((code, stderr.lines().next()), (Some(1), Some("error: there is no journal yet")));
    assert!(!dir.path().join("data/journal.redb").exists(), "looking makes none");
}

/// A daemon on `data` in `dir`, unsealed by its passphrase, without a chain.
fn daemon(dir: &Path) -> Waiting {
    without_chain(dir);
    let mut command = claviger(dir, &["run", "--passphrase-fd", "0"]);
    let mut child = Waiting(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    child.0.stdin.take().unwrap().write_all(b"first passphrase").unwrap();
    child.wait_until(|| run(dir, &["status"], "").1.contains("unsealed"));
    child
}

/// Settings with which a daemon starts on a machine without a chain, beside others.
fn without_chain(dir: &Path) {
    let file = dir.join("data/claviger.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let config =
        config.replace("127.0.0.1:7700", "127.0.0.1:0").replace("# cookie_file = \"\"", "cookie_file = \"none\"");
    std::fs::write(&file, config).unwrap();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// What the signer does to itself holds for every thread, whatever the machine; it is sealed from outside without being asked.
#[test]
fn a_running_signer_is_confined_and_a_signal_seals_it() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let daemon = daemon(dir.path());
    let (code, stdout, stderr) = run(dir.path(), &["--json", "hardening"], "");
    assert_eq!(code, Some(0), "{stderr}");
    let reply: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    for check in reply["checks"].as_array().unwrap() {
        let id = check["id"].as_str().unwrap();
        let of_the_machine = ["memory", "locked-memory", "swap"].contains(&id) || id == "user" && is_root();
        assert!(of_the_machine || check["state"] == "ok", "{check}");
    }
    let (_, stdout, _) = run(dir.path(), &["hardening"], "");
    assert!(stdout.contains("ok    system-calls  a signer's only (seccomp)"), "{stdout}");

    let sealed = || run(dir.path(), &["--json", "status"], "").1.contains("\"sealed\":true");
    assert!(!sealed());
    assert!(Command::new("kill").args(["-USR1", &daemon.0.id().to_string()]).status().unwrap().success());
    while !sealed() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Root has to say that it means it.
#[test]
fn the_signer_does_not_run_as_root_unless_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let config = dir.path().join("data/claviger.toml");
    let told = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, told.replace("allow_root = true", "allow_root = false")).unwrap();
    let mut child = claviger(dir.path(), &["run"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    if is_root() {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains("the signer would run as root"), "{stderr}");
        assert!(stderr.contains("hint: Give the data directory to a user of its own"), "{stderr}");
    } else {
        while run(dir.path(), &["status"], "").0 != Some(0) {
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn the_doctor_examines_a_running_daemon_and_orders_say_what_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let _daemon = daemon(dir.path());
    assert_eq!(run(dir.path(), &["node", "add", "alice", "--kind", "ldk"], "").0, Some(0));

    let (code, stdout, stderr) = run(dir.path(), &["--json", "doctor"], "");
    let reply: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let state = |id: &str| {
        let checks = reply["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let seen = ["data-dir", "key-slots", "hardening", "sealed", "journal", "certificates", "limits", "chain", "node"];
    let hardening = if is_root() { "warn" } else { "ok" };
    let expected = ["ok", "warn", hardening, "ok", "ok", "ok", "warn", "fail", "fail"];
    assert_eq!(seen.map(state), expected, "{stdout}");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("not well: node, chain") || stderr.contains("not well: chain, node"), "{stderr}");
    let (_, stdout, _) = run(dir.path(), &["doctor", "--repair"], "");
    assert!(stdout.contains("did                 asked for node alice to be built from the journal"), "{stdout}");

    // Without a block the node cannot be built, and a node that is not there takes no orders.
    for args in [
        &["node", "freeze", "alice"][..],
        &["channel", "list", "alice"],
        &["channel", "freeze", "alice", "7"],
        &["doctor", "--exempt", "alice", "7", "frozen", "--for", "1h"],
    ] {
        let (code, stdout, stderr) = run(dir.path(), args, "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr.contains("no block is known yet") && stderr.contains("hint"), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = run(dir.path(), &["explain", "alice-00000000-7"], "");
    assert!(code == Some(1) && stderr.contains("If it was a refusal, nothing was decided"), "{stderr}");
}

/// A machine is lost: what was saved while it ran comes up elsewhere with the same keys, in quarantine until somebody has looked.
#[test]
fn a_backup_of_a_running_daemon_is_checked_and_restored_elsewhere_in_quarantine() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, elsewhere) = (dir.path(), elsewhere.path());
    init(dir);
    let file = dir.join("data/claviger.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replacen("# listen = \"\"", "listen = \"127.0.0.1:0\"", 1)).unwrap();
    let backup = dir.join("saved").display().to_string();
    let by = |command: &str, file: &str| {
        run(elsewhere, &["backup", command, file, "--passphrase-fd", "0"], "first passphrase")
    };
    let node = |dir: &Path| -> serde_json::Value {
        let (_, stdout, stderr) = run(dir, &["--json", "node", "show", "alice"], "");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
    };
    let id = {
        let _daemon = daemon(dir);
        // Takes orders without a chain.
        assert_eq!(run(dir, &["node", "add", "alice", "--kind", "lnd", "--out", "alice"], "").0, Some(0));
        let (code, stdout, stderr) = run(dir, &["backup", "create", &backup], "");
        assert_eq!((code, stdout.contains(" records in "), stderr.as_str()), (Some(0), true, ""), "{stdout}");
        assert!(run(dir, &["backup", "create", &backup], "").2.contains("entity already exists"));
        assert_eq!(run(dir, &["seal"], "").0, Some(0));
        let sealed = run(dir, &["backup", "create", "other"], "");
        assert_eq!((sealed.0, sealed.2.contains("sealed"), dir.join("other.partial").exists()), (Some(1), true, false));
        assert_eq!(run(dir, &["unseal", "--passphrase-fd", "0"], "first passphrase").0, Some(0));
        node(dir)["node_id"].clone()
    };

    let (code, stdout, stderr) = by("verify", &backup);
    assert_eq!((code, stdout.contains("can be restored"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
    let wrong = run(elsewhere, &["backup", "verify", &backup, "--passphrase-fd", "0"], "second passphrase");
    assert!(wrong.0 == Some(1) && wrong.2.contains("wrong passphrase"), "{}", wrong.2);
    let bytes = std::fs::read(&backup).unwrap();
    let cut = dir.join("cut").display().to_string();
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let (code, _, stderr) = by("restore", &cut);
    assert!(code == Some(1) && stderr.contains("cut off") && !elsewhere.join("data").exists(), "{stderr}");

    let (code, stdout, stderr) = by("restore", &backup);
    assert_eq!((code, stdout.contains("start in quarantine"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
    assert!(by("restore", &backup).2.contains("is not empty"));
    let _daemon = daemon(elsewhere);
    assert_eq!(run(elsewhere, &["node", "thaw", "alice"], "").0, Some(1), "there is no freeze, and a quarantine stays");
    let restored = node(elsewhere);
    assert_eq!(restored["node_id"], id, "the same keys");
    assert!(restored["frozen"].to_string().contains("counter is gone"), "{restored}");
    let verify = run(elsewhere, &["journal", "verify"], "");
    assert!(verify.0 == Some(0) && verify.1.contains("records verified"), "{}", verify.1);
    assert_eq!(run(elsewhere, &["restore", "alice", "--why", "the old machine burnt"], "").0, Some(0));
    assert_eq!(node(elsewhere)["frozen"], serde_json::Value::Null);
}

/// A directory follows a running daemon over seals, kills and restarts of either side; what it gives back elsewhere starts in
/// quarantine.
#[test]
fn a_directory_follows_a_daemon_over_restarts_and_is_restored_elsewhere_in_quarantine() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, elsewhere) = (dir.path(), elsewhere.path());
    init(dir);
    let file = dir.join("data/claviger.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replacen("# listen = \"\"", "listen = \"127.0.0.1:0\"", 1)).unwrap();
    let followed = dir.join("followed");
    let path = followed.to_str().unwrap();
    let segments = || {
        let names = std::fs::read_dir(&followed).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".segment")).count()
    };
    let follow = || {
        let mut command = claviger(dir, &["backup", "create", "--follow", "followed", "--every", "1"]);
        Waiting(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let until = |child: &mut Waiting, more: usize| child.wait_until(|| segments() >= more);
    let ok = |args: &[&str], input: &str| {
        let (code, stdout, stderr) = run(dir, args, input);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        stdout
    };
    {
        let _daemon = daemon(dir);
        ok(&["node", "add", "alice", "--kind", "lnd", "--out", "alice"], "");
        let told = ok(&["backup", "create", "--follow", "followed", "--once"], "");
        assert!(told.starts_with("base 1, segment 0: "), "{told}");
        assert_eq!(ok(&["backup", "create", "--follow", "followed", "--once"], ""), "", "nothing changed");
        let mut follower = follow();
        ok(&["freeze", "--all", "--why", "a test"], "");
        until(&mut follower, 2);
        assert!(run(dir, &["backup", "create", "--follow", "followed", "--once"], "").2.contains("another"));
        ok(&["seal"], "");
        let sealed = segments();
        ok(&["unseal", "--passphrase-fd", "0"], "first passphrase");
        ok(&["unfreeze", "--all", "--why", "it was one"], "");
        until(&mut follower, sealed + 1);
        // Killed with its daemon, both at any time.
    }
    let before = segments();
    let again = daemon(dir);
    let mut follower = follow();
    until(&mut follower, before + 1);
    drop(follower);
    ok(&["node", "add", "bob", "--kind", "lnd", "--out", "bob"], "");
    ok(&["backup", "create", "--follow", "followed", "--once"], "");
    let nodes = ok(&["--json", "node", "list"], "");
    drop(again);

    let by = |command: &str, args: &[&str]| {
        let args = [&["backup", command, path, "--passphrase-fd", "0"], args].concat();
        run(elsewhere, &args, "first passphrase")
    };
    let (code, stdout, stderr) = by("verify", &[]);
    assert_eq!((code, stdout.contains("can be restored"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
    let last = followed.join(format!("000001-{:06}.segment", segments() - 1));
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    let (code, _, stderr) = by("restore", &[]);
    let named = stderr.contains("cut off") && stderr.contains("--until");
    assert!(code == Some(1) && named && !elsewhere.join("data").exists(), "{stderr}");
    std::fs::write(&last, bytes).unwrap();

    let (code, stdout, stderr) = by("restore", &[]);
    assert_eq!((code, stdout.contains("start in quarantine"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
    let mut new = daemon(elsewhere);
    let ids = |list: &str| {
        let list: serde_json::Value = serde_json::from_str(list).unwrap();
        list["nodes"].as_array().unwrap().iter().map(|node| node["node_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&run(elsewhere, &["--json", "node", "list"], "").1), ids(&nodes), "the same keys");
    for node in ["alice", "bob"] {
        // Once it is built from the journal.
        new.wait_until(|| run(elsewhere, &["node", "show", node], "").1.contains("counter is gone"));
    }
    assert!(run(elsewhere, &["journal", "verify"], "").1.contains("records verified"));
    // It goes on in the same directory, in which the old machine's copy of before would not.
    let (code, stdout, stderr) = run(elsewhere, &["backup", "create", "--follow", path, "--once"], "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let _old = daemon(dir);
    let (code, _, stderr) = run(dir, &["backup", "create", "--follow", "followed", "--once"], "");
    assert!(code == Some(1) && stderr.contains("older than what followed it"), "{stderr}");
}

/// An identity of age that is kept where no signer is opens every backup of a signer with a slot for its recipient.
#[test]
fn a_backup_opens_with_an_age_identity_and_nothing_else() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let identity = dir.join("identity");
    let Ok(made) = Command::new("age-keygen").arg("-o").arg(&identity).output() else {
        eprintln!("NOTE: there is no age here: skipped");
        return;
    };
    let text = String::from_utf8(made.stderr).unwrap();
    let recipient = text.trim().strip_prefix("Public key: ").unwrap();
    init(dir);
    let helper = dir.join("age");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../hsm/helpers/age"), &helper).unwrap();
    let [helper, identity] = [&helper, &identity].map(|path| path.to_str().unwrap());
    let add = ["slots", "add", "--kind", "helper", "--passphrase-fd", "0", "--", helper];
    let add = [&add[..], &["--recipient", recipient, "--identity", identity]].concat();
    let (code, _, stderr) = run(dir, &add, "first passphrase");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let away = dir.join("on a stick");
    std::fs::rename(identity, &away).unwrap();
    let backup = dir.join("saved").display().to_string();
    {
        let _daemon = daemon(dir);
        assert_eq!(run(dir, &["backup", "create", &backup], "").0, Some(0), "without the identity");
    }
    // A backup that somebody else made could name any program.
    let untold = run(elsewhere.path(), &["backup", "verify", &backup, "--slot", "2"], "");
    let command = format!("{helper} --recipient {recipient} --identity {identity}");
    assert!(untold.0 == Some(1) && untold.2.contains(&format!("would run: {command}\n")), "{}", untold.2);
    let verify = || run(elsewhere.path(), &["backup", "verify", &backup, "--slot", "2", "--trust", &command], "");
    let (code, _, stderr) = verify();
    assert!(code == Some(1) && stderr.contains("hint: "), "{stderr}");
    std::fs::rename(away, identity).unwrap();
    let (code, stdout, stderr) = verify();
    assert_eq!((code, stdout.contains("can be restored"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
}

/// Shares, a helper and a passphrase each open the same data directory; a slot that is rotated opens with the new secret
/// alone, and the last slot that can be used here stays.
#[test]
fn every_kind_of_slot_opens_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir);
    let program = dir.join("helper");
    std::fs::write(&program, HELPER).unwrap();
    let ok = |args: &[&str], input: &str| {
        let (code, stdout, stderr) = run(dir, args, input);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        stdout
    };
    let fd = ["--passphrase-fd", "0"];
    let deal = ["slots", "add", "--kind", "shares", "--threshold", "2", "--shares", "3", "--out", "."];
    ok(&[&deal[..], &fd].concat(), "first passphrase");
    let helper =
        ["slots", "add", "--kind", "helper", "--passphrase-fd", "0", "--", "/bin/sh", program.to_str().unwrap()];
    assert_eq!(ok(&helper, "first passphrase"), "slot 3 added\n");

    let share = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let by_shares = ["slots", "test", "--slot", "2", "--passphrase-fd", "0"];
    let [one, two, three] = ["share-1", "share-2", "share-3"].map(share);
    for pair in [[&one, &two], [&three, &one]] {
        assert_eq!(ok(&by_shares, &pair.map(String::as_str).concat()), "the shares open slot 2\n");
    }
    assert_eq!(ok(&["slots", "test", "--slot", "3"], ""), "slot 3 opens\n");
    assert!(run(dir, &by_shares, &[one.as_str(), &one].concat()).2.contains("share 1 was entered already"));

    // A new deal: the old shares are of another set.
    std::fs::create_dir(dir.join("new")).unwrap();
    ok(&["slots", "rotate", "2", "--slot", "3", "--out", "new"], "");
    assert!(run(dir, &by_shares, &[one.as_str(), &two].concat()).2.contains("share 1 is of another set"));
    assert_eq!(ok(&by_shares, &[share("new/share-2"), share("new/share-3")].concat()), "the shares open slot 2\n");

    // Without its program the helper's slot is not one to rely on.
    ok(&["slots", "remove", "2"], "");
    std::fs::write(&program, "exit 1").unwrap();
    let (code, _, stderr) = run(dir, &["slots", "remove", "1"], "");
    assert_eq!((code, stderr.contains("slot 1 is the last one that can be used here")), (Some(1), true));
    std::fs::write(&program, HELPER).unwrap();
    ok(&["slots", "remove", "1"], "");
    assert_eq!(ok(&["slots", "test", "--slot", "3"], ""), "slot 3 opens\n");
}

/// A host that its helper vouches for comes up by itself; one whose helper refuses waits for somebody.
#[test]
fn a_daemon_unseals_by_its_helper_and_stays_sealed_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir);
    without_chain(dir);
    let program = dir.join("helper");
    std::fs::write(&program, HELPER).unwrap();
    let helper =
        ["slots", "add", "--kind", "helper", "--passphrase-fd", "0", "--", "/bin/sh", program.to_str().unwrap()];
    assert_eq!(run(dir, &helper, "first passphrase").0, Some(0));
    let start = || {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        Waiting(claviger(dir, &["run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    };
    start().wait_until(|| run(dir, &["status"], "").1.contains("unsealed"));

    std::fs::write(&program, r#"echo '{"claviger":1,"error":"denied"}'"#).unwrap();
    let mut refused = start();
    refused.wait_until(|| std::fs::read_to_string(dir.join("log")).unwrap().contains("still sealed"));
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    assert!(log.contains("it says: access denied"), "{log}");
    assert_eq!(run(dir, &["unseal", "--passphrase-fd", "0"], "first passphrase").0, Some(0));
}

/// A sealed daemon on `data` in `dir`, without a chain.
fn sealed_daemon(dir: &Path) -> Waiting {
    without_chain(dir);
    let mut command = claviger(dir, &["run"]);
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut child = Waiting(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    child.wait_until(|| run(dir, &["status"], "").0 == Some(0));
    child
}

/// Each holder brings one share, from wherever; `status` says how far they are, and a wrong share undoes nothing.
#[test]
fn people_unseal_a_daemon_share_by_share() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir);
    for (shares, out) in [("3", "ours"), ("4", "others")] {
        std::fs::create_dir(dir.join(out)).unwrap();
        let deal = ["slots", "add", "--kind", "shares", "--threshold", "2", "--shares", shares, "--out", out];
        assert_eq!(run(dir, &[&deal[..], &["--passphrase-fd", "0"]].concat(), "first passphrase").0, Some(0));
    }
    let share = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let bring = |share: &str| run(dir, &["unseal", "--slot", "2", "--passphrase-fd", "0"], share);
    let progress = "slot 2 has 1 of 2 shares (number 3); still sealed\n";
    let _daemon = sealed_daemon(dir);

    assert_eq!(bring(&share("ours/share-3")), (Some(0), progress.to_owned(), String::new()));
    let status = run(dir, &["status"], "").1;
    assert!(status.contains("SEALED") && status.contains(&format!("shares     {progress}")), "{status}");
    let text = share("ours/share-1");
    let mistyped = text.replacen(char::is_numeric, "x", 9);
    for (wrong, named) in [
        (share("ours/share-3"), "share 3 was entered already"),
        (share("others/share-2"), "share 2 is of"),
        (mistyped, "share"),
        (String::new(), "the passphrase is empty"),
    ] {
        let (code, _, stderr) = bring(&wrong);
        assert_eq!((code, stderr.contains(named), stderr.contains("hint")), (Some(1), true, true), "{stderr}");
        assert!(run(dir, &["status"], "").1.contains(progress), "a wrong share undid a right one");
    }
    assert_eq!(bring(&text), (Some(0), "unsealed; 0 nodes\n".to_owned(), String::new()));

    // Sealing forgets whatever was entered, also of an opening that did not come about.
    let seal = || assert_eq!(run(dir, &["seal"], "").0, Some(0));
    seal();
    bring(&text);
    seal();
    assert!(!run(dir, &["status"], "").1.contains("shares "));
    assert_eq!(bring(&[share("ours/share-1"), share("ours/share-2")].concat()).1, "unsealed; 0 nodes\n");
}

/// A device that hangs is nobody else's: the passphrase opens meanwhile.
#[test]
fn a_helper_that_hangs_keeps_nobody_from_opening_with_another_slot() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir);
    let program = dir.join("helper");
    std::fs::write(&program, HELPER).unwrap();
    let helper =
        ["slots", "add", "--kind", "helper", "--passphrase-fd", "0", "--", "/bin/sh", program.to_str().unwrap()];
    assert_eq!(run(dir, &helper, "first passphrase").0, Some(0));
    let asked = dir.join("asked");
    std::fs::write(&program, format!("touch '{}'; sleep 600", asked.display())).unwrap();
    let mut daemon = sealed_daemon(dir);
    daemon.wait_until(|| asked.exists());
    let open = run(dir, &["unseal", "--passphrase-fd", "0"], "first passphrase");
    assert_eq!(open, (Some(0), "unsealed; 0 nodes\n".to_owned(), String::new()));
    assert_eq!(run(dir, &["seal"], "").0, Some(0));
}

/// The shipped programs differ in which devices they know, and say so.
#[cfg(not(feature = "tpm"))]
#[test]
fn a_build_without_a_device_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir);
    let (code, _, stderr) = run(dir, &["slots", "add", "--kind", "tpm", "--passphrase-fd", "0"], "first passphrase");
    let said = "error: this program is built without tpm slots\n";
    assert_eq!(
        (code, stderr.starts_with(said), stderr.contains("--features packaged")),
        (Some(1), true, true),
        "{stderr}"
    );
}

/// Keeps the contract and no secret: for tests only.
const HELPER: &str = r#"read -r request; case $request in
*'"wrap"'*) echo '{"claviger":1,"wrapped":"'"$(echo "$request" | sed 's/.*"key":"\([0-9a-f]*\)".*/\1/')"'"}' ;;
*'"unwrap"'*) echo '{"claviger":1,"key":"'"$(echo "$request" | sed 's/.*"wrapped":"\([0-9a-f]*\)".*/\1/')"'"}' ;;
*) echo '{"claviger":1,"healthy":true}' ;;
esac"#;
