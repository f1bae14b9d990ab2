//! The node link: `claviger.v1.NodeLink` over TLS 1.3 with client certificates (`docs/link.md`).
//!
//! ```text
//! TCP ─ tls.rs: handshake, certificate ─▶ service.rs: Hello, who is it? ─▶ stream.rs: frames ─▶ LinkHandler
//!                                            sessions.rs: one stream per node, closed when its certificate is
//! ```
//!
//! What one caller can take of the signer is bounded here: handshakes and log lines by address (`callers.rs`), bytes by
//! certificate (`allowance.rs`), requests in flight by node (`sessions.rs`), unread replies by stream (`outbox.rs`).

mod allowance;
mod callers;
mod identity;
mod outbox;
mod server;
mod service;
mod sessions;
mod stream;
mod tls;
mod wire;

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::admin::fingerprint::Fingerprint;
use crate::config::LinkConfig;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{Outcome, Request, Responder};
use crate::reasons::{Reason, Refusal};

pub(in crate::gateway) use callers::Callers;
pub use identity::ServerIdentity;
pub use server::{LinkServer, LinkServerError};
pub use sessions::Connected;
pub(in crate::gateway) use tls::{Peer, TlsConnection};
pub(in crate::gateway) use wire::refused as status;

/// Takes the requests of all nodes.
pub trait LinkHandler: Send + Sync + 'static {
    /// Takes one request of `node`. Must not block; `respond` is called once, from any thread. A `respond` dropped
    /// uncalled answers the node with a refusal that may be repeated.
    fn submit(&self, node: &NodeName, request: Request, respond: Responder);
}

/// Hands `message` of `node` to `handler` and waits for what comes of it, at most `within`. A call that has no answer by then,
/// or whose answer is lost, may be repeated: it is refused with `node-busy`.
pub(in crate::gateway) async fn ask(
    handler: &dyn LinkHandler,
    node: &NodeName,
    message: Vec<u8>,
    within: Duration,
) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    let request = Request { request_id: 0, channel: None, message };
    handler.submit(node, request, Box::new(move |outcome| drop(reply.send(outcome))));
    let why = match tokio::time::timeout(within, outcome).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(_)) => "the answer was lost",
        Err(_) => "there is no answer yet",
    };
    Outcome::Refused { request: String::new(), refusal: Refusal::new(Reason::NodeBusy, why) }
}

/// Knows which certificate is which node's.
pub trait Roster: Send + Sync + 'static {
    /// The node that owns the certificate, if it may connect now. Must not block.
    fn lookup(&self, fingerprint: &Fingerprint) -> Result<(NodeName, NodeKind), LinkDenied>;

    /// Changes whenever a lookup may come out differently: open streams are then checked again.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why a certificate that the CA signed does not open the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkDenied {
    /// No node has this certificate.
    #[error("the certificate belongs to no node")]
    Unknown,
    /// It was revoked.
    #[error("the certificate of node '{node}' was revoked")]
    Revoked {
        /// Whose it was.
        node: NodeName,
    },
    /// It has ended.
    #[error("the certificate of node '{node}' ended at {not_after} (Unix time)")]
    Expired {
        /// Whose it was.
        node: NodeName,
        /// Seconds since the Unix epoch.
        not_after: u64,
    },
}

impl LinkDenied {
    /// The refusal the node sees (P11).
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unknown => Refusal::new(Reason::CertificateUnknown, ""),
            Self::Revoked { node } => Refusal::new(Reason::CertificateRevoked, format!("node {node}")),
            Self::Expired { node, not_after } => {
                Refusal::new(Reason::CertificateExpired, format!("node {node}, ended at {not_after} (Unix time)"))
            }
        }
    }
}

/// What the link says of itself, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// The Bitcoin network, for the Welcome.
    pub network: String,
    /// From TCP accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the start of a stream to its Hello.
    pub hello_timeout: Duration,
    /// Handshakes under way at once. One that takes its time makes way for a new one.
    pub max_handshakes: usize,
    /// The same of one address.
    pub max_handshakes_per_address: usize,
    /// Connections at once, over all nodes.
    pub max_connections: usize,
    /// Connections at once with one certificate, so that one node cannot take them all (P6).
    pub max_connections_per_certificate: usize,
    /// Bytes a second that are read from one certificate's connections, once four times as many came at once (P6).
    pub bytes_per_s: u64,
    /// Requests of one node that are not answered yet; then its stream is not read.
    pub max_in_flight: usize,
    /// An HTTP/2 ping is sent after this much silence, and again this long waited for.
    pub keepalive: Duration,
}

impl LinkOptions {
    /// The standard limits on `network`.
    pub fn new(network: bitcoin::Network) -> Self {
        Self {
            network: network.to_string(),
            handshake_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(10),
            max_handshakes: 128,
            max_handshakes_per_address: 48,
            // Half of the open files that a process usually may have: the rest is for journal, chain and administrator.
            max_connections: 512,
            max_connections_per_certificate: 16,
            bytes_per_s: LinkConfig::default().bytes_per_s,
            max_in_flight: 128,
            keepalive: Duration::from_secs(10),
        }
    }
}
