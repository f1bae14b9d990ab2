//! A heap that forgets: every block is overwritten with zeros before it is given back. Blocks come from secret pages when
//! the secret heap is on, else from the system.
#![allow(unsafe_code)] // an allocator speaks in raw pointers; see `memory`

use std::alloc::{GlobalAlloc, Layout, System};

use super::heap;

/// The allocator of the daemon (`#[global_allocator]`): wipes what is freed.
///
/// `realloc` is deliberately the trait's own (new block, copy, `dealloc` of the old one): the system's would leave the
/// old block's bytes behind whenever it moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiping;

// SAFETY: blocks come from the secret heap or `System`, and go back to where they came from, with the layout the caller
// vouches for.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = heap::alloc(layout);
        if !block.is_null() {
            return block;
        }
        // SAFETY: the caller's duty, passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = heap::alloc(layout);
        if !block.is_null() {
            // SAFETY: a fresh block of that size; what was freed before is zero but for the allocator's own links.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        // SAFETY: the caller's duty, passed on unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller hands over a live block of `layout.size()` bytes. `explicit_bzero` is never optimised
        // away, which a plain write before a free would be.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            if !heap::dealloc(block, layout) {
                System.dealloc(block, layout);
            }
        }
    }
}
