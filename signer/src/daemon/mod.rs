//! The daemon: starts sealed, opens, serves, closes.
//!
//! ```text
//! mod.rs       the process: what lives from start to end, and the switch between sealed and unsealed
//! opening.rs   passphrases, shares, PINs and devices that open it
//! unsealed.rs  what exists only while unsealed: journal, CA, registry, nodes, chain view, link
//! nodes.rs     adding, renewing, revoking and forgetting nodes
//! channels.rs  channels, and what is ordered about them
//! doctor.rs    the house and its channels, looked over
//! hardening.rs what the process gave up
//! lnd.rs       what an lnd node is given
//! pairing.rs   what an lnd node connects with, looked over
//! account.rs    an account of Lightspark, looked over
//! lightspark.rs what an account of Lightspark brings, and is given
//! explain.rs   one decision, or a refusal that decided nothing
//! policy.rs    the spending policy: bundles, budgets, what was decided
//! grants.rs    what is asked, approved and taken back
//! checkpoints.rs the end of the log, signed by a device key
//! rotation.rs  everything sealed anew with another data key
//! rollback/    state, or a clock, that was set back
//! operators.rs  the lines of the log that say who changed the policy
//! backup.rs    the whole of it in one file, or what changed since
//! answers.rs   the administrator's calls
//! ```

mod account;
mod answers;
mod backup;
mod channels;
mod checkpoints;
mod doctor;
mod explain;
mod grants;
mod hardening;
mod lightspark;
mod lnd;
mod metrics;
mod nodes;
mod opening;
mod operators;
mod pairing;
mod policy;
mod rollback;
mod rotation;
mod unsealed;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::admin::api::AdminFailure;
use crate::config::Config;
use crate::datadir::{DataDir, DirLock};
use crate::devices::Devices;
use crate::harden::Hardening;
use crate::keys::attempts::Attempts;
use crate::reasons::Reason;

pub use lnd::{AccountLine, AccountsFile};
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
    /// Shares that people entered, until there are enough.
    shares: Arc<Mutex<Option<opening::Collected>>>,
    /// Held during a change of state, so that two unseals cannot open the journal twice.
    changing: Mutex<()>,
    state: Mutex<Option<Arc<Unsealed>>>,
    lnd_socket: Option<TcpListener>,
    /// Without them, devices are asked by this process.
    devices: Option<Arc<Devices>>,
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
            shares: Arc::default(),
            changing: Mutex::default(),
            state: Mutex::default(),
            lnd_socket: None,
            devices: None,
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

    /// The same with devices that other processes ask.
    #[must_use]
    pub fn with_devices(mut self, devices: Devices) -> Self {
        self.devices = Some(Arc::new(devices));
        self
    }

    /// Resolves when an administrator asked for the end.
    pub fn ending(&self) -> Arc<Notify> {
        Arc::clone(&self.ending)
    }

    /// Closes the signer: links end, nodes stop, keys are wiped, shares forgotten. Nodes are told `why`.
    pub fn close(&self, why: Reason) {
        let _changing = lock(&self.changing);
        *lock(&self.shares) = None;
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
}

/// Everything behind these locks is whole between two statements: a panic elsewhere leaves nothing to distrust.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
