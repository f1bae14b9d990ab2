//! The data key between its envelope and secret memory: it is never anywhere else.

use std::path::PathBuf;

use claviger_hsm::{
    Argon2id, Envelope, EnvelopeError, HelperSlot, KeySlot, PassphraseSlot, Pkcs11Slot, Share, SharesSlot, SlotId,
    TpmSlot, Tries, Wrapped,
};

use super::memory::{Secret, scrubbed};
use super::passphrase::Passphrase;

/// A new data key, in a new envelope with one passphrase slot.
pub fn create(passphrase: &Passphrase, cost: Argon2id) -> Result<(Envelope, Secret<32>), EnvelopeError> {
    let data_key = Secret::random();
    let envelope = with_slot(passphrase, cost, |slot| data_key.expose(|key| Envelope::create(key, slot)))?;
    Ok((envelope, data_key))
}

/// What opens a key slot.
#[derive(Debug)]
pub enum Opener {
    /// The passphrase of a passphrase slot.
    Passphrase(Passphrase),
    /// Enough shares of a shares slot.
    Shares(Vec<Share>),
    /// Nothing: the slot's helper is asked.
    Helper,
    /// The PIN of a token.
    Pkcs11(Pin),
    /// The PIN of a TPM slot, if it has one.
    Tpm(Option<Pin>),
}

/// A PIN whose wrong tries the device counts, and who enters it.
#[derive(Debug)]
pub struct Pin {
    /// The PIN.
    pub text: Passphrase,
    /// Whether somebody enters it now.
    pub tries: Tries,
}

/// What a new slot is made of.
#[derive(Debug)]
pub enum NewSlot {
    /// A passphrase, and what guessing it costs.
    Passphrase(Passphrase, Argon2id),
    /// Shares, dealt.
    Shares(SharesSlot),
    /// A helper: its program and arguments.
    Helper(Vec<String>),
    /// A token: the vendor's module, the token's label, its PIN.
    Pkcs11 {
        /// The module, by its absolute path.
        module: PathBuf,
        /// The label.
        token: String,
        /// The PIN.
        pin: Pin,
    },
    /// A TPM: how to reach it, the registers to seal to, and a PIN.
    Tpm {
        /// `device:…` or `swtpm:…`.
        tcti: String,
        /// The registers.
        pcrs: Vec<u8>,
        /// The PIN, if it shall have one.
        pin: Option<Pin>,
    },
}

/// The data key that a passphrase slot of `envelope` holds, and which slot it was.
pub fn unlock(envelope: &Envelope, passphrase: &Passphrase) -> Result<(Secret<32>, SlotId), EnvelopeError> {
    with_slot(passphrase, Argon2id::default(), |slot| open(envelope, slot, None))
}

/// The same for any opener, and only with slot `only` if one is named.
pub fn unlock_with(
    envelope: &Envelope,
    opener: &Opener,
    only: Option<SlotId>,
) -> Result<(Secret<32>, SlotId), EnvelopeError> {
    match opener {
        Opener::Passphrase(passphrase) => with_slot(passphrase, Argon2id::default(), |slot| open(envelope, slot, only)),
        Opener::Shares(shares) => scrubbed(|| open(envelope, &SharesSlot::collected(shares.clone()), only)),
        Opener::Helper => scrubbed(|| open(envelope, &HelperSlot::STORED, only)),
        Opener::Pkcs11(pin) => pin.lend(|pin, tries| open(envelope, &Pkcs11Slot::stored(pin, tries), only)),
        Opener::Tpm(Some(pin)) => pin.lend(|pin, tries| open(envelope, &TpmSlot::stored(Some(pin), tries), only)),
        Opener::Tpm(None) => scrubbed(|| open(envelope, &TpmSlot::stored(None, Tries::Automatic), only)),
    }
}

impl Pin {
    fn lend<R>(&self, work: impl FnOnce(&[u8], Tries) -> R) -> R {
        scrubbed(|| self.text.expose(|text| work(text, self.tries)))
    }
}

fn open(envelope: &Envelope, slot: &dyn KeySlot, only: Option<SlotId>) -> Result<(Secret<32>, SlotId), EnvelopeError> {
    let mut opened_by = 0;
    let data_key = Secret::try_init(|key| envelope.open(slot, only, key).map(|slot| opened_by = slot))?;
    Ok((data_key, opened_by))
}

