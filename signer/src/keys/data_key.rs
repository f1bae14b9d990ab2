//! The data key between its envelope and secret memory: it is never anywhere else.

use std::path::PathBuf;

use claviger_hsm::{
    Argon2id, Envelope, EnvelopeError, HelperSlot, KeySlot, PassphraseSlot, Pkcs11Slot, Share, SharesSlot, SlotId,
    TpmSlot, Tries, Wrapped,
};

use super::cipher::RecordCipher;
use super::memory::{Secret, scrubbed};
use super::passphrase::Passphrase;
use super::purpose::{Purpose, subkey};

/// What an envelope holds: the data key and, while it is rotated, the one before.
#[derive(Debug)]
pub struct DataKey {
    current: Secret<32>,
    previous: Option<Secret<32>>,
}

impl DataKey {
    /// The data key `current` of `envelope`, with the one before if `envelope` keeps it.
    pub fn of(envelope: &Envelope, current: Secret<32>) -> Result<Self, EnvelopeError> {
        let damaged = |_| EnvelopeError::Damaged("its previous data key does not open");
        let open = |sealed| previous_cipher(&current).open_secret(&envelope.installation(), sealed).map_err(damaged);
        let previous = envelope.previous().map(open).transpose()?;
        Ok(Self { current, previous })
    }

    /// Seals for `purpose` with the current key, and opens what either sealed.
    pub fn cipher(&self, purpose: Purpose) -> RecordCipher {
        let of = |key| subkey(key, purpose);
        RecordCipher::between(of(&self.current), self.previous.as_ref().map(of))
    }

    /// The current key.
    pub fn current(&self) -> &Secret<32> {
        &self.current
    }

    /// The one before, while the data key is rotated.
    pub fn previous(&self) -> Option<&Secret<32>> {
        self.previous.as_ref()
    }
}

/// Seals the data key before `current` inside the envelope.
fn previous_cipher(current: &Secret<32>) -> RecordCipher {
    RecordCipher::new(subkey(current, Purpose::PreviousDataKey))
}

/// A new data key, in a new envelope with one passphrase slot.
pub fn create(passphrase: &Passphrase, cost: Argon2id) -> Result<(Envelope, DataKey), EnvelopeError> {
    let current = Secret::random();
    let envelope = with_slot(passphrase, cost, |slot| current.expose(|key| Envelope::create(key, slot)))?;
    Ok((envelope, DataKey { current, previous: None }))
}

