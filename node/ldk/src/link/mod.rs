//! The node's end of the link: blocking calls over one authenticated stream that mends itself (`docs/link.md`).
//!
//! The link runs on a thread and a runtime of its own, so that calls work anywhere: in plain threads, in LDK's callbacks,
//! within another async runtime. When the stream breaks, it is opened again and unanswered requests are repeated under
//! their old ids; the signer answers each as it would have the first time (P5).

mod down;
mod engine;
mod table;
mod tls;

use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_proto::MAX_MESSAGE_BYTES;
pub use claviger_proto::bundle::{Bundle, BundleError};
use tokio::sync::oneshot;

use crate::transport::{ChannelRef, LinkError, Refusal, RefusalReason, Transport};

pub use down::Down;
use engine::Engine;
use table::Table;

/// How patient the link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Name and version of this program, for the signer's logs.
    pub client: String,
    /// How long a call waits for its reply, reconnects included.
    pub reply_timeout: Duration,
    /// How long calls wait for a broken link before they fail with [`LinkError::Down`].
    pub down_patience: Duration,
    /// An HTTP/2 ping is sent after this much silence, and again this long waited for.
    pub keepalive: Duration,
    /// The pause before the second attempt to connect; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause between attempts.
    pub longest_pause: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            client: concat!("claviger-ldk/", env!("CARGO_PKG_VERSION")).to_owned(),
            reply_timeout: Duration::from_secs(20),
            down_patience: Duration::from_secs(2),
            keepalive: Duration::from_secs(10),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// Whether the signer can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected and welcomed.
    Up,
    /// Not connected, and why.
    Down(Down),
}

/// Why a link could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The operating system refused a thread or a socket.
    #[error("the link's thread cannot start: {0}")]
    System(String),
    /// The signer does not answer, or not to this bundle.
    #[error(transparent)]
    Down(#[from] Down),
}

impl ConnectError {
    /// What to do next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Bundle(error) => error.hint(),
            Self::System(_) => "Look at the process limits (threads, open files).",
            Self::Down(down) => down.hint(),
        }
    }
}

/// A link to the signer. Cheap to clone; the last one dropped closes it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    table: Arc<Table>,
    reply_timeout: Duration,
    /// Dropped to stop the engine.
    stop: Option<oneshot::Sender<()>>,
    /// Ends when the engine has stopped.
    stopped: Mutex<Receiver<()>>,
}

impl Link {
    /// Starts connecting and returns at once.
    pub fn start(bundle: &Bundle, options: LinkOptions) -> Result<Self, ConnectError> {
        let table = Arc::new(Table::new());
        let reply_timeout = options.reply_timeout;
        let engine = Engine::new(bundle, options, Arc::clone(&table))?;
        let (stop, stopping) = oneshot::channel();
        let (alive, stopped) = mpsc::channel();
        engine.spawn(stopping, alive).map_err(|error| ConnectError::System(error.to_string()))?;
        Ok(Self(Arc::new(Inner { table, reply_timeout, stop: Some(stop), stopped: Mutex::new(stopped) })))
    }

    /// Connects and waits until the signer welcomes this node, at most `patience`. Fails early for a reason that does not
    /// pass by itself, e.g. a revoked certificate.
    pub fn connect(bundle: &Bundle, options: LinkOptions, patience: Duration) -> Result<Self, ConnectError> {
        let link = Self::start(bundle, options)?;
        match link.0.table.settled(patience) {
            LinkState::Up => Ok(link),
            LinkState::Down(down) => Err(down.into()),
        }
    }

    /// Whether the signer can be asked now.
    pub fn state(&self) -> LinkState {
        self.0.table.state()
    }

    /// Calls `listener` with true whenever the link comes up and with false whenever it goes down, on a thread of its own,
    /// which ends with the link. The listener may call the signer.
    pub fn on_state(&self, listener: impl Fn(bool) + Send + 'static) -> Result<(), ConnectError> {
        let changes = self.0.table.subscribe();
        let run = move || changes.into_iter().for_each(listener);
        let thread = std::thread::Builder::new().name("claviger-state".to_owned()).spawn(run);
        thread.map(drop).map_err(|error| ConnectError::System(error.to_string()))
    }

    /// Sends one hsmd message (u16 big-endian type, then the body) and waits for its reply.
    ///
    /// `channel` is absent for a message that concerns the node as a whole. Blocks the calling thread, at most
    /// [`LinkOptions::reply_timeout`]; from async code, use a thread made for blocking.
    pub fn call(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(LinkError::Refused(too_large(message.len())));
        }
        let (request_id, reply) = self.0.table.ask(channel, message)?;
        match reply.recv_timeout(self.0.reply_timeout) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(LinkError::Down("it was closed".to_owned())),
            Err(RecvTimeoutError::Timeout) => {
                self.0.table.forget(request_id);
                Err(LinkError::Down(match self.state() {
                    LinkState::Up => format!("no reply within {} s", self.0.reply_timeout.as_secs_f32()),
                    LinkState::Down(down) => down.to_string(),
                }))
            }
        }
    }
}

impl fmt::Debug for Link {
    /// Without the unanswered messages, which may carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Transport for Link {
    fn call(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        Self::call(self, channel, message)
    }
}

impl Drop for Inner {
    /// Waits a moment for the stream to be closed, so that the next process with this bundle is welcome at once.
    fn drop(&mut self) {
        drop(self.stop.take());
        let stopped = self.stopped.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = stopped.recv_timeout(Duration::from_secs(1));
    }
}

fn too_large(bytes: usize) -> Refusal {
    let reason = RefusalReason {
        id: "frame-too-large".to_owned(),
        detail: format!("the message has {bytes} bytes, the link carries {MAX_MESSAGE_BYTES}"),
        hint: "Use smaller transactions: fewer inputs, or without previous transactions.".to_owned(),
        facts: Vec::new(),
    };
    Refusal { request: String::new(), reasons: vec![reason], retry: false }
}
