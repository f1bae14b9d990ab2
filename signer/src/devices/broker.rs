//! The process that starts workers. It knows no secret, and nothing but how to start one.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{io, thread};

use claviger_hsm::device_key::KeyHome;
use claviger_hsm::{Envelope, KeyKind, KeyRecord, Wrapped};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::Devices;
use super::talk::NewKey;
use crate::config::Config;

/// This program, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";
/// More at once than people and thresholds bring about; a signer that was taken over starts no more.
const MAX_WORKERS: usize = 16;

/// The devices that may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Programs with their arguments.
    helpers: Vec<Vec<String>>,
    /// PKCS#11 modules.
    modules: Vec<PathBuf>,
    /// How TPMs are reached.
    tpms: Vec<String>,
}

impl Known {
    /// Those that the key slots and the configuration name.
    pub fn new(envelope: &Envelope, config: &Config) -> Self {
        let mut known = Self::default();
        for (_, wrapped) in envelope.records() {
            match wrapped {
                Wrapped::Passphrase(_) | Wrapped::Shares(_) => {}
                Wrapped::Helper(record) => known.helpers.push(record.command().to_vec()),
                Wrapped::Pkcs11(record) => known.modules.push(record.module().to_owned()),
                Wrapped::Tpm(record) => known.tpms.push(record.tcti().to_owned()),
            }
        }
        match config.checkpoints.key {
            KeyKind::Software => {}
            KeyKind::Tpm => known.tpms.push(config.checkpoints.tpm.clone()),
            KeyKind::Pkcs11 => known.modules.push(config.checkpoints.module.clone()),
        }
        known.tpms.extend(Some(config.rollback.counter_tpm.clone()).filter(|tcti| !tcti.is_empty()));
        known
    }

    /// Whether what is behind `wrapped` is among them.
    pub(super) fn has(&self, wrapped: &Wrapped) -> bool {
        match wrapped {
            Wrapped::Passphrase(_) | Wrapped::Shares(_) => false,
            Wrapped::Helper(record) => self.helpers.iter().any(|known| known == record.command()),
            Wrapped::Pkcs11(record) => self.modules.iter().any(|known| known == record.module()),
            Wrapped::Tpm(record) => self.has_tpm(record.tcti()),
        }
    }

    /// Whether what shall keep a new key is among them.
    pub(super) fn has_home(&self, new: &NewKey) -> bool {
        match new {
            NewKey::Tpm { tcti } => self.has_tpm(tcti),
            NewKey::Pkcs11 { module, .. } => self.modules.contains(module),
        }
    }

    /// Whether what keeps the key of `record` is among them.
    pub(super) fn has_key(&self, record: &KeyRecord) -> bool {
        match &record.home {
            KeyHome::Software(_) => false,
            KeyHome::Tpm(home) => self.has_tpm(home.tcti()),
            KeyHome::Pkcs11(home) => self.modules.iter().any(|known| known == home.module()),
        }
    }

    /// Whether a TPM that is reached like this is among them.
    pub(super) fn has_tpm(&self, tcti: &str) -> bool {
        self.tpms.iter().any(|known| known == tcti)
    }
}

impl Devices {
    /// Starts the broker, which ends when the signer does. Call it before the signer is confined.
    pub fn start(known: &Known) -> io::Result<Self> {
        if *known == Known::default() {
            return Ok(Self { broker: None });
        }
        let (mine, theirs) = UnixStream::pair()?;
        let known = serde_json::to_string(known)?;
        // A terminal's Ctrl-C is the signer's: its last count comes after it.
        let child = Command::new(PROGRAM)
            .args(["devices", "broker", &known])
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        drop(child); // it is this process's until both end
        Ok(Self { broker: Some(Mutex::new(mine)) })
    }
}

/// The broker: starts a worker for every end of a socket pair that comes through stdin, until that is closed.
pub fn broker(known: &str) -> io::Result<()> {
    outlive_signals()?;
    let signer = io::stdin();
    let workers = Arc::new(AtomicUsize::new(0));
    while let Some(end) = next(&signer)? {
        if workers.load(Ordering::SeqCst) >= MAX_WORKERS {
            continue; // dropped: the signer is told that nobody is there
        }
        let worker = Command::new(PROGRAM).args(["devices", "worker", known]).stdin(end).stdout(Stdio::null()).spawn();
        let Ok(mut worker) = worker else { continue };
        workers.fetch_add(1, Ordering::SeqCst);
        let workers = Arc::clone(&workers);
        thread::spawn(move || {
            let _ = worker.wait(); // it told the signer how it went
            workers.fetch_sub(1, Ordering::SeqCst);
        });
    }
    Ok(())
}

/// A service manager ends every process of a service at once; the signer's last count still needs this one.
fn outlive_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _context = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?); // from here on it does not end the process
    }
    Ok(())
}

/// The next end; none when the signer is gone.
fn next(signer: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = recvmsg(signer, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
        match received {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(received) if received.bytes == 0 => return Ok(None),
            Ok(_) => {}
        }
        let end = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut ends) => ends.next(),
            _ => None,
        });
        if end.is_some() {
            return Ok(end);
        }
    }
}
