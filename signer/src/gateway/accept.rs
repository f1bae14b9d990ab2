//! TLS for doors whose callers have no certificate: at most so many connections, and no caller keeps others out (P6).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::gathered::Gathered;
use super::link::{Callers, LinkServerError, ServerIdentity};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HANDSHAKES: usize = 64;
const MAX_HANDSHAKES_PER_ADDRESS: usize = 16;
/// lnd keeps one open, and opens one a minute to see whether the signer is there.
const MAX_CONNECTIONS: usize = 256;
/// What a connection's answers gather in: a TLS record's worth.
const GATHERED_BYTES: usize = 16 * 1024;

/// What differs between doors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    /// For log lines.
    pub(super) name: &'static str,
    /// What is spoken behind TLS (ALPN).
    pub(super) protocol: &'static [u8],
    /// For log lines: what to look at if a handshake fails.
    pub(super) hint: &'static str,
}

/// A door that takes connections. Dropping it closes it and all of them.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) address: SocketAddr,
    /// Dropped to end every connection.
    _alive: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Accepting {
    /// Takes connections from `listener`, with TLS 1.3 and ring. Call it within a tokio runtime.
    pub(super) fn start(
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        door: Door,
    ) -> Result<(Self, mpsc::Receiver<Connection>), LinkServerError> {
        let address = listener.local_addr().map_err(|error| LinkServerError::Socket(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| LinkServerError::Tls(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(identity);
        config.alpn_protocols = vec![door.protocol.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let (ready, connections) = mpsc::channel(1);
        let (alive, gone) = watch::channel(());
        let task = tokio::spawn(accept_loop(listener, config, ready, gone, door));
        Ok((Self { address, _alive: alive, task }, connections))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_loop(
    listener: TcpListener,
    config: ServerConfig,
    ready: mpsc::Sender<Connection>,
    gone: watch::Receiver<()>,
    door: Door,
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
                tracing::warn!(%error, "{}: cannot accept connections", door.name);
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
                    let stream = Gathered::new(stream, GATHERED_BYTES);
                    let _ = ready.send(Connection { stream, gone, _place: place }).await; // Fails when the server is gone.
                }
                Ok(Err(error)) => {
                    if let Some(line) = callers.line(address.ip()) {
                        let Door { name, hint, .. } = door;
                        tracing::warn!(peer = %address, left_out = line.left_out, "{name}: no TLS: {error}; {hint}");
                    }
                }
                Err(_) => {}
            }
        });
    }
}

/// A connection; its place among the allowed ones is free again when it is dropped.
pub(super) struct Connection {
    stream: Gathered<TlsStream<TcpStream>>,
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
