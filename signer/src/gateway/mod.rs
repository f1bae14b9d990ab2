//! Front doors: bytes in, a typed request out, and back.

mod accept;
pub mod lightspark;
pub mod link;
pub mod lnd;
