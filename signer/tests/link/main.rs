//! The node link end to end: the signer's server and a node's client over real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod calls;
mod hostile;
mod identity;
mod isolation;
mod mending;
mod operations;
mod refusals;
mod world;
