//! One node's stream: requests in, replies out, in whatever order they are done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use claviger_proto::v1::{NodeReply, NodeRequest, node_request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use super::outbox::{Outbox, Writer};
use super::sessions::{Ended, Session};
use super::tls::Peer;
use super::{LinkHandler, wire};
use crate::names::NodeName;
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// What the node receives: the replies, and at the end why it ended.
pub(super) struct ReplyStream {
    outbox: Arc<Outbox>,
    _session: Session,
}

/// Starts serving `requests` of `node`; `welcome` is the first reply. `ended` says why the stream must end, once it must.
pub(super) fn serve(
    session: Session,
    ended: Ended,
    peer: Peer,
    node: NodeName,
    welcome: NodeReply,
    requests: Streaming<NodeRequest>,
    handler: Arc<dyn LinkHandler>,
) -> ReplyStream {
    let (outbox, writer) = Outbox::open();
    writer.put(welcome, None);
    let reader = Reader { peer, node, places: session.places(), handler, writer, outbox: outbox.clone() };
    tokio::spawn(reader.run(requests, ended));
    ReplyStream { outbox, _session: session }
}

struct Reader {
    peer: Peer,
    node: NodeName,
    /// One is taken from reading a request until its reply leaves.
    places: Arc<Semaphore>,
    handler: Arc<dyn LinkHandler>,
    writer: Writer,
    outbox: Arc<Outbox>,
}

impl Reader {
    /// Reads until the stream ends or the node is gone. When all places are taken, or replies wait to be read, it does not
    /// read, and HTTP/2 flow control makes the node wait.
    async fn run(self, mut requests: Streaming<NodeRequest>, mut ended: Ended) {
        loop {
            let next = async {
                self.outbox.room().await;
                let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
                Some((place, requests.message().await))
            };
            let next = tokio::select! {
                biased;
                ended = &mut ended => return ended.map_or((), |why| self.outbox.end(why)),
                next = next => next,
            };
            let problem = match next {
                Some((place, Ok(Some(request)))) => match self.accept(request, place) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                Some((_, Ok(None))) | None => {
                    // The node says no more. Replies under way still leave, and the stream ends behind the last of them.
                    let Self { writer, outbox, .. } = self;
                    drop(writer);
                    return ended.await.map_or((), |why| outbox.end(why));
                }
                Some((_, Err(status))) => match read_problem(&status) {
                    Some(problem) => problem,
                    None => return, // The connection is lost, and with it the reply side.
                },
            };
            self.peer.offended();
            if let Some(line) = self.peer.line() {
                let (node, reason, left_out) = (&self.node, problem.reason.id(), line.left_out);
                tracing::warn!(%node, reason, left_out, "link: closed: {}", problem.detail);
            }
            return self.outbox.end(problem);
        }
    }

    /// Hands a request on. What is wrong with one message is answered as a value; what breaks the protocol ends the stream.
    fn accept(&self, frame: NodeRequest, place: OwnedSemaphorePermit) -> Result<(), Refusal> {
        let NodeRequest { request_id, channel, body } = frame;
        let message = match body {
            Some(node_request::Body::Message(message)) => message,
            Some(node_request::Body::Hello(_)) => return Err(Refusal::new(Reason::LinkProtocol, "a second hello")),
            None => return Err(Refusal::new(Reason::LinkProtocol, "a frame without a body")),
        };
        let pending = Pending { request_id, writer: self.writer.clone(), place: Some(place) };
        match wire::request(request_id, channel, message) {
            Ok(request) => self.handler.submit(&self.node, request, Box::new(move |outcome| pending.answer(outcome))),
            Err(refusal) => pending.answer(Outcome::Refused { request: String::new(), refusal }),
        }
        Ok(())
    }
}

/// What a failed read means: the node's fault, or (`None`) a lost connection.
pub(super) fn read_problem(status: &Status) -> Option<Refusal> {
    match status.code() {
        // tonic's own limit on decoded messages.
        Code::OutOfRange | Code::ResourceExhausted => Some(Refusal::new(Reason::FrameTooLarge, status.message())),
        // A frame that is not a NodeRequest, or a compressed one.
        Code::Internal | Code::Unimplemented | Code::InvalidArgument => {
            Some(Refusal::new(Reason::LinkProtocol, status.message()))
        }
        _ => None,
    }
}

/// A request that is being answered.
struct Pending {
    request_id: u64,
    writer: Writer,
    /// Gone once it is answered.
    place: Option<OwnedSemaphorePermit>,
}

impl Pending {
    fn answer(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        if let Some(place) = self.place.take() {
            self.writer.put(wire::reply(self.request_id, outcome), Some(place));
        }
    }
}

impl Drop for Pending {
    /// Dropped unanswered: the handler gave up, and the node must not wait forever (P6).
    fn drop(&mut self) {
        if self.place.is_some() {
            let refusal = Refusal::new(Reason::NodeRestarting, "the request was dropped unanswered");
            self.send(Outcome::Refused { request: String::new(), refusal });
        }
    }
}

impl Stream for ReplyStream {
    type Item = Result<NodeReply, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outbox.poll(cx).map(|next| next.map(|reply| reply.map_err(|why| wire::status(&why))))
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        self.outbox.abandon();
    }
}
