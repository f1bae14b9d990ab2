//! Memory for secrets: pages no other process can read, a heap that forgets, a stack that can be wiped (P8).
//!
//! `arena`, `allocator` and `descriptors` hold the only unsafe code of the workspace.

mod allocator;
mod arena;
mod descriptors;
mod secret;
mod stack;

pub use allocator::Wiping;
pub use arena::{Protection, protection};
pub(crate) use descriptors::{close_inherited, duplicate};
pub use secret::Secret;
pub use stack::{scrub_stack, scrubbed};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{copies_in_memory, mark};
