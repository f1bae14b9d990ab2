//! Real LDK nodes on a chain that verifies scripts: one has its keys in a signer, the others their own.

#![allow(unreachable_pub)] // one crate, nothing reaches out

mod closing;
mod justice;
mod payments;
mod restarts;
mod signer;
mod world;
