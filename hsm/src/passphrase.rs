//! The passphrase slot: Argon2id (RFC 9106) makes a key from the passphrase, AES-256-GCM wraps the data key with it.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::kek::{Sealed, random};
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
            Some((_, _, what)) => Err(SlotError::Parameters(what.into())),
            None => Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
                .map_err(|_| SlotError::Parameters("combination of Argon2id parameters".into())),
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

impl Record {
    /// What guessing its passphrase costs.
    pub fn cost(&self) -> Argon2id {
        self.argon2id
    }
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
        let (argon2id, salt) = (self.cost, random());
        let Sealed { nonce, wrapped_key, tag } = Sealed::seal(&*self.kek(argon2id, &salt)?, binding, data_key);
        Ok(Wrapped::Passphrase(Record { argon2id, salt, nonce, wrapped_key, tag }))
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Passphrase(Record { argon2id, salt, nonce, wrapped_key, tag }) = wrapped else {
            return Err(SlotError::OtherKind(wrapped.kind()));
        };
        let sealed = Sealed { nonce: *nonce, wrapped_key: *wrapped_key, tag: *tag };
        sealed.open(&*self.kek(*argon2id, salt)?, binding, data_key)
    }

    fn health(&self, _wrapped: &Wrapped) -> Result<(), SlotError> {
        Ok(()) // nothing that could be away
    }
}

impl PassphraseSlot<'_> {
    fn kek(&self, cost: Argon2id, salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, SlotError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.check()?);
        let mut key = Zeroizing::new([0; 32]);
        argon2.hash_password_into(self.passphrase, salt, key.as_mut_slice()).map_err(|error| match error {
            argon2::Error::OutOfMemory => SlotError::OutOfMemory(cost.memory_kib),
            _ => SlotError::Parameters("passphrase length".into()),
        })?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Argon2id = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };
    const BINDING: Binding = Binding { version: 1, installation: [5; 16], slot: 1, kind: SlotKind::Passphrase };

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
            assert_eq!(slot.wrap(&BINDING, &[9; 32]), Err(SlotError::Parameters(what.into())));
        }
        assert_eq!(Argon2id::default().check().map(|params| params.m_cost()), Ok(262_144));
    }
}
