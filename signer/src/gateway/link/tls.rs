//! From a TCP connection to an authenticated one: TLS 1.3, a client certificate of our CA, limits on the way.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::allowance::{Allowance, CONNECTION_BYTES, OFFENCE_BYTES};
use super::callers::{Callers, Line};
use super::identity::ServerIdentity;
use super::{LinkOptions, LinkServerError};
use crate::admin::fingerprint::Fingerprint;

/// First byte of a TLS handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// For whoever speaks plain HTTP to this port.
const PLAINTEXT_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    This is a Claviger node link. It speaks TLS 1.3 with client certificates only; connect with an enrolment bundle.\n";

/// What services speak that call operations without gRPC (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// How long, and for how many bytes, a refused connection may go on talking.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// An authenticated connection. Its place among the allowed connections is free again when it is dropped.
pub(in crate::gateway) struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Ready when the server is gone: the connection then fails instead of living on.
    server_gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// While it lasts nothing is read: the certificate has sent more than its allowance.
    pause: Option<Pin<Box<Sleep>>>,
    _places: (OwnedSemaphorePermit, Place),
}

impl TlsConnection {
    /// Who is at the other end.
    pub(in crate::gateway) fn peer(&self) -> Peer {
        self.peer.clone()
    }
}

/// Who is at the other end.
#[derive(Clone)]
pub(in crate::gateway) struct Peer {
    /// Where it dialled from, for logs.
    pub(in crate::gateway) address: SocketAddr,
    /// Its certificate, which our CA signed.
    pub(in crate::gateway) fingerprint: Fingerprint,
    allowance: Arc<Allowance>,
    callers: Arc<Callers>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, fingerprint, .. } = self;
        f.debug_struct("Peer").field("address", address).field("fingerprint", fingerprint).finish()
    }
}

impl Peer {
    /// It opened a stream.
    pub(super) fn opened(&self) {
        self.allowance.charge(CONNECTION_BYTES); // the next read finds it owed
    }

    /// It did what costs it: a stream was refused, or ended for what it carried.
    pub(in crate::gateway) fn offended(&self) {
        self.allowance.charge(OFFENCE_BYTES); // the next read finds it owed
    }

    /// Leave to write a line about it to the log.
    pub(in crate::gateway) fn line(&self) -> Option<Line> {
        self.callers.line(self.address.ip())
    }
}

