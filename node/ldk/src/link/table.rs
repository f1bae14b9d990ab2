//! What the calling threads and the link's own thread share: the unanswered requests and the state of the link.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_proto::v1::{self, NodeReply, NodeRequest, node_reply, node_request};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::LinkState;
use super::down::{Down, from_wire};
use crate::transport::{ChannelRef, LinkError};

/// What a call comes to.
pub(super) type Outcome = Result<Vec<u8>, LinkError>;

pub(super) struct Table {
    inner: Mutex<Inner>,
    settled: Condvar,
}

struct Inner {
    next_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    link: State,
    /// Calls fail at once: the link has been down for longer than they wait, or for a reason that does not pass.
    hopeless: bool,
    listeners: Vec<Sender<bool>>,
}

enum State {
    /// Takes the ids of requests to send.
    Up(UnboundedSender<u64>),
    Down(Down),
}

struct Waiting {
    channel: Option<ChannelRef>,
    message: Vec<u8>,
    reply: SyncSender<Outcome>,
}

impl Table {
    pub(super) fn new() -> Self {
        let inner = Inner {
            next_id: first_id(),
            waiting: BTreeMap::new(),
            link: State::Down(Down::Connecting),
            hopeless: false,
            listeners: Vec::new(),
        };
        Self { inner: Mutex::new(inner), settled: Condvar::new() }
    }

    /// Notes a request and sends it if the link is up. The outcome arrives on the receiver.
    pub(super) fn ask(
        &self,
        channel: Option<ChannelRef>,
        message: Vec<u8>,
    ) -> Result<(u64, Receiver<Outcome>), LinkError> {
        let mut inner = self.lock();
        if let (true, State::Down(down)) = (inner.hopeless, &inner.link) {
            return Err(LinkError::Down(down.to_string()));
        }
        let request_id = inner.next_id;
        inner.next_id += 1;
        let (reply, outcome) = mpsc::sync_channel(1);
        inner.waiting.insert(request_id, Waiting { channel, message, reply });
        if let State::Up(sender) = &inner.link {
            // Fails only while the stream is breaking; the request is then repeated on the next one.
            let _ = sender.send(request_id);
        }
        Ok((request_id, outcome))
    }

    /// Nobody waits for this reply any more.
    pub(super) fn forget(&self, request_id: u64) {
        self.lock().waiting.remove(&request_id);
    }

    /// The frame to send for `request_id`, if somebody still waits for its reply.
    pub(super) fn frame(&self, request_id: u64) -> Option<NodeRequest> {
        let inner = self.lock();
        let Waiting { channel, message, .. } = inner.waiting.get(&request_id)?;
        let channel = channel.map(|ChannelRef { peer_id, dbid }| v1::ChannelRef { peer_id: peer_id.to_vec(), dbid });
        Some(NodeRequest { request_id, channel, body: Some(node_request::Body::Message(message.clone())) })
    }

    /// Hands a reply to whoever waits for it.
    pub(super) fn answer(&self, reply: NodeReply) {
        let Some(waiting) = self.lock().waiting.remove(&reply.request_id) else { return };
        let outcome = match reply.body {
            Some(node_reply::Body::Message(message)) => Ok(message),
            Some(node_reply::Body::Refusal(refusal)) => Err(LinkError::Refused(from_wire(refusal))),
            Some(node_reply::Body::Welcome(_)) | None => Err(LinkError::Protocol("a reply without a body".to_owned())),
        };
        let _ = waiting.reply.try_send(outcome);
    }

    /// The link is up: every unanswered request is sent, oldest first. Returns the ids of requests to send.
    pub(super) fn up(&self) -> UnboundedReceiver<u64> {
        let (sender, ids) = unbounded_channel();
        let mut inner = self.lock();
        for request_id in inner.waiting.keys() {
            let _ = sender.send(*request_id);
        }
        inner.link = State::Up(sender);
        inner.hopeless = false;
        inner.tell(true);
        self.settled.notify_all();
        ids
    }

    /// The link is down. A reason that does not pass by itself fails the waiting calls.
    pub(super) fn down(&self, why: Down) {
        let mut inner = self.lock();
        let was_up = matches!(inner.link, State::Up(_));
        let hopeless = !why.temporary();
        inner.link = State::Down(why);
        if was_up {
            inner.tell(false);
        }
        drop(inner);
        if hopeless {
            self.give_up();
        }
        self.settled.notify_all();
    }

    /// Fails the waiting calls and, until the link is up again, every further one. Does nothing if the link is up.
    pub(super) fn give_up(&self) {
        let mut inner = self.lock();
        let State::Down(down) = &inner.link else { return };
        let why = down.to_string();
        inner.hopeless = true;
        for (_, waiting) in std::mem::take(&mut inner.waiting) {
            let _ = waiting.reply.try_send(Err(LinkError::Down(why.clone())));
        }
    }

    /// The engine has stopped: nobody waits for it.
    pub(super) fn close(&self) {
        self.down(Down::Lost("the link was closed".to_owned()));
        self.give_up();
        self.lock().listeners.clear();
    }

    /// The state of the link.
    pub(super) fn state(&self) -> LinkState {
        self.lock().state()
    }

    /// Waits until the link is up or down for a reason that does not pass, at most `patience`. Returns the state then.
    pub(super) fn settled(&self, patience: Duration) -> LinkState {
        let unsettled = |inner: &mut Inner| matches!(&inner.link, State::Down(down) if down.temporary());
        let waited = self.settled.wait_timeout_while(self.lock(), patience, unsettled);
        waited.unwrap_or_else(PoisonError::into_inner).0.state()
    }

    /// True for each time the link comes up, false for each time it goes down. Begins with true if it is up.
    pub(super) fn subscribe(&self) -> Receiver<bool> {
        let (sender, receiver) = mpsc::channel();
        let mut inner = self.lock();
        if matches!(inner.link, State::Up(_)) {
            let _ = sender.send(true);
        }
        inner.listeners.push(sender);
        receiver
    }

    // Every change under the lock is complete before anything in it can panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn state(&self) -> LinkState {
        match &self.link {
            State::Up(_) => LinkState::Up,
            State::Down(down) => LinkState::Down(down.clone()),
        }
    }

    fn tell(&mut self, up: bool) {
        self.listeners.retain(|listener| listener.send(up).is_ok());
    }
}

/// Ids begin at a random number, so that those of a restarted process do not look like repetitions. 0 is the hello's.
fn first_id() -> u64 {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    (u64::from_be_bytes(bytes) >> 16) + 1
}
