//! Everything sealed anew with another data key while the signer signs.
//!
//! ```text
//! 1. the key slot file wraps the new key in every slot and keeps the old one, sealed under the new: one rename
//! 2. what is recorded from then on is sealed with the new key; both open
//! 3. row by row, then secret by secret, what the old key sealed is sealed with the new one
//! 4. the key slot file forgets the old key, then the process does
//! ```
//!
//! Whenever it ends in between, the next unseal finds both keys in the file and goes on with 3.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use claviger_hsm::Envelope;
use claviger_proto::v1::RotationProgress;
use zeroize::Zeroizing;

use super::opening::envelope_failure;
use super::unsealed::{damaged, journal_failure, put, record};
use super::{Daemon, Unsealed, lock};
use crate::admin::api::{AdminFailure, FailureKind, Sink};
use crate::datadir::DataDir;
use crate::journal::{CommitError, HOUSE, Journal, JournalError};
use crate::keys::cipher::RecordCipher;
use crate::keys::data_key::DataKey;
use crate::keys::memory::{Secret, scrubbed, spawn};
use crate::keys::purpose::{Purpose, subkey};

#[cfg(test)]
mod tests;

/// How long to wait after something failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often whoever asked is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The thread that seals anew. Dropped, it ends after the rows at hand.
pub(super) struct Rotation {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    finished: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Waits a little; whether to go on.
    fn pause(&self, length: Duration) -> bool {
        let end = Instant::now() + length;
        while !self.stop.load(Ordering::SeqCst) {
            match end.checked_duration_since(Instant::now()) {
                None => return true,
                Some(left) => std::thread::sleep(left.min(TELL_EVERY)),
            }
        }
        false
    }
}

impl Rotation {
    fn progress(&self) -> RotationProgress {
        let finished = self.shared.finished.load(Ordering::SeqCst);
        let total = self.shared.total.load(Ordering::SeqCst);
        let done = if finished { total } else { self.shared.done.load(Ordering::SeqCst).min(total) };
        RotationProgress { done, total, finished }
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it ends either way
        }
    }
}

/// What is sealed, and where the keys to it rest.
struct Work {
    dir: DataDir,
    journal: Arc<Journal>,
    vault: Arc<RecordCipher>,
    /// Held while the house's secrets are read and written back.
    changing: Arc<Mutex<bool>>,
    shared: Arc<Shared>,
}

impl Daemon {
    /// Takes up the data key that the key slot file holds now, and says how far everything is sealed with it.
    pub(super) fn rotate(
        &self,
        key: Secret<32>,
        by: &str,
        sink: &mut dyn Sink<RotationProgress>,
    ) -> Result<(), AdminFailure> {
        self.unsealed()?.take_up(&self.dir, key, by)?;
        loop {
            // Held only for a moment: the signer may close meanwhile.
            let progress = self.unsealed()?.rotation_progress();
            let progress = progress.unwrap_or(RotationProgress { finished: true, ..RotationProgress::default() });
            if !sink.put(progress) || progress.finished {
                return Ok(());
            }
            std::thread::sleep(TELL_EVERY);
        }
    }
}

impl Unsealed {
    /// How far it is; none if the data key was not rotated since the signer was opened.
    pub(super) fn rotation_progress(&self) -> Option<RotationProgress> {
        lock(&self.rotation).as_ref().map(Rotation::progress)
    }

