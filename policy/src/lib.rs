//! Claviger's spending policy: what a node may do with the operator's money, beyond what safety allows anyway (P3).
//!
//! Everything here is pure: no I/O, no clock, no randomness. State and time come in as arguments, so a decision of last
//! month can be made again, byte for byte. A front door builds a [`request::Request`] from parsed and booked data.

pub mod actions;
pub mod budget;
pub mod bundle;
pub mod decide;
pub mod engine;
pub mod facts;
pub mod grant;
pub mod limits;
pub mod lists;
mod names;
pub mod place;
pub mod preset;
pub mod reasons;
pub mod request;
pub mod sample;
pub mod schema;
pub mod time;
pub mod tooling;
pub mod value;
pub mod verdict;
