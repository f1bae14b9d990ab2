//! Opening a sealed signer: by its passphrase, by a slot that is named, by people's shares one after the other, or by what
//! vouches for the machine.
//!
//! Nothing is locked while a device or a helper is asked: one that hangs keeps nobody from opening with another slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_hsm::{Envelope, EnvelopeError, Share, SlotError, SlotId, SlotKind, Tries, Wrapped, pkcs11, tpm};
use claviger_proto::v1::SharesProgress;

use super::{Daemon, Unsealed, lock};
use crate::admin::api::{AdminFailure, Brought, FailureKind};
use crate::keys::data_key::{self, DataKey, Opener, Pin};
use crate::keys::memory::scrubbed;
use crate::keys::passphrase::Passphrase;

/// Shares that are not enough are forgotten this long after the last one was entered.
const SHARES_WAIT: Duration = Duration::from_secs(15 * 60);

/// How far the opening came.
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// The signer is unsealed, and so many nodes run.
    Nodes(usize),
    /// More shares are needed.
    Shares(SharesProgress),
}

/// Shares that people entered so far.
pub(super) struct Collected {
    slot: SlotId,
    needed: u8,
    shares: Vec<Share>,
    last: Instant,
}

impl Collected {
    fn progress(&self) -> SharesProgress {
        SharesProgress {
            slot: self.slot.into(),
            entered: self.shares.iter().map(|share| share.index().into()).collect(),
            needed: self.needed.into(),
        }
    }
}

impl Daemon {
    /// Opens the signer with `passphrase`; returns how many nodes run now.
    pub fn open(&self, passphrase: &Passphrase) -> Result<usize, AdminFailure> {
        self.open_with(|envelope| self.rate_limited(|| data_key::unlock(envelope, passphrase)))
    }

    /// Opens the signer with what is `brought`, or takes one more share.
    pub fn open_by(&self, brought: Brought) -> Result<Opened, AdminFailure> {
        let Brought { secret, slot, tries } = brought;
        let Some(slot) = slot else {
            return self.open(&needed(secret, "the signer", SlotKind::Passphrase)?).map(Opened::Nodes);
        };
        let envelope = self.envelope()?;
        let wrapped = envelope.records().find(|(id, _)| *id == slot).map(|(_, wrapped)| wrapped);
        let wrapped = wrapped.ok_or_else(|| envelope_failure(EnvelopeError::UnknownSlot(slot)))?;
        let place = format!("slot {slot}");
        let pin = |secret| needed(secret, &place, wrapped.kind()).map(|text| Pin { text, tries });
        let opener = match wrapped {
            Wrapped::Passphrase(_) => Opener::Passphrase(needed(secret, &place, wrapped.kind())?),
            Wrapped::Shares(_) => return self.take_share(&envelope, slot, &needed(secret, &place, wrapped.kind())?),
            Wrapped::Helper(_) => Opener::Helper,
            Wrapped::Pkcs11(_) => Opener::Pkcs11(pin(secret)?),
            Wrapped::Tpm(record) => Opener::Tpm(record.has_pin().then(|| pin(secret)).transpose()?),
        };
        let device = self.devices.as_ref().and_then(|devices| devices.slot(&opener));
        let unlock = |envelope: &Envelope| match &device {
            Some(device) => data_key::unlock_by(envelope, device, Some(slot)),
            None => data_key::unlock_with(envelope, &opener, Some(slot)),
        };
        self.open_with(|envelope| match opener {
            Opener::Passphrase(_) => self.rate_limited(|| unlock(envelope)),
            _ => unlock(envelope).map_err(envelope_failure),
        })
        .map(Opened::Nodes)
    }

