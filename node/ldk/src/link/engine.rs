//! The link's own thread: connect, say hello, carry frames, and again when the stream breaks.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use claviger_proto::MAX_FRAME_BYTES;
use claviger_proto::bundle::{Bundle, BundleError};
use claviger_proto::v1::node_link_client::NodeLinkClient;
use claviger_proto::v1::{Hello, NodeReply, NodeRequest, Welcome, node_reply, node_request};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::down::Down;
use super::table::Table;
use super::tls::{Dialer, Fault, TlsIo};
use super::{LinkOptions, LinkState};

/// From the end of the TLS handshake to the Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);

/// Between attempts when the reason does not pass by itself.
const HOPELESS_PAUSE: Duration = Duration::from_secs(15);

pub(super) struct Engine {
    dialer: Dialer,
    node: String,
    network: String,
    instance: [u8; 16],
    options: LinkOptions,
    table: Arc<Table>,
}

/// An open stream whose Welcome has been read.
struct Opened {
    start: oneshot::Sender<UnboundedReceiver<u64>>,
    replies: Streaming<NodeReply>,
    fault: Fault,
}

impl Engine {
    pub(super) fn new(bundle: &Bundle, options: LinkOptions, table: Arc<Table>) -> Result<Self, BundleError> {
        let mut instance = [0u8; 16];
        getrandom::fill(&mut instance).expect("the operating system provides randomness");
        let (node, network) = (bundle.node.clone(), bundle.network.clone());
        Ok(Self { dialer: Dialer::new(bundle)?, node, network, instance, options, table })
    }

    /// Runs on a new thread until `stop` is dropped; `alive` is dropped when it has stopped.
    pub(super) fn spawn(self, stop: oneshot::Receiver<()>, alive: mpsc::Sender<()>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("claviger-link".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = self.run() => {}
                    _ = stop => {}
                }
                self.table.close();
            });
            // Ends the connection and its tasks.
            runtime.shutdown_timeout(Duration::from_millis(500));
            drop(alive);
        })?;
        Ok(())
    }

    async fn run(&self) {
        let mut pause = self.options.first_pause;
        let mut patience = self.start_patience();
        loop {
            let why = match self.open().await {
                Ok(opened) => {
                    patience.abort();
                    pause = self.options.first_pause;
                    tracing::info!(node = self.node, "link: connected to the signer");
                    let why = self.carry(opened).await;
                    patience = self.start_patience();
                    why
                }
                Err(why) => why,
            };
            if self.table.state() != LinkState::Down(why.clone()) {
                tracing::warn!(node = self.node, hint = why.hint(), "link: {why}");
            }
            let rest = if why.temporary() { jittered(pause) } else { jittered(HOPELESS_PAUSE) };
            pause = (pause * 2).min(self.options.longest_pause);
            self.table.down(why);
            tokio::time::sleep(rest).await;
        }
    }

    /// Lets waiting calls fail when the link stays down for longer than they should wait.
    fn start_patience(&self) -> tokio::task::JoinHandle<()> {
        let (table, patience) = (Arc::clone(&self.table), self.options.down_patience);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            table.give_up();
        })
    }

    /// Connects and waits for the Welcome.
    async fn open(&self) -> Result<Opened, Down> {
        let (io, fault) = self.dialer.dial().await?;
        let welcomed = tokio::time::timeout(WELCOME_TIMEOUT, self.welcomed(io, fault)).await;
        welcomed.unwrap_or_else(|_| Err(Down::Lost("no welcome in time".to_owned())))
    }

    async fn welcomed(&self, io: TlsIo, fault: Fault) -> Result<Opened, Down> {
        let channel = self.http2(io).await.map_err(|status| Down::from_status(&status, fault.get()))?;
        let mut client = NodeLinkClient::new(channel)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let hello = Hello { client: self.options.client.clone(), instance: self.instance.to_vec() };
        let (start, started) = oneshot::channel();
        let requests = Requests { hello: Some(hello), ids: Ids::Pending(started), table: Arc::clone(&self.table) };
        let problem = |status: tonic::Status| Down::from_status(&status, fault.get());
        let mut replies = client.open(requests).await.map_err(problem)?.into_inner();
        match replies.message().await.map_err(problem)?.and_then(|reply| reply.body) {
            Some(node_reply::Body::Welcome(Welcome { node, network, .. })) => {
                if node != self.node || network != self.network {
                    return Err(Down::WrongNode { node, network });
                }
                Ok(Opened { start, replies, fault })
            }
            _ => Err(Down::Lost("the signer did not welcome this node".to_owned())),
        }
    }

    /// HTTP/2 over an open TLS connection.
    async fn http2(&self, io: TlsIo) -> Result<Channel, tonic::Status> {
        let mut io = Some(TokioIo::new(io));
        let connector = service_fn(move |_| {
            let io = io.take().ok_or_else(|| io::Error::other("the connection is over"));
            async move { io }
        });
        Endpoint::from_static("https://signer.claviger")
            .http2_keep_alive_interval(self.options.keepalive)
            .keep_alive_timeout(self.options.keepalive)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| tonic::Status::from_error(Box::new(error)))
    }

    /// Carries requests and replies until the stream ends.
    async fn carry(&self, opened: Opened) -> Down {
        let Opened { start, mut replies, fault } = opened;
        let _ = start.send(self.table.up());
        loop {
            match replies.message().await {
                Ok(Some(reply)) => self.table.answer(reply),
                Ok(None) => return Down::Lost("the signer ended the stream".to_owned()),
                Err(status) => return Down::from_status(&status, fault.get()),
            }
        }
    }
}

/// What this end sends: the hello, then, once welcomed, whatever is unanswered.
struct Requests {
    hello: Option<Hello>,
    ids: Ids,
    table: Arc<Table>,
}

enum Ids {
    /// Until the Welcome.
    Pending(oneshot::Receiver<UnboundedReceiver<u64>>),
    Open(UnboundedReceiver<u64>),
}

impl Stream for Requests {
    type Item = NodeRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NodeRequest>> {
        if let Some(hello) = self.hello.take() {
            let body = Some(node_request::Body::Hello(hello));
            return Poll::Ready(Some(NodeRequest { request_id: 0, channel: None, body }));
        }
        loop {
            match &mut self.ids {
                Ids::Pending(started) => match std::task::ready!(Pin::new(started).poll(cx)) {
                    Ok(ids) => self.ids = Ids::Open(ids),
                    Err(_) => return Poll::Ready(None),
                },
                Ids::Open(ids) => match std::task::ready!(ids.poll_recv(cx)) {
                    Some(request_id) => {
                        if let Some(frame) = self.table.frame(request_id) {
                            return Poll::Ready(Some(frame));
                        }
                    }
                    None => return Poll::Ready(None),
                },
            }
        }
    }
}

/// Between half of `pause` and all of it, so that many nodes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0u8; 1];
    getrandom::fill(&mut byte).expect("the operating system provides randomness");
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}
