//! Starting and stopping the door for webhooks, and the little HTTP that it speaks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::accounts::Accounts;
use super::courier::Courier;
use super::webhook::{Answer, Webhooks, account_in};
use crate::gateway::accept::{Accepting, Connection, Door};
use crate::gateway::link::{LinkHandler, LinkServerError, ServerIdentity};
use crate::lightning::lightspark::MAX_BYTES;

/// A caller sends its headers, and then its body, in this time.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(10);
/// Webhooks in hand at once; each may hold a body in memory.
const MAX_IN_HAND: usize = 32;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Beside variables: the GraphQL that takes them, for a service that sends them on itself.
const MUTATION: HeaderName = HeaderName::from_static("lightspark-mutation");

const DOOR: Door = Door {
    name: "lightspark",
    protocol: b"http/1.1",
    hint: "does what terminates TLS before it trust this signer's CA?",
};

/// The running door. Dropping it closes it and all its connections.
#[derive(Debug)]
pub struct LightsparkServer {
    accepting: Accepting,
    serving: JoinHandle<()>,
}

impl LightsparkServer {
    /// Serves `listener`. Call it within a tokio runtime.
    pub fn start(
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        accounts: Arc<Accounts>,
        handler: Arc<dyn LinkHandler>,
        courier: Arc<Courier>,
    ) -> Result<Self, LinkServerError> {
        let (accepting, mut connections) = Accepting::start(listener, identity, DOOR)?;
        let webhooks = Arc::new(Webhooks { accounts, handler, courier });
        let in_hand = Arc::new(Semaphore::new(MAX_IN_HAND));
        let serving = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut serving = JoinSet::new();
            while let Some(connection) = connections.recv().await {
                while serving.try_join_next().is_some() {}
                serving.spawn(serve(connection, Arc::clone(&webhooks), Arc::clone(&in_hand)));
            }
        });
        Ok(Self { accepting, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.accepting.address
    }
}

impl Drop for LightsparkServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(connection: Connection, webhooks: Arc<Webhooks>, in_hand: Arc<Semaphore>) {
    let service = service_fn(|request| {
        let (webhooks, in_hand) = (Arc::clone(&webhooks), Arc::clone(&in_hand));
        async move { Ok::<_, Infallible>(response(answer(request, &webhooks, &in_hand).await)) }
    });
    if let Err(error) = http1().serve_connection(TokioIo::new(connection), service).await {
        tracing::debug!(%error, "lightspark: a connection ended");
    }
}

/// HTTP/1.1 that waits for no slow caller and holds no large headers.
pub(super) fn http1() -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(READ_WITHIN).max_buf_size(MAX_HEADER_BYTES);
    http1
}

async fn answer(request: Request<Incoming>, webhooks: &Webhooks, in_hand: &Semaphore) -> Answer {
    if request.uri().path() == "/ping" {
        return Answer::status(if request.method() == Method::GET { 204 } else { 405 });
    }
    let Some(account) = account_in(request.uri().path()).map(str::to_owned) else { return Answer::status(404) };
    if request.method() != Method::POST {
        return Answer::status(405);
    }
    let mut signatures = request.headers().get_all("lightspark-signature").iter();
    let signature = signatures.next().filter(|_| signatures.next().is_none()).map(|value| value.as_bytes().to_vec());
    let Ok(_place) = in_hand.acquire().await else { return Answer::status(503) };
    let body = Limited::new(request.into_body(), MAX_BYTES).collect();
    match tokio::time::timeout(READ_WITHIN, body).await {
        Ok(Ok(body)) => webhooks.answer(&account, signature.as_deref(), &body.to_bytes()).await,
        Ok(Err(_)) => Answer::status(413),
        Err(_) => Answer::status(408),
    }
}

pub(super) fn response(answer: Answer) -> Response<Full<Bytes>> {
    let (is_empty, mutation) = (answer.body.is_empty(), answer.mutation);
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !is_empty {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(mutation) = mutation {
        response.headers_mut().insert(MUTATION, HeaderValue::from_static(mutation.document()));
    }
    response
}
