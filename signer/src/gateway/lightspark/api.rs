//! Lightspark's API: one GraphQL mutation in one HTTP request, over TLS 1.3.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use claviger_proto::SERVER_NAME;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderValue, USER_AGENT};
use hyper::http::request;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::mutations::Mutation;

/// A call is over by then.
const WITHIN: Duration = Duration::from_secs(20);
/// More of an answer is not read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Where the API is, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    is_tls: bool,
    path: String,
}

impl Endpoint {
    /// Reads a URL: `https://`, or `http://` to this host alone, where nobody listens on the way.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host().filter(|_| !url.contains('@'))?.to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let is_here = matches!(&*host, "127.0.0.1" | "localhost" | "[::1]");
        let is_private = is_tls || (uri.scheme_str() == Some("http") && is_here);
        if !is_private {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Some(Self { host, port, is_tls, path: uri.path_and_query()?.to_string() })
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The keys of the account's nodes.
const NODES: &str = "query Nodes { current_account { nodes(first: 100) { entities { public_key bitcoin_network } } } }";

/// What Lightspark says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtLightspark {
    /// Its nodes: their public keys, in hex, and their networks, as Lightspark calls them.
    pub nodes: Vec<(String, String)>,
    /// When it said so, by its own clock: milliseconds since the Unix epoch.
    pub date_ms: Option<u64>,
}

/// Lightspark's API.
pub struct Api {
    endpoint: Endpoint,
    /// PEM: the CAs that its certificate may be from.
    ca_file: PathBuf,
    /// Made of that file, once it could be read.
    tls: Mutex<Option<Arc<ClientConfig>>>,
}

/// Why a mutation was not taken. Quotes nothing of what was said: it may hold what was sent (P8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The CAs are not at hand.
    #[error("lightspark.api_ca_file cannot be used: {0}")]
    Ca(String),
    /// Nobody answers there, or not with TLS 1.3 and a certificate from those CAs.
    #[error("Lightspark cannot be reached: {0}")]
    Unreachable(String),
    /// Another status than 200.
    #[error("Lightspark answers with status {0}")]
    Status(u16),
    /// An answer to the mutation that says no, or cannot be read.
    #[error("Lightspark does not take it")]
    Refused,
    /// There is no answer in time.
    #[error("Lightspark does not answer")]
    Late,
}

fn unreachable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Unreachable(error.to_string())
}

impl Api {
    /// The API at `endpoint`, whose certificate is from a CA in `ca_file`.
    pub fn new(endpoint: Endpoint, ca_file: PathBuf) -> Self {
        Self { endpoint, ca_file, tls: Mutex::default() }
    }

    /// Has Lightspark take `variables`, with the caller's header `Authorization`.
    pub(super) async fn call(&self, authorization: &str, mutation: Mutation, variables: &[u8]) -> Result<(), ApiError> {
        tokio::time::timeout(WITHIN, self.take(authorization, mutation, variables)).await.unwrap_or(Err(ApiError::Late))
    }

    /// What Lightspark says of the account.
    pub(super) async fn look(&self, authorization: &str) -> Result<AtLightspark, ApiError> {
        let asked = self.post(authorization, "Nodes", NODES, b"{}");
        let (data, date_ms) = tokio::time::timeout(WITHIN, asked).await.unwrap_or(Err(ApiError::Late))?;
        let nodes =
            data.pointer("/current_account/nodes/entities").and_then(Value::as_array).ok_or(ApiError::Refused)?;
        let text = |node: &Value, field: &str| node.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let nodes = nodes.iter().map(|node| (text(node, "public_key"), text(node, "bitcoin_network"))).collect();
        Ok(AtLightspark { nodes, date_ms })
    }

    async fn take(&self, authorization: &str, mutation: Mutation, variables: &[u8]) -> Result<(), ApiError> {
        let (data, _) = self.post(authorization, mutation.name(), mutation.document(), variables).await?;
        data.get(mutation.field()).filter(|taken| taken.is_object()).map(drop).ok_or(ApiError::Refused)
    }

