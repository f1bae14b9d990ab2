//! The door for Lightspark's webhooks: HTTP behind TLS. The operations of an account's own services come in where nodes
//! connect (`docs/lightspark.md`).
//!
//! ```text
//! TCP ─ accept.rs: TLS, limits ─▶ server.rs: HTTP ─▶ webhook.rs: whose signature? ─▶ a request of that account ─▶ LinkHandler
//!                     Lightspark's API ◀─ api.rs ◀─ courier.rs: until it is taken ◀─ a letter, recorded ◀─┘
//! link/server.rs: gRPC, client certificate ─▶ operations.rs: whose certificate? ─▶ a request of that account ─▶ LinkHandler
//!                 HTTP ─▶ operations_http.rs ─┘
//! ```

mod accounts;
mod api;
mod courier;
mod mutations;
mod operations;
pub(in crate::gateway) mod operations_http;
mod server;
mod webhook;

pub use accounts::{Account, Accounts};
pub use api::{Api, ApiError, AtLightspark, Endpoint};
pub use courier::{Courier, Forget};
pub(in crate::gateway) use operations::Service as Operations;
pub use server::LightsparkServer;
