//! `claviger-isolation`: what another node's requests take while one node's link carries garbage, and while it is idle, in
//! turns within one run. Prints; asserts nothing.
//!
//! `cargo build --release -p claviger-tests && target/release/claviger-isolation [SECONDS]`

#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use claviger_demo::signer::Program;
use claviger_demo::world::{PATIENCE, World};
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use claviger_proto::SERVER_NAME;
use claviger_proto::v1::node_link_client::NodeLinkClient;
use claviger_proto::v1::{Hello, NodeRequest, node_request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use vls_protocol::msgs::{SerBolt, SignMessage};

/// The sizes of garbage, in bytes. Frames above 132 KiB end the stream; the next one is opened at once.
const SIZES: [usize; 7] = [1 << 10, 8 << 10, 64 << 10, 128 << 10, 1 << 20, 4 << 20, 16 << 20];
const BYTES_PER_STREAM: usize = 32 << 20;
const ROUNDS: u32 = 4;

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(40), |text| text.parse()).context("usage: SECONDS")?;
    let signer = std::env::current_exe()?.with_file_name("claviger-under-test");
    let world = World::new(Program::binary(signer))?;
    let (alice, bob) = (world.signer.add_node("alice", "ldk")?, world.signer.add_node("bob", "ldk")?);
    let bob = Link::connect(&Bundle::load(&bob)?, LinkOptions::default(), PATIENCE)?;
    (0..200).try_for_each(|n| ask(&bob, n).map(drop))?; // warm

    let garbage = Garbage::start(&alice)?;
    let (mut idle, mut attacked) = (Vec::new(), Vec::new());
    let slice = Duration::from_secs(seconds) / (2 * ROUNDS);
    for _ in 0..ROUNDS {
        sample(&bob, slice, &mut idle)?;
        garbage.flows.store(true, Ordering::SeqCst);
        sample(&bob, slice, &mut attacked)?;
        garbage.flows.store(false, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(1));
    }
    let (streams, sent) = (garbage.streams.load(Ordering::SeqCst), garbage.bytes.load(Ordering::SeqCst) >> 20);
    println!("garbage: {streams} streams, {sent} MiB taken from the sender");
    if let Some(why) = garbage.last_end.lock().ok().and_then(|end| end.clone()) {
        println!("the last of them ended with: {why}");
    }
    let (idle, attacked) = (Figures::of(idle), Figures::of(attacked));
    println!("idle:     {idle}");
    println!("attacked: {attacked}");
    println!("ratio:    p50 {:.2}, p99 {:.2}", attacked.p50 / idle.p50, attacked.p99 / idle.p99);
    Ok(())
}

/// One signature that is recorded, and how long it took in milliseconds.
fn ask(link: &Link, n: u64) -> anyhow::Result<f64> {
    let message = SignMessage { message: n.to_be_bytes().to_vec().into() }.as_vec();
    let begun = Instant::now();
    link.call(None, message)?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn sample(link: &Link, time: Duration, into: &mut Vec<f64>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        into.push(ask(link, into.len() as u64)?);
    }
    Ok(())
}

struct Figures {
    count: usize,
    p50: f64,
    p99: f64,
}

impl Figures {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied();
        Self { count: times.len(), p50: at(0.5).unwrap_or(f64::NAN), p99: at(0.99).unwrap_or(f64::NAN) }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests, p50 {:.3} ms, p99 {:.3} ms", self.count, self.p50, self.p99)
    }
}

/// Sends garbage as fast as it is taken, while it flows.
#[derive(Default)]
struct Garbage {
    flows: AtomicBool,
    streams: AtomicU64,
    bytes: AtomicU64,
    last_end: Mutex<Option<String>>,
}

impl Garbage {
    fn start(bundle: &Path) -> anyhow::Result<Arc<Self>> {
        let (garbage, bundle) = (Arc::new(Self::default()), Bundle::load(bundle)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = garbage.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                for size in SIZES.into_iter().cycle() {
                    while !shared.flows.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    let end = shared.stream(&bundle, size).await;
                    shared.streams.fetch_add(1, Ordering::SeqCst);
                    if let (Err(why), Ok(mut last)) = (end, shared.last_end.lock()) {
                        *last = Some(format!("{why:#}"));
                    }
                }
            });
        });
        Ok(garbage)
    }

    /// One stream with garbage in pieces of `size`, until the signer ends it, nothing is left, or it is to stop.
    async fn stream(self: &Arc<Self>, bundle: &Bundle, size: usize) -> anyhow::Result<()> {
        let mut client = connect(bundle).await?;
        let hello = Hello { client: "garbage".to_owned(), instance: vec![7; 16] };
        let hello = std::iter::once(node_request::Body::Hello(hello));
        let shared = self.clone();
        let pieces = (0..BYTES_PER_STREAM / size).map_while(move |n| {
            shared.bytes.fetch_add(size as u64, Ordering::SeqCst);
            let piece = (0..size).map(|at| (at.wrapping_mul(31) ^ n.wrapping_mul(131)) as u8).collect();
            shared.flows.load(Ordering::SeqCst).then_some(node_request::Body::Message(piece))
        });
        let frames = hello.chain(pieces);
        let frames =
            frames.zip(0..).map(|(body, request_id)| NodeRequest { request_id, channel: None, body: Some(body) });
        let mut replies = client.open(tokio_stream::iter(frames)).await?.into_inner();
        while replies.message().await?.is_some() && self.flows.load(Ordering::SeqCst) {}
        Ok(())
    }
}

/// A connection with the bundle's certificate, without the limits and manners of a real client.
async fn connect(bundle: &Bundle) -> anyhow::Result<NodeLinkClient<Channel>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bundle.ca_certificate.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(bundle.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(bundle.private_key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(bundle.signer.as_str()).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER_NAME)?, tcp).await?;
    let mut io = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_| {
        let io = io.take().ok_or_else(|| std::io::Error::other("used up"));
        async move { io }
    });
    Ok(NodeLinkClient::new(Endpoint::from_static("https://signer.claviger").connect_with_connector(connector).await?))
}
