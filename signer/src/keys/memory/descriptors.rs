//! Descriptors that are known by their number only: closing what was inherited, reading what was passed. Here, because it
//! takes unsafe code and all unsafe code is in this room.
#![allow(unsafe_code)] // a descriptor known only by its number has no owner to drop; see `memory`

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Closes everything above standard error that `keep` does not list, and returns what was open.
///
/// For the start of `main` only, while nothing in this process owns a descriptor above 2.
pub(crate) fn close_inherited(keep: &[RawFd]) -> io::Result<Vec<RawFd>> {
    let mut listing = std::fs::read_dir("/proc/self/fd")?;
    let listed = listing.by_ref().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let inherited: Vec<RawFd> = listed.filter(|fd| *fd > 2 && !keep.contains(fd)).collect();
    drop(listing); // its own descriptor is in the list, and closed now
    Ok(inherited
        .into_iter()
        .filter(|fd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok())
        .inspect(|fd| {
            // SAFETY: open, by the check just made, and owned by nobody, by this function's contract.
            drop(unsafe { OwnedFd::from_raw_fd(*fd) });
        })
        .collect())
}

/// A descriptor of its own for what number `fd` stands for, if that is open: the same pipe or socket, the same place in the
/// same file, without a further look at permissions.
pub(crate) fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: takes integers and returns a new descriptor or -1, whatever the number.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the kernel just made this descriptor for us alone.
    (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
}
