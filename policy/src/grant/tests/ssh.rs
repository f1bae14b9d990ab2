//! The stock `ssh-keygen`, which approvers use.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// People with an ed25519 key each.
pub(super) struct People {
    dir: TempDir,
    names: Vec<String>,
}

impl People {
    pub(super) fn new(names: &[&str]) -> Self {
        let people = Self { dir: TempDir::new().expect("a directory"), names: Vec::new() };
        names.iter().for_each(|name| people.make(name, "ed25519"));
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), ..people }
    }

    /// Makes a key of `key_type` under the name `name`.
    pub(super) fn make(&self, name: &str, key_type: &str) {
        let file = self.dir.path().join(name);
        keygen(&["-q", "-N", "", "-C", name, "-t", key_type, "-f", text(&file)]);
    }

    /// Key type and key of `name`.
    pub(super) fn public(&self, name: &str) -> String {
        let public = fs::read_to_string(self.dir.path().join(format!("{name}.pub"))).expect("made before");
        let words: Vec<_> = public.split(' ').take(2).collect();
        words.join(" ")
    }

    /// A line for each of the people.
    pub(super) fn allowed_signers(&self) -> String {
        let mut text = String::from("# who may approve\n\n");
        for name in &self.names {
            let _ = writeln!(text, "{name} {} {name}'s laptop", self.public(name));
        }
        text
    }

    /// What `ssh-keygen -Y sign` writes for `text` with the key `name`.
    pub(super) fn sign(&self, name: &str, namespace: &str, text: &str) -> String {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("intent");
        fs::write(&file, text).expect("written");
        let key = self.dir.path().join(name);
        keygen(&["-Y", "sign", "-q", "-n", namespace, "-f", self::text(&key), self::text(&file)]);
        fs::read_to_string(dir.path().join("intent.sig")).expect("signed")
    }

    /// Whether `ssh-keygen -Y verify` accepts a signature of `person` at a time as it writes them.
    pub(super) fn verify(
        &self,
        allowed_signers: &str,
        person: &str,
        namespace: &str,
        message: &str,
        signature: &str,
        time: &str,
    ) -> bool {
        let dir = TempDir::new().expect("a directory");
        let (list, file) = (dir.path().join("allowed_signers"), dir.path().join("intent.sig"));
        fs::write(&list, allowed_signers).expect("written");
        fs::write(&file, signature).expect("written");
        let message_file = dir.path().join("intent");
        fs::write(&message_file, message).expect("written");
        let time = format!("verify-time={time}");
        let args = ["-Y", "verify", "-f", text(&list), "-I", person, "-n", namespace, "-s", text(&file), "-O", &time];
        let input = fs::File::open(&message_file).expect("written");
        let output = Command::new("ssh-keygen").args(args).stdin(input).output();
        output.expect("ssh-keygen runs: install openssh-client").status.success()
    }
}

fn keygen(args: &[&str]) {
    let output = Command::new("ssh-keygen").args(args).stdin(Stdio::null()).output();
    let output = output.expect("ssh-keygen runs: install openssh-client");
    assert!(output.status.success(), "ssh-keygen {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
