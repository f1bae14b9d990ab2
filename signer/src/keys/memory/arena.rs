//! Secret pages and the slots cut from them.
//!
//! Pages come from `memfd_secret` (see `pages`). Where the kernel has none, pages are locked and left out of core files.
//! Pages are kept for the life of the process; a slot is zero whenever nobody holds it.
#![allow(unsafe_code)] // maps pages and hands out disjoint slices of them; see `memory`

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};

use super::pages::map_secret;

/// How the pages that hold secrets are protected, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// `memfd_secret`: unreadable to every other process, root included; never swapped, never dumped.
    MemfdSecret,
    /// Locked and left out of core files; root can read it.
    Locked,
    /// Left out of core files, but may be swapped: the lock limit is too low.
    Unlocked,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Locked => "locked (the kernel has no memfd_secret, or the lock limit is too low for it)",
            Self::Unlocked => "not locked: raise the memory lock limit (LimitMEMLOCK=)",
        })
    }
}

/// The weakest protection of any secret page in use: what `status` reports. Maps the first pages if none are.
pub fn protection() -> Protection {
    let mut arena = lock_arena();
    if arena.chunks.is_empty() {
        arena.chunks.push(Chunk::map());
    }
    arena.chunks.iter().map(|chunk| chunk.protection).max().unwrap_or(Protection::Unlocked)
}

/// Bytes mapped at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// A slot is a whole number of these, so two secrets never share a cache line.
const GRAIN: usize = 64;

static ARENA: Mutex<Arena> = Mutex::new(Arena { chunks: Vec::new() });

fn lock_arena() -> std::sync::MutexGuard<'static, Arena> {
    // Nothing that could panic runs while a bitmap is half changed, so a poisoned lock still guards sound data.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Arena {
    chunks: Vec<Chunk>,
}

/// One mapping and which of its grains are taken.
struct Chunk {
    base: NonNull<u8>,
    taken: [bool; CHUNK / GRAIN],
    protection: Protection,
}

// SAFETY: a chunk owns its mapping; `base` is only an address, used under the arena's lock.
unsafe impl Send for Chunk {}

/// `len` bytes of secret memory, zero when taken and wiped when dropped. Exclusively owned, like a `Box<[u8]>`.
pub(super) struct Slot {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a slot owns its bytes exclusively; shared access is read-only through `&self`.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    /// Takes `len` zero bytes; `len` is at most `CHUNK`. Aborts like any allocation when there is no memory at all.
    pub(super) fn take(len: usize) -> Self {
        assert!(len <= CHUNK, "a secret fits into one chunk");
        let mut arena = lock_arena();
        let start = arena.chunks.iter_mut().find_map(|chunk| chunk.take(len)).unwrap_or_else(|| {
            let mut fresh = Chunk::map();
            let start = fresh.take(len);
            arena.chunks.push(fresh);
            start.unwrap_or_else(|| unreachable!("an empty chunk has room for {len} bytes"))
        });
        Self { start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes (mappings start as zeros) that this slot owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(self.bytes_mut());
        lock_arena().chunks.iter_mut().for_each(|chunk| chunk.give_back(self.start, self.len));
    }
}

impl Chunk {
    fn take(&mut self, len: usize) -> Option<NonNull<u8>> {
        let grains = len.div_ceil(GRAIN);
        let first = self.taken.windows(grains.max(1)).position(|run| run.iter().all(|taken| !taken))?;
        self.taken[first..first + grains].fill(true);
        // SAFETY: `first` grains into the mapping is inside it.
        Some(unsafe { self.base.add(first * GRAIN) })
    }

    /// Frees the grains of `start`, if it is in this chunk.
    fn give_back(&mut self, start: NonNull<u8>, len: usize) {
        let offset = start.as_ptr().addr().wrapping_sub(self.base.as_ptr().addr());
        if offset < CHUNK {
            let first = offset / GRAIN;
            self.taken[first..first + len.div_ceil(GRAIN)].fill(false);
        }
    }

    /// Maps a chunk with the best protection to be had.
    fn map() -> Self {
        let (base, protection) = map_secret(CHUNK)
            .map(|base| (base, Protection::MemfdSecret))
            .or_else(map_anonymous)
            .unwrap_or_else(|| handle_alloc_error(Layout::new::<[u8; CHUNK]>()));
        Self { base, taken: [false; CHUNK / GRAIN], protection }
    }
}

fn map_anonymous() -> Option<(NonNull<u8>, Protection)> {
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let page = unsafe {
        mmap_anonymous(std::ptr::null_mut(), CHUNK, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).ok()?
    };
    // SAFETY: all three act on exactly the mapping made above, whose bytes are zero and not yet used.
    let locked = unsafe {
        let _ = madvise(page, CHUNK, Advice::LinuxDontDump);
        let _ = madvise(page, CHUNK, Advice::LinuxWipeOnFork);
        mlock(page, CHUNK).is_ok()
    };
    Some((NonNull::new(page.cast())?, if locked { Protection::Locked } else { Protection::Unlocked }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_disjoint_zeroed_and_reused() {
        let mut chunk = Chunk::map();
        let first = chunk.take(65).expect("room");
        let second = chunk.take(1).expect("room");
        assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), 2 * GRAIN);
        chunk.give_back(first, 65);
        assert_eq!(chunk.take(128), Some(first));
        assert_eq!(chunk.take(CHUNK), None);
    }

    #[test]
    fn a_dropped_slot_is_zero() {
        let mut slot = Slot::take(200);
        slot.bytes_mut().fill(7);
        let start = slot.start;
        drop(slot);
        // SAFETY: the page stays mapped for the life of the process; another test may hold the slot, but writes 7s never.
        let after = unsafe { std::slice::from_raw_parts(start.as_ptr(), 200) };
        assert!(after.iter().all(|byte| *byte != 7));
    }

    #[test]
    fn pages_without_memfd_secret_are_locked_and_usable() {
        let (base, protection) = map_anonymous().expect("memory");
        assert!(protection >= Protection::Locked);
        // SAFETY: mapped above, `CHUNK` bytes long.
        unsafe { base.as_ptr().write(1) };
    }
}
