//! The signer's view of the chain, over real RPC, with real vls-core trackers.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod closings;
mod follower;
mod source;
mod world;
