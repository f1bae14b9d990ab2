//! Which system calls stay (seccomp): those that a signer makes once it runs. Any other fails as on a kernel that does not have it,
//! so that libraries fall back as they do on old kernels. It starts no program and no process, traces nobody, changes no user,
//! makes no memory executable that is writable, and cannot become dumpable again.

use std::collections::BTreeMap;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::Enforced;

/// Calls that stay whatever their arguments.
#[rustfmt::skip]
const CALLS: &[c_long] = &[
    // Files.
    SYS_openat, SYS_openat2, SYS_close, SYS_close_range, SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64,
    SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs,
    SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd, SYS_ftruncate, SYS_fallocate, SYS_fadvise64,
    SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_renameat, SYS_renameat2, SYS_linkat, SYS_unlinkat, SYS_mkdirat, SYS_fchmod,
    SYS_fchmodat, SYS_utimensat, SYS_flock, SYS_fcntl, SYS_dup, SYS_dup3, SYS_pipe2, SYS_umask, SYS_copy_file_range,
    // Waiting.
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_ppoll, SYS_pselect6, SYS_eventfd2,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_nanosleep, SYS_clock_nanosleep, SYS_restart_syscall,
    // Sockets that are there.
    SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname, SYS_getpeername, SYS_setsockopt, SYS_getsockopt,
    SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown,
    // Memory.
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_memfd_secret, SYS_membarrier, SYS_mincore,
    // Threads, signals, time.
    SYS_futex, SYS_futex_waitv, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address, SYS_sched_yield,
    SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_getattr, SYS_sched_setattr, SYS_gettid, SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid,
    SYS_getgid, SYS_getegid, SYS_sigaltstack, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait,
    SYS_tgkill, SYS_exit, SYS_exit_group, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getrandom, SYS_uname,
    SYS_sysinfo, SYS_getrusage, SYS_times, SYS_capget,
];

/// The same, where the processor's kernel still has them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD_CALLS: &[c_long] = &[
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_rename, SYS_link, SYS_unlink, SYS_mkdir, SYS_chmod, SYS_dup2,
    SYS_pipe, SYS_poll, SYS_select, SYS_epoll_wait, SYS_eventfd, SYS_time, SYS_arch_prctl, SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[c_long] = &[];

/// What `prctl` may still be asked: names of threads and memory, and how things stand.
const PRCTL: [c_int; 7] =
    [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP, PR_CAPBSET_READ];

/// What devices and sockets may be asked: how much is there, whether to wait, whether this is a terminal. Not to type into one.
const IOCTL: [c_ulong; 5] = [FIONREAD, FIONBIO, FIOCLEX, TCGETS, TIOCGWINSZ];

/// Names are resolved over netlink, too. No way to other services on this machine: the administration socket is there already.
const FAMILIES: [c_int; 3] = [AF_INET, AF_INET6, AF_NETLINK];

/// Holds all threads of this process, and those to come, to the calls above.
pub(super) fn confine() -> Enforced {
    let applied = filter().and_then(|filter| seccompiler::apply_filter_all_threads(&filter));
    match applied {
        Ok(()) => Enforced::Whole,
        Err(error) => Enforced::No(error.to_string()),
    }
}

fn filter() -> seccompiler::Result<BpfProgram> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        CALLS.iter().chain(OLD_CALLS).map(|call| (*call, Vec::new())).collect();
    let bit = |argument, bits: c_int| when(argument, SeccompCmpOp::MaskedEq(bits as u64), bits as u64);
    let no_bit = |argument, bits: c_int| when(argument, SeccompCmpOp::MaskedEq(bits as u64), 0);
    let equal = |argument, value: c_int| when(argument, SeccompCmpOp::Eq, value as u64);
    // A thread, never a process. `clone3` has its flags where no filter sees them; libraries go on with `clone`.
    rules.insert(SYS_clone, vec![bit(0, CLONE_THREAD)?]);
    rules.insert(SYS_mmap, vec![no_bit(2, PROT_EXEC)?, no_bit(2, PROT_WRITE)?]);
    rules.insert(SYS_mprotect, vec![no_bit(2, PROT_EXEC)?]);
    rules.insert(SYS_socket, FAMILIES.into_iter().map(|family| equal(0, family)).collect::<Result<_, _>>()?);
    let asked = |request: c_ulong| when(1, SeccompCmpOp::Eq, u64::from(request as u32));
    rules.insert(SYS_ioctl, IOCTL.into_iter().map(asked).collect::<Result<_, _>>()?);
    rules.insert(SYS_socketpair, vec![equal(0, AF_UNIX)?]);
    rules.insert(SYS_prctl, PRCTL.into_iter().map(|option| equal(0, option)).collect::<Result<_, _>>()?);
    // Limits are read, not set: the new one is nowhere.
    let nowhere = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(SYS_prlimit64, vec![SeccompRule::new(vec![nowhere])?]);

    let arch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(ENOSYS as u32);
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?)
}

/// A call passes when its `argument` is so.
fn when(argument: u8, op: SeccompCmpOp, value: u64) -> seccompiler::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use std::io::{Error, ErrorKind};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType};

    use super::*;
    use crate::harden::tests::in_own_process;
    use crate::keys::memory::code_can_be_written;

    #[test]
    fn what_a_signer_never_asks_of_the_kernel_is_refused_and_what_it_does_is_not() {
        in_own_process("harden::seccomp::tests::child_is_confined");
    }

    #[test]
    #[ignore = "run in its own process by the test above"]
    fn child_is_confined() {
        let before = std::thread::spawn(|| {
            std::thread::park();
            std::process::Command::new("/bin/true").status().map(drop)
        });
        assert_eq!(confine(), Enforced::Whole);

        // A program, also from a thread that was there before.
        let started = std::process::Command::new("/bin/true").status().map(drop);
        before.thread().unpark();
        for refused in [started, before.join().unwrap()] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(ENOSYS));
        }
        let refused = |what: &str, errno: Result<(), Errno>| assert_eq!(errno, Err(Errno::NOSYS), "{what}");
        let dumpable = rustix::process::DumpableBehavior::Dumpable;
        refused("becoming dumpable", rustix::process::set_dumpable_behavior(dumpable));
        refused("another user", rustix::thread::set_thread_uid(rustix::process::Uid::ROOT));
        refused("packets", rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop));
        refused("typing", rustix::termios::tcflush(std::io::stdin(), rustix::termios::QueueSelector::IFlush));
        refused("a signal to others", rustix::process::test_kill_process(rustix::process::getpid()));
        refused("another root", rustix::process::chroot("/"));
        refused(
            "a limit",
            rustix::process::setrlimit(
                rustix::process::Resource::Nofile,
                rustix::process::getrlimit(rustix::process::Resource::Nofile),
            ),
        );
        assert!(!code_can_be_written(), "memory that is writable and executable");

        // What a signer lives on.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"x").unwrap();
        std::fs::rename(file.path(), file.path().with_extension("moved")).unwrap();
        let service = UnixStream::connect(file.path()).unwrap_err();
        assert_eq!(service.raw_os_error(), Some(ENOSYS), "another service");
        UnixStream::pair().unwrap();
        let gone: Error = std::fs::read(file.path()).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        std::fs::remove_file(file.path().with_extension("moved")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
        assert!(std::thread::available_parallelism().unwrap().get() > 0);
        assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
    }
}
