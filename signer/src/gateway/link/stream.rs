//! One node's stream: requests in, replies out, in whatever order they are done.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use claviger_proto::v1::{NodeReply, NodeRequest, node_request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use super::sessions::{Ended, Session};
use super::{LinkHandler, wire};
use crate::names::NodeName;
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// What the reply side receives.
enum Queued {
    /// A reply on its way out, with the slot its request took.
    Reply(NodeReply, Option<OwnedSemaphorePermit>),
    /// The stream ends; `ReplyStream::end` says why.
    End,
}

/// What the node receives: the replies, and at the end why it ended.
pub(super) struct ReplyStream {
    queue: mpsc::Receiver<Queued>,
    /// Set when the stream must end, whatever is still queued.
    end: Arc<OnceLock<Refusal>>,
    finished: bool,
    _session: Session,
}

/// Starts serving `requests` of `node`; `welcome` is the first reply. `ended` says why the stream must end, once it must.
pub(super) fn serve(
    session: Session,
    ended: Ended,
    node: NodeName,
    welcome: NodeReply,
    requests: Streaming<NodeRequest>,
    handler: Arc<dyn LinkHandler>,
    max_in_flight: usize,
) -> ReplyStream {
    // A slot is held from reading a request until its reply leaves, so the queue (slots, welcome, end) is never full.
    let (sender, queue) = mpsc::channel(max_in_flight + 2);
    let _ = sender.try_send(Queued::Reply(welcome, None));
    let (slots, end) = (Arc::new(Semaphore::new(max_in_flight)), Arc::default());
    let reader = Reader { node, ended, handler, sender, slots, end: Arc::clone(&end) };
    tokio::spawn(reader.run(requests));
    ReplyStream { queue, end, finished: false, _session: session }
}

struct Reader {
    node: NodeName,
    ended: Ended,
    handler: Arc<dyn LinkHandler>,
    sender: mpsc::Sender<Queued>,
    slots: Arc<Semaphore>,
    end: Arc<OnceLock<Refusal>>,
}

impl Reader {
    /// Reads until the stream ends or the node is gone. When all slots are taken it does not read, and HTTP/2 flow control
    /// makes the node wait.
    async fn run(mut self, mut requests: Streaming<NodeRequest>) {
        loop {
            let next = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
                Some((slot, requests.message().await))
            };
            let next = tokio::select! {
                biased;
                ended = &mut self.ended => return ended.map_or((), |why| finish(&self.end, &self.sender, why)),
                next = next => next,
            };
            let problem = match next {
                Some((slot, Ok(Some(request)))) => match self.accept(request, slot) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                Some((_, Ok(None))) | None => return self.wait_for_end().await,
                Some((_, Err(status))) => match read_problem(&status) {
                    Some(problem) => problem,
                    None => return, // The connection is lost, and with it the reply side.
                },
            };
            tracing::warn!(node = %self.node, reason = problem.reason.id(), "link: closed: {}", problem.detail);
            return finish(&self.end, &self.sender, problem);
        }
    }

    /// The node says no more. Replies under way still leave, and the queue closes after the last of them.
    async fn wait_for_end(self) {
        let Self { ended, sender, end, .. } = self;
        let queue = sender.downgrade();
        drop(sender);
        if let (Ok(why), Some(sender)) = (ended.await, queue.upgrade()) {
            finish(&end, &sender, why);
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

fn finish(end: &OnceLock<Refusal>, sender: &mpsc::Sender<Queued>, why: Refusal) {
    let _ = end.set(why);
    let _ = sender.try_send(Queued::End);
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
            let _ = self.sender.try_send(Queued::Reply(wire::reply(self.request_id, outcome), Some(slot)));
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
        let next = std::task::ready!(self.queue.poll_recv(cx));
        // The end comes before queued replies: a revoked node gets nothing more.
        if let Some(why) = self.end.get() {
            let status = wire::status(why);
            self.finished = true;
            return Poll::Ready(Some(Err(status)));
        }
        match next {
            Some(Queued::Reply(reply, _slot)) => Poll::Ready(Some(Ok(reply))),
            Some(Queued::End) | None => {
                self.finished = true;
                Poll::Ready(None)
            }
        }
    }
}
