//! The signer's view of the chain, over real RPC, with real vls-core trackers.

mod closings;
mod follower;
mod source;
mod world;
