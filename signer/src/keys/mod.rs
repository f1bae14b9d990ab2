//! Seeds and keys while the signer is unsealed.

pub mod cipher;
pub mod memory;
pub mod purpose;
