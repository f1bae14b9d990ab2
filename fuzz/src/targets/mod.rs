//! What is fuzzed.

pub mod channel;
pub mod guard_decoder;
pub mod link_frames;
