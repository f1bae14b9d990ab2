//! `claviger.v1.Operations`: calls of an account's own services, which show its client certificate.

use std::sync::Arc;
use std::time::Duration;

use claviger_proto::v1::operations_server::Operations;
use claviger_proto::v1::{SignOperationReply, SignOperationRequest};
use tonic::{Request, Response, Status};

use crate::gateway::link::{LinkHandler, Peer, Roster, ask, status};
use crate::lightning::lightspark::operation_request;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// Then the caller may ask again: the same call gets the same answer (P5).
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The service, for all accounts.
#[derive(Clone)]
pub(in crate::gateway) struct Service {
    pub(in crate::gateway) roster: Arc<dyn Roster>,
    pub(in crate::gateway) handler: Arc<dyn LinkHandler>,
}

#[tonic::async_trait]
impl Operations for Service {
    async fn sign(&self, request: Request<SignOperationRequest>) -> Result<Response<SignOperationReply>, Status> {
        let peer = request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer certificate"))?.clone();
        let account = self.admit(&peer).map_err(|why| status("", &why))?;
        let SignOperationRequest { body, clearance } = request.into_inner();
        match self.ask(&account, &clearance, &body).await {
            Outcome::Reply(signature) => Ok(Response::new(SignOperationReply { signature })),
            Outcome::Refused { request, refusal } => Err(status(&request, &refusal)),
        }
    }
}

impl Service {
    /// Whose certificate it is. Whoever has none that counts is noted.
    pub(super) fn admit(&self, peer: &Peer) -> Result<NodeName, Refusal> {
        self.account(peer).inspect_err(|why| {
            peer.offended();
            if let Some(line) = peer.line() {
                let (reason, left_out) = (why.reason.id(), line.left_out);
                tracing::warn!(peer = %peer.address, reason, left_out, "operations: refused: {}", why.detail);
            }
        })
    }

    /// The signature on the body of a call of this account's.
    pub(super) async fn ask(&self, account: &NodeName, clearance: &[u8], body: &[u8]) -> Outcome {
        ask(&*self.handler, account, operation_request(clearance, body), ANSWER_WITHIN).await
    }

    fn account(&self, peer: &Peer) -> Result<NodeName, Refusal> {
        match self.roster.lookup(&peer.fingerprint).map_err(|denied| denied.refusal())? {
            (account, NodeKind::Lightspark) => Ok(account),
            (node, kind) => {
                let detail = format!("node {node} is of kind {kind}: only accounts of Lightspark have operations");
                Err(Refusal::new(Reason::NotAllowed, detail))
            }
        }
    }
}
