//! The door for Lightspark's webhooks: HTTP behind TLS (`docs/lightspark.md`).
//!
//! ```text
//! TCP ─ accept.rs: TLS, limits ─▶ server.rs: HTTP ─▶ webhook.rs: whose signature? ─▶ a request of that account ─▶ LinkHandler
//! ```

mod accounts;
mod server;
mod webhook;

pub use accounts::Accounts;
pub use server::LightsparkServer;