    /// Turns every cipher to `key`, if the key slot file says that it follows the one in use.
    fn take_up(&self, dir: &DataDir, key: Secret<32>, by: &str) -> Result<(), AdminFailure> {
        let _change = self.change()?;
        let in_use = |key: &Secret<32>| scrubbed(|| self.journal.seals_with(&subkey(key, Purpose::Records)));
        if in_use(&key) {
            return Ok(());
        }
        let key = DataKey::of(&Envelope::read(&dir.keyslots()).map_err(envelope_failure)?, key);
        let key = key.map_err(envelope_failure)?;
        if !key.previous().is_some_and(in_use) {
            let what = "this is not the data key that follows the one in use";
            let hint = "Rotate it with `claviger rotate --data-key` on this signer's data directory.";
            return Err(AdminFailure::new(FailureKind::Invalid, what, hint));
        }
        let backup = match self.backup.try_write() {
            Ok(backup) => backup,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let hint = "Give the same command again once it is done; nothing is lost meanwhile.";
                return Err(AdminFailure::new(FailureKind::Exists, "a backup is being made with the data key", hint));
            }
        };
        self.record_as(self.line("RotateDataKey", by, []), Vec::new())?;
        scrubbed(|| {
            let of = |purpose| subkey(key.current(), purpose);
            self.vault.turn(of(Purpose::Seeds));
            backup.turn(of(Purpose::Backup));
            backup.retire();
            self.journal.turn(of(Purpose::Records));
        });
        drop(backup);
        tracing::info!(by, "the data key is rotated: everything is sealed anew");
        self.begin_rotation(dir)
    }

    /// Begins to seal everything with the current data key.
    pub(super) fn begin_rotation(&self, dir: &DataDir) -> Result<(), AdminFailure> {
        let shared = Arc::new(Shared::default());
        let work = Work {
            dir: dir.clone(),
            journal: Arc::clone(&self.journal),
            vault: Arc::clone(&self.vault),
            changing: self.changing(),
            shared: Arc::clone(&shared),
        };
        let thread = spawn("rotation", move || work.run()).map_err(|error| {
            AdminFailure::new(FailureKind::Fault, error, "Unseal again: what is left is done from the start.")
        })?;
        *lock(&self.rotation) = Some(Rotation { shared, thread: Some(thread) });
        Ok(())
    }
}

impl Work {
    fn run(&self) {
        if self.until_done(Self::rows) && self.until_done(Self::secrets) && self.until_done(Self::forget) {
            self.shared.finished.store(true, Ordering::SeqCst);
            tracing::info!("everything is sealed with the current data key");
        }
    }

    /// One step, as often as it fails. False when told to stop, here and below.
    fn until_done(&self, step: fn(&Self) -> Result<bool, AdminFailure>) -> bool {
        loop {
            match step(self) {
                Ok(done) => return done,
                Err(failure) => {
                    tracing::warn!(%failure, hint = %failure.hint, "the data key's rotation waits");
                    if !self.shared.pause(AGAIN) {
                        return false;
                    }
                }
            }
        }
    }

    /// Every row of the journal.
    fn rows(&self) -> Result<bool, AdminFailure> {
        let mut next = Some(String::new());
        self.shared.done.store(0, Ordering::SeqCst);
        while let Some(after) = next.take() {
            let began = Instant::now();
            let resealed = match self.journal.reseal(&after) {
                Err(JournalError::Unavailable(CommitError::Closed)) => return Ok(false),
                resealed => resealed.map_err(journal_failure)?,
            };
            self.shared.total.store(resealed.total, Ordering::SeqCst);
            self.shared.done.fetch_add(resealed.rows, Ordering::SeqCst);
            next = resealed.last;
            // As long again for those who sign.
            if !self.shared.pause(began.elapsed()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Seeds and other secrets inside the house's entries: whatever the old key opens under its name.
    fn secrets(&self) -> Result<bool, AdminFailure> {
        let closing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if *closing {
            return Ok(false);
        }
        let entries = self.journal.load(HOUSE).map_err(journal_failure)?;
        let outdated = entries.iter().filter(|(name, sealed)| self.vault.is_outdated(name.as_bytes(), sealed));
        let anew = outdated.map(|(name, sealed)| {
            let secret = self.vault.open(name.as_bytes(), sealed).map_err(|error| damaged(name, &error))?;
            let secret = Zeroizing::new(secret);
            Ok(put(&**name, self.vault.seal(name.as_bytes(), &secret)))
        });
        let anew = anew.collect::<Result<Vec<_>, AdminFailure>>()?;
        record(&self.journal, anew, None)?;
        Ok(true)
    }

    /// The old key, in the key slot file and in memory.
    fn forget(&self) -> Result<bool, AdminFailure> {
        let unusable =
            |error: crate::datadir::DataDirError| AdminFailure::new(FailureKind::Exists, &error, error.hint());
        let _lock = self.dir.lock_keyslots().map_err(unusable)?;
        let mut envelope = Envelope::read(&self.dir.keyslots()).map_err(envelope_failure)?;
        envelope.forget_previous();
        envelope.write(&self.dir.keyslots()).map_err(envelope_failure)?;
        self.vault.retire();
        self.journal.retire();
        Ok(true)
    }
}
