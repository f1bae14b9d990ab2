//! Seeds and keys while the signer is unsealed.

pub mod attempts;
pub mod cipher;
pub mod data_key;
pub mod import;
pub mod memory;
pub mod passphrase;
pub mod purpose;
pub mod rsa;
