//! Accounts of Lightspark over the real daemon.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and says what it did

mod account;
mod callback;
mod channels;
mod osk;
mod over_http;
mod recovery;
mod retries;
mod secrets;
