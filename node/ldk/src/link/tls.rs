//! Dialling: TCP, then TLS 1.3 with the bundle's certificate.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use claviger_proto::SERVER_NAME;
use claviger_proto::bundle::{Bundle, BundleError};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::down::{Down, tls_error};

/// From the first TCP packet to the end of the TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to one signer.
pub(super) struct Dialer {
    address: String,
    connector: TlsConnector,
}

/// What TLS had to say about a connection, if it failed.
pub(super) type Fault = Arc<OnceLock<rustls::Error>>;

impl Dialer {
    pub(super) fn new(bundle: &Bundle) -> Result<Self, BundleError> {
        let bad = |what: &str, error: &dyn std::error::Error| BundleError::Malformed(format!("{what}: {error}"));
        let authority = CertificateDer::from_pem_slice(bundle.ca_certificate.as_bytes())
            .map_err(|error| bad("ca_certificate", &error))?;
        let certificate = CertificateDer::from_pem_slice(bundle.certificate.as_bytes())
            .map_err(|error| bad("certificate", &error))?;
        // The parser's error could quote what it read (P8).
        let key = PrivateKeyDer::from_pem_slice(bundle.private_key.as_bytes())
            .map_err(|_| BundleError::Malformed("private_key: not a PEM private key".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| bad("ca_certificate", &error))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad("TLS 1.3", &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| bad("certificate and private_key", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { address: bundle.signer.clone(), connector: TlsConnector::from(Arc::new(config)) })
    }

    /// One attempt.
    pub(super) async fn dial(&self) -> Result<(TlsIo, Fault), Down> {
        let unreachable = |cause: String| Down::Unreachable { address: self.address.clone(), cause };
        let attempt = async {
            let tcp = TcpStream::connect(&self.address).await.map_err(|error| unreachable(error.to_string()))?;
            let _ = tcp.set_nodelay(true);
            let name = ServerName::try_from(SERVER_NAME).expect("a constant, tested host name");
            let stream = self.connector.connect(name, tcp).await;
            let stream = stream.map_err(|error| Down::from_handshake(&self.address, &error))?;
            let fault = Fault::default();
            Ok((TlsIo { stream, fault: Arc::clone(&fault) }, fault))
        };
        let attempt = tokio::time::timeout(DIAL_TIMEOUT, attempt).await;
        attempt.unwrap_or_else(|_| Err(unreachable("no answer in time".to_owned())))
    }
}

/// A TLS connection that remembers the error TLS ended with: the layers above reduce it to a text.
pub(super) struct TlsIo {
    stream: TlsStream<TcpStream>,
    fault: Fault,
}

impl TlsIo {
    fn watched<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(tls) = tls_error(error)
        {
            let _ = self.fault.set(tls.clone());
        }
        polled
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watched(polled)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watched(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
