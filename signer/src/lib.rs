//! Claviger: a signing appliance for the Lightning Network.
//!
//! `pipeline` shows the whole way of a request; the other modules are the rooms it passes through
//! (`docs/architecture.md`).

pub mod admin;
pub mod backup;
pub mod bench;
pub mod bucket;
mod calendar;
pub mod chain;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datadir;
pub mod devices;
pub mod facts;
pub mod gateway;
pub mod harden;
pub mod journal;
pub mod keys;
pub mod lightning;
pub mod metrics;
pub mod names;
pub mod pipeline;
pub mod policy;
pub mod reasons;
pub mod turns;
