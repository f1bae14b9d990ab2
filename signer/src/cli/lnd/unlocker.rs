//! One call to lnd's wallet unlocker, over TLS with exactly the certificate that lnd wrote: it signs itself, and its names
//! need not fit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use claviger_proto::lnrpc::InitWalletRequest;
use claviger_proto::lnrpc::wallet_unlocker_client::WalletUnlockerClient;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::cli::CliError;

/// lnd makes its wallet while the call waits.
const TIMEOUT: Duration = Duration::from_secs(120);

/// lnd opens its port before it takes calls.
const START_PAUSE: Duration = Duration::from_millis(500);
const NOT_STARTED: &str = "waiting to start";

/// Asks the lnd at `address`, whose certificate is this PEM, to make a wallet.
pub(super) fn init_wallet(address: &str, certificate: &[u8], request: InitWalletRequest) -> Result<(), CliError> {
    let certificate = CertificateDer::from_pem_slice(certificate)
        .map_err(|error| CliError::new(format!("lnd's certificate cannot be read: {error}"), "Check --tls-cert."))?;
    let connector = connector(certificate).map_err(|error| CliError::new(error, "Check --tls-cert."))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(error, "Try again."))?;
    runtime.block_on(async {
        let call = call(address, connector, request);
        let late = || CliError::new("lnd did not make its wallet in time", "Look at lnd's log.");
        tokio::time::timeout(TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
    })
}

async fn call(address: &str, connector: TlsConnector, request: InitWalletRequest) -> Result<(), CliError> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let hint = "Start lnd, compare --rpc with its rpclisten, and --tls-cert with its tls.cert.";
        CliError::new(format!("lnd at {address} does not answer: {error}"), hint)
    };
    let tcp = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    // The verifier looks at the certificate alone.
    let name = ServerName::try_from("localhost").expect("a constant host name");
    let tls = connector.connect(name, tcp).await.map_err(|error| unreachable(&error))?;
    let mut tls = Some(TokioIo::new(tls));
    let once = tower::service_fn(move |_| {
        let tls = tls.take().ok_or_else(|| io::Error::other("the connection is over"));
        async move { tls }
    });
    let channel = Endpoint::from_static("https://lnd").connect_with_connector(once).await;
    let channel = channel.map_err(|error| unreachable(&error))?;
    let mut client = WalletUnlockerClient::new(channel);
    let made = loop {
        match client.init_wallet(request.clone()).await {
            Err(status) if status.message().contains(NOT_STARTED) => tokio::time::sleep(START_PAUSE).await,
            made => break made,
        }
    };
    made.map(drop).map_err(|status| {
        let hint = match status.code() {
            Code::Unimplemented | Code::Unknown if status.message().contains("already") => {
                "lnd has a wallet: move its data away if it holds nothing, or migrate it (docs/lnd.md)."
            }
            Code::Unavailable => "lnd ended: it ends when it cannot reach its signer. Try `claviger doctor --lnd`.",
            _ => "Look at lnd's log. remotesigner.enable has to be set in lnd.conf.",
        };
        CliError::new(format!("lnd makes no wallet: {}", status.message()), hint)
    })
}

fn connector(certificate: CertificateDer<'static>) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { certificate, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
