//! `NodeLink`: who opens a stream, and whether it may.

use std::sync::Arc;

use claviger_proto::v1::node_link_server::NodeLink;
use claviger_proto::v1::{Hello, NodeReply, NodeRequest, Welcome, node_reply, node_request};
use tonic::{Request, Response, Status, Streaming};

use super::sessions::Sessions;
use super::stream::{self, ReplyStream};
use super::tls::Peer;
use super::{LinkHandler, LinkOptions, Roster, wire};
use crate::names::{NodeKind, NodeName};
use crate::reasons::{Reason, Refusal};

/// A client's name is for logs only; more than this of it is cut off.
const MAX_CLIENT_CHARS: usize = 64;

pub(super) struct Service {
    pub(super) sessions: Arc<Sessions>,
    pub(super) roster: Arc<dyn Roster>,
    pub(super) handler: Arc<dyn LinkHandler>,
    pub(super) options: LinkOptions,
}

#[tonic::async_trait]
impl NodeLink for Service {
    type OpenStream = ReplyStream;

    async fn open(&self, request: Request<Streaming<NodeRequest>>) -> Result<Response<ReplyStream>, Status> {
        let peer = request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer certificate"))?.clone();
        self.admit(peer.clone(), request.into_inner()).await.map(Response::new).map_err(|why| {
            peer.offended();
            if let Some(line) = peer.line() {
                let details = wire::refusal(String::new(), &why);
                let words = details.reasons.first().map_or("", |reason| reason.detail.as_str());
                let (certificate, reason, left_out) = (peer.fingerprint, why.reason.id(), line.left_out);
                tracing::warn!(peer = %peer.address, %certificate, reason, left_out, "link: refused: {words}");
            }
            wire::status(&why)
        })
    }
}

impl Service {
    async fn admit(&self, peer: Peer, mut requests: Streaming<NodeRequest>) -> Result<ReplyStream, Refusal> {
        self.owner(&peer)?;
        let (request_id, hello) = self.hello(&mut requests).await?;
        let instance = hello.instance.as_slice().try_into().map_err(|_| {
            Refusal::new(Reason::LinkProtocol, format!("hello.instance has {} bytes, not 16", hello.instance.len()))
        })?;
        let client: String = hello.client.chars().filter(|c| !c.is_control()).take(MAX_CLIENT_CHARS).collect();
        let node = self.owner(&peer)?;
        let (session, ended) = self.sessions.open(&node, instance, client.clone(), peer.clone())?;
        // Asked once more now that a change would find the session: no revocation falls between the two.
        self.owner(&peer)?;
        peer.opened();
        if let Some(line) = peer.line() {
            tracing::info!(%node, peer = %peer.address, client, left_out = line.left_out, "link: connected");
        }
        let welcome = NodeReply {
            request_id,
            body: Some(node_reply::Body::Welcome(Welcome {
                node: node.to_string(),
                network: self.options.network.clone(),
                signer_version: env!("CARGO_PKG_VERSION").to_owned(),
            })),
        };
        let handler = Arc::clone(&self.handler);
        Ok(stream::serve(session, ended, peer, node, welcome, requests, handler))
    }

    fn owner(&self, peer: &Peer) -> Result<NodeName, Refusal> {
        match self.roster.lookup(&peer.fingerprint).map_err(|denied| denied.refusal())? {
            // An account's webhooks come through a door of their own, with their own proof of who sent them.
            (node, kind @ (NodeKind::Lnd | NodeKind::Lightspark)) => {
                Err(Refusal::new(Reason::NotAllowed, format!("node {node} is of kind {kind}, which opens no link")))
            }
            (node, NodeKind::Ldk | NodeKind::Cln) => Ok(node),
        }
    }

    /// The first frame, which must be a hello.
    async fn hello(&self, requests: &mut Streaming<NodeRequest>) -> Result<(u64, Hello), Refusal> {
        let wrong = |detail: &str| Refusal::new(Reason::LinkProtocol, detail);
        let first = tokio::time::timeout(self.options.hello_timeout, requests.message()).await;
        match first.map_err(|_| wrong("no hello in time"))? {
            Ok(Some(NodeRequest { request_id, body: Some(node_request::Body::Hello(hello)), .. })) => {
                Ok((request_id, hello))
            }
            Ok(_) => Err(wrong("the first frame must be a hello")),
            Err(status) => Err(stream::read_problem(&status).unwrap_or_else(|| wrong(status.message()))),
        }
    }
}
