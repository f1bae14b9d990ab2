//! Typed calls over a [`Transport`], and the two ways to treat a signer that is away: fail at once, or wait.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use vls_protocol::msgs::{DeBolt, SerBolt};

use crate::resume::Blocked;
use crate::transport::{ChannelRef, LinkError, Transport};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One node's way to its signer, shared by everything that signs.
pub(crate) struct Caller {
    transport: Arc<dyn Transport>,
    patience: Duration,
    blocked: Arc<Blocked>,
}

/// What a request is answered with.
pub(crate) trait Reply: Sized {
    fn decode(reply: Vec<u8>) -> Result<Self, String>;
}

impl<T: DeBolt> Reply for T {
    fn decode(reply: Vec<u8>) -> Result<Self, String> {
        T::from_vec(reply).map_err(|error| format!("{error:?}"))
    }
}

impl Caller {
    pub(crate) fn new(transport: Arc<dyn Transport>, patience: Duration) -> Self {
        Self { transport, patience, blocked: Arc::default() }
    }

    /// What a [`Resumer`](crate::Resumer) waits for.
    pub(crate) fn blocked(&self) -> &Arc<Blocked> {
        &self.blocked
    }

    /// One attempt. A failure that may pass by itself is remembered for the [`Resumer`](crate::Resumer).
    pub(crate) fn call<A: Reply>(&self, channel: Option<ChannelRef>, request: &impl SerBolt) -> Result<A, LinkError> {
        let reply = self.attempt(channel, request.name(), request.as_vec());
        if reply.as_ref().is_err_and(LinkError::retry) {
            self.blocked.raise();
        }
        reply
    }

    /// Waits for a signer that is away, for as long as the node's patience lasts.
    pub(crate) fn call_patiently<A: Reply>(
        &self,
        channel: Option<ChannelRef>,
        request: &impl SerBolt,
    ) -> Result<A, LinkError> {
        let (name, message) = (request.name(), request.as_vec());
        let deadline = Instant::now().checked_add(self.patience); // `None`: for ever
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(channel, name, message.clone()) {
                Err(error) if error.retry() && deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                reply => return reply,
            }
        }
    }

    fn attempt<A: Reply>(&self, channel: Option<ChannelRef>, name: &str, message: Vec<u8>) -> Result<A, LinkError> {
        self.transport
            .call(channel, message)
            .and_then(|reply| A::decode(reply).map_err(|e| LinkError::Protocol(format!("reply to {name}: {e}"))))
            .inspect_err(|error| tracing::warn!(request = name, %error, "the signer gave no answer"))
    }
}
