//! The data key between its envelope and secret memory: it is never anywhere else.

use claviger_hsm::{Argon2id, Envelope, EnvelopeError, PassphraseSlot, SlotId};

use super::memory::{Secret, scrubbed};
use super::passphrase::Passphrase;

/// A new data key, in a new envelope with one passphrase slot.
pub fn create(passphrase: &Passphrase, cost: Argon2id) -> Result<(Envelope, Secret<32>), EnvelopeError> {
    let data_key = Secret::random();
    let envelope = with_slot(passphrase, cost, |slot| data_key.expose(|key| Envelope::create(key, slot)))?;
    Ok((envelope, data_key))
}

/// The data key that a passphrase slot of `envelope` holds, and which slot it was.
pub fn unlock(envelope: &Envelope, passphrase: &Passphrase) -> Result<(Secret<32>, SlotId), EnvelopeError> {
    let mut opened_by = 0;
    let data_key = Secret::try_init(|key| {
        with_slot(passphrase, Argon2id::default(), |slot| envelope.open(slot, key)).map(|slot| opened_by = slot)
    })?;
    Ok((data_key, opened_by))
}

/// Adds a passphrase slot for `data_key`, as `unlock` gave it, to `envelope`; returns the slot's number.
pub fn add_passphrase(
    envelope: &mut Envelope,
    data_key: &Secret<32>,
    passphrase: &Passphrase,
    cost: Argon2id,
) -> Result<SlotId, EnvelopeError> {
    with_slot(passphrase, cost, |slot| data_key.expose(|key| envelope.add(key, slot)))
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

    #[test]
    fn a_created_key_is_unlocked_by_any_of_its_passphrases() {
        let [one, two, three] =
            ["one", "two", "three"].map(|text| Passphrase::copy_from(text.as_bytes()).expect("short"));
        let (mut envelope, created) = create(&one, QUICK).expect("created");
        assert_eq!(add_passphrase(&mut envelope, &created, &two, QUICK), Ok(2));
        for (passphrase, slot) in [(&one, 1), (&two, 2)] {
            let (unlocked, opened_by) = unlock(&envelope, passphrase).expect("unlocks");
            assert!(created.expose(|a| unlocked.expose(|b| a == b)));
            assert_eq!(opened_by, slot);
        }
        let wrong = unlock(&envelope, &three).map(|_| ());
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
