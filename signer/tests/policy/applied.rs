//! Policies and grants in a running signer, with people who sign with the stock `ssh-keygen`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::signing::{sign, signature, signed_world};
use super::{copy, edit, getting_started, run_blocks, text};

/// A signer on `data` in a directory of its own, with a node.
struct Signer {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Signer {
    fn new() -> Self {
        Self::beginning_with("none")
    }

    fn beginning_with(preset: &str) -> Self {
        let mut signer = Self { dir: tempfile::tempdir().unwrap(), daemon: None };
        let quick = [
            "--allow-root",
            "--preset",
            preset,
            "--network",
            "regtest",
            "--kdf-memory-kib",
            "64",
            "--kdf-passes",
            "1",
            "--passphrase-fd",
            "0",
        ];
        let (code, _, stderr) = signer.run_with(&[&["init"][..], &quick].concat(), "first passphrase");
        assert_eq!(code, Some(0), "{stderr}");
        let file = signer.dir.path().join("data/claviger.toml");
        edit(&file, "127.0.0.1:7700", "127.0.0.1:0");
        edit(&file, "# cookie_file = \"\"", "cookie_file = \"none\"");
        signer.start();
        assert_eq!(signer.run(&["node", "add", "alice", "--kind", "ldk"]).0, Some(0));
        signer
    }

