//! Resumes what LDK left pending once the signer answers again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vls_protocol::msgs::{Ping, Pong};
use vls_protocol::serde_bolt::WireString;

use crate::call::Caller;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether LDK was told "signer pending" since the last resume.
#[derive(Default)]
pub(crate) struct Blocked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    raised: bool,
    stopped: bool,
}

impl Blocked {
    pub(crate) fn raise(&self) {
        self.lock().raised = true;
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until something is pending. False once stopped.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.raised && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Sleeps, unless stopped. False once stopped.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.changed.wait_timeout_while(state, pause, |s| !s.stopped).unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }

    fn lower(&self) {
        self.lock().raised = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is two flags: nothing can be half done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that calls back when a signer that was away answers again. Dropping it ends the thread.
///
/// Made by [`ClavigerKeys::resume_with`](crate::ClavigerKeys::resume_with); one per node is enough.
pub struct Resumer {
    blocked: Arc<Blocked>,
    thread: Option<JoinHandle<()>>,
}

impl Resumer {
    pub(crate) fn spawn(caller: Arc<Caller>, resume: impl Fn() + Send + 'static) -> Self {
        let blocked = caller.blocked().clone();
        let thread = std::thread::spawn(move || run(&caller, &resume));
        Self { blocked, thread: Some(thread) }
    }
}

impl Drop for Resumer {
    fn drop(&mut self) {
        self.blocked.stop();
        if let Some(thread) = self.thread.take() {
            // The callback may hold the last reference to the node that owns this: never wait for oneself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn run(caller: &Caller, resume: &impl Fn()) {
    let blocked = caller.blocked();
    let mut pause = FIRST_PAUSE;
    while blocked.wait() {
        if !blocked.pause(pause) {
            return;
        }
        let ping = Ping { id: 0, message: WireString(b"resume".to_vec()) };
        if caller.call::<Pong>(None, &ping).is_ok() {
            // Lowered first: whatever still fails inside `resume` raises it again, and the pause grows.
            blocked.lower();
            resume();
        }
        pause = if blocked.lock().raised { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
    }
}
