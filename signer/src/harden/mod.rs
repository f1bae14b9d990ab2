//! What the process gives up before it reads a secret (P8), and the user, environment and build it refuses to run as and in.
//!
//! `Hardening::apply` is every command's that reads a secret; the daemon confines itself further, for good, once it has opened
//! what it cannot open from inside ([`Hardening::confine`]).

pub mod landlock;
mod privileges;
mod refusals;
mod seccomp;

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit, umask};

pub use self::landlock::Reach;
pub use self::privileges::{AsRoot, become_owner, refuse_root};
pub use self::refusals::{ForbiddenVariable, FuzzingBuild, refuse_build, refuse_environment};
use crate::keys::memory::close_inherited;

/// What was given up: the report for `status`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Hardening {
    /// No core files, and no reading of `/proc/PID` by other processes of the same user.
    pub dumpable: bool,
    /// Programs that are started gain no privileges.
    pub no_new_privileges: bool,
    /// Inherited descriptors that were closed.
    pub closed_descriptors: Vec<RawFd>,
    /// How much memory may be locked, in bytes; `None` is without limit.
    pub lockable_bytes: Option<u64>,
    /// How far the process is confined.
    pub confinement: Confinement,
}

/// How far a process is confined.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Confinement {
    /// Whether it has no capabilities.
    pub capabilities: Enforced,
    /// Whether files and ports are within its reach only ([`Reach`]).
    pub reach: Enforced,
    /// Whether it makes a signer's system calls only.
    pub calls: Enforced,
}

/// Whether the kernel enforces something.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforced {
    /// All of it.
    Whole,
    /// Some; why not all.
    Partly(String),
    /// Nothing; why.
    No(String),
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("enforced"),
            Self::Partly(why) => write!(f, "enforced in part: {why}"),
            Self::No(why) => write!(f, "not enforced: {why}"),
        }
    }
}

impl Confinement {
    /// That of a process that was not confined, and `why`.
    pub fn none(why: &str) -> Self {
        let no = || Enforced::No(why.to_owned());
        Self { capabilities: no(), reach: no(), calls: no() }
    }

    /// What is not enforced, or in part only.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &Enforced)> {
        let parts =
            [("capabilities", &self.capabilities), ("files and ports", &self.reach), ("system calls", &self.calls)];
        parts.into_iter().filter(|(_, enforced)| **enforced != Enforced::Whole)
    }
}

/// A step failed; no secret may be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {step}: {kind}")]
pub struct HardenError {
    /// What was tried.
    pub step: &'static str,
    /// What the operating system said.
    pub kind: io::ErrorKind,
}

impl HardenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Run on Linux 4.5 or later with /proc mounted, and look for a sandbox that forbids the step."
    }
}

impl Hardening {
    /// That of a process that gave nothing up, as where a daemon runs inside a test.
    pub fn none() -> Self {
        Self {
            dumpable: true,
            no_new_privileges: false,
            closed_descriptors: Vec::new(),
            lockable_bytes: None,
            confinement: Confinement::none("nothing was given up"),
        }
    }

    /// Gives everything up. `keep` lists descriptors above 2 to leave open: those that secrets are read from.
    ///
    /// Call once, first thing, while there is one thread: descriptors are closed whoever uses them.
    pub fn apply(keep: &[RawFd]) -> Result<Self, HardenError> {
        let step = |step| move |errno: rustix::io::Errno| HardenError { step, kind: errno.kind() };
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(step("forbid core files"))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("become undumpable"))?;
        rustix::thread::set_no_new_privs(true).map_err(step("give up new privileges"))?;
        umask(Mode::RWXG | Mode::RWXO);
        let urgent = Some(crate::turns::PRIORITIES);
        let _ = setrlimit(Resource::Rtprio, Rlimit { current: urgent, maximum: urgent }); // who may not, has short turns
        let closed_descriptors = close_inherited(keep)
            .map_err(|error| HardenError { step: "close inherited descriptors", kind: error.kind() })?;
        Ok(Self {
            dumpable: false,
            no_new_privileges: true,
            closed_descriptors,
            lockable_bytes: raise_lock_limit(),
            confinement: Confinement::none("the process did not ask for it"),
        })
    }

    /// Gives up capabilities (but the one to lock memory, where a limit would be in its way), every file and port out of `reach`, and the system calls that a running signer does not make. Call it
    /// while there is one thread. What this kernel does not enforce is told, and for the caller to judge.
    pub fn confine(&mut self, reach: &Reach) {
        let capabilities = match privileges::give_up() {
            Ok(()) => Enforced::Whole,
            Err(error) => Enforced::No(error.to_string()),
        };
        self.lockable_bytes = lockable_bytes();
        let reach = reach.confine();
        self.confinement = Confinement { capabilities, reach, calls: seccomp::confine() };
    }
}

/// Secret pages count against this limit. Who may raise it without limit does; others up to the highest that is allowed. What it is
/// then; `None` for who needs no limit raised.
fn raise_lock_limit() -> Option<u64> {
    let highest = getrlimit(Resource::Memlock).maximum;
    for to in [None, highest] {
        if setrlimit(Resource::Memlock, Rlimit { current: to, maximum: to }).is_ok() {
            break;
        }
    }
    lockable_bytes()
}

fn lockable_bytes() -> Option<u64> {
    getrlimit(Resource::Memlock).current.filter(|_| !privileges::locks_without_limit())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::process::Command;

    use super::*;

    /// Runs the ignored test `name` in a process of its own, which it changes for good.
    pub(crate) fn in_own_process(name: &str) {
        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", name, "--ignored", "--test-threads=1", "--nocapture"])
            .output()
            .expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn hardening_takes_effect() {
        in_own_process("harden::tests::child_applies_hardening");
    }

    #[test]
    #[ignore = "run in its own process by hardening_takes_effect"]
    fn child_applies_hardening() {
        let [kept, lost] = [(); 2].map(|()| File::open("/dev/null").expect("open").into_raw_fd());
        let report = Hardening::apply(&[kept]).expect("hardened");

        assert!(report.closed_descriptors.contains(&lost) && !report.closed_descriptors.contains(&kept));
        let is_open = |fd: RawFd| std::fs::exists(format!("/proc/self/fd/{fd}")).expect("procfs");
        assert!(is_open(kept) && !is_open(lost) && is_open(2));
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("procfs");
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Umask:\t0077"), "{status}");
        let memlock = getrlimit(Resource::Memlock);
        assert_eq!(memlock.current, memlock.maximum);
        assert!(report.lockable_bytes.is_none() || report.lockable_bytes == memlock.current);

        // What a hardened process still must be able to do: read its passphrase by descriptor.
        let (reader, mut writer) = io::pipe().expect("pipe");
        io::Write::write_all(&mut writer, b"passphrase\n").expect("write");
        drop(writer);
        let passphrase = crate::keys::passphrase::Source::Descriptor(reader.as_raw_fd()).read().expect("read");
        assert_eq!(passphrase.expose(<[u8]>::to_vec), b"passphrase");
    }
}
