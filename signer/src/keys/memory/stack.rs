//! Stacks and keys: ciphers and hashes leave key schedules and key copies in frames, those that are gone included.
//!
//! Frames that are gone are overwritten; and while the secret heap is on, the threads that see keys have stacks of secret
//! pages, so that what is in use is not to be seen either.
#![allow(unsafe_code)] // exchanges the pages of a stack; see `memory`

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{NonNull, null_mut};
use std::thread::JoinHandle;

use rustix::param::page_size;

use super::heap::is_on;
use super::pages::{fill_ordinary, fill_secret};

/// Deeper than any cipher, hash or key derivation used here goes, unoptimised builds included.
const DEPTH: usize = 48 * 1024;

/// Runs `work` in a frame of its own and overwrites the stack it used. Costs about a microsecond, and the processor's nearest
/// cache.
pub fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    let result = in_own_frame(work);
    if !TOGETHER.get() {
        scrub_stack();
    }
    result
}

thread_local! {
    /// Whoever called [`scrubbed_together`] scrubs.
    static TOGETHER: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, within which all that is [`scrubbed`] is so at the end, at once. For many small things on end, from a frame
/// not far above theirs.
pub fn scrubbed_together<R>(work: impl FnOnce() -> R) -> R {
    struct End(bool);
    impl Drop for End {
        fn drop(&mut self) {
            TOGETHER.set(self.0);
            scrub_stack();
        }
    }
    let _end = End(TOGETHER.replace(true));
    in_own_frame(work)
}

/// Not inlined: else the locals of `work` would live in the caller's frame, above what `scrub_stack` reaches.
#[inline(never)]
fn in_own_frame<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Overwrites the next 48 KiB of the calling thread's unused stack with zeros.
#[inline(never)]
pub fn scrub_stack() {
    black_box(&mut [0u8; DEPTH]);
}

/// Between the frames that a thread begins with and its secret pages: room for what puts them there, and for a signal.
const GAP: usize = 32 << 10;

/// Starts a thread for work that sees keys: its stack is secret while the secret heap is on. Like `std::thread::Builder`.
pub fn spawn<R: Send + 'static>(name: &str, work: impl FnOnce() -> R + Send + 'static) -> io::Result<JoinHandle<R>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || lined(work))
}

/// Runs `work` on a thread as [`spawn`] starts, and waits for it. Panics go on to the caller.
pub fn on_secret_stack<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(|| lined(work)).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `work` on the calling thread's own stack, of which what lies below is secret pages meanwhile, if they are to be had.
/// The stack stays where its libraries believe it to be: some ask how much of it is left.
fn lined<R>(work: impl FnOnce() -> R) -> R {
    let lining = is_on().then(Lining::put).flatten();
    let outcome = catch_unwind(AssertUnwindSafe(|| below_the_gap(work)));
    drop(lining);
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

#[inline(never)]
fn below_the_gap<R>(work: impl FnOnce() -> R) -> R {
    let mut gap = [0u8; 2 * GAP];
    black_box(&mut gap);
    let result = in_own_frame(work);
    black_box(&mut gap);
    result
}

/// Secret pages in place of the unused part of a thread's stack.
struct Lining {
    at: NonNull<u8>,
    len: usize,
}

impl Lining {
    /// The caller's frame is the last one that stays where it is.
    #[inline(never)]
    fn put() -> Option<Self> {
        let page = page_size();
        let here = (&raw const page).addr();
        let lowest = lowest_of_stack()?;
        let at = lowest.next_multiple_of(page);
        let end = here.checked_sub(GAP)? / page * page;
        let len = end.checked_sub(at)?;
        let at = NonNull::new(std::ptr::with_exposed_provenance_mut(at))?;
        // SAFETY: the thread's own stack, from its guard to well below the frame that is at work: nothing is there yet.
        unsafe {
            if fill_secret(at, len).is_some() {
                return Some(Self { at, len });
            }
            // The attempt may have left a hole, and nothing could run on.
            fill_ordinary(at, len).unwrap_or_else(|| std::process::abort());
        }
        None
    }
}

impl Drop for Lining {
    fn drop(&mut self) {
        // SAFETY: as in `put`; what ran there has returned. The kernel clears secret pages when they go. If they cannot be
        // replaced they stay, as good a stack as any.
        let _ = unsafe { fill_ordinary(self.at, self.len) };
    }
}

/// The lowest address of the calling thread's stack that is no guard.
fn lowest_of_stack() -> Option<usize> {
    let mut attributes = MaybeUninit::uninit();
    let (mut lowest, mut len, mut guard) = (null_mut(), 0, 0);
    // SAFETY: the first call fills the attributes, the others read them; the last gives back what the first took.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let attributes = attributes.as_mut_ptr();
        let read = libc::pthread_attr_getstack(attributes, &raw mut lowest, &raw mut len)
            | libc::pthread_attr_getguardsize(attributes, &raw mut guard);
        libc::pthread_attr_destroy(attributes);
        // Libraries differ in whether the guard is part of the stack: one page too few hurts nobody.
        (read == 0 && !lowest.is_null()).then(|| lowest.addr() + guard)
    }
}
