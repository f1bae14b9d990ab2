//! Where key material rests: one data key, wrapped once per key slot in an envelope (`docs/envelope.md`).
//!
//! `slot` is the interface between the envelope and a backend that can wrap the data key; `passphrase` is the first
//! backend. Buffers for the data key are the caller's, so that it never exists outside the caller's secret memory.

pub mod envelope;
pub mod file;
mod hexed;
pub mod passphrase;
pub mod slot;

pub use envelope::{Envelope, EnvelopeError};
pub use passphrase::{Argon2id, PassphraseSlot};
pub use slot::{Binding, KeySlot, SlotError, SlotId, SlotKind, Wrapped};
