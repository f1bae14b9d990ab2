//! A signer's front door with a handler that does as the message says, and everything to knock at it with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use bitcoin::Network;
use claviger::admin::ca::{CLIENT_VALIDITY, Ca};
use claviger::admin::enrol::enrol;
use claviger::admin::record::{NodeRecord, Which};
use claviger::admin::registry::Registry;
use claviger::gateway::link::{LinkHandler, LinkOptions, LinkServer, ServerIdentity};
use claviger::names::{NodeKind, NodeName};
use claviger::pipeline::{Outcome, Request, Responder};
use claviger::reasons::{Reason, Refusal};
use claviger_ldk::link::{Bundle, ConnectError, Link, LinkOptions as ClientOptions};
use claviger_proto::SERVER_NAME;
use claviger_proto::v1::node_link_client::NodeLinkClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Long enough for a busy machine; nothing in these tests waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) ca: Arc<Ca>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) handler: Arc<Handler>,
    pub(crate) address: SocketAddr,
    pub(crate) options: LinkOptions,
    pub(crate) server: Option<LinkServer>,
}

/// Echoes; holds messages that begin with `hold` until released; refuses `refuse`; drops `drop`.
#[derive(Default)]
pub(crate) struct Handler {
    held: Mutex<Vec<(NodeName, Request, Responder)>>,
    changed: Condvar,
    submitted: AtomicUsize,
}

impl LinkHandler for Handler {
    fn submit(&self, node: &NodeName, request: Request, respond: Responder) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        match request.message.as_slice() {
            b"refuse" => {
                let refusal = Refusal::new(Reason::Limit, "7 msat, at most 5");
                respond(Outcome::Refused { request: "alice-1".to_owned(), refusal });
            }
            b"drop" => drop(respond),
            message if message.starts_with(b"hold") => {
                self.held.lock().unwrap().push((node.clone(), request, respond));
                self.changed.notify_all();
            }
            _ => respond(Outcome::Reply(echo(&request.message))),
        }
    }
}

impl Handler {
    /// Waits until at least `count` requests are held.
    pub(crate) fn wait_for(&self, count: usize) {
        let held = self.held.lock().unwrap();
        let (held, _) = self.changed.wait_timeout_while(held, PATIENCE, |held| held.len() < count).unwrap();
        assert!(held.len() >= count, "{} requests arrived, {count} expected", held.len());
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// All requests that ever came.
    pub(crate) fn submitted(&self) -> usize {
        self.submitted.load(Ordering::SeqCst)
    }

    pub(crate) fn take(&self) -> Vec<(NodeName, Request, Responder)> {
        std::mem::take(&mut *self.held.lock().unwrap())
    }
}

pub(crate) fn echo(message: &[u8]) -> Vec<u8> {
    [b"echo of ", message].concat()
}

pub(crate) fn answer(held: (NodeName, Request, Responder)) {
    let (_, request, respond) = held;
    respond(Outcome::Reply(echo(&request.message)));
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut LinkOptions)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut options = LinkOptions::new(Network::Regtest);
        change(&mut options);
        let mut world = Self {
            runtime,
            ca: Arc::new(Ca::create(SystemTime::now()).unwrap()),
            registry: Arc::new(Registry::new([])),
            handler: Arc::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            options,
            server: None,
        };
        world.start();
        world
    }

    /// Starts the server, on its old port if it had one.
    pub(crate) fn start(&mut self) {
        self.start_before(self.handler.clone());
    }

    /// The same before another handler.
    pub(crate) fn start_before(&mut self, handler: Arc<dyn LinkHandler>) {
        let identity = Arc::new(ServerIdentity::new(Arc::clone(&self.ca), vec!["localhost".to_owned()]).unwrap());
        let server = self.runtime.block_on(async {
            let listener = TcpListener::bind(self.address).await.unwrap();
            LinkServer::start(listener, identity, self.registry.clone(), handler, self.options.clone()).unwrap()
        });
        self.address = server.address();
        self.server = Some(server);
    }

    pub(crate) fn stop(&mut self, reason: Reason) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(Refusal::new(reason, "")));
        }
    }

    /// A new node and its bundle.
    pub(crate) fn enrol(&self, name: &str) -> Bundle {
        self.enrol_at(name, SystemTime::now(), CLIENT_VALIDITY)
    }

    pub(crate) fn enrol_at(&self, name: &str, now: SystemTime, validity: Duration) -> Bundle {
        self.enrol_as(NodeKind::Ldk, name, now, validity)
    }

    pub(crate) fn enrol_as(&self, kind: NodeKind, name: &str, now: SystemTime, validity: Duration) -> Bundle {
        let name = NodeName::new(name).unwrap();
        let fresh = || NodeRecord::new(name.clone(), kind, "ldk", Network::Regtest, 1);
        let mut record = self.registry.get(&name).unwrap_or_else(fresh);
        let bundle = enrol(&self.ca, &mut record, &self.address.to_string(), now, validity).unwrap();
        self.registry.put(record);
        bundle
    }

    pub(crate) fn revoke(&self, name: &str) {
        let mut record = self.registry.get(&NodeName::new(name).unwrap()).unwrap();
        record.revoke(&Which::All, 2).unwrap();
        self.registry.put(record);
    }

    /// A TLS connection with `bundle`'s certificate, or without one, for talking nonsense over it.
    pub(crate) async fn tls(&self, bundle: &Bundle, with_certificate: bool) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(bundle.ca_certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let certificate = CertificateDer::from_pem_slice(bundle.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(bundle.private_key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER_NAME).unwrap(), tcp).await
    }

    /// A client without the limits and manners of a real one.
    pub(crate) async fn rude_client(&self, bundle: &Bundle) -> NodeLinkClient<Channel> {
        NodeLinkClient::new(self.channel(bundle).await)
    }

    /// HTTP/2 with `bundle`'s certificate.
    pub(crate) async fn channel(&self, bundle: &Bundle) -> Channel {
        let mut io = Some(TokioIo::new(self.tls(bundle, true).await.unwrap()));
        let connector = tower::service_fn(move |_| {
            let io = io.take().ok_or_else(|| io::Error::other("used up"));
            async move { io }
        });
        let endpoint = Endpoint::from_static("https://signer.claviger");
        endpoint.connect_with_connector(connector).await.unwrap()
    }
}

/// Connects, with little patience for broken links so that tests see them.
pub(crate) fn connect(bundle: &Bundle) -> Link {
    try_connect(bundle, PATIENCE).unwrap()
}

pub(crate) fn try_connect(bundle: &Bundle, patience: Duration) -> Result<Link, ConnectError> {
    Link::connect(bundle, client_options(), patience)
}

pub(crate) fn client_options() -> ClientOptions {
    ClientOptions {
        reply_timeout: PATIENCE,
        down_patience: PATIENCE,
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(200),
        ..ClientOptions::default()
    }
}
