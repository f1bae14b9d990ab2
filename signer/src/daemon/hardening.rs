//! `claviger hardening`, the daemon's part: what the process gave up, as the kernel tells it and as trying shows.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use claviger_proto::v1::{CheckInfo, HardeningReply};
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, geteuid, getrlimit};

use super::Daemon;
use super::doctor::{check_memory, fail, ok, warn};

/// A port that nobody listens on and no configuration names.
const NO_PORT: u16 = 1;
/// Sets of capabilities, as the kernel writes them: none, to lock memory, to take turns at once, or both.
const CAPABILITIES: [&str; 4] = ["0000000000000000", "0000000000004000", "0000000000800000", "0000000000804000"];
/// Less lockable memory than this is too little for nodes with many channels.
const LOCKABLE_BYTES: u64 = 256 << 20;

impl Daemon {
    /// Each protection, whether it holds now.
    pub(super) fn examine_hardening(&self) -> HardeningReply {
        let threads = Threads::now();
        let checks = vec![
            self.check_user(),
            threads.check(
                "capabilities",
                "CapPrm",
                &CAPABILITIES,
                "none, but to lock memory and to take turns at once where that needs one",
                CONFINE,
            ),
            threads.check("privileges", "NoNewPrivs", &["1"], "programs gain no privileges", START),
            check_core_files(),
            self.check_files(),
            self.check_ports(),
            self.check_calls(&threads),
            check_memory(),
            self.check_locked(),
            check_swap(),
            self.check_devices(),
        ];
        HardeningReply { checks }
    }

    /// What `doctor` says of all that.
    pub(super) fn check_hardening(&self) -> CheckInfo {
        let checks = self.examine_hardening().checks;
        let of = |state: &str| {
            let ids: Vec<_> =
                checks.iter().filter(|check| check.state == state).map(|check| check.id.as_str()).collect();
            ids.join(", ")
        };
        let fix = "`claviger hardening` says what to do.";
        match (of("fail"), of("warn")) {
            (failed, _) if !failed.is_empty() => fail("hardening", format!("missing: {failed}"), fix),
            (_, weak) if !weak.is_empty() => warn("hardening", format!("weak: {weak}"), fix),
            _ => ok("hardening", "all of it holds"),
        }
    }

    fn check_user(&self) -> CheckInfo {
        let fix = "Give the data directory to a user of its own: the signer becomes that user.";
        match geteuid() {
            root if root.is_root() => warn("user", "the signer runs as root", fix),
            user => ok("user", format!("the signer runs as user {}", user.as_raw())),
        }
    }

    fn check_files(&self) -> CheckInfo {
        let enforced = &self.hardening.confinement.reach;
        match fs::read_dir("/") {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => ok("files", "its own files only (Landlock)"),
            _ => warn("files", format!("all that its user may read and write; Landlock is {enforced}"), CONFINE),
        }
    }

    fn check_ports(&self) -> CheckInfo {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, NO_PORT));
        let refused = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
        match TcpStream::connect_timeout(&nobody, Duration::from_secs(1)) {
            Err(error) if refused(&error) => ok("ports", "its own ports only (Landlock)"),
            _ => {
                let enforced = &self.hardening.confinement.reach;
                warn("ports", format!("it may connect to and listen on any port; Landlock is {enforced}"), CONFINE)
            }
        }
    }

    fn check_calls(&self, threads: &Threads) -> CheckInfo {
        let filtered = threads.check("system-calls", "Seccomp", &["2"], "a signer's only (seccomp)", CONFINE);
        if filtered.state != "ok" {
            let enforced = &self.hardening.confinement.calls;
            return warn("system-calls", format!("all that its user may make; seccomp is {enforced}"), CONFINE);
        }
        let program =
            Command::new("/proc/self/exe").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        match program {
            Err(_) => filtered,
            Ok(_) => warn("system-calls", "filtered, but it can start programs", CONFINE),
        }
    }

    fn check_locked(&self) -> CheckInfo {
        let fix = "Set LimitMEMLOCK=infinity (ulimit -l unlimited).";
        match self.hardening.lockable_bytes {
            None => ok("locked-memory", "as much as there is"),
            Some(bytes @ LOCKABLE_BYTES..) => ok("locked-memory", format!("up to {} MiB", bytes >> 20)),
            Some(bytes) => {
                warn("locked-memory", format!("at most {} KiB: too little for many channels", bytes >> 10), fix)
            }
        }
    }

    fn check_devices(&self) -> CheckInfo {
        match &self.devices {
            Some(_) => ok("devices", "tokens, TPMs and helpers are asked by processes of their own"),
            None => warn("devices", "this process itself asks tokens, TPMs and helpers", START),
        }
    }
}

const CONFINE: &str =
    "Set signer.confinement = \"auto\" in claviger.toml; run on Linux 6.12 or newer, with Landlock and seccomp.";
const START: &str = "Start the signer with `claviger run`.";

fn check_core_files() -> CheckInfo {
    let limited = getrlimit(Resource::Core).current == Some(0);
    let hidden = dumpable_behavior() == Ok(DumpableBehavior::NotDumpable);
    match limited && hidden {
        true => ok("core-files", "none; other processes of its user do not look into it"),
        false => fail("core-files", "core files and other processes may show secrets", START),
    }
}

fn check_swap() -> CheckInfo {
    let fix = "Set MemorySwapMax=0, or swapoff.";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match field(&status, "VmSwap").unwrap_or("unknown") {
        "0 kB" => ok("swap", "nothing of it is swapped out"),
        swapped => warn("swap", format!("{swapped} of its ordinary memory are swapped out"), fix),
    }
}

/// What the kernel says of each thread.
struct Threads(Vec<String>);

impl Threads {
    fn now() -> Self {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        Self(tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).collect())
    }

    /// Whether `name` is among `wanted` for all threads.
    fn check(&self, id: &str, name: &str, wanted: &[&str], detail: &str, fix: &str) -> CheckInfo {
        let held = |status: &String| field(status, name).is_some_and(|value| wanted.contains(&value));
        match self.0.iter().filter(|status| !held(status)).count() {
            0 if !self.0.is_empty() => ok(id, detail),
            missing => warn(id, format!("not so for {missing} of {} threads: {detail}", self.0.len()), fix),
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_for_one_thread_does_not_hold() {
        let threads = |seccomp: [&str; 2]| Threads(seccomp.map(|it| format!("Name:\tx\nSeccomp:\t{it}\n")).to_vec());
        let state = |threads: &Threads| threads.check("calls", "Seccomp", &["2"], "", START).state;
        assert_eq!(state(&threads(["2", "2"])), "ok");
        assert_eq!(state(&threads(["2", "0"])), "warn");
        assert_eq!(state(&Threads(Vec::new())), "warn");
    }
}
