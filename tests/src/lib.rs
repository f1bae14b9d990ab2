//! What the end-to-end tests share.

pub mod canary;
pub mod random;
pub mod refused;