/// Draws a new data key, wraps it in `slots`, which are all that stay in `envelope`, and keeps the one that `unlock` gave as
/// the previous one. `envelope` stays as it is on failure.
pub fn turn(envelope: &mut Envelope, data_key: DataKey, slots: &[(SlotId, NewSlot)]) -> Result<DataKey, EnvelopeError> {
    if envelope.previous().is_some() {
        return Err(EnvelopeError::Rotating);
    }
    let (old, current) = (data_key.current, Secret::random());
    let mut turned = envelope.clone();
    for (id, new) in slots {
        with_new(new, |slot| current.expose(|key| turned.rewrap(*id, key, slot)))?;
    }
    let gone: Vec<_> = turned.slots().map(|(id, _)| id).filter(|id| slots.iter().all(|(kept, _)| kept != id)).collect();
    for id in gone {
        turned.remove(id, |_| true)?;
    }
    turned.keep_previous(old.expose(|old| previous_cipher(&current).seal(&envelope.installation(), old)));
    *envelope = turned;
    Ok(DataKey { current, previous: Some(old) })
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
pub fn unlock(envelope: &Envelope, passphrase: &Passphrase) -> Result<(DataKey, SlotId), EnvelopeError> {
    with_slot(passphrase, Argon2id::default(), |slot| open(envelope, slot, None))
}

/// The same for any opener, and only with slot `only` if one is named.
pub fn unlock_with(
    envelope: &Envelope,
    opener: &Opener,
    only: Option<SlotId>,
) -> Result<(DataKey, SlotId), EnvelopeError> {
    match opener {
        Opener::Passphrase(passphrase) => with_slot(passphrase, Argon2id::default(), |slot| open(envelope, slot, only)),
        Opener::Shares(shares) => scrubbed(|| open(envelope, &SharesSlot::collected(shares.clone()), only)),
        Opener::Helper => scrubbed(|| open(envelope, &HelperSlot::STORED, only)),
        Opener::Pkcs11(pin) => pin.lend(|pin, tries| open(envelope, &Pkcs11Slot::stored(pin, tries), only)),
        Opener::Tpm(Some(pin)) => pin.lend(|pin, tries| open(envelope, &TpmSlot::stored(Some(pin), tries), only)),
        Opener::Tpm(None) => scrubbed(|| open(envelope, &TpmSlot::stored(None, Tries::Automatic), only)),
    }
}

/// The same with a slot of any making, without which secrets it opens.
pub fn unlock_by(
    envelope: &Envelope,
    slot: &dyn KeySlot,
    only: Option<SlotId>,
) -> Result<(DataKey, SlotId), EnvelopeError> {
    scrubbed(|| open(envelope, slot, only))
}

impl Pin {
    fn lend<R>(&self, work: impl FnOnce(&[u8], Tries) -> R) -> R {
        scrubbed(|| self.text.expose(|text| work(text, self.tries)))
    }
}

fn open(envelope: &Envelope, slot: &dyn KeySlot, only: Option<SlotId>) -> Result<(DataKey, SlotId), EnvelopeError> {
    let mut opened_by = 0;
    let current = Secret::try_init(|key| envelope.open(slot, only, key).map(|slot| opened_by = slot))?;
    Ok((DataKey::of(envelope, current)?, opened_by))
}

/// Adds a slot for `data_key`, as `unlock` gave it, to `envelope`; returns the slot's number.
pub fn add(envelope: &mut Envelope, data_key: &DataKey, new: &NewSlot) -> Result<SlotId, EnvelopeError> {
    with_new(new, |slot| data_key.current.expose(|key| envelope.add(key, slot)))
}

/// Wraps `data_key`, as `unlock` gave it, anew in slot `id` of `envelope`.
pub fn rewrap(envelope: &mut Envelope, id: SlotId, data_key: &DataKey, new: &NewSlot) -> Result<(), EnvelopeError> {
    with_new(new, |slot| data_key.current.expose(|key| envelope.rewrap(id, key, slot)))
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
            assert!(created.current.expose(|a| unlocked.current.expose(|b| a == b)));
            assert_eq!(opened_by, slot);
        }
        let wrong = unlock(&envelope, &text("three")).map(|_| ());
        assert_eq!(wrong, Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));
    }

    #[test]
    fn a_turned_key_opens_with_the_slots_that_stay_and_brings_the_one_before_along() {
        let (mut envelope, created) = create(&text("one"), QUICK).expect("created");
        let first = RecordCipher::new(subkey(created.current(), Purpose::Records)).seal(b"", b"old");
        for passphrase in ["two", "three"] {
            add(&mut envelope, &created, &NewSlot::Passphrase(text(passphrase), QUICK)).expect("added");
        }
        let before = envelope.clone();
        let stays = |passphrase, id| (id, NewSlot::Passphrase(text(passphrase), QUICK));
        let turned = turn(&mut envelope, created, &[stays("one", 1), stays("three", 3)]).expect("turned");
        assert_eq!(unlock(&envelope, &text("two")).map(drop), Err(EnvelopeError::WrongSecret(SlotKind::Passphrase)));

        let (opened, _) = unlock(&envelope, &text("three")).expect("unlocks");
        assert!(turned.current.expose(|a| opened.current.expose(|b| a == b)));
        let cipher = opened.cipher(Purpose::Records);
        assert_eq!((cipher.open(b"", &first).as_deref(), cipher.is_outdated(b"", &first)), (Ok(&b"old"[..]), true));
        // The file of before opens with the key of before, which opens nothing new.
        let (old, _) = unlock(&before, &text("two")).expect("unlocks");
        assert!(old.cipher(Purpose::Records).open(b"", &cipher.seal(b"", b"new")).is_err());

        assert_eq!(turn(&mut envelope, opened, &[]).map(drop), Err(EnvelopeError::Rotating));

        let mut swapped = envelope.clone();
        swapped.keep_previous(vec![0; 73]);
        let damaged = EnvelopeError::Damaged("its previous data key does not open");
        assert_eq!(unlock(&swapped, &text("one")).map(drop), Err(damaged));
    }

    #[test]
    fn unlocking_leaves_neither_passphrase_nor_data_key_behind() {
        let text = Secret::<32>::random();
        let passphrase = text.expose(|text| Passphrase::copy_from(text)).expect("short");
        let (envelope, created) =
            create(&passphrase, Argon2id { memory_kib: 1024, passes: 2, lanes: 2 }).expect("created");
        let marks = [mark(&text), mark(created.current())];
        drop(created);
        // Only what is held in pages without memfd_secret may be found: the text and the passphrase, and the data key.
        let held = copies_in_memory(&mark(&text)) / 2;
        let unlocked = unlock(&envelope, &passphrase).expect("unlocks");
        assert_eq!(marks.map(|mark| copies_in_memory(&mark)), [2 * held, held]);
        drop(unlocked);
        assert_eq!(marks.map(|mark| copies_in_memory(&mark)), [2 * held, 0]);
    }
}
