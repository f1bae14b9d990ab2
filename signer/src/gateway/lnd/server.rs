//! Starting and stopping the door for lnd nodes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use claviger_proto::signrpc::signer_server::SignerServer;
use claviger_proto::walletrpc::wallet_kit_server::WalletKitServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::macaroon::Mint;
use super::service::Service;
use crate::gateway::accept::{Accepting, Door};
use crate::gateway::link::{LinkHandler, LinkServerError, Roster, ServerIdentity};
use crate::lightning::guard::MAX_LND_MESSAGE_BYTES;

/// Calls at once on a connection; lnd's next ones wait for one to be answered.
const MAX_STREAMS: u32 = 128;
/// Bytes that may come ahead of being read: on a stream the largest call, on a connection a few of them.
const STREAM_WINDOW_BYTES: u32 = MAX_LND_MESSAGE_BYTES as u32;
const CONNECTION_WINDOW_BYTES: u32 = 4 * MAX_LND_MESSAGE_BYTES as u32;
const KEEPALIVE: Duration = Duration::from_secs(20);

/// lnd has no client certificate: its macaroon says who it is.
const DOOR: Door = Door {
    name: "lnd",
    protocol: b"h2",
    hint: "is remotesigner.tlscertpath this signer's tls.cert, and rpchost a name in it?",
};

/// The running door. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct LndServer {
    accepting: Accepting,
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
        let (accepting, connections) = Accepting::start(listener, identity, DOOR)?;
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
        Ok(Self { accepting, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.accepting.address
    }
}

impl Drop for LndServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
