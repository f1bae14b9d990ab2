//! Real LDK nodes on a chain that verifies scripts: one has its keys in a signer, the others their own. What is here
//! wants a hand on the signer or on the kind of channel; the life of channels over the daemon is in `tests/tests/ldk`.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout)] // one crate of tests: nothing reaches out, and what fails may panic

mod closing;
mod identity;
mod justice;
mod payments;
mod restarts;
mod signer;
mod world;
