//! Real LDK nodes on a chain that verifies scripts: one has its keys in a signer, the others their own.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout)] // one crate of tests: nothing reaches out, and what fails may panic

mod closing;
mod identity;
mod justice;
mod payments;
mod restarts;
mod signer;
mod world;
