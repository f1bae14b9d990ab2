//! The door for stock lnd nodes: the services that a watch-only lnd asks of its remote signer, over TLS (`docs/lnd.md`).
//!
//! ```text
//! TCP ─ server.rs: TLS, limits ─▶ service.rs: whose macaroon? ─▶ a request of that node ─▶ LinkHandler
//!                                 macaroon.rs                    status.rs: refusals that lnd survives
//! ```

mod macaroon;
mod server;
mod service;
mod status;

pub use macaroon::{MacaroonError, Mint, Minted};
pub use server::LndServer;
