//! How soon this process runs when its turn comes. Here, because it takes unsafe code and all unsafe code is in this room.
#![allow(unsafe_code)] // three system calls without a wrapper; see `memory`

use std::io;
use std::mem::{size_of, zeroed};
use std::time::Duration;

use libc::{SCHED_BATCH, SCHED_OTHER, SCHED_RR};

/// As short as the kernel lets a turn be.
const TURN_NS: u64 = 100_000;
/// What a thread starts takes short turns, whatever its own are.
const RESET_ON_FORK: u64 = 0x01; // SCHED_FLAG_RESET_ON_FORK, sched(7)

/// How a thread takes its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Soon, and short ones: who asks for short turns gets them early, and no more of the processor. Linux 6.12 or newer;
    /// older ones know no such wish.
    Short,
    /// At once, before all that is not urgent; before others that come at once, if they have less of this. Takes a limit
    /// on real-time priorities of that (`LimitRTPRIO`) or CAP_SYS_NICE.
    AtOnce(u8),
}

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(libc::pid_t);

impl Thread {
    /// The calling one.
    pub fn this() -> Self {
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// How it takes its turns from now on. Changes nothing if whoever started the process has chosen otherwise.
    pub fn take(self, turns: Turns) -> io::Result<()> {
        let mut attributes = self.attributes()?;
        let ours = attributes.sched_policy as i32 == SCHED_RR && attributes.sched_flags & RESET_ON_FORK != 0;
        if !ours && !matches!(attributes.sched_policy as i32, SCHED_OTHER | SCHED_BATCH) {
            return Ok(());
        }
        match turns {
            Turns::Short => {
                attributes.sched_policy = SCHED_OTHER as u32;
                (attributes.sched_priority, attributes.sched_runtime) = (0, TURN_NS);
            }
            Turns::AtOnce(priority) => {
                attributes.sched_policy = SCHED_RR as u32;
                (attributes.sched_priority, attributes.sched_runtime) = (priority.into(), 0);
            }
        }
        attributes.sched_flags = if turns == Turns::Short { 0 } else { RESET_ON_FORK };
        // SAFETY: the kernel reads `attributes.size` bytes, which it has set to no more than it wrote.
        outcome(unsafe { libc::syscall(libc::SYS_sched_setattr, self.0, &raw const attributes, 0) })
    }

    /// The processor's time it has used.
    pub fn used(self) -> io::Result<Duration> {
        /// The clock of a thread's time on the processor: its number, inverted, above these bits (clock_getres(2)).
        const PER_THREAD: libc::clockid_t = 0b110;
        let clock = (!self.0 << 3) | PER_THREAD;
        // SAFETY: integers only, for which zero is a value.
        let mut time: libc::timespec = unsafe { zeroed() };
        // SAFETY: the kernel writes one timespec.
        outcome(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) })?;
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    fn attributes(self) -> io::Result<libc::sched_attr> {
        // SAFETY: integers only, for which zero is a value.
        let mut attributes: libc::sched_attr = unsafe { zeroed() };
        let size = size_of::<libc::sched_attr>() as u32;
        // SAFETY: the kernel writes at most `size` bytes into what is that large.
        outcome(unsafe { libc::syscall(libc::SYS_sched_getattr, self.0, &raw mut attributes, size, 0) })?;
        Ok(attributes)
    }
}

fn outcome(returned: libc::c_long) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread that takes `turns` and one that it starts come to: policy, priority and length of a turn.
    fn taken(turns: Turns) -> io::Result<[(i32, u32, u64); 2]> {
        let told = || {
            let attributes = Thread::this().attributes().expect("always told");
            (attributes.sched_policy as i32, attributes.sched_priority, attributes.sched_runtime)
        };
        let thread = std::thread::spawn(move || {
            Thread::this().take(turns)?;
            Ok([told(), std::thread::spawn(told).join().expect("no panic")])
        });
        thread.join().expect("no panic")
    }

    #[test]
    fn threads_take_short_turns_after_one_of_them_asked_for_them() {
        for (policy, priority, turn_ns) in taken(Turns::Short).expect("every thread may") {
            assert_eq!((policy, priority), (SCHED_OTHER, 0));
            assert!(turn_ns == TURN_NS || turn_ns == 0, "kernels that know of such turns tell them: {turn_ns}");
        }
    }

    #[test]
    fn a_thread_comes_at_once_where_it_may_and_what_it_starts_does_not() {
        match taken(Turns::AtOnce(1)) {
            Ok([own, started]) => {
                assert_eq!((own.0, own.1), (SCHED_RR, 1));
                assert_eq!((started.0, started.1), (SCHED_OTHER, 0));
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                eprintln!("not run: real-time priorities are not permitted here (ulimit -r)");
            }
        }
    }

    #[test]
    fn a_thread_that_came_at_once_goes_back_to_short_turns() {
        if Thread::this().take(Turns::AtOnce(1)).is_ok() {
            Thread::this().take(Turns::Short).expect("back is always permitted");
        }
        assert_eq!(Thread::this().attributes().expect("told").sched_policy as i32, SCHED_OTHER);
    }

    #[test]
    fn a_threads_time_is_its_own() {
        let before = Thread::this().used().expect("told");
        let begun = std::time::Instant::now();
        while Thread::this().used().expect("told") - before < Duration::from_millis(5) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the time does not pass");
        }
        let (other, idle) = std::thread::spawn(|| (Thread::this(), Thread::this().used())).join().expect("no panic");
        assert!(idle.expect("told") < Duration::from_millis(5));
        assert!(other.used().is_err(), "it is gone");
    }
}