    /// The data of the answer, and when it was given.
    async fn post(
        &self,
        authorization: &str,
        name: &str,
        document: &str,
        variables: &[u8],
    ) -> Result<(Value, Option<u64>), ApiError> {
        let head = format!(r#"{{"operationName":"{name}","query":"{document}","variables":"#);
        let body = [head.as_bytes(), variables, b"}"].concat();
        let mut authorization = HeaderValue::try_from(authorization).map_err(|_| ApiError::Refused)?;
        authorization.set_sensitive(true);
        let request = self.endpoint.request().header(AUTHORIZATION, authorization).header("x-graphql-operation", name);
        let request = request.body(Full::new(Bytes::from(body))).map_err(unreachable)?;
        let answer = self.endpoint.send(&self.endpoint.host, || self.tls(), request).await?;
        if answer.status != 200 {
            return Err(ApiError::Status(answer.status));
        }
        let mut said: Value = serde_json::from_slice(&answer.body).map_err(|_| ApiError::Refused)?;
        let has_errors = said.get("errors").and_then(Value::as_array).is_some_and(|errors| !errors.is_empty());
        match said.get_mut("data").map(Value::take) {
            Some(data @ Value::Object(_)) if !has_errors => Ok((data, answer.date_ms)),
            _ => Err(ApiError::Refused),
        }
    }

    /// Sends a webhook that asks for nothing to where Lightspark sends them. Returns the status that it gets.
    pub(super) async fn probe(&self, to: &Endpoint, signature: &str, body: &str) -> Result<u16, ApiError> {
        let sent = to.webhook(&to.host, || self.tls(), signature, body);
        tokio::time::timeout(WITHIN, sent).await.unwrap_or(Err(ApiError::Late))
    }

    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, ApiError> {
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &*known {
            return Ok(Arc::clone(tls));
        }
        let all = CertificateDer::pem_file_iter(&self.ca_file).map_err(|error| ApiError::Ca(error.to_string()))?;
        // A host's own store may hold some that are not to be used.
        Ok(Arc::clone(known.insert(trusting(all.filter_map(Result::ok))?)))
    }
}

/// TLS 1.3 with servers whose certificate is from one of these CAs.
fn trusting(cas: impl Iterator<Item = CertificateDer<'static>>) -> Result<Arc<ClientConfig>, ApiError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas);
    if roots.is_empty() {
        return Err(ApiError::Ca("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ApiError::Ca(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Sends a webhook that asks for nothing to the signer's own door at `address`, as a proxy does. Returns the status that it gets.
pub(super) async fn probe_door(
    address: SocketAddr,
    ca: CertificateDer<'static>,
    path: &str,
    signature: &str,
    body: &str,
) -> Result<u16, ApiError> {
    let (host, port) = (address.ip().to_string(), address.port());
    let door = Endpoint { host, port, is_tls: true, path: path.to_owned() };
    let sent = door.webhook(SERVER_NAME, || trusting([ca].into_iter()), signature, body);
    tokio::time::timeout(WITHIN, sent).await.unwrap_or(Err(ApiError::Late))
}

/// What came back.
struct Answer {
    status: u16,
    /// When, by the other's clock.
    date_ms: Option<u64>,
    body: Bytes,
}

impl Endpoint {
    /// The same place with `more` after its path.
    pub(super) fn below(&self, more: &str) -> Self {
        Self { path: format!("{}{more}", self.path.trim_end_matches('/')), ..self.clone() }
    }

    fn request(&self) -> request::Builder {
        let Self { host, port, path, .. } = self;
        Request::post(path)
            .header(HOST, if matches!(port, 80 | 443) { host.clone() } else { format!("{host}:{port}") })
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("claviger/", env!("CARGO_PKG_VERSION")))
    }

    async fn webhook(
        &self,
        server: &str,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, ApiError>,
        signature: &str,
        body: &str,
    ) -> Result<u16, ApiError> {
        let request = self.request().header("lightspark-signature", signature);
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(unreachable)?;
        self.send(server, tls, request).await.map(|answer| answer.status)
    }

    /// Sends `request` to the server called `server` in its certificate.
    async fn send(
        &self,
        server: &str,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, ApiError>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ApiError> {
        let plain = |name: &str| name.trim_matches(['[', ']']).to_owned();
        let tcp = TcpStream::connect((plain(&self.host), self.port)).await.map_err(unreachable)?;
        if !self.is_tls {
            return exchange(tcp, request).await;
        }
        let name = ServerName::try_from(plain(server)).map_err(unreachable)?;
        exchange(TlsConnector::from(tls()?).connect(name, tcp).await.map_err(unreachable)?, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ApiError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let date = answer.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let since = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(unreachable)?.to_bytes();
        Ok(Answer { status, date_ms: since.map(|since| since.as_millis() as u64), body })
    };
    // The connection lives as long as the exchange; what ends it ends both.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The whole answer may be there already.
        ended = &mut connection => match (exchange.await, ended) {
            (Err(ApiError::Unreachable(_)), Err(error)) => Err(unreachable(error)),
            (answer, _) => answer,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_called_over_tls_or_on_this_host() {
        let api = Endpoint::parse("https://api.lightspark.com/graphql/server/2023-09-13").expect("a URL");
        assert_eq!(
            (api.host.as_str(), api.port, api.path.as_str()),
            ("api.lightspark.com", 443, "/graphql/server/2023-09-13")
        );
        for good in ["http://127.0.0.1:9/g", "http://localhost/g", "http://[::1]:9/g", "https://10.0.0.1:8443"] {
            assert!(Endpoint::parse(good).is_some(), "{good}");
        }
        for bad in [
            "http://api.lightspark.com/",
            "http://10.0.0.1/",
            "ftp://127.0.0.1/",
            "api.lightspark.com",
            "",
            "https://id:token@api.lightspark.com/",
            "/graphql",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }
}
