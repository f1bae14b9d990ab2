//! Memory for secrets: pages no other process can read, a heap of them that forgets, stacks of them that can be wiped (P8).
//!
//! All unsafe code of the workspace is here.

mod allocator;
mod arena;
mod descriptors;
mod heap;
mod pages;
mod secret;
mod stack;
mod turns;

pub use allocator::Wiping;
pub use arena::{Protection, protection};
pub(crate) use descriptors::{close_inherited, duplicate};
pub use heap::{HeapStatus, enclose_heap, heap_status, open_heap, secret_room_for};
pub use secret::Secret;
pub use stack::{on_secret_stack, scrub_stack, scrubbed, scrubbed_together, spawn};
pub use turns::{Thread, Turns};

#[cfg(test)]
pub(crate) use pages::code_can_be_written;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{copies_in_memory, mark};
