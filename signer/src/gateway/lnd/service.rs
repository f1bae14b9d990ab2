//! lnd's calls as requests of a node.

use std::sync::Arc;
use std::time::Duration;

use claviger_proto::signrpc::signer_server::Signer;
use claviger_proto::signrpc::{
    MuSig2CleanupRequest, MuSig2CleanupResponse, MuSig2CombineSigRequest, MuSig2CombineSigResponse,
    MuSig2GetCombinedNonceRequest, MuSig2GetCombinedNonceResponse, MuSig2RegisterCombinedNonceRequest,
    MuSig2RegisterCombinedNonceResponse, MuSig2RegisterNoncesRequest, MuSig2RegisterNoncesResponse,
    MuSig2SessionRequest, MuSig2SessionResponse, MuSig2SignRequest, MuSig2SignResponse, SharedKeyRequest,
    SharedKeyResponse, SignMessageReq, SignMessageResp,
};
use claviger_proto::walletrpc::wallet_kit_server::WalletKit;
use claviger_proto::walletrpc::{SignPsbtRequest, SignPsbtResponse};
use prost::Message;
use tonic::{Request, Response, Status};

use super::macaroon::Mint;
use super::status::{status, unauthenticated};
use crate::gateway::link::{LinkHandler, Roster, ask};
use crate::lightning::lnd::Method;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// lnd gives up after 5 s unless told otherwise, and shuts down: it has an answer long before. A question that is asked again
/// finds its answer (P5).
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Both of lnd's services.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) mint: Arc<Mint>,
    pub(super) roster: Arc<dyn Roster>,
    pub(super) handler: Arc<dyn LinkHandler>,
}

impl Service {
    /// Hands one call in and waits for its outcome.
    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: Method,
        request: Request<Q>,
    ) -> Result<Response<R>, Status> {
        let node = self.caller(&request)?;
        let message = method.request(request.get_ref());
        match ask(&*self.handler, &node, message, ANSWER_WITHIN).await {
            Outcome::Reply(reply) => {
                let lost = |_| status("", &Refusal::new(Reason::NodeBusy, "the answer was lost"));
                R::decode(&reply[..]).map(Response::new).map_err(lost)
            }
            Outcome::Refused { request, refusal } => Err(status(&request, &refusal)),
        }
    }

    /// The node whose macaroon came with the call.
    fn caller<Q>(&self, request: &Request<Q>) -> Result<NodeName, Status> {
        let header = request.metadata().get("macaroon").ok_or_else(|| unauthenticated(&"there is no macaroon"))?;
        let fingerprint = self.mint.verify(header.as_bytes()).map_err(|error| unauthenticated(&error))?;
        match self.roster.lookup(&fingerprint) {
            Ok((node, NodeKind::Lnd)) => Ok(node),
            Ok(_) => Err(unauthenticated(&"the macaroon is not an lnd node's")),
            Err(denied) => Err(unauthenticated(&denied)),
        }
    }
}

#[tonic::async_trait]
impl WalletKit for Service {
    async fn sign_psbt(&self, request: Request<SignPsbtRequest>) -> Result<Response<SignPsbtResponse>, Status> {
        self.call(Method::SignPsbt, request).await
    }
}

/// Writes the methods of `Signer`, all of which do the same.
macro_rules! signer {
    ($( $name:ident $method:ident $request:ident $response:ident; )*) => {
        #[tonic::async_trait]
        impl Signer for Service {
            $(
                async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    self.call(Method::$method, request).await
                }
            )*
        }
    };
}

signer! {
    derive_shared_key DeriveSharedKey SharedKeyRequest SharedKeyResponse;
    sign_message SignMessage SignMessageReq SignMessageResp;
    mu_sig2_create_session MuSig2CreateSession MuSig2SessionRequest MuSig2SessionResponse;
    mu_sig2_register_nonces MuSig2RegisterNonces MuSig2RegisterNoncesRequest MuSig2RegisterNoncesResponse;
    mu_sig2_register_combined_nonce MuSig2RegisterCombinedNonce
        MuSig2RegisterCombinedNonceRequest MuSig2RegisterCombinedNonceResponse;
    mu_sig2_get_combined_nonce MuSig2GetCombinedNonce MuSig2GetCombinedNonceRequest MuSig2GetCombinedNonceResponse;
    mu_sig2_sign MuSig2Sign MuSig2SignRequest MuSig2SignResponse;
    mu_sig2_combine_sig MuSig2CombineSig MuSig2CombineSigRequest MuSig2CombineSigResponse;
    mu_sig2_cleanup MuSig2Cleanup MuSig2CleanupRequest MuSig2CleanupResponse;
}
