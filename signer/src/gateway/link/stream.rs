//! One node's stream: requests in, replies out, in whatever order they are done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use claviger_proto::v1::{NodeReply, NodeRequest, node_request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use super::sessions::{Session, SessionHandle};
use super::{LinkHandler, wire};
use crate::names::NodeName;
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// A reply on its way out, with the slot its request took.
type Queued = (NodeReply, Option<OwnedSemaphorePermit>);

/// What the node receives: the replies, and at the end why it ended.
pub(super) struct ReplyStream {
    session: Session,
    queue: mpsc::Receiver<Queued>,
    finished: bool,
}

/// Starts serving `requests` of `node`; `welcome` is the first reply.
pub(super) fn serve(
    session: Session,
    node: NodeName,
    welcome: NodeReply,
    requests: Streaming<NodeRequest>,
    handler: Arc<dyn LinkHandler>,
    max_in_flight: usize,
) -> ReplyStream {
    // A slot is held from reading a request until its reply leaves, so the queue (slots and the welcome) is never full.
    let (sender, queue) = mpsc::channel(max_in_flight + 1);
    let _ = sender.try_send((welcome, None));
    let slots = Arc::new(Semaphore::new(max_in_flight));
    let reader = Reader { node, session: session.handle(), handler, sender, slots };
    tokio::spawn(reader.run(requests));
    ReplyStream { session, queue, finished: false }
}

struct Reader {
    node: NodeName,
    session: SessionHandle,
    handler: Arc<dyn LinkHandler>,
    sender: mpsc::Sender<Queued>,
    slots: Arc<Semaphore>,
}

impl Reader {
    /// Reads until the node or the stream is gone. When all slots are taken it does not read, and HTTP/2 flow control
    /// makes the node wait.
    async fn run(self, mut requests: Streaming<NodeRequest>) {
        loop {
            let next = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
                Some((slot, requests.message().await))
            };
            let next = tokio::select! {
                next = next => next,
                () = self.sender.closed() => return,
            };
            let problem = match next {
                Some((slot, Ok(Some(request)))) => match self.accept(request, slot) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                // The node says no more, or is gone. Replies under way still leave, if anybody listens.
                Some((_, Ok(None))) | None => return,
                Some((_, Err(status))) => match read_problem(&status) {
                    Some(problem) => problem,
                    None => return,
                },
            };
            tracing::warn!(node = %self.node, reason = problem.reason.id(), "link: closed: {}", problem.detail);
            self.session.end(problem);
            return;
        }
    }

    /// Hands a request on. What is wrong with one message is answered as a value; what breaks the protocol ends the stream.
    fn accept(&self, frame: NodeRequest, slot: OwnedSemaphorePermit) -> Result<(), Refusal> {
        let NodeRequest { request_id, channel, body } = frame;
        let message = match body {
            Some(node_request::Body::Message(message)) => message,
            Some(node_request::Body::Hello(_)) => return Err(Refusal::new(Reason::LinkProtocol, "a second hello")),
            None => return Err(Refusal::new(Reason::LinkProtocol, "a frame without a body")),
        };
        let pending = Pending { request_id, sender: self.sender.clone(), slot: Some(slot) };
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
    sender: mpsc::Sender<Queued>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Pending {
    fn answer(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        if let Some(slot) = self.slot.take() {
            // Fails only when the stream is gone; the node asks again on its next one (P5).
            let _ = self.sender.try_send((wire::reply(self.request_id, outcome), Some(slot)));
        }
    }
}

impl Drop for Pending {
    /// Dropped unanswered: the handler gave up, and the node must not wait forever (P6).
    fn drop(&mut self) {
        let refusal = Refusal::new(Reason::NodeRestarting, "the request was dropped unanswered");
        self.send(Outcome::Refused { request: String::new(), refusal });
    }
}

impl Stream for ReplyStream {
    type Item = Result<NodeReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        // The end comes before queued replies: a revoked node gets nothing more.
        if let Poll::Ready(Ok(why)) = Pin::new(&mut self.session.ended).poll(cx) {
            self.finished = true;
            return Poll::Ready(Some(Err(wire::status(&why))));
        }
        let next = std::task::ready!(self.queue.poll_recv(cx));
        self.finished = next.is_none();
        Poll::Ready(next.map(|(reply, _slot)| Ok(reply)))
    }
}
