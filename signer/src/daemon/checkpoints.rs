//! The journal's checkpoints, signed by a device key. It stops nobody who runs: what a device does not sign is signed once it is back.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_hsm::device_key::Signature;
use claviger_hsm::device_key::software::SoftwareKey;
use claviger_hsm::{Absent, DeviceKey, DeviceKeyError, KeyKind, KeyRecord};

use super::policy::now_ms;
use super::unsealed::{damaged, journal_failure, put, record};
use crate::admin::api::AdminFailure;
use crate::config::CheckpointsConfig;
use crate::devices::{Devices, NewKey};
use crate::journal::{HOUSE, HeadAt, Journal, Put, SignedHead};
use crate::keys::cipher::RecordCipher;
use crate::keys::passphrase::{Passphrase, Source};

/// Where the key's record is, sealed: that of a software key is the key.
const KEY: &str = "key/checkpoints";

/// Who signs, if anybody can.
pub(super) struct Signer {
    journal: Arc<Journal>,
    devices: Option<Arc<Devices>>,
    pin_credential: String,
    key: Option<KeyRecord>,
}

impl Signer {
    /// The key that the journal knows, or another one where it has none of the kind that is configured.
    pub(super) fn open(
        config: &CheckpointsConfig,
        devices: Option<&Arc<Devices>>,
        journal: &Arc<Journal>,
        vault: &RecordCipher,
    ) -> Result<Self, AdminFailure> {
        let (journal, devices) = (Arc::clone(journal), devices.cloned());
        let mut signer = Self { journal, devices, pin_credential: config.pin_credential.clone(), key: None };
        let known = signer.journal.get(HOUSE, KEY).map_err(journal_failure)?;
        if let Some(sealed) = known {
            let plain = vault.open(KEY.as_bytes(), &sealed).map_err(|error| damaged(KEY, &error))?;
            let known: KeyRecord = serde_json::from_slice(&plain).map_err(|error| damaged(KEY, &error))?;
            let is_wanted = known.kind() == config.key && known.public.curve() == config.curve;
            signer.key = is_wanted.then_some(known);
        }
        if signer.key.is_none() {
            match signer.create(config) {
                Ok(made) => {
                    let plain =
                        zeroize::Zeroizing::new(serde_json::to_vec(&made).expect("bytes and text always encode"));
                    record(&signer.journal, vec![put(KEY, vault.seal(KEY.as_bytes(), &plain))], None)?;
                    tracing::info!(kind = %made.kind(), key = %made.public, "checkpoints are signed by a new key");
                    signer.key = Some(made);
                }
                Err(error) => {
                    tracing::warn!(%error, hint = error.hint(), "no key was made to sign checkpoints with: tried again at the next start");
                }
            }
        }
        Ok(signer)
    }

    /// The end of the log, signed, to be recorded with whatever is recorded now.
    pub(super) fn signed_head(&self) -> Option<Put> {
        let key = self.key.as_ref()?;
        let last = self.journal.tail(1).ok()?.pop()?;
        let head = HeadAt { seq: last.seq, hash: hex::FromHex::from_hex(&last.hash).ok()?, at_ms: now_ms() };
        match self.sign(key, &head.message()) {
            Ok(signature) => {
                let signed = SignedHead::new(head, key.kind(), key.public, signature);
                Some(put(SignedHead::KEY, signed.encode()))
            }
            Err(error) => {
                tracing::warn!(%error, hint = error.hint(), "the journal's checkpoint is not signed");
                None
            }
        }
    }

    fn create(&self, config: &CheckpointsConfig) -> Result<KeyRecord, DeviceKeyError> {
        let new = match config.key {
            KeyKind::Software => return SoftwareKey.create(),
            KeyKind::Tpm => NewKey::Tpm { tcti: config.tpm.clone() },
            KeyKind::Pkcs11 => {
                let (module, token) = (PathBuf::from(&config.module), config.token.clone());
                NewKey::Pkcs11 { module, token, curve: config.curve }
            }
        };
        self.devices()?.make_key(new, self.pin(config.key).as_ref())
    }

    fn sign(&self, key: &KeyRecord, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        match key.kind() {
            KeyKind::Software => SoftwareKey.sign(key, message),
            kind => self.devices()?.sign(key, self.pin(kind).as_ref(), message),
        }
    }

    fn devices(&self) -> Result<&Devices, DeviceKeyError> {
        Ok(self.devices.as_deref().ok_or(Absent::Gone)?)
    }

    /// A token's PIN, as the service manager keeps it. Without one the token says so.
    fn pin(&self, kind: KeyKind) -> Option<Passphrase> {
        let wanted = kind == KeyKind::Pkcs11 && !self.pin_credential.is_empty();
        wanted.then(|| Source::Credential(self.pin_credential.clone()).read().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use super::super::tests::World;
    use super::*;

    fn signed(world: &World) -> Option<SignedHead> {
        world.unsealed().journal.verify(&mut |_| true).unwrap().signed
    }

    #[test]
    fn the_end_of_the_log_is_signed_by_one_key_across_seals() {
        let world = World::new();
        world.decide("alice", 3);
        world.reopen().unwrap();
        let first = signed(&world).unwrap();
        assert_eq!((first.head.seq, first.kind), (3, KeyKind::Software));
        world.decide("bob", 2);
        world.reopen().unwrap();
        let second = signed(&world).unwrap();
        assert_eq!((second.head.seq, second.key), (5, first.key));
    }

    #[test]
    fn a_device_that_is_away_keeps_nobody_from_opening() {
        let world = World::with(|config| config.checkpoints.key = KeyKind::Tpm);
        world.decide("alice", 3);
        world.reopen().unwrap();
        assert_eq!(signed(&world), None, "not by another key than the one that is wanted");
    }
}
