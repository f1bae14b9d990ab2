//! What the process gives up before it reads a secret (P8), and the environment and build it refuses to run in (P3).

use std::ffi::OsStr;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit, umask};

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
    /// Gives everything up. `keep` lists descriptors above 2 to leave open: those that secrets are read from.
    ///
    /// Call once, first thing, while there is one thread: descriptors are closed whoever uses them.
    pub fn apply(keep: &[RawFd]) -> Result<Self, HardenError> {
        let step = |step| move |errno: rustix::io::Errno| HardenError { step, kind: errno.kind() };
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(step("forbid core files"))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("become undumpable"))?;
        rustix::thread::set_no_new_privs(true).map_err(step("give up new privileges"))?;
        umask(Mode::RWXG | Mode::RWXO);
        let closed_descriptors = close_inherited(keep)
            .map_err(|error| HardenError { step: "close inherited descriptors", kind: error.kind() })?;
        Ok(Self { dumpable: false, no_new_privileges: true, closed_descriptors, lockable_bytes: raise_lock_limit() })
    }
}

/// Secret pages count against this limit. Without effect where the limit is already the highest allowed.
fn raise_lock_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Memlock, raised).is_ok() { limit.maximum } else { limit.current }
}

/// The environment holds a switch that must not decide what is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {0} is set")]
pub struct ForbiddenVariable(pub String);

impl ForbiddenVariable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Unset it: Claviger takes its settings from claviger.toml only, and its safety rules from nowhere (P3)."
    }
}

/// Prefixes of the switches of other signers, which an operator may believe to be in force.
const FORBIDDEN_PREFIXES: [&str; 2] = ["VLS_", "REMOTE_SIGNER_"];

/// Refuses an environment with a variable of a forbidden prefix, whatever its value. Give it `std::env::vars_os()`'s names.
pub fn refuse_environment(names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), ForbiddenVariable> {
    let forbidden = |name: &str| FORBIDDEN_PREFIXES.iter().any(|prefix| name.to_ascii_uppercase().starts_with(prefix));
    names
        .into_iter()
        .map(|name| name.as_ref().to_string_lossy().into_owned())
        .find(|name| forbidden(name))
        .map_or(Ok(()), |name| Err(ForbiddenVariable(name)))
}

/// The binary was built with `--cfg fuzzing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this build is for fuzzing: the state machine in it verifies no signatures")]
pub struct FuzzingBuild;

impl FuzzingBuild {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Build without `--cfg fuzzing` in RUSTFLAGS."
    }
}

/// Refuses a build that leaves out what a signer cannot do without (P3).
pub fn refuse_build() -> Result<(), FuzzingBuild> {
    if cfg!(fuzzing) { Err(FuzzingBuild) } else { Ok(()) }
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
        assert_eq!((memlock.current, memlock.current), (memlock.maximum, report.lockable_bytes));

        // What a hardened process still must be able to do: read its passphrase by descriptor.
        let (reader, mut writer) = io::pipe().expect("pipe");
        io::Write::write_all(&mut writer, b"passphrase\n").expect("write");
        drop(writer);
        let passphrase = crate::keys::passphrase::Source::Descriptor(reader.as_raw_fd()).read().expect("read");
        assert_eq!(passphrase.expose(<[u8]>::to_vec), b"passphrase");
    }

    #[test]
    fn a_build_for_fuzzing_does_not_run() {
        assert_eq!(refuse_build().is_err(), cfg!(fuzzing));
    }

    #[test]
    fn switches_of_other_signers_are_refused_by_name() {
        for name in ["VLS_PERMISSIVE", "VLS_X", "REMOTE_SIGNER_ALLOWLIST"] {
            assert_eq!(refuse_environment(["PATH", name]), Err(ForbiddenVariable(name.to_owned())));
        }
        assert_eq!(refuse_environment(["PATH", "MY_VLS_NOTES", "VLSX", "REMOTE_SIGNER"]), Ok(()));
    }
}
