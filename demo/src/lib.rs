//! A whole Lightning world on one machine: the parts that `claviger-demo` and the end-to-end tests play with.

pub mod books;
pub mod chain;
pub mod interrupt;
pub mod node;
pub mod signer;
pub mod world;
