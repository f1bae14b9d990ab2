//! What the end-to-end tests share.

pub mod canary;
pub mod refused;