    fn start(&mut self) {
        let mut command = self.command(&["run", "--passphrase-fd", "0"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"first passphrase").unwrap();
        self.daemon = Some(child);
        while !self.run(&["status"]).1.contains("unsealed") {
            assert_eq!(self.daemon.as_mut().unwrap().try_wait().unwrap(), None, "the daemon ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would.
    fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.current_dir(self.dir.path()).args(["--data-dir", "data"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_with(&self, args: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut child = self.command(args).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have gone already
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        self.run_with(args, "")
    }

    /// What a command that is done prints.
    fn done(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        stdout
    }

    /// What a command that is refused says.
    fn refused(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr.contains("\n  hint: "), "{stderr}");
        stderr
    }

    /// The worked example as it is and as a second version, with keys that are at hand.
    fn bundles(&self) -> (PathBuf, PathBuf) {
        signed_world(self.dir.path())
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_policy_is_applied_shown_followed_by_a_signed_one_and_taken_back_and_survives_a_crash() {
    let mut signer = Signer::new();
    let (old, new) = signer.bundles();
    assert!(signer.done(&["policy", "status"]).contains("none in force"));
    assert!(signer.refused(&["policy", "show"]).contains("no policy is in force"));

    let applied = signer.done(&["policy", "apply", text(&old)]);
    assert!(applied.starts_with("+ ") && applied.contains("budget hourly"), "{applied}");
    assert!(applied.ends_with("16 tests passed\nversion 1 is in force\n"), "{applied}");
    assert!(signer.done(&["status"]).contains("policy     version 1 sha256 "));
    assert!(signer.done(&["policy", "show", "--cedar"]).contains("@id(\"nothing-at-night\")"));
    assert_eq!(signer.done(&["policy", "diff", text(&old)]), "nothing changes in meaning\n");
    assert!(signer.refused(&["policy", "apply", text(&old)]).contains("in force already"));

    // The one in force asks two treasurers.
    edit(&new.join("rules.cedar"), "context.hour_utc >= 22", "context.hour_utc >= 21");
    edit(&new.join("treasury.test.toml"), "21:59:59Z", "20:59:59Z");
    assert!(signer.refused(&["policy", "apply", text(&new)]).contains("0 of the 2 people"));
    sign(signer.dir.path(), &new, "alice");
    sign(signer.dir.path(), &new, "bob");
    let applied = signer.done(&["policy", "apply", text(&new)]);
    assert!(applied.contains("nothing-at-night") && applied.ends_with("version 2 is in force\n"), "{applied}");

    signer.kill();
    signer.start();
    let status: serde_json::Value = serde_json::from_str(&signer.done(&["--json", "policy", "status"])).unwrap();
    assert_eq!((&status["active"]["version"], &status["previous"]["version"]), (&2.into(), &1.into()));

    // Back to a policy that is perhaps less strict: signed, too.
    assert!(signer.refused(&["policy", "apply", "--rollback"]).contains("0 of the 2 people"));
    let rollback = signer.done(&["policy", "apply", "--rollback", "--text-to-sign"]);
    let dir = signer.dir.path();
    let signatures = ["alice", "carol"].map(|person| signature(dir, person, "claviger-policy", &rollback));
    let [first, second] = signatures.each_ref().map(|path| text(path));
    let args = ["policy", "apply", "--rollback", "--signature", first, "--signature", second];
    assert_eq!(signer.done(&args), "version 1 is in force again\n");
    assert!(signer.refused(&["policy", "apply", text(&new)]).contains("version 2 is not above 2"));
}

/// What `init` names is in force until somebody applies a bundle, whose version may be any.
#[test]
fn a_new_appliance_begins_with_a_preset_that_gives_way_to_the_first_bundle() {
    let mut signer = Signer::beginning_with("routing-node");
    let (old, _) = signer.bundles();
    assert!(signer.done(&["policy", "show"]).contains("routing-node"));
    assert!(signer.done(&["policy", "show", "--cedar"]).contains("@id(\"preset-withdraw\")"));
    edit(&signer.dir.path().join("data/claviger.toml"), "preset = \"routing-node\"", "preset = \"receive-only\"");
    signer.kill();
    signer.start();
    assert!(
        !signer.done(&["policy", "show", "--cedar"]).contains("@id(\"preset-withdraw\")"),
        "another one was chosen"
    );

    let applied = signer.done(&["policy", "apply", text(&old)]);
    assert!(applied.ends_with("version 1 is in force\n"), "{applied}");
    signer.kill();
    signer.start();
    assert!(signer.done(&["policy", "show", "--cedar"]).contains("@id(\"nothing-at-night\")"), "it stays");
}

#[test]
fn a_bundle_that_fails_its_tests_or_has_a_mistake_changes_nothing_and_one_for_later_waits() {
    let signer = Signer::new();
    let (old, new) = signer.bundles();
    signer.done(&["policy", "apply", text(&old)]);
    edit(&new.join("policy.toml"), "limit = 2_000_000_000", "limit = 1_000_000_000");
    sign(signer.dir.path(), &new, "alice");
    sign(signer.dir.path(), &new, "bob");
    assert!(signer.refused(&["policy", "apply", text(&new)]).contains("tests failed"));
    edit(&new.join("policy.toml"), "fact = \"amount_msat\"", "fact = \"amount\"");
    assert!(signer.refused(&["policy", "apply", text(&new)]).contains("policy.toml:10:8: 'amount' is not a fact"));
    assert!(signer.done(&["policy", "status"]).starts_with("policy     version 1 "));

    edit(&new.join("policy.toml"), "fact = \"amount\"", "fact = \"amount_msat\"");
    edit(&new.join("policy.toml"), "limit = 1_000_000_000", "limit = 2_000_000_000");
    sign(signer.dir.path(), &new, "alice");
    sign(signer.dir.path(), &new, "bob");
    let past = ["policy", "apply", text(&new), "--at", "2001-01-01T00:00:00Z"];
    assert!(signer.refused(&past).contains("in the past"));
    let later = signer.done(&["policy", "apply", text(&new), "--at", "2199-01-01T00:00:00Z"]);
    assert!(later.ends_with("version 2 is in force from 2199-01-01T00:00:00Z\n"), "{later}");
    let status = signer.done(&["policy", "status"]);
    assert!(status.starts_with("policy     version 1 ") && status.contains("\npending    version 2 "), "{status}");
}

#[test]
fn a_grant_is_asked_by_one_approved_by_two_others_and_taken_back() {
    let mut signer = Signer::new();
    let (old, _) = signer.bundles();
    let create = |signer: &Signer, json: &[&str]| {
        let ask = ["grant", "create", "--node", "alice", "--action", "PayInvoice", "--max-amount-msat", "3000000000"];
        let who = ["--group", "treasury", "--requester", "carol@example.org", "--reason", "supplier"];
        signer.run(&[json, &ask, &who].concat())
    };
    assert!(create(&signer, &[]).2.contains("no policy is in force"));
    signer.done(&["policy", "apply", text(&old)]);

    let (code, grant, stderr) = create(&signer, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(grant.starts_with("claviger grant 1\n") && grant.ends_with("\nreason: supplier\n"), "{grant}");
    let dir = signer.dir.path().to_owned();
    let file = dir.join("grant.txt");
    fs::write(&file, &grant).unwrap();
    let ask = |signer: &Signer, signature: &Path| {
        signer.run(&["grant", "create", "--text", text(&file), "--signature", text(signature)])
    };
    // Nobody asks in somebody else's name.
    let (code, _, stderr) = ask(&signer, &signature(&dir, "bob", "claviger-request", &grant));
    assert!(code == Some(1) && stderr.contains("carol@example.org"), "{stderr}");
    let (code, asked, stderr) = ask(&signer, &signature(&dir, "carol", "claviger-request", &grant));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(asked.contains(" alice waiting ") && asked.contains("approved 0 of 2"), "{asked}");

    let id = asked.split(' ').next().unwrap();
    assert_eq!(signer.done(&["grant", "show", id]), grant, "byte for byte");
    assert!(signer.run(&["grant", "show", id]).2.contains("ssh-keygen -Y sign -n claviger-grant "));
    let approve = |signer: &Signer, person: &str, namespace: &str, signed: &str| {
        let signature = signature(&dir, person, namespace, signed);
        signer.run(&["grant", "approve", id, "--signature", text(&signature)])
    };
    // Who asked, one person twice with two keys, a stranger, a signature for another purpose or over other text.
    for (person, namespace, signed, said) in [
        ("carol", "claviger-grant", grant.clone(), "carol@example.org"),
        ("mallory", "claviger-grant", grant.clone(), "key"),
        ("alice", "claviger-request", grant.clone(), "claviger-request"),
        ("alice", "claviger-grant", grant.replace("max_amount_msat: 3", "max_amount_msat: 9"), "signature"),
    ] {
        let (code, _, stderr) = approve(&signer, person, namespace, &signed);
        assert!(code == Some(1) && stderr.contains(said), "{person}: {stderr}");
    }
    assert_eq!(approve(&signer, "alice", "claviger-grant", &grant).0, Some(0));
    let (code, _, stderr) = approve(&signer, "alice2", "claviger-grant", &grant);
    assert!(code == Some(1) && stderr.contains("alice@example.org"), "{stderr}");
    // What was approved is durable when it is answered.
    signer.kill();
    signer.start();
    assert!(signer.done(&["grant", "list"]).contains("approved 1 of 2 by alice@example.org"));
    let (_, approved, _) = approve(&signer, "bob", "claviger-grant", &grant);
    assert!(approved.contains(" alice in-force ") && approved.contains("approved 2 of 2"), "{approved}");

    assert!(signer.done(&["grant", "revoke", id]).contains(" alice revoked "));
    assert!(signer.refused(&["grant", "show", "00"]).contains("is not the id of a grant"));
    assert!(signer.refused(&["grant", "revoke", &"0".repeat(32)]).contains("there is no grant"));
    let list: serde_json::Value =
        serde_json::from_str(&signer.done(&["--json", "grant", "list", "--node", "alice"])).unwrap();
    assert_eq!((&list["grants"][0]["standing"], list["grants"].as_array().unwrap().len()), (&"revoked".into(), 1));
}

#[test]
fn a_break_glass_grant_is_told_by_every_status_from_the_first_word_on_and_a_normal_one_is_not() {
    let mut signer = Signer::new();
    let (old, _) = signer.bundles();
    let policy = fs::read_to_string(old.join("policy.toml")).unwrap();
    let emergency = "\n[approvals.emergency]\nrole = \"treasurer\"\nof = 2\nbreak_glass = true\n";
    fs::write(old.join("policy.toml"), policy + emergency).unwrap();
    signer.done(&["policy", "apply", text(&old)]);
    let dir = signer.dir.path().to_owned();
    let ask = |group: &str| {
        let what = ["grant", "create", "--node", "alice", "--action", "PayInvoice", "--max-amount-msat", "3000000000"];
        let who = ["--group", group, "--requester", "carol@example.org", "--reason", "the exchange is gone"];
        let grant = signer.done(&[&what[..], &who].concat());
        let file = dir.join("grant.txt");
        fs::write(&file, &grant).unwrap();
        let signature = signature(&dir, "carol", "claviger-request", &grant);
        let asked = signer.done(&["grant", "create", "--text", text(&file), "--signature", text(&signature)]);
        asked.split(' ').next().unwrap().to_owned()
    };
    ask("treasury");
    assert!(!signer.done(&["status"]).contains("break-glass"));
    let id = ask("emergency");
    let told = |standing| format!("node alice: break-glass grant {id}, asked by carol@example.org, is {standing}");
    assert!(signer.done(&["status"]).contains(&told("waiting")));
    signer.done(&["grant", "revoke", &id]);
    signer.kill();
    signer.start();
    assert!(signer.done(&["status"]).contains(&told("revoked")), "also after a restart");
    let metrics = signer.done(&["metrics"]);
    assert!(metrics.contains("claviger_break_glass_grants{node=\"alice\",standing=\"revoked\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("claviger_node_up{node=\"alice\"} ") && metrics.contains("claviger_unsealed 1\n"),
        "{metrics}"
    );
}

#[test]
fn an_intent_that_makes_no_sense_is_not_written() {
    let signer = Signer::new();
    let (old, _) = signer.bundles();
    signer.done(&["policy", "apply", text(&old)]);
    let base = ["grant", "create", "--node", "alice", "--requester", "carol@example.org"];
    for (args, said) in [
        (&["--action", "PayInvoice", "--group", "treasury"][..], "does not bound how much"),
        (&["--action", "PayInvoice", "--group", "tresury", "--max-amount-msat", "1"], "no approval group 'tresury'"),
        (&["--action", "Gossip", "--group", "treasury", "--pin", "payee=03cd"], "does not carry 'payee'"),
        (&["--action", "PayInvoice", "--group", "treasury", "--max-amount-msat", "1", "--for", "400d"], "valid for"),
    ] {
        assert!(signer.refused(&[&base[..], args].concat()).contains(said), "{args:?}");
    }
    let (code, _, stderr) = signer.run(&[&base[..], &["--action", "Pay", "--group", "treasury"]].concat());
    assert!(code == Some(2) && stderr.contains("use one of OpenChannel"), "{stderr}");
}

#[test]
fn what_nothing_decided_is_an_empty_history_and_all_nodes_can_be_frozen_at_once() {
    let signer = Signer::new();
    let (old, _) = signer.bundles();
    signer.done(&["policy", "apply", text(&old)]);
    assert_eq!(signer.done(&["policy", "export", "--since", "30d"]), "");
    let simulate = ["policy", "simulate", "--since", "30d", "--candidate", text(&old)];
    assert_eq!(signer.done(&simulate), "0 of 0 would now be refused; 0 newly permitted; 0 refused otherwise\n");
    assert_eq!(signer.done(&["policy", "replay"]), "0 of 0 decisions reproduced\n");
    // Without a block the node cannot be built: it signs nothing, and what was not done is said by name.
    let (code, stdout, stderr) = signer.run(&["freeze", "--all", "--why", "drill"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("freeze node alice: NOT DONE: ") && stdout.contains("no block is known yet"), "{stdout}");
    assert!(stderr.contains("not done for alice"), "{stderr}");
    assert_eq!(signer.run(&["freeze"]).0, Some(2));
}

/// The rest of `docs/policy/getting-started.md`, word for word.
#[test]
fn what_the_getting_started_does_with_a_signer_works_as_it_stands() {
    let signer = Signer::new();
    let dir = signer.dir.path();
    copy(dir, "treasury-team");
    copy(dir, "stricter");
    std::os::unix::fs::symlink(dir.join("data"), dir.join(".claviger")).unwrap();
    let page = getting_started();
    let with_signer = &page[page.find("## 5.").unwrap()..];
    let stdout = run_blocks(dir, with_signer, 2);
    assert!(stdout.contains("version 1 is in force"), "{stdout}");
    assert!(stdout.contains("0 of 0 would now be refused"), "{stdout}");
}