/// Adds a slot for `data_key`, as `unlock` gave it, to `envelope`; returns the slot's number.
pub fn add(envelope: &mut Envelope, data_key: &Secret<32>, new: &NewSlot) -> Result<SlotId, EnvelopeError> {
    with_new(new, |slot| data_key.expose(|key| envelope.add(key, slot)))
}

/// Wraps `data_key`, as `unlock` gave it, anew in slot `id` of `envelope`.
pub fn rewrap(envelope: &mut Envelope, id: SlotId, data_key: &Secret<32>, new: &NewSlot) -> Result<(), EnvelopeError> {
    with_new(new, |slot| data_key.expose(|key| envelope.rewrap(id, key, slot)))
}

/// Whether what is behind a slot answers; people are taken to. What is not part of this build does not.
pub fn answers(wrapped: &Wrapped) -> bool {
    match wrapped {
        Wrapped::Passphrase(_) | Wrapped::Shares(_) => true,
        Wrapped::Helper(_) => HelperSlot::STORED.health(wrapped).is_ok(),
        Wrapped::Pkcs11(_) => Pkcs11Slot::stored(&[], Tries::Automatic).health(wrapped).is_ok(),
        Wrapped::Tpm(_) => TpmSlot::stored(None, Tries::Automatic).health(wrapped).is_ok(),
    }
}

fn with_new<R>(new: &NewSlot, work: impl FnOnce(&dyn KeySlot) -> R) -> R {
    match new {
        NewSlot::Passphrase(passphrase, cost) => with_slot(passphrase, *cost, |slot| work(slot)),
        NewSlot::Shares(dealt) => scrubbed(|| work(dealt)),
        NewSlot::Helper(command) => {
            let helper = HelperSlot { command: command.clone(), ..HelperSlot::STORED };
            scrubbed(|| work(&helper))
        }
        NewSlot::Pkcs11 { module, token, pin } => {
            pin.lend(|pin, tries| work(&Pkcs11Slot { module, token, pin, tries }))
        }
        NewSlot::Tpm { tcti, pcrs, pin: Some(pin) } => {
            pin.lend(|pin, tries| work(&TpmSlot { tcti, pcrs, pin: Some(pin), tries }))
        }
        NewSlot::Tpm { tcti, pcrs, pin: None } => {
            scrubbed(|| work(&TpmSlot { tcti, pcrs, pin: None, tries: Tries::Automatic }))
        }
    }
}

fn with_slot<R>(passphrase: &Passphrase, cost: Argon2id, work: impl FnOnce(&PassphraseSlot<'_>) -> R) -> R {
    scrubbed(|| passphrase.expose(|passphrase| work(&PassphraseSlot { passphrase, cost })))
}

#[cfg(test)]
mod tests {
    use claviger_hsm::SlotKind;

    use super::super::memory::{copies_in_memory, mark};
    use super::*;

    const QUICK: Argon2id = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };

    fn text(passphrase: &str) -> Passphrase {
        Passphrase::copy_from(passphrase.as_bytes()).expect("short")
    }

    #[test]
    fn a_created_key_is_unlocked_by_any_of_its_passphrases() {
        let (mut envelope, created) = create(&text("one"), QUICK).expect("created");
        assert_eq!(add(&mut envelope, &created, &NewSlot::Passphrase(text("two"), QUICK)), Ok(2));
        for (passphrase, slot) in [("one", 1), ("two", 2)] {
            let (unlocked, opened_by) = unlock(&envelope, &text(passphrase)).expect("unlocks");
            assert!(created.expose(|a| unlocked.expose(|b| a == b)));
            assert_eq!(opened_by, slot);
        }
        let wrong = unlock(&envelope, &text("three")).map(|_| ());
        assert_eq!(wrong, Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    }

    #[test]
    fn unlocking_leaves_neither_passphrase_nor_data_key_behind() {
        let text = Secret::<32>::random();
        let passphrase = text.expose(|text| Passphrase::copy_from(text)).expect("short");
        let (envelope, created) =
            create(&passphrase, Argon2id { memory_kib: 1024, passes: 2, lanes: 2 }).expect("created");
        let marks = [mark(&text), mark(&created)];
        drop(created);
        // Only what is held in pages without memfd_secret may be found: the text and the passphrase, and the data key.
        let held = copies_in_memory(&mark(&text)) / 2;
        let unlocked = unlock(&envelope, &passphrase).expect("unlocks");
        assert_eq!(marks.map(|mark| copies_in_memory(&mark)), [2 * held, held]);
        drop(unlocked);
        assert_eq!(marks.map(|mark| copies_in_memory(&mark)), [2 * held, 0]);
    }
}