    /// Opens the signer with the first slot that needs nobody and opens, if there are any: helpers, TPMs without a PIN.
    pub fn open_unattended(&self) -> Result<(), AdminFailure> {
        let envelope = self.envelope()?;
        let mut failure = Ok(());
        for (slot, wrapped) in envelope.records() {
            let alone = match wrapped {
                Wrapped::Helper(_) => true,
                Wrapped::Tpm(record) => !record.has_pin(),
                Wrapped::Passphrase(_) | Wrapped::Shares(_) | Wrapped::Pkcs11(_) => false,
            };
            if !alone {
                continue;
            }
            match self.open_by(Brought { secret: None, slot: Some(slot), tries: Tries::Automatic }) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    tracing::warn!(slot, kind = %wrapped.kind(), %error, "the slot does not open");
                    failure = Err(error);
                }
            }
        }
        failure
    }

    /// The shares that were entered and are not enough yet.
    pub(super) fn shares_entered(&self) -> Option<SharesProgress> {
        lock(&self.shares).as_ref().map(Collected::progress)
    }

    /// Takes one share; opens with it if it is the last that is needed. A wrong one undoes nothing.
    fn take_share(&self, envelope: &Envelope, slot: SlotId, text: &Passphrase) -> Result<Opened, AdminFailure> {
        self.refuse_if_unsealed()?;
        let share = text.expose(|text| std::str::from_utf8(text).unwrap_or_default().parse::<Share>());
        let share = share.map_err(|error| envelope_failure(SlotError::from(error).into()))?;
        let mut held = lock(&self.shares);
        let before = held.as_ref().filter(|held| held.slot == slot);
        let mut shares = before.map(|held| held.shares.clone()).unwrap_or_default();
        let (found, record) = envelope.judge_share(&share, &shares).map_err(envelope_failure)?;
        if found != slot {
            let what = format!("share {} is of slot {found}", share.index());
            let hint = "Name that slot with --slot, or bring a share of this one.";
            return Err(AdminFailure::new(FailureKind::Passphrase, what, hint));
        }
        shares.push(share);
        if shares.len() < usize::from(record.threshold()) {
            let now = Collected { slot, needed: record.threshold(), shares, last: Instant::now() };
            let progress = now.progress();
            *held = Some(now);
            self.forget_later();
            tracing::info!(slot, entered = progress.entered.len(), needed = progress.needed, "a share was entered");
            return Ok(Opened::Shares(progress));
        }
        *held = None;
        drop(held);
        let opener = Opener::Shares(shares);
        self.open_with(|envelope| data_key::unlock_with(envelope, &opener, Some(slot)).map_err(envelope_failure))
            .map(Opened::Nodes)
    }

    /// Forgets shares for which no other came.
    fn forget_later(&self) {
        let shares = Arc::clone(&self.shares);
        self.runtime.spawn(async move {
            tokio::time::sleep(SHARES_WAIT).await;
            lock(&shares).take_if(|held| held.last.elapsed() >= SHARES_WAIT);
        });
    }

    fn envelope(&self) -> Result<Envelope, AdminFailure> {
        Envelope::read(&self.dir.keyslots()).map_err(envelope_failure)
    }

    fn refuse_if_unsealed(&self) -> Result<(), AdminFailure> {
        if lock(&self.state).is_none() {
            return Ok(());
        }
        let hint = "Nothing to do; `claviger seal` closes it.";
        Err(AdminFailure::new(FailureKind::NotSealed, "the signer is unsealed already", hint))
    }

    fn open_with(
        &self,
        unlock: impl FnOnce(&Envelope) -> Result<(DataKey, SlotId), AdminFailure>,
    ) -> Result<usize, AdminFailure> {
        self.refuse_if_unsealed()?;
        let (data_key, slot) = unlock(&self.envelope()?)?;
        let _changing = lock(&self.changing);
        self.refuse_if_unsealed()?;
        let unsealed = scrubbed(|| Unsealed::open(self, &data_key))?;
        let nodes = unsealed.nodes.status().len();
        *lock(&self.state) = Some(unsealed.into());
        *lock(&self.shares) = None;
        tracing::info!(slot, nodes, "unsealed");
        Ok(nodes)
    }

    /// Guesses of passphrases become slower; one is tried at a time. Devices count their own.
    fn rate_limited<T>(&self, unlock: impl FnOnce() -> Result<T, EnvelopeError>) -> Result<T, AdminFailure> {
        let mut attempts = lock(&self.attempts);
        attempts
            .begin(self.started.elapsed())
            .map_err(|error| AdminFailure::new(FailureKind::RateLimited, error, error.hint()))?;
        let unlocked = unlock().map_err(envelope_failure)?;
        attempts.succeeded();
        Ok(unlocked)
    }
}

/// The secret, or that `place` wants one.
fn needed(secret: Option<Passphrase>, place: &str, kind: SlotKind) -> Result<Passphrase, AdminFailure> {
    let wanted = match kind {
        SlotKind::Passphrase => "a passphrase",
        SlotKind::Shares => "a share",
        SlotKind::Helper | SlotKind::Pkcs11 | SlotKind::Tpm => "a PIN",
    };
    let hint = "Enter it at the terminal, or pass it with --passphrase-fd or --passphrase-credential.";
    secret.ok_or_else(|| AdminFailure::new(FailureKind::Passphrase, format!("{place} wants {wanted}"), hint))
}

pub(super) fn envelope_failure(error: EnvelopeError) -> AdminFailure {
    use pkcs11::Pkcs11Error;
    use tpm::TpmError;
    let kind = match &error {
        EnvelopeError::WrongSecret(_)
        | EnvelopeError::Slot(
            SlotError::WrongSecret
            | SlotError::Shares(_)
            | SlotError::Pkcs11(Pkcs11Error::WrongPin(_))
            | SlotError::Tpm(TpmError::WrongPin),
        ) => FailureKind::Passphrase,
        EnvelopeError::UnknownSlot(_) | EnvelopeError::NoSlotOfKind(_) => FailureKind::NotFound,
        EnvelopeError::Slot(
            SlotError::NotBuilt(_)
            | SlotError::Helper(_)
            | SlotError::Pkcs11(_)
            | SlotError::Tpm(_)
            | SlotError::Absent(_),
        ) => FailureKind::Device,
        _ => FailureKind::Damaged,
    };
    AdminFailure::new(kind, &error, error.hint())
}
