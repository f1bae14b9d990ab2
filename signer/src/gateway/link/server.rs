//! Starting and stopping the link.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claviger_proto::MAX_FRAME_BYTES;
use claviger_proto::v1::node_link_server::NodeLinkServer;
use claviger_proto::v1::operations_server::OperationsServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::identity::ServerIdentity;
use super::service::Service;
use super::sessions::{Connected, Sessions};
use super::{LinkHandler, LinkOptions, Roster, tls};
use crate::gateway::lightspark::{Operations, operations_http};
use crate::lightning::lightspark::{MAX_CLEARANCE_BYTES, MAX_OPERATION_BYTES};
use crate::reasons::Refusal;

/// Certificates also end without anybody changing the roster: open streams are checked at least this often.
const RECHECK: Duration = Duration::from_secs(30);

/// How long a stopping server waits for nodes to take their leave.
const GRACE: Duration = Duration::from_secs(5);

/// HTTP/2 windows: what a node may send ahead of being read, per stream and per connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What surrounds an operation, in bytes.
const ENVELOPE_BYTES: usize = 1024;

/// HTTP/2 streams per connection; a node needs one.
const MAX_STREAMS: u32 = 4;

/// Why the link cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkServerError {
    /// The socket cannot be used.
    #[error("the link's socket cannot be used: {0}")]
    Socket(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// A running link. Dropping it stops it at once; [`LinkServer::shutdown`] tells the nodes why.
#[derive(Debug)]
pub struct LinkServer {
    address: SocketAddr,
    sessions: Arc<Sessions>,
    stop: Option<oneshot::Sender<()>>,
    /// Dropped to end every connection.
    _alive: watch::Sender<()>,
    accepting: JoinHandle<()>,
    watching: JoinHandle<()>,
    serving: JoinHandle<()>,
    serving_plain: JoinHandle<()>,
}

impl LinkServer {
    /// Serves `listener`. Call it within a tokio runtime.
    pub fn start(
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        roster: Arc<dyn Roster>,
        handler: Arc<dyn LinkHandler>,
        options: LinkOptions,
    ) -> Result<Self, LinkServerError> {
        let address = listener.local_addr().map_err(|error| LinkServerError::Socket(error.to_string()))?;
        let config = tls::server_config(identity)?;
        let sessions = Arc::new(Sessions::new(options.max_in_flight));
        let (ready, connections) = mpsc::channel(1);
        let (plain, plain_connections) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let (alive, server) = watch::channel(());
        let accepting = tokio::spawn(tls::accept_loop(listener, config, options.clone(), (ready, plain), server));
        let watching = tokio::spawn(watch(Arc::clone(&roster), Arc::clone(&sessions)));
        let operations = Operations { roster: Arc::clone(&roster), handler: Arc::clone(&handler) };
        let serving_plain = tokio::spawn(operations_http::serve(plain_connections, operations.clone()));
        let router = Server::builder()
            .http2_keepalive_interval(Some(options.keepalive))
            .http2_keepalive_timeout(Some(options.keepalive))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(16 * 1024)
            .add_service(
                NodeLinkServer::new(Service { sessions: Arc::clone(&sessions), roster, handler, options })
                    .max_decoding_message_size(MAX_FRAME_BYTES)
                    .max_encoding_message_size(MAX_FRAME_BYTES),
            )
            .add_service(
                OperationsServer::new(operations)
                    .max_decoding_message_size(MAX_OPERATION_BYTES + MAX_CLEARANCE_BYTES + ENVELOPE_BYTES)
                    .max_encoding_message_size(MAX_FRAME_BYTES),
            );
        let serving = tokio::spawn(async move {
            let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
            let stopped = async { stopped.await.unwrap_or(()) };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "link: the server failed");
            }
        });
        Ok(Self { address, sessions, stop: Some(stop), _alive: alive, accepting, watching, serving, serving_plain })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connected nodes, by name.
    pub fn connected(&self) -> Vec<Connected> {
        self.sessions.connected()
    }

    /// Stops: open streams end with `why`, and nodes ask their unanswered questions again when the link is back (P5).
    pub async fn shutdown(mut self, why: Refusal) {
        self.accepting.abort();
        self.sessions.close(&why);
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(GRACE, &mut self.serving).await.is_err() {
            tracing::warn!("link: stopped without waiting for nodes that do not take their leave");
        }
    }
}

impl Drop for LinkServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.watching.abort();
        self.serving.abort();
        self.serving_plain.abort();
    }
}

/// Checks open streams whenever the roster changes.
async fn watch(roster: Arc<dyn Roster>, sessions: Arc<Sessions>) {
    let mut changes = roster.changes();
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(RECHECK, changes.changed()).await {
            return; // The roster is gone, and with it the daemon.
        }
        sessions.recheck(roster.as_ref());
    }
}
