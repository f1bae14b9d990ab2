//! Front doors: bytes in, a typed request out, and back.

mod accept;
mod gathered;
pub mod lightspark;
pub mod link;
pub mod lnd;
