//! The passphrase slot: Argon2id (RFC 9106) makes a key from the passphrase, AES-256-GCM wraps the data key with it.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::slot::{Binding, KeySlot, SlotError, SlotKind, Wrapped};

/// The cost of guessing one passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2id {
    /// Memory in KiB, 8 to 1 GiB.
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 8.
    pub lanes: u32,
}

impl Default for Argon2id {
    /// 256 MiB, 3 passes, 1 lane: about half a second on a small server, once per unseal.
    fn default() -> Self {
        Self { memory_kib: 256 * 1024, passes: 3, lanes: 1 }
    }
}

impl Argon2id {
    /// Refuses what could only be a mistake or an attempt to exhaust the host.
    fn check(self) -> Result<Params, SlotError> {
        let limits = [
            (self.lanes, 1..=8, "number of lanes"),
            (self.memory_kib, 8 * self.lanes.min(8)..=1024 * 1024, "memory"),
            (self.passes, 1..=16, "number of passes"),
        ];
        match limits.into_iter().find(|(value, range, _)| !range.contains(value)) {
            Some((_, _, what)) => Err(SlotError::Parameters(what)),
            None => Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
                .map_err(|_| SlotError::Parameters("combination of Argon2id parameters")),
        }
    }
}

/// What is stored for a passphrase slot. Bytes are written in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    argon2id: Argon2id,
    #[serde(with = "crate::hexed")]
    salt: [u8; 16],
    #[serde(with = "crate::hexed")]
    nonce: [u8; 12],
    #[serde(with = "crate::hexed")]
    wrapped_key: [u8; 32],
    #[serde(with = "crate::hexed")]
    tag: [u8; 16],
}

/// A slot that opens with `passphrase`. `cost` is for wrapping; unwrapping takes the cost that was stored.
///
/// Argon2's memory is freed without being wiped here: the process's allocator is expected to do that.
#[derive(Clone, Copy)]
pub struct PassphraseSlot<'a> {
    /// The passphrase, any bytes.
    pub passphrase: &'a [u8],
    /// The cost of a new slot.
    pub cost: Argon2id,
}

impl KeySlot for PassphraseSlot<'_> {
    fn kind(&self) -> SlotKind {
        SlotKind::Passphrase
    }

    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError> {
        let mut record =
            Record { argon2id: self.cost, salt: random(), nonce: random(), wrapped_key: [0; 32], tag: [0; 16] };
        let buffer = InOutBuf::new(&data_key[..], &mut record.wrapped_key).expect("both are 32 bytes");
        record.tag = self
            .cipher(record.argon2id, &record.salt)?
            .encrypt_inout_detached(&Nonce::from(record.nonce), &binding.associated_data(), buffer)
            .expect("32 bytes are below GCM's length limit")
            .into();
        Ok(Wrapped::Passphrase(record))
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Passphrase(record) = wrapped;
        let buffer = InOutBuf::new(&record.wrapped_key[..], data_key).expect("both are 32 bytes");
        self.cipher(record.argon2id, &record.salt)?
            .decrypt_inout_detached(
                &Nonce::from(record.nonce),
                &binding.associated_data(),
                buffer,
                &Tag::from(record.tag),
            )
            .map_err(|_| SlotError::WrongSecret)
    }
}

impl PassphraseSlot<'_> {
    fn cipher(&self, cost: Argon2id, salt: &[u8; 16]) -> Result<Aes256Gcm, SlotError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.check()?);
        let mut key = Zeroizing::new([0; 32]);
        argon2.hash_password_into(self.passphrase, salt, key.as_mut_slice()).map_err(|error| match error {
            argon2::Error::OutOfMemory => SlotError::OutOfMemory(cost.memory_kib),
            _ => SlotError::Parameters("passphrase length"),
        })?;
        Ok(Aes256Gcm::new((&*key).into()))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Argon2id = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };
    const BINDING: Binding = Binding { version: 1, installation: [5; 16], slot: 1, kind: SlotKind::Passphrase };

    fn slot(passphrase: &[u8]) -> PassphraseSlot<'_> {
        PassphraseSlot { passphrase, cost: QUICK }
    }

    fn unwrapped(slot: &PassphraseSlot<'_>, binding: &Binding, wrapped: &Wrapped) -> Result<[u8; 32], SlotError> {
        let mut data_key = [0; 32];
        let result = slot.unwrap(binding, wrapped, &mut data_key);
        assert!(result.is_ok() || data_key == [0; 32], "a failure leaves the buffer alone");
        result.map(|()| data_key)
    }

    #[test]
    fn the_passphrase_opens_what_it_wrapped_and_another_does_not() {
        let wrapped = slot(b"correct horse").wrap(&BINDING, &[9; 32]).expect("wraps");
        assert_eq!(unwrapped(&slot(b"correct horse"), &BINDING, &wrapped), Ok([9; 32]));
        assert_eq!(unwrapped(&slot(b"battery staple"), &BINDING, &wrapped), Err(SlotError::WrongSecret));
    }

    #[test]
    fn a_wrapped_key_opens_only_in_its_own_place() {
        let wrapped = slot(b"p").wrap(&BINDING, &[9; 32]).expect("wraps");
        for moved in [
            Binding { version: 2, ..BINDING },
            Binding { installation: [6; 16], ..BINDING },
            Binding { slot: 2, ..BINDING },
        ] {
            assert_eq!(unwrapped(&slot(b"p"), &moved, &wrapped), Err(SlotError::WrongSecret));
        }
    }

    #[test]
    fn absurd_costs_are_refused_before_any_work() {
        for (cost, what) in [
            (Argon2id { memory_kib: u32::MAX, ..QUICK }, "memory"),
            (Argon2id { memory_kib: 7, ..QUICK }, "memory"),
            (Argon2id { passes: 17, ..QUICK }, "number of passes"),
            (Argon2id { passes: 0, ..QUICK }, "number of passes"),
            (Argon2id { lanes: 9, ..QUICK }, "number of lanes"),
            (Argon2id { lanes: u32::MAX, ..QUICK }, "number of lanes"),
        ] {
            let slot = PassphraseSlot { passphrase: b"p", cost };
            assert_eq!(slot.wrap(&BINDING, &[9; 32]), Err(SlotError::Parameters(what)));
        }
        assert_eq!(Argon2id::default().check().map(|params| params.m_cost()), Ok(262_144));
    }

    #[test]
    fn equal_keys_and_passphrases_wrap_differently() {
        let wrap = || slot(b"p").wrap(&BINDING, &[9; 32]).expect("wraps");
        assert_ne!(wrap(), wrap());
    }
}
