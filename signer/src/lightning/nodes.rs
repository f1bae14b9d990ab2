//! All nodes of the signer: the front doors hand requests in here, and the chain's follower its blocks.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::actor::{Actor, House, Step};
use super::engine::NodeSpec;
use super::mailbox::Bounds;
use super::pool::Pool;
use super::status::NodeStatus;
use crate::chain::{ChainBlock, ChainSink, SinkError, TrackerPosition};
use crate::config::SignerConfig;
use crate::gateway::link::LinkHandler;
use crate::names::NodeName;
use crate::pipeline::{Outcome, Request, Responder};
use crate::reasons::{Reason, Refusal};

/// The running nodes.
pub struct Nodes {
    house: Arc<House>,
    pool: Arc<Pool>,
    bounds: Bounds,
    actors: RwLock<BTreeMap<NodeName, Arc<Actor>>>,
}

/// The node is running already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node '{0}' is running already")]
pub struct AlreadyRunning(pub NodeName);

impl Nodes {
    /// Starts the signing threads; no node yet.
    pub fn start(house: House, config: &SignerConfig) -> std::io::Result<Self> {
        Ok(Self {
            house: Arc::new(house),
            pool: Arc::new(Pool::start(config.threads)?),
            bounds: Bounds { items: config.queue_requests, bytes: config.queue_bytes },
            actors: RwLock::default(),
        })
    }

    /// Starts a node: from its journal entries, or, if it has none, from the chain's starting point.
    pub fn add(&self, spec: NodeSpec) -> Result<(), AlreadyRunning> {
        let name = spec.name.clone();
        let mut actors = self.actors.write().unwrap_or_else(PoisonError::into_inner);
        if actors.contains_key(&name) {
            return Err(AlreadyRunning(name));
        }
        let actor = Actor::new(spec, self.house.clone(), self.pool.clone(), self.bounds);
        actor.wake();
        actors.insert(name, actor);
        Ok(())
    }

    /// Stops a node and wipes its keys from memory; its entries stay in the journal. Returns whether it was running.
    pub fn remove(&self, name: &NodeName) -> bool {
        let actor = self.actors.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(actor) = &actor {
            actor.retire();
        }
        actor.is_some()
    }

    /// Hands in one request. `respond` is called once, after the decision is durable (P1).
    pub fn submit(&self, node: &NodeName, request: Request, respond: Responder) {
        match self.actor(node) {
            Some(actor) => actor.submit(request, respond),
            None => respond(Outcome::Refused {
                request: format!("{node}-unknown"),
                refusal: Refusal::new(Reason::Sealed, format!("node '{node}' is not running")),
            }),
        }
    }

    /// Every node, by name.
    pub fn status(&self) -> Vec<NodeStatus> {
        self.all().iter().map(|actor| actor.status()).collect()
    }

    /// One running node, for the operator's calls.
    pub fn get(&self, name: &NodeName) -> Option<Arc<Actor>> {
        self.actor(name)
    }

    /// Builds every node that is not there.
    pub fn wake(&self) {
        self.all().iter().for_each(Actor::wake);
    }

    /// Stops all nodes, wipes their keys from memory and ends the signing threads. What waits is refused as `sealed`.
    pub fn shutdown(&self) {
        let actors = std::mem::take(&mut *self.actors.write().unwrap_or_else(PoisonError::into_inner));
        for actor in actors.values() {
            actor.retire();
        }
        self.pool.close();
    }

    fn actor(&self, name: &NodeName) -> Option<Arc<Actor>> {
        self.actors.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Actor>> {
        self.actors.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl LinkHandler for Nodes {
    fn submit(&self, node: &NodeName, request: Request, respond: Responder) {
        Nodes::submit(self, node, request, respond);
    }
}

impl ChainSink for Nodes {
    fn trackers(&self) -> Vec<TrackerPosition> {
        self.all().iter().filter_map(|actor| actor.position()).collect()
    }

    fn connect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
        self.actor(node).ok_or(SinkError::Gone)?.step(Step::Connect, block)
    }

    fn disconnect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
        self.actor(node).ok_or(SinkError::Gone)?.step(Step::Disconnect, block)
    }
}
