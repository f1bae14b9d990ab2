//! Starting and stopping the door for lnd nodes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use claviger_proto::signrpc::signer_server::SignerServer;
use claviger_proto::walletrpc::wallet_kit_server::WalletKitServer;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::macaroon::Mint;
use super::service::Service;
use crate::gateway::link::{Callers, LinkHandler, LinkServerError, Roster, ServerIdentity};
use crate::lightning::guard::MAX_LND_MESSAGE_BYTES;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HANDSHAKES: usize = 64;
const MAX_HANDSHAKES_PER_ADDRESS: usize = 16;
/// lnd keeps one open, and opens one a minute to see whether the signer is there.
const MAX_CONNECTIONS: usize = 256;
/// Calls at once on a connection; lnd's next ones wait for one to be answered.
const MAX_STREAMS: u32 = 128;
/// Bytes that may come ahead of being read: on a stream the largest call, on a connection a few of them.
const STREAM_WINDOW_BYTES: u32 = MAX_LND_MESSAGE_BYTES as u32;
const CONNECTION_WINDOW_BYTES: u32 = 4 * MAX_LND_MESSAGE_BYTES as u32;
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The running door. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct LndServer {
    address: SocketAddr,
    /// Dropped to end every connection.
    _alive: watch::Sender<()>,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl LndServer {
    /// Serves `listener`. Call it within a tokio runtime.
    pub fn start(
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        mint: Arc<Mint>,
        roster: Arc<dyn Roster>,
        handler: Arc<dyn LinkHandler>,
    ) -> Result<Self, LinkServerError> {
        let address = listener.local_addr().map_err(|error| LinkServerError::Socket(error.to_string()))?;
        let config = server_config(identity)?;
        let (ready, connections) = mpsc::channel(1);
        let (alive, gone) = watch::channel(());
        let accepting = tokio::spawn(accept_loop(listener, config, ready, gone));
        let service = Service { mint, roster, handler };
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(16 * 1024)
            .add_service(SignerServer::new(service.clone()).max_decoding_message_size(MAX_LND_MESSAGE_BYTES))
            .add_service(WalletKitServer::new(service).max_decoding_message_size(MAX_LND_MESSAGE_BYTES));
        let serving = tokio::spawn(async move {
            let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
            if let Err(error) = router.serve_with_incoming(incoming).await {
                tracing::error!(%error, "lnd: the server failed");
            }
        });
        Ok(Self { address, _alive: alive, accepting, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LndServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.serving.abort();
    }
}

/// TLS 1.3, ring, HTTP/2. lnd has no client certificate: its macaroon says who it is.
fn server_config(identity: Arc<ServerIdentity>) -> Result<ServerConfig, LinkServerError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| LinkServerError::Tls(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

async fn accept_loop(
    listener: TcpListener,
    config: ServerConfig,
    ready: mpsc::Sender<Connection>,
    gone: watch::Receiver<()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let callers = Callers::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_ADDRESS);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else {
            return; // The semaphore is never closed.
        };
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come back.
                tracing::warn!(%error, "lnd: cannot accept connections");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(mut handshake) = callers.begin(address.ip()) else { continue };
        let (acceptor, ready, mut gone, callers) = (acceptor.clone(), ready.clone(), gone.clone(), callers.clone());
        tokio::spawn(async move {
            let mut gone = Box::pin(async move { while gone.changed().await.is_ok() {} });
            let _ = tcp.set_nodelay(true);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)) => shaken,
                _ = &mut handshake.make_way => return,
                () = &mut gone => return,
            };
            drop(handshake);
            match shaken {
                Ok(Ok(stream)) => {
                    let _ = ready.send(Connection { stream, gone, _place: place }).await; // Fails when the server is gone.
                }
                Ok(Err(error)) => {
                    if let Some(line) = callers.line(address.ip()) {
                        let hint = "is remotesigner.tlscertpath this signer's tls.cert, and rpchost a name in it?";
                        tracing::warn!(peer = %address, left_out = line.left_out, "lnd: no TLS: {error}; {hint}");
                    }
                }
                Err(_) => {}
            }
        });
    }
}

/// A connection; its place among the allowed ones is free again when it is dropped.
struct Connection {
    stream: TlsStream<TcpStream>,
    /// Ready when the server is gone: the connection then fails instead of living on.
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
