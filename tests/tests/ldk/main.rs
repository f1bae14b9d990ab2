//! LDK end to end: real nodes, one of them without keys, over the real daemon and a chain that verifies scripts.

#![allow(clippy::unwrap_used)] // what fails may panic

mod busy;
mod closing;
mod justice;
mod payments;
mod restarts;
mod rollback;
mod stage;
mod treasury;
