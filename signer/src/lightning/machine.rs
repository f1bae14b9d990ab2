//! The state machine of a node: vls's, the LND door's or the Lightspark door's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actor::ChainFacts;
use super::clock::NodeClock;
use super::engine::{self, Engine, Handled, NodeSpec, RestoreError, Settings};
use super::guard::Row;
use super::issued::Archive;
use super::lightspark::{self, LightsparkNode};
use super::lnd::{self, Draft, Drafter, LndNode};
use super::orders::{Given, Order, OrderError};
use super::persist::ChainStart;
use super::standing::Overview;
use super::status::Facts;
use crate::journal::Put;
use crate::names::NodeKind;
use crate::pipeline::Request;
use crate::reasons::{Reason, Refusal};

/// One node's state machine. After a panic inside, or a failed commit, it must be dropped (P6).
pub(super) enum Machine {
    /// Of an LDK or Core Lightning node.
    Vls(Box<Engine>),
    /// Of an lnd node, which follows no chain here.
    Lnd(Box<LndNode>),
    /// Of a Lightspark account, which follows no chain here.
    Lightspark(Box<LightsparkNode>),
}

/// The entries of a node that has not run yet. `start` is asked where the node follows the chain.
pub(super) fn first_entries(
    spec: &NodeSpec,
    start: impl FnOnce() -> Result<ChainStart, Refusal>,
) -> Result<Vec<Put>, Refusal> {
    match spec.kind {
        NodeKind::Lnd => Ok(lnd::first_entries(spec)),
        NodeKind::Lightspark => Ok(lightspark::first_entries(spec)),
        NodeKind::Ldk | NodeKind::Cln => {
            engine::first_entries(spec, start()?).map_err(|error| Refusal::new(Reason::Fault, error.to_string()))
        }
    }
}

impl Machine {
    /// Builds the node from its entries, as [`Engine::restore`] does.
    pub(super) fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        chain: Arc<dyn ChainFacts>,
        clock: Arc<NodeClock>,
        archive: Arc<dyn Archive>,
        entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        match spec.kind {
            NodeKind::Lnd => LndNode::restore(spec, settings, chain, clock, entries).map(Box::new).map(Self::Lnd),
            NodeKind::Lightspark => {
                LightsparkNode::restore(spec, settings, clock, entries).map(Box::new).map(Self::Lightspark)
            }
            NodeKind::Ldk | NodeKind::Cln => {
                Engine::restore(spec, settings, chain, clock, archive, entries).map(Box::new).map(Self::Vls)
            }
        }
    }

    /// vls's, for what only it has: channels as vls keeps them, and a place in the chain.
    pub(super) fn vls(&mut self) -> Result<&mut Engine, Refusal> {
        match self {
            Self::Vls(engine) => Ok(engine),
            Self::Lnd(_) | Self::Lightspark(_) => {
                Err(Refusal::new(Reason::NotAllowed, "a node of this kind keeps no such state in the signer"))
            }
        }
    }

    /// lnd's, for what only it has.
    pub(super) fn lnd(&mut self) -> Result<&mut LndNode, Refusal> {
        match self {
            Self::Lnd(node) => Ok(node),
            Self::Vls(_) | Self::Lightspark(_) => Err(Refusal::new(Reason::NotAllowed, "the node is no lnd")),
        }
    }

    /// All channels, as the operator sees them. May panic.
    pub(super) fn overview(&self) -> Overview {
        match self {
            Self::Vls(engine) => engine.overview(),
            Self::Lnd(node) => node.overview(),
            Self::Lightspark(node) => node.overview(),
        }
    }

    /// Drafts answers to requests whose turn has not come, on other threads, where such a node's can be.
    pub(super) fn drafter(&self) -> Option<Drafter> {
        match self {
            Self::Lnd(node) => Some(node.drafter()),
            Self::Vls(_) | Self::Lightspark(_) => None,
        }
    }

    /// Answers one request, of which there may be a draft. May panic.
    pub(super) fn handle(&mut self, row: &Row, request: &Request, draft: Option<Draft>) -> Handled {
        match self {
            Self::Vls(engine) => engine.handle(row, request),
            Self::Lnd(node) => node.handle(row, request, draft),
            Self::Lightspark(node) => node.handle(row, request),
        }
    }

    /// Carries out an operator's order. Returns what must be durable before it counts.
    pub(super) fn order(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        match self {
            Self::Vls(engine) => engine.order(order, given),
            Self::Lnd(node) => node.order(order, given),
            Self::Lightspark(node) => node.order(order, given),
        }
    }

    /// For `status`.
    pub(super) fn facts(&self) -> Facts {
        match self {
            Self::Vls(engine) => {
                let tip = {
                    let tracker = engine.node().get_tracker();
                    (tracker.height(), tracker.tip().0.block_hash())
                };
                let orders = engine.orders().summary(engine.clock().now_ms());
                Facts::of(Some(tip), engine.node().get_channels().len(), orders)
            }
            Self::Lnd(node) => {
                let orders = node.orders().summary(node.clock().now_ms());
                Facts { unproven_states: node.unproven_states(), ..Facts::of(None, node.channels(), orders) }
            }
            Self::Lightspark(node) => {
                let orders = node.orders().summary(node.clock().now_ms());
                Facts::of(None, node.channels(), orders)
            }
        }
    }
}
