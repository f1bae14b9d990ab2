//! The environment and build that the signer refuses to run in (P3).

use std::ffi::OsStr;

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
mod tests {
    use super::*;

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
