//! A heap that forgets: every block is overwritten with zeros before it is given back.
#![allow(unsafe_code)] // an allocator speaks in raw pointers; see `memory`

use std::alloc::{GlobalAlloc, Layout, System};

/// The system allocator, wiping what is freed. For the daemon's `#[global_allocator]`.
///
/// `realloc` is deliberately the trait's own (new block, copy, `dealloc` of the old one): the system's would leave the
/// old block's bytes behind whenever it moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiping;

// SAFETY: blocks come from and go back to `System` with the layout the caller vouches for.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duty, passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duty, passed on unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller hands over a live block of `layout.size()` bytes. `explicit_bzero` is never optimised
        // away, which a plain write before a free would be.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }
}
