//! How long this process runs when its turn comes. Here, because it takes unsafe code and all unsafe code is in this room.
#![allow(unsafe_code)] // two system calls without a wrapper; see `memory`

use std::io;
use std::mem::{size_of, zeroed};

/// As short as the kernel lets a turn be.
const TURN_NS: u64 = 100_000;

/// Asks the scheduler for short turns, for this thread and those that it starts from now on.
///
/// An answer goes from thread to thread and waits for a flush, and none of them works for long. Who asks for short turns
/// gets them early: on a busy processor a thread that wakes would otherwise wait until whoever runs has had its own,
/// milliseconds each time. No more of the processor is taken. Linux 6.12 or newer; older ones know no such wish, and
/// some refuse it.
pub fn take_short_turns() -> io::Result<()> {
    // SAFETY: integers only, for which zero is a value.
    let mut turns: libc::sched_attr = unsafe { zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into what is that large; 0 is the calling thread.
    outcome(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut turns, size, 0) })?;
    if !matches!(turns.sched_policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return Ok(()); // whoever started it has chosen otherwise
    }
    turns.sched_runtime = TURN_NS;
    // SAFETY: the kernel reads `turns.size` bytes, which it has set to no more than it wrote.
    outcome(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const turns, 0) })
}

fn outcome(returned: libc::c_long) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_short_turns_after_one_of_them_asked_for_them() {
        let thread = std::thread::spawn(|| {
            take_short_turns().expect("every thread may");
            let inherits = std::thread::spawn(turn_ns).join().expect("no panic");
            (turn_ns(), inherits)
        });
        let (own, inherited) = thread.join().expect("no panic");
        assert_eq!(own, inherited);
        // Kernels that know of such turns tell them.
        assert!(own == TURN_NS || own == 0, "{own}");
    }

    fn turn_ns() -> u64 {
        // SAFETY: as above.
        let mut turns: libc::sched_attr = unsafe { zeroed() };
        let size = size_of::<libc::sched_attr>() as u32;
        // SAFETY: as above.
        outcome(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut turns, size, 0) }).expect("always told");
        turns.sched_runtime
    }
}
