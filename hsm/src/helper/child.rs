//! One conversation with a child process: bounded in time and output, without this process's environment.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use super::HelperFailure;

/// The longest reply: a wrapped key of `MAX_WRAPPED` bytes in hex, with room around it.
const MAX_REPLY: usize = 20 * 1024;
/// What the child's environment is, whole.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs `command`, gives it `request` on stdin, and returns what it wrote to stdout until it ended with exit code 0.
/// Whatever happens, its process group is dead afterwards.
pub(super) fn converse(
    command: &[String],
    request: &[u8],
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, HelperFailure> {
    let (program, arguments) = command.split_first().ok_or(HelperFailure::BadCommand)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null()) // it may quote what it was given
        .spawn()
        .map_err(|error| HelperFailure::Start(error.kind()))?;
    let reply = exchange(&mut child, request, Deadline { at: Instant::now() + limit, limit });
    // Before it is reaped: until then the group's number is its own.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL); // it may be empty
    let status = child.wait().map_err(|error| HelperFailure::Start(error.kind()))?;
    let reply = reply?;
    if status.success() { Ok(reply) } else { Err(HelperFailure::Failed { code: status.code() }) }
}

fn exchange(child: &mut Child, request: &[u8], deadline: Deadline) -> Result<Zeroizing<Vec<u8>>, HelperFailure> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A request fits into the pipe. A child that does not read it is judged by its reply.
        let _ = stdin.write_all(request);
    }
    let mut stdout = child.stdout.take().ok_or(HelperFailure::BadReply)?;
    let mut reply = Zeroizing::new(vec![0; MAX_REPLY + 1]);
    let mut len = 0;
    loop {
        deadline.wait(&stdout)?;
        match stdout.read(&mut reply[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(HelperFailure::Start(error.kind())),
        }
        if len > MAX_REPLY {
            return Err(HelperFailure::TooMuch { limit_bytes: MAX_REPLY });
        }
    }
    deadline.wait(&ended)?;
    reply.truncate(len);
    Ok(reply)
}

#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// Returns when `file` can be read or is closed at the other end.
    fn wait(&self, file: &impl std::os::fd::AsFd) -> Result<(), HelperFailure> {
        loop {
            let left = self.at.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| HelperFailure::BadCommand)?;
            match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(HelperFailure::TimedOut { limit_ms: self.limit.as_millis() as u64 }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(start(error)),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn start(error: rustix::io::Errno) -> HelperFailure {
    HelperFailure::Start(error.kind())
}
