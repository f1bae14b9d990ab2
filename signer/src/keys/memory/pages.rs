//! Mappings of `memfd_secret`: pages that the kernel takes out of its own map, so that not even root reads them through
//! `/proc/PID/mem`; they are never swapped or dumped, and count against the lock limit.
#![allow(unsafe_code)] // maps pages; see `memory`

use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// `len` bytes of address space, of which nothing can be touched yet.
pub(super) fn reserve(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let space = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) };
    NonNull::new(space.ok()?.cast())
}

/// Maps `len` zero bytes of secret pages at an address of the kernel's choice.
pub(super) fn map_secret(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: nothing is replaced.
    unsafe { map_secret_at(null_mut(), len, MapFlags::SHARED) }
}

/// Maps `len` zero bytes of secret pages over pages that are the caller's.
///
/// # Safety
///
/// `at` to `at + len` is mapped, page by page, and nobody uses it.
pub(super) unsafe fn fill_secret(at: NonNull<u8>, len: usize) -> Option<NonNull<u8>> {
    // SAFETY: by this function's contract.
    unsafe { map_secret_at(at.as_ptr(), len, MapFlags::SHARED | MapFlags::FIXED) }
}

/// Maps `len` zero bytes of ordinary memory over pages that are the caller's.
///
/// # Safety
///
/// As for [`fill_secret`].
pub(super) unsafe fn fill_ordinary(at: NonNull<u8>, len: usize) -> Option<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: by this function's contract.
    let pages = unsafe { mmap_anonymous(at.as_ptr().cast(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
    NonNull::new(pages.ok()?.cast())
}

/// # Safety
///
/// With `MapFlags::FIXED`, `at` to `at + len` is replaced: the caller owns it, and nobody uses it.
unsafe fn map_secret_at(at: *mut u8, len: usize, flags: MapFlags) -> Option<NonNull<u8>> {
    // SAFETY: the call takes one integer and returns a new descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = i32::try_from(raw).ok().filter(|fd| *fd >= 0)?;
    // Closed on return: while it is open, root may copy the descriptor and map the pages elsewhere.
    // SAFETY: the kernel just made this descriptor for us alone.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::fs::ftruncate(&file, len as u64).ok()?;
    // SAFETY: by this function's contract.
    let pages = unsafe { mmap(at.cast(), len, ProtFlags::READ | ProtFlags::WRITE, flags, &file, 0) };
    NonNull::new(pages.ok()?.cast())
}

/// Gives a mapping back.
///
/// # Safety
///
/// `at` to `at + len` was mapped here, and nobody uses it any more.
pub(super) unsafe fn unmap(at: NonNull<u8>, len: usize) {
    // SAFETY: by this function's contract. What cannot be unmapped stays, as zeros or secret.
    let _ = unsafe { munmap(at.as_ptr().cast(), len) };
}

/// Whether the kernel gives memory that is writable and executable at once.
#[cfg(test)]
pub(crate) fn code_can_be_written() -> bool {
    let all = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    // SAFETY: a new mapping, which nobody uses; it stays until the process ends.
    unsafe { mmap_anonymous(null_mut(), 4096, all, MapFlags::PRIVATE) }.is_ok()
}
