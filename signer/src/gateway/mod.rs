//! Front doors: bytes in, a typed request out, and back.

pub mod link;
pub mod lnd;
