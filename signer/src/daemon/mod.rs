//! The daemon: starts sealed, opens, serves, closes.
//!
//! ```text
//! mod.rs       the process: what lives from start to end, and the switch between sealed and unsealed
//! unsealed.rs  what exists only while unsealed: journal, CA, registry, nodes, chain view, link
//! nodes.rs     adding, renewing, revoking and forgetting nodes
//! channels.rs  channels, and what is ordered about them
//! doctor.rs    the house and its channels, looked over
//! lnd.rs       what an lnd node is given
//! pairing.rs   what an lnd node connects with, looked over
//! lightspark.rs what an account of Lightspark brings, and is given
//! explain.rs   one decision, or a refusal that decided nothing
//! policy.rs    the spending policy: bundles, budgets, what was decided
//! grants.rs    what is asked, approved and taken back
//! answers.rs   the administrator's calls
//! ```

mod answers;
mod channels;
mod doctor;
mod explain;
mod grants;
mod lightspark;
mod lnd;
mod nodes;
mod pairing;
mod policy;
mod unsealed;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use claviger_hsm::{Envelope, EnvelopeError, SlotKind};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::admin::api::{AdminFailure, FailureKind};
use crate::config::Config;
use crate::datadir::{DataDir, DirLock};
use crate::harden::Hardening;
use crate::keys::attempts::Attempts;
use crate::keys::data_key::{self, Opener};
use crate::keys::memory::{Secret, scrubbed};
use crate::keys::passphrase::Passphrase;
use crate::reasons::Reason;

pub use unsealed::Unsealed;

/// What lives as long as the process.
pub struct Daemon {
    dir: DataDir,
    config: Config,
    hardening: Hardening,
    started: Instant,
    runtime: Handle,
    /// Told when the process should end.
    ending: Arc<Notify>,
    attempts: Mutex<Attempts>,
    /// Held during a change of state, so that two unseals cannot open the journal twice.
    changing: Mutex<()>,
    state: Mutex<Option<Arc<Unsealed>>>,
    lnd_socket: Option<TcpListener>,
    _lock: DirLock,
}

impl Daemon {
    /// A sealed daemon on `dir`, which it holds by `lock`. `runtime` runs its sockets.
    pub fn new(dir: DataDir, lock: DirLock, config: Config, hardening: Hardening, runtime: Handle) -> Self {
        Self {
            dir,
            config,
            hardening,
            started: Instant::now(),
            runtime,
            ending: Arc::new(Notify::new()),
            attempts: Mutex::default(),
            changing: Mutex::default(),
            state: Mutex::default(),
            lnd_socket: None,
            _lock: lock,
        }
    }

    /// The same with a socket for lnd's door that somebody else opened: it stays open while the signer is sealed, and after it
    /// ended, so that lnd waits instead of being turned away.
    #[must_use]
    pub fn with_lnd_socket(mut self, socket: Option<TcpListener>) -> Self {
        self.lnd_socket = socket;
        self
    }

    /// Resolves when an administrator asked for the end.
    pub fn ending(&self) -> Arc<Notify> {
        Arc::clone(&self.ending)
    }

    /// Opens the signer with `passphrase`; returns how many nodes run now.
    pub fn open(&self, passphrase: &Passphrase) -> Result<usize, AdminFailure> {
        self.open_with(|| self.unlock(passphrase))
    }

    /// Opens the signer with the first helper slot that opens, if there are any; needs nobody.
    pub fn open_by_helper(&self) -> Result<(), AdminFailure> {
        let envelope = Envelope::read(&self.dir.keyslots()).map_err(envelope_failure)?;
        if !envelope.slots().any(|(_, kind)| kind == SlotKind::Helper) {
            return Ok(());
        }
        self.open_with(|| {
            let (data_key, slot) = data_key::unlock_with(&envelope, &Opener::Helper, None).map_err(envelope_failure)?;
            tracing::info!(slot, "data key unwrapped by a helper");
            Ok(data_key)
        })?;
        Ok(())
    }

    fn open_with(&self, unlock: impl FnOnce() -> Result<Secret<32>, AdminFailure>) -> Result<usize, AdminFailure> {
        let _changing = lock(&self.changing);
        if lock(&self.state).is_some() {
            let hint = "Nothing to do; `claviger seal` closes it.";
            return Err(AdminFailure::new(FailureKind::NotSealed, "the signer is unsealed already", hint));
        }
        let data_key = unlock()?;
        let unsealed =
            scrubbed(|| Unsealed::open(&self.dir, &self.config, &data_key, &self.runtime, self.lnd_socket.as_ref()))?;
        let nodes = unsealed.nodes.status().len();
        *lock(&self.state) = Some(Arc::new(unsealed));
        tracing::info!(nodes, "unsealed");
        Ok(nodes)
    }

    /// Closes the signer: links end, nodes stop, keys are wiped. Does nothing if it is sealed. Nodes are told `why`.
    pub fn close(&self, why: Reason) {
        let _changing = lock(&self.changing);
        let Some(mut unsealed) = lock(&self.state).take() else { return };
        unsealed.stop(why, &self.runtime);
        // An administrator's call may still hold on to it: its keys must be gone before this call says so.
        while let Err(held) = Arc::try_unwrap(unsealed).map(drop) {
            unsealed = held;
            std::thread::sleep(Duration::from_millis(5));
        }
        crate::keys::memory::scrub_stack();
        tracing::info!("sealed");
    }

    /// What exists while unsealed.
    fn unsealed(&self) -> Result<Arc<Unsealed>, AdminFailure> {
        lock(&self.state).clone().ok_or_else(AdminFailure::sealed)
    }

    fn unlock(&self, passphrase: &Passphrase) -> Result<Secret<32>, AdminFailure> {
        let mut attempts = lock(&self.attempts);
        attempts
            .begin(self.started.elapsed())
            .map_err(|error| AdminFailure::new(FailureKind::RateLimited, error, error.hint()))?;
        let envelope = Envelope::read(&self.dir.keyslots()).map_err(envelope_failure)?;
        let (data_key, slot) = data_key::unlock(&envelope, passphrase).map_err(envelope_failure)?;
        attempts.succeeded();
        tracing::info!(slot, "data key unwrapped");
        Ok(data_key)
    }
}

fn envelope_failure(error: EnvelopeError) -> AdminFailure {
    let kind = match error {
        EnvelopeError::WrongSecret(_) => FailureKind::Passphrase,
        _ => FailureKind::Damaged,
    };
    AdminFailure::new(kind, &error, error.hint())
}

/// Everything behind these locks is whole between two statements: a panic elsewhere leaves nothing to distrust.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
