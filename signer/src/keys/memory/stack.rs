//! Stacks and keys: ciphers and hashes leave key schedules and key copies in frames, those that are gone included.
//!
//! Frames that are gone are overwritten; and while the secret heap is on, the threads that see keys have stacks of secret
//! pages, so that what is in use is not to be seen either.
#![allow(unsafe_code)] // switches to a stack of our own; see `memory`

use std::hint::black_box;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::thread::JoinHandle;

use super::heap::is_on;
use super::pages::{fill_reserved, reserve, unmap};

/// Deeper than any cipher, hash or key derivation used here goes, unoptimised builds included.
const DEPTH: usize = 48 * 1024;

/// Runs `work` in a frame of its own and overwrites the stack it used. Costs about a microsecond.
pub fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    let result = in_own_frame(work);
    scrub_stack();
    result
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

/// As much as a thread of the standard library gets.
const STACK: usize = 2 << 20;
/// Below each stack, untouchable: what outgrows it ends the process instead of writing elsewhere.
const GUARD: usize = 64 << 10;

/// Starts a thread for work that sees keys: its stack is secret while the secret heap is on. Like `std::thread::Builder`.
pub fn spawn<R: Send + 'static>(name: &str, work: impl FnOnce() -> R + Send + 'static) -> io::Result<JoinHandle<R>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || on_secret_stack(work))
}

/// Runs `work` on a secret stack of its own while the secret heap is on and there are pages for it; else where it is
/// called. Panics go on to the caller.
pub fn on_secret_stack<R>(work: impl FnOnce() -> R) -> R {
    let Some(stack) = is_on().then(SecretStack::map).flatten() else { return work() };
    let work = AssertUnwindSafe(work);
    // SAFETY: the stack is mapped, page-aligned, guarded below and ours until after the call; no panic leaves the closure.
    let outcome = unsafe { psm::on_stack(stack.bottom(), STACK, || catch_unwind(work)) };
    drop(stack);
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// The guard and, above it, the stack.
struct SecretStack(NonNull<u8>);

impl SecretStack {
    fn map() -> Option<Self> {
        let stack = Self(reserve(GUARD + STACK)?);
        // SAFETY: reserved just now, the upper part of it, and nobody else knows of it.
        unsafe { fill_reserved(NonNull::new(stack.bottom())?, STACK) }?;
        Some(stack)
    }

    fn bottom(&self) -> *mut u8 {
        // SAFETY: within the reservation.
        unsafe { self.0.as_ptr().add(GUARD) }
    }
}

impl Drop for SecretStack {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`; whoever ran on it has returned. The kernel clears secret pages when they go.
        unsafe { unmap(self.0, GUARD + STACK) };
    }
}
