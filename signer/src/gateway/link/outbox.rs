//! Replies on their way to one node. What is not read is bounded in bytes, and what is left when the stream ends is dropped
//! at once: a node that opens streams and reads none of them holds no memory with it (P6).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use claviger_proto::v1::NodeReply;
use prost::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::reasons::Refusal;

/// Bytes of replies that wait to be read; then no further request is.
pub(super) const MAX_UNREAD_BYTES: usize = 1 << 20;

/// The replies of one stream. Dropping the side that reads ends it.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Told whenever a reply leaves.
    left: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Who may still put a reply in.
    writers: usize,
    ended: Option<Ended>,
    reader: Option<Waker>,
}

enum Ended {
    /// To be told to the node.
    Because(Refusal),
    Quietly,
}

struct Queued {
    reply: NodeReply,
    bytes: usize,
    /// What the request took of its node's requests in flight, until the reply has left.
    _place: Option<OwnedSemaphorePermit>,
}

/// One that may put a reply in. When the last is dropped, the stream ends behind what is queued.
pub(super) struct Writer(Arc<Outbox>);

impl Outbox {
    /// An empty outbox and its first writer.
    pub(super) fn open() -> (Arc<Self>, Writer) {
        let outbox =
            Arc::new(Self { state: Mutex::new(State { writers: 1, ..State::default() }), left: Notify::new() });
        (outbox.clone(), Writer(outbox))
    }

    /// Ends the stream with `why`, unless it has ended. What is queued is not sent: a revoked node gets nothing more.
    pub(super) fn end(&self, why: Refusal) {
        self.finish(Ended::Because(why));
    }

    /// Nobody reads any more.
    pub(super) fn abandon(&self) {
        self.finish(Ended::Quietly);
    }

    fn finish(&self, how: Ended) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(how);
        state.bytes = 0;
        let (queue, reader) = (std::mem::take(&mut state.queue), state.reader.take());
        drop(state); // dropping replies gives places back, which wakes tasks
        drop(queue);
        self.left.notify_waiters();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until there is room for another reply.
    pub(super) async fn room(&self) {
        loop {
            let left = self.left.notified();
            if self.lock().bytes < MAX_UNREAD_BYTES {
                return;
            }
            left.await;
        }
    }

    /// The next reply; `None` at the end, after why it ended, if there is something to tell.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<NodeReply, Refusal>>> {
        let mut state = self.lock();
        match state.ended.take() {
            Some(Ended::Because(why)) => {
                state.ended = Some(Ended::Quietly);
                return Poll::Ready(Some(Err(why)));
            }
            Some(Ended::Quietly) => {
                state.ended = Some(Ended::Quietly);
                return Poll::Ready(None);
            }
            None => {}
        }
        if let Some(queued) = state.queue.pop_front() {
            state.bytes -= queued.bytes;
            drop(state);
            self.left.notify_waiters();
            return Poll::Ready(Some(Ok(queued.reply)));
        }
        if state.writers == 0 {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements: nothing to distrust after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Puts a reply in. After the stream's end it goes nowhere: the node asks again on its next one (P5).
    pub(super) fn put(&self, reply: NodeReply, place: Option<OwnedSemaphorePermit>) {
        let bytes = reply.encoded_len();
        let mut state = self.0.lock();
        if state.ended.is_some() {
            return;
        }
        state.bytes += bytes;
        state.queue.push_back(Queued { reply, bytes, _place: place });
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Clone for Writer {
    fn clone(&self) -> Self {
        self.0.lock().writers += 1;
        Self(self.0.clone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writers -= 1;
        let reader = if state.writers == 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::Reason;
    use claviger_proto::v1::node_reply::Body;
    use std::future::poll_fn;
    use tokio::sync::Semaphore;

    fn reply(bytes: usize) -> NodeReply {
        NodeReply { request_id: 1, body: Some(Body::Message(vec![0; bytes])) }
    }

    fn why() -> Refusal {
        Refusal::new(Reason::CertificateRevoked, "")
    }

    async fn next(outbox: &Outbox) -> Option<Result<NodeReply, Refusal>> {
        poll_fn(|cx| outbox.poll(cx)).await
    }

    #[tokio::test]
    async fn honest_replies_leave_in_order_and_the_stream_ends_behind_the_last() {
        let (outbox, writer) = Outbox::open();
        let late = writer.clone();
        writer.put(reply(1), None);
        drop(writer);
        assert_eq!(next(&outbox).await, Some(Ok(reply(1))));
        late.put(reply(2), None);
        drop(late);
        assert_eq!(next(&outbox).await, Some(Ok(reply(2))));
        assert_eq!(next(&outbox).await, None);
    }

    #[tokio::test]
    async fn hostile_silence_of_a_reader_holds_neither_memory_nor_places_once_the_stream_ended() {
        let places = Arc::new(Semaphore::new(2));
        let (outbox, writer) = Outbox::open();
        let unanswered = writer.clone();
        for _ in 0..2 {
            writer.put(reply(MAX_UNREAD_BYTES), Some(places.clone().acquire_owned().await.unwrap()));
        }
        assert_eq!(places.available_permits(), 0);
        outbox.end(why());
        assert_eq!(places.available_permits(), 2);
        unanswered.put(reply(1), Some(places.clone().acquire_owned().await.unwrap()));
        assert_eq!(places.available_permits(), 2, "a late reply is dropped as well");
        assert_eq!(next(&outbox).await, Some(Err(why())));
        assert_eq!(next(&outbox).await, None);
    }

    #[tokio::test]
    async fn hostile_silence_of_a_reader_stops_its_requests_until_it_reads() {
        let (outbox, writer) = Outbox::open();
        outbox.room().await;
        writer.put(reply(MAX_UNREAD_BYTES), None);
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(matches!(next(&outbox).await, Some(Ok(_))));
        waiting.await.unwrap();
        writer.put(reply(MAX_UNREAD_BYTES), None);
        outbox.abandon();
        outbox.room().await;
    }
}
