//! Where key material rests: one data key, wrapped once per key slot in an envelope (`docs/envelope.md`).
//!
//! `slot` is the interface between the envelope and a backend that can wrap the data key. A backend is a file, named as
//! its kind, its cargo feature if it has one, its page in `docs/hsm/` and its module in the conformance suite
//! (`tests/conformance.rs`). Buffers for the data key are the caller's, so that it never exists outside the caller's
//! secret memory.

mod cause;
pub mod counter;
pub mod device_key;
pub mod envelope;
pub mod file;
pub mod helper;
mod hexed;
mod kek;
#[cfg(not(all(feature = "pkcs11", feature = "tpm")))]
mod missing;
pub mod passphrase;
pub mod pkcs11;
pub mod shares;
pub mod slot;
pub mod tpm;

pub use counter::{Counter, CounterError, Reading};
pub use device_key::{Curve, DeviceKey, DeviceKeyError, KeyKind, KeyRecord};
pub use envelope::{Envelope, EnvelopeError};
pub use helper::HelperSlot;
pub use passphrase::{Argon2id, PassphraseSlot};
pub use pkcs11::{Pkcs11Key, Pkcs11Slot};
pub use shares::{Share, SharesSlot};
pub use slot::{Absent, Binding, KeySlot, SlotError, SlotId, SlotKind, Tries, Wrapped};
pub use tpm::{TpmKey, TpmSlot};
