//! Delivers letters to Lightspark until they are taken: no actor and no webhook waits for it, and no account for another.
//!
//! A letter is recorded before it comes here, and forgotten after it was taken: a signer that dies in between delivers it again,
//! and Lightspark, which knows jobs and invoices by their ids, takes the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::accounts::Accounts;
use super::api::{self, Api, ApiError, AtLightspark, Endpoint};
use super::mutations::Mutation;
use crate::lightning::lightspark::Letter;
use crate::names::NodeName;

/// Letters of one account that wait; its webhooks are asked to come again later while there are so many.
const MAX_WAITING: usize = 1_024;
/// Calls of one account at once.
const MAX_CALLS: usize = 8;

/// How long a letter is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between the first call and the second; twice as long each time.
    pub(super) first: Duration,
    /// But no longer.
    pub(super) longest: Duration,
    /// From when the letter was written, until it is given up.
    pub(super) at_all: Duration,
    /// How often Lightspark says no before that.
    pub(super) refusals: u32,
}

/// A webhook that tells of something and asks for nothing.
const PROBE: &str = r#"{"event_type":"NODE_STATUS","event_id":"claviger-doctor","timestamp":"2026-01-01T00:00:00+00:00","entity_id":"claviger"}"#;

const PATIENCE: Patience = Patience {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(300),
    at_all: Duration::from_secs(24 * 60 * 60),
    refusals: 8,
};

/// Forgets the letter about an event of an account, durably.
pub type Forget = Box<dyn Fn(&NodeName, &str) + Send + Sync>;

/// The courier. Dropping it ends all deliveries; what was not taken is recorded still.
pub struct Courier {
    letters: mpsc::UnboundedSender<(NodeName, String, Letter)>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    api: Api,
    accounts: Arc<Accounts>,
    forget: Forget,
    patience: Patience,
    desks: Mutex<BTreeMap<NodeName, Desk>>,
}

/// What goes on for one account.
struct Desk {
    /// The events whose letters wait.
    waiting: BTreeSet<String>,
    calls: Arc<Semaphore>,
    /// Said once, until a call succeeds.
    failing: bool,
}

impl Default for Desk {
    fn default() -> Self {
        Self { waiting: BTreeSet::new(), calls: Arc::new(Semaphore::new(MAX_CALLS)), failing: false }
    }
}

impl Courier {
    /// Delivers to `api` from now on. Call it within a tokio runtime.
    pub fn start(api: Api, accounts: Arc<Accounts>, forget: Forget) -> Self {
        Self::with(api, accounts, forget, PATIENCE)
    }

    pub(super) fn with(api: Api, accounts: Arc<Accounts>, forget: Forget, patience: Patience) -> Self {
        let shared = Arc::new(Shared { api, accounts, forget, patience, desks: Mutex::default() });
        let (letters, mut arriving) = mpsc::unbounded_channel();
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // Dropped with this task, and all deliveries with it.
            let mut delivering = JoinSet::new();
            while let Some((account, event, letter)) = arriving.recv().await {
                while delivering.try_join_next().is_some() {}
                delivering.spawn(deliver(Arc::clone(&of_task), account, event, letter));
            }
        });
        Self { letters, shared, task }
    }

    /// Takes a letter that is recorded. One about the same event may be on its way: then that is enough.
    pub fn send(&self, account: &NodeName, event: &str, letter: Letter) {
        if self.shared.desks().entry(account.clone()).or_default().waiting.insert(event.to_owned()) {
            let _ = self.letters.send((account.clone(), event.to_owned(), letter)); // recorded, if the courier has ended
        }
    }

    /// How many letters of an account wait.
    pub fn waiting(&self, account: &NodeName) -> usize {
        self.shared.desks().get(account).map_or(0, |desk| desk.waiting.len())
    }

    /// What Lightspark says of an account; nothing if it has no token.
    pub async fn look(&self, account: &NodeName) -> Option<Result<AtLightspark, ApiError>> {
        let authorization = self.shared.accounts.authorization(account)?;
        Some(self.shared.api.look(&authorization).await)
    }

    /// Sends a webhook of an account's that asks for nothing, as Lightspark does, to `public` or else straight to `door`. Returns the
    /// status that it gets; nothing if the account has no webhooks.
    pub async fn probe(
        &self,
        account: &NodeName,
        public: Option<&Endpoint>,
        door: (SocketAddr, CertificateDer<'static>),
    ) -> Option<Result<u16, ApiError>> {
        let signature = self.shared.accounts.sign(account, PROBE)?;
        Some(match public {
            Some(public) => self.shared.api.probe(&public.below(&format!("/{account}")), &signature, PROBE).await,
            None => {
                let path = format!("/ln/webhooks/{account}");
                api::probe_door(door.0, door.1, &path, &signature, PROBE).await
            }
        })
    }

    /// Whether an account has as many as there may be.
    pub(super) fn is_full(&self, account: &NodeName) -> bool {
        self.waiting(account) >= MAX_WAITING
    }

    /// Ends the deliveries of an account that is gone.
    pub fn remove(&self, account: &NodeName) {
        if let Some(desk) = self.shared.desks().remove(account) {
            desk.calls.close();
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn desks(&self) -> MutexGuard<'_, BTreeMap<NodeName, Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a call went. Returns whether that is news.
    fn note(&self, account: &NodeName, failing: bool) -> bool {
        let mut desks = self.desks();
        desks.get_mut(account).is_some_and(|desk| std::mem::replace(&mut desk.failing, failing) != failing)
    }
}

async fn deliver(shared: Arc<Shared>, account: NodeName, event: String, letter: Letter) {
    let (mut wait, mut refusals) = (shared.patience.first, 0);
    let Some(mutation) = Mutation::of(&letter) else { return };
    let Some(calls) = shared.desks().get(&account).map(|desk| Arc::clone(&desk.calls)) else { return };
    loop {
        let Some(authorization) = shared.accounts.authorization(&account) else { return };
        let Ok(place) = calls.acquire().await else { return };
        let called = shared.api.call(&authorization, mutation, &letter.variables).await;
        drop((place, authorization));
        let error = match called {
            Ok(()) => {
                if shared.note(&account, false) {
                    tracing::info!(%account, "lightspark: answers are delivered again");
                }
                break;
            }
            Err(error) => error,
        };
        refusals += u32::from(error == ApiError::Refused);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if refusals >= shared.patience.refusals
            || now.saturating_sub(Duration::from_millis(letter.at_ms)) > shared.patience.at_all
        {
            let mutation = mutation.name();
            tracing::error!(%account, event, mutation, "lightspark: an answer is given up: {error}");
            break;
        }
        if shared.note(&account, true) {
            tracing::warn!(%account, event, "lightspark: an answer is not delivered yet: {error}");
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(shared.patience.longest);
    }
    (shared.forget)(&account, &event);
    if let Some(desk) = shared.desks().get_mut(&account) {
        desk.waiting.remove(&event);
    }
}

#[cfg(test)]
mod tests;
