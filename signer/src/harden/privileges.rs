//! Who the signer runs as: never root, unless it is told to, and without privileges.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Gid, Resource, Uid, geteuid, getrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::HardenError;

/// Nobody said that the signer may run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signer would run as root")]
pub struct AsRoot;

impl AsRoot {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        "Give the data directory to a user of its own (chown -R claviger: DIR): started by root, the signer becomes that user. Or set signer.allow_root = true in claviger.toml."
    }
}

/// Started by root, becomes the user and group that `data_dir` belongs to. Call it while there is one thread.
pub fn become_owner(data_dir: &Path) -> Result<(), HardenError> {
    let Ok(owner) = fs::metadata(data_dir) else { return Ok(()) }; // what opens it says what is wrong
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user))
        .map_err(|errno| HardenError { step: "become the owner of the data directory", kind: errno.kind() })
}

/// Refuses to go on as root unless it is `allowed`.
pub fn refuse_root(allowed: bool) -> Result<(), AsRoot> {
    if geteuid().is_root() && !allowed { Err(AsRoot) } else { Ok(()) }
}

/// Whether this thread may lock memory beyond the limit.
pub(super) fn locks_without_limit() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Gives up every capability, for this thread and those that it starts, but those that stand in for a limit that cannot be raised:
/// to lock memory (secrets in memory that is swapped would be the worse choice), and to take turns at once ([`crate::turns`]).
/// Neither is good for anything else that a signer has.
pub(super) fn give_up() -> io::Result<()> {
    let mut kept = CapabilitySet::empty();
    if getrlimit(Resource::Memlock).current.is_some() {
        kept |= CapabilitySet::IPC_LOCK;
    }
    if getrlimit(Resource::Rtprio).current.is_some_and(|limit| limit < crate::turns::PRIORITIES) {
        kept |= CapabilitySet::SYS_NICE;
    }
    kept &= capabilities(None)?.effective;
    if capabilities(None)?.permitted == kept {
        return Ok(()); // a service manager's sandbox may refuse what follows
    }
    for capability in CapabilitySet::all() - kept {
        let _ = remove_capability_from_bounding_set(capability); // needs one itself; without it nothing is gained either
    }
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use super::*;
    use crate::harden::tests::in_own_process;

    #[test]
    fn root_is_refused_unless_it_is_allowed() {
        assert_eq!(refuse_root(true), Ok(()));
        assert_eq!(refuse_root(false).is_err(), geteuid().is_root());
    }

    #[test]
    fn root_becomes_the_owner_of_the_data_directory_without_a_way_back() {
        in_own_process("harden::privileges::tests::child_becomes_somebody");
    }

    #[test]
    #[ignore = "run in its own process by the test above"]
    fn child_becomes_somebody() {
        if !geteuid().is_root() {
            eprintln!("not root: nobody to become");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        become_owner(dir.path()).unwrap();
        assert!(geteuid().is_root(), "root's directory");

        std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_346)).unwrap();
        become_owner(dir.path()).unwrap();
        give_up().unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        for line in
            ["Uid:\t12345\t12345\t12345\t12345", "Gid:\t12346\t12346\t12346\t12346", "CapPrm:\t0000000000000000"]
        {
            assert!(status.contains(line), "{line}: {status}");
        }
        assert!(set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_err(), "no way back");
        assert_eq!(refuse_root(false), Ok(()));
    }
}
