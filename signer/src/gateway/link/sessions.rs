//! The open streams: at most one per node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Semaphore, oneshot};

use super::Roster;
use super::tls::Peer;
use crate::names::NodeName;
use crate::reasons::{Reason, Refusal};

/// A node that is connected, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The node.
    pub node: NodeName,
    /// Where it dialled from.
    pub address: SocketAddr,
    /// Name and version of its client, as it says.
    pub client: String,
    /// Since when.
    pub since: SystemTime,
}

/// All open streams of a link server.
#[derive(Debug)]
pub(super) struct Sessions {
    max_in_flight: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<NodeName, Live>,
    /// The places for requests in flight of every node that was ever connected. They outlast its streams: requests of one
    /// that it has given up still take theirs until they are answered, so new streams are no way to more (P6).
    places: HashMap<NodeName, Arc<Semaphore>>,
    next_id: u64,
    closed: Option<Refusal>,
}

#[derive(Debug)]
struct Live {
    id: u64,
    instance: [u8; 16],
    peer: Peer,
    connected: Connected,
    end: oneshot::Sender<Refusal>,
}

/// One open stream's place in the table; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Session {
    sessions: Arc<Sessions>,
    node: NodeName,
    id: u64,
    places: Arc<Semaphore>,
}

impl Session {
    /// The places for requests of this node in flight.
    pub(super) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }
}

/// Says why a stream must end, once it must; fails when its session is gone.
pub(super) type Ended = oneshot::Receiver<Refusal>;

impl Sessions {
    /// No streams yet; a node may have `max_in_flight` requests that are not answered.
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self { max_in_flight, table: Mutex::default() }
    }

    /// Opens the stream of `node` for the process that drew `instance`. The same process replaces its own older stream,
    /// which it has given up; another one is refused with `link-in-use`.
    pub(super) fn open(
        self: &Arc<Self>,
        node: &NodeName,
        instance: [u8; 16],
        client: String,
        peer: Peer,
    ) -> Result<(Session, Ended), Refusal> {
        let mut table = self.table();
        if let Some(why) = &table.closed {
            return Err(why.clone());
        }
        if let Some(other) = table.live.get(node).filter(|live| live.instance != instance) {
            let detail = format!("node {node} is connected from {} ({})", other.peer.address, other.connected.client);
            return Err(Refusal::new(Reason::LinkInUse, detail));
        }
        table.next_id += 1;
        let id = table.next_id;
        let (end, ended) = oneshot::channel();
        let connected = Connected { node: node.clone(), address: peer.address, client, since: SystemTime::now() };
        let address = peer.address;
        let replaced = table.live.insert(node.clone(), Live { id, instance, peer, connected, end });
        let places = table.places.entry(node.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.max_in_flight)));
        let places = places.clone();
        drop(table);
        if let Some(replaced) = replaced {
            let detail = format!("node {node} opened a newer stream from {address}");
            let _ = replaced.end.send(Refusal::new(Reason::LinkInUse, detail));
        }
        Ok((Session { sessions: Arc::clone(self), node: node.clone(), id, places }, ended))
    }

    /// Ends every stream whose certificate no longer opens the link.
    pub(super) fn recheck(&self, roster: &dyn Roster) {
        let mut table = self.table();
        let denied = table.live.extract_if(|_, live| roster.lookup(&live.peer.fingerprint).is_err());
        for (node, live) in denied.collect::<Vec<_>>() {
            let Err(why) = roster.lookup(&live.peer.fingerprint) else { continue };
            tracing::warn!(%node, peer = %live.peer.address, "link: closed: {why}");
            let _ = live.end.send(why.refusal());
        }
    }

    /// Ends every stream with `why` and opens no more.
    pub(super) fn close(&self, why: &Refusal) {
        let mut table = self.table();
        table.closed = Some(why.clone());
        for (_, live) in table.live.drain() {
            let _ = live.end.send(why.clone());
        }
    }

    /// The connected nodes, by name.
    pub(super) fn connected(&self) -> Vec<Connected> {
        let mut connected: Vec<_> = self.table().live.values().map(|live| live.connected.clone()).collect();
        connected.sort_by(|a, b| a.node.cmp(&b.node));
        connected
    }

    // Every change under the lock is one step, so a panic elsewhere leaves a whole table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        if table.live.get(&self.node).is_some_and(|live| live.id == self.id) {
            table.live.remove(&self.node);
        }
    }
}