/// TLS 1.3 only, ring only, client certificates of our CA only, and no resumption: every connection shows its certificate.
pub(super) fn server_config(identity: Arc<ServerIdentity>) -> Result<ServerConfig, LinkServerError> {
    let failed = |error: &dyn std::error::Error| LinkServerError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority().clone()).map_err(|error| failed(&error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| failed(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), HTTP_1_1.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Accepts until aborted: connections that speak HTTP/1.1 go to the second sender. They end when the sender of `server` is
/// dropped.
pub(super) async fn accept_loop(
    listener: TcpListener,
    config: ServerConfig,
    options: LinkOptions,
    (ready, plain): (mpsc::Sender<TlsConnection>, mpsc::Sender<TlsConnection>),
    server: watch::Receiver<()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let callers = Callers::new(options.max_handshakes, options.max_handshakes_per_address);
    let connections = Arc::new(Semaphore::new(options.max_connections));
    let places = Places::new(&options);
    loop {
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else {
            return; // The semaphore is never closed.
        };
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come back.
                tracing::warn!(%error, "link: cannot accept connections");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(mut handshake) = callers.begin(address.ip()) else {
            refused(&callers, address, "too many handshakes");
            continue;
        };
        let (acceptor, places, mut server) = (acceptor.clone(), places.clone(), server.clone());
        let (ready, plain) = (ready.clone(), plain.clone());
        let callers = callers.clone();
        tokio::spawn(async move {
            let mut server_gone = Box::pin(async move { while server.changed().await.is_ok() {} });
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(options.handshake_timeout, handshake_with(tcp, &acceptor)) => shaken,
                _ = &mut handshake.make_way => return refused(&callers, address, "it took its time and others came"),
                () = &mut server_gone => return,
            };
            drop(handshake);
            match shaken {
                Ok(Ok((stream, fingerprint))) => match places.take(fingerprint) {
                    Some((place, allowance)) => {
                        allowance.charge(CONNECTION_BYTES); // the first read finds it owed
                        let peer = Peer { address, fingerprint, allowance, callers };
                        let _places = (connection, place);
                        let is_plain = stream.get_ref().1.alpn_protocol() == Some(HTTP_1_1);
                        let connection = TlsConnection { stream, peer, server_gone, pause: None, _places };
                        // Fails only when the server is gone.
                        let _ = if is_plain { plain } else { ready }.send(connection).await;
                    }
                    None => {
                        let why = format!("too many connections with one certificate ({fingerprint})");
                        refused(&callers, address, &why);
                    }
                },
                Ok(Err(why)) => refused(&callers, address, &why),
                Err(_) => refused(&callers, address, "the handshake took too long"),
            }
        });
    }
}

/// Logs that a caller was turned away.
fn refused(callers: &Callers, address: SocketAddr, why: &str) {
    if let Some(line) = callers.line(address.ip()) {
        tracing::warn!(peer = %address, left_out = line.left_out, "link: refused: {why}");
    }
}

/// The TLS handshake; the error is for the log.
async fn handshake_with(
    mut tcp: TcpStream,
    acceptor: &TlsAcceptor,
) -> Result<(TlsStream<TcpStream>, Fingerprint), String> {
    let mut first = [0u8; 1];
    match tcp.peek(&mut first).await {
        Ok(1) if first[0] == TLS_HANDSHAKE => {}
        Ok(1) => {
            let _ = tcp.write_all(PLAINTEXT_ANSWER).await;
            linger(tcp).await;
            return Err("it did not speak TLS (plaintext?)".to_owned());
        }
        Ok(_) => return Err("it connected and left without a word".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let _ = tcp.set_nodelay(true);
    let stream = match acceptor.accept(tcp).into_fallible().await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            let words = handshake_words(&error);
            linger(tcp).await;
            return Err(words);
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or("it presented no client certificate")?;
    let fingerprint = Fingerprint::of(certificate);
    Ok((stream, fingerprint))
}

/// Closes a refused connection such that the peer can read why: unread input would turn the close into a reset, which
/// discards the alert on its way.
async fn linger(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let (mut rest, mut sink) = (tcp.take(LINGER_BYTES), tokio::io::sink());
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
}

/// What went wrong in a handshake, in words an operator can act on.
fn handshake_words(error: &io::Error) -> String {
    use rustls::Error as Tls;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::NoCertificatesPresented) => "it presented no client certificate".to_owned(),
        Some(Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "its certificate is not from this signer's CA (a bundle of another signer?)".to_owned()
        }
        Some(Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "its certificate has ended; write a new bundle with `claviger node renew`".to_owned()
        }
        Some(Tls::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError,
        )) => "it does not accept this signer's certificate (a bundle of another signer?)".to_owned(),
        Some(Tls::PeerIncompatible(_)) => format!("it does not speak TLS 1.3 as this link does ({error})"),
        Some(Tls::InvalidMessage(_)) => "it did not speak TLS".to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "it left during the handshake".to_owned(),
        _ => format!("the handshake failed: {error}"),
    }
}

/// What each certificate has: connections, and its allowance of bytes, which outlasts them. There are as many entries as
/// certificates that our CA signed.
#[derive(Clone)]
struct Places {
    taken: Arc<Mutex<HashMap<Fingerprint, Taken>>>,
    limit: usize,
    bytes_per_s: u64,
}

/// What one certificate has.
struct Taken {
    connections: usize,
    allowance: Arc<Allowance>,
}

/// One of a certificate's connections.
struct Place {
    places: Places,
    fingerprint: Fingerprint,
}

impl Places {
    fn new(options: &LinkOptions) -> Self {
        let (limit, bytes_per_s) = (options.max_connections_per_certificate, options.bytes_per_s);
        Self { taken: Arc::default(), limit, bytes_per_s }
    }

    fn take(&self, fingerprint: Fingerprint) -> Option<(Place, Arc<Allowance>)> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Taken { connections: 0, allowance: Arc::new(Allowance::new(self.bytes_per_s)) };
        let taken = taken.entry(fingerprint).or_insert_with(fresh);
        if taken.connections >= self.limit {
            return None;
        }
        taken.connections += 1;
        Some((Place { places: self.clone(), fingerprint }, taken.allowance.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = taken.get_mut(&self.fingerprint) {
            taken.connections -= 1;
        }
    }
}

impl tonic::transport::server::Connected for TlsConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.server_gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        self.pause = self.peer.allowance.charge(bytes).map(|pause| Box::pin(tokio::time::sleep(pause)));
        read
    }
}

impl AsyncWrite for TlsConnection {
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
