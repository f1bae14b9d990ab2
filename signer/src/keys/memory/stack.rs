//! Wiping the stack: ciphers and hashes leave key schedules and key copies in frames that are gone but not erased.

use std::hint::black_box;

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
