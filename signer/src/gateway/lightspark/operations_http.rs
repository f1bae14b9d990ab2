//! The same as `operations.rs` for services without gRPC: `POST /v1/operations/sign` over HTTP/1.1, with the body of the call as it
//! will be sent, and the clearance, if there is to be one, in base64 in `claviger-clearance`. The answer is the value of
//! `X-Lightspark-Signing`.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::operations::Service;
use super::server::{READ_WITHIN, http1, response};
use super::webhook::Answer;
use crate::gateway::link::{Peer, TlsConnection};
use crate::lightning::lightspark::MAX_OPERATION_BYTES;
use crate::pipeline::Outcome;

/// Calls in hand at once; each may hold a body in memory.
const MAX_IN_HAND: usize = 32;

/// Serves connections until there will be none.
pub(in crate::gateway) async fn serve(mut connections: mpsc::Receiver<TlsConnection>, operations: Service) {
    let in_hand = Arc::new(Semaphore::new(MAX_IN_HAND));
    // Dropped with this task, and all connections with it.
    let mut serving = JoinSet::new();
    while let Some(connection) = connections.recv().await {
        while serving.try_join_next().is_some() {}
        serving.spawn(serve_one(connection, operations.clone(), Arc::clone(&in_hand)));
    }
}

async fn serve_one(connection: TlsConnection, operations: Service, in_hand: Arc<Semaphore>) {
    let peer = connection.peer();
    let service = service_fn(|request| {
        let (peer, operations, in_hand) = (peer.clone(), operations.clone(), Arc::clone(&in_hand));
        async move { Ok::<_, Infallible>(response(answer(request, &peer, &operations, &in_hand).await)) }
    });
    if let Err(error) = http1().serve_connection(TokioIo::new(connection), service).await {
        tracing::debug!(%error, "operations: a connection ended");
    }
}

async fn answer(request: Request<Incoming>, peer: &Peer, operations: &Service, in_hand: &Semaphore) -> Answer {
    // Before anything is read for it.
    let account = match operations.admit(peer) {
        Ok(account) => account,
        Err(why) => return Answer::refused("", &why),
    };
    if request.uri().path() != "/v1/operations/sign" {
        return Answer::status(404);
    }
    if request.method() != Method::POST {
        return Answer::status(405);
    }
    let clearance = request.headers().get("claviger-clearance").map(|header| BASE64_STANDARD.decode(header.as_bytes()));
    let Ok(clearance) = clearance.unwrap_or(Ok(Vec::new())) else { return Answer::status(400) };
    let Ok(_place) = in_hand.acquire().await else { return Answer::status(503) };
    let body = Limited::new(request.into_body(), MAX_OPERATION_BYTES).collect();
    let body = match tokio::time::timeout(READ_WITHIN, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Answer::status(413),
        Err(_) => return Answer::status(408),
    };
    match operations.ask(&account, &clearance, &body).await {
        Outcome::Reply(signature) => {
            let header = json!({ "v": 1, "signature": BASE64_STANDARD.encode(signature) });
            Answer { status: 200, body: header.to_string().into_bytes(), mutation: None }
        }
        Outcome::Refused { request, refusal } => Answer::refused(&request, &refusal),
    }
}
