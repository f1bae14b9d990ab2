//! The secret heap: once it is on, whatever the process allocates comes from pages that not even root can read (P8).
//!
//! The state machine keeps key material in ordinary `Vec`s and `Box`es, which no type of ours can reach; so the heap as a
//! whole moves. One stretch of address space is reserved and cut into shards, each with an allocator and a lock of its
//! own, so that signing threads do not wait for each other; an address tells whose block it is. Pages are mapped as a
//! shard grows and kept. Where there are no more (kernel, lock limit), blocks come from the ordinary heap, and are counted.
#![allow(unsafe_code)] // an allocator speaks in raw pointers; see `memory`

use std::alloc::Layout;
use std::cell::Cell;
use std::fmt;
use std::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};

use super::pages::{fill_secret, map_secret, reserve, unmap};

/// Threads share shards; with as many as this, seldom at the same time.
const SHARDS: usize = 8;
/// Address space of a shard: more than it ever fills.
const SHARD_BYTES: usize = 16 << 30;
/// By how much a shard grows at least.
const GROWTH: usize = 1 << 20;

/// Where the reserved space begins; 0 before that.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// Whether new blocks come from secret pages.
static ON: AtomicBool = AtomicBool::new(false);
static INSIDE_BYTES: AtomicUsize = AtomicUsize::new(0);
static OUTSIDE_BLOCKS: AtomicUsize = AtomicUsize::new(0);

static SHARD: [Mutex<Dlmalloc<Pages>>; SHARDS] =
    [shard(0), shard(1), shard(2), shard(3), shard(4), shard(5), shard(6), shard(7)];

const fn shard(number: usize) -> Mutex<Dlmalloc<Pages>> {
    let mut heap = Dlmalloc::new_with_allocator(Pages { number, used: Cell::new(0) });
    assert!(heap.set_granularity(GROWTH));
    Mutex::new(heap)
}

/// How much of the heap is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapStatus {
    /// Whether the secret heap is on.
    pub on: bool,
    /// Bytes of secret pages it has taken.
    pub inside_bytes: usize,
    /// Blocks that were allocated elsewhere since it is on, for want of secret pages.
    pub outside_blocks: usize,
}

impl fmt::Display for HeapStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.on {
            return f.write_str("ordinary, readable to root");
        }
        write!(f, "secret, {} MiB", self.inside_bytes >> 20)?;
        match self.outside_blocks {
            0 => Ok(()),
            blocks => write!(f, "; {blocks} blocks found no room there: raise the memory lock limit (LimitMEMLOCK=)"),
        }
    }
}

/// What the heap is like now.
pub fn heap_status() -> HeapStatus {
    HeapStatus {
        on: is_on(),
        inside_bytes: INSIDE_BYTES.load(Ordering::Relaxed),
        outside_blocks: OUTSIDE_BLOCKS.load(Ordering::Relaxed),
    }
}

/// Whether `bytes` more of secret pages are to be had: the kernel has them, and the lock limit leaves room.
pub fn secret_room_for(bytes: usize) -> bool {
    map_secret(bytes).is_some_and(|probe| {
        // SAFETY: mapped just now, not touched, and nobody else knows of it.
        unsafe { unmap(probe, bytes) };
        true
    })
}

/// Turns the secret heap on: from now on blocks, and the stacks of threads that begin, are secret. False where there are
/// no secret pages; then nothing changes.
///
/// Blocks from before stay where they are: call it before there are secrets.
pub fn enclose_heap() -> bool {
    if !secret_room_for(SHARDS * GROWTH) {
        return false;
    }
    if BASE.load(Ordering::Acquire) == 0 {
        let Some(space) = reserve(SHARDS * SHARD_BYTES) else { return false };
        let raced =
            BASE.compare_exchange(0, space.as_ptr().expose_provenance(), Ordering::AcqRel, Ordering::Acquire).is_err();
        if raced {
            // SAFETY: reserved just now, and nobody else knows of it.
            unsafe { unmap(space, SHARDS * SHARD_BYTES) };
        }
    }
    ON.store(true, Ordering::Release);
    true
}

/// Turns it off: new blocks are ordinary ones again. For measuring what it costs.
pub fn open_heap() {
    ON.store(false, Ordering::Release);
}

pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A secret block; null if the heap is off, or there are no more secret pages.
pub(super) fn alloc(layout: Layout) -> *mut u8 {
    if !is_on() {
        return null_mut();
    }
    // SAFETY: a layout's alignment is a power of two; zero sizes are the caller's duty, as ever.
    let block = unsafe { lock(mine()).malloc(layout.size(), layout.align()) };
    if block.is_null() {
        OUTSIDE_BLOCKS.fetch_add(1, Ordering::Relaxed);
    }
    block
}

/// Takes back `block`, if it is one of ours.
///
/// # Safety
///
/// `block` is live, was allocated with `layout`, and is not used any more.
pub(super) unsafe fn dealloc(block: *mut u8, layout: Layout) -> bool {
    let base = BASE.load(Ordering::Relaxed);
    let offset = block.addr().wrapping_sub(base);
    if base == 0 || offset >= SHARDS * SHARD_BYTES {
        return false;
    }
    // SAFETY: by this function's contract; its address says that this shard made it.
    unsafe { lock(offset / SHARD_BYTES).free(block, layout.size(), layout.align()) };
    true
}

fn lock(shard: usize) -> MutexGuard<'static, Dlmalloc<Pages>> {
    // The allocator runs no code of others that could panic half-way.
    SHARD[shard].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads take the shards in turn.
fn mine() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        /// Neither allocates nor has a destructor: safe inside an allocator, to the end of the thread.
        static SHARD_OF_THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD_OF_THREAD.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// Where a shard's pages come from: its part of the reserved space, from the bottom up.
struct Pages {
    number: usize,
    used: Cell<usize>,
}

// SAFETY: `alloc` gives out fresh zeroed mappings, each once, and nothing is ever taken back.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        const NONE: (*mut u8, usize, u32) = (null_mut(), 0, 0);
        let used = self.used.get();
        if size > SHARD_BYTES - used {
            return NONE;
        }
        let at = BASE.load(Ordering::Acquire) + self.number * SHARD_BYTES + used;
        let Some(at) = NonNull::new(with_exposed_provenance_mut(at)) else { return NONE };
        // SAFETY: within the reserved space, above what this shard has used.
        let Some(pages) = (unsafe { fill_secret(at, size) }) else { return NONE };
        self.used.set(used + size);
        INSIDE_BYTES.fetch_add(size, Ordering::Relaxed);
        (pages.as_ptr(), size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}
