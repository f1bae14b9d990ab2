//! Attacks of a node that was taken over, each beside what an honest node does, over the real link to a real daemon.
//!
//! The attacker has the node's certificate and, where it helps, a peer that does as it is told. A test that begins with
//! `hostile` shows that an attack is refused with its reason, its twin that begins with `honest` that what looks like it
//! passes.

#![allow(clippy::unwrap_used)] // what fails may panic

mod announcements;
mod budgets;
mod chain;
mod channel;
mod closing;
mod invoices;
mod limits;
mod messages;
mod negotiation;
mod oracles;
mod reasons;
mod settings;
mod sweeps;
mod thief;
mod value;
