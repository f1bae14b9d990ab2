//! What `status` shows of a node.

use std::time::Duration;

use bitcoin::{BlockHash, Network};

use super::engine::{NodeSpec, node_id};
use super::orders::OrdersSummary;
use crate::names::{NodeKind, NodeName};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not built: nobody asked yet, it waits for the first block, or it failed.
    Down,
    /// It answers.
    Up,
    /// It was let go of, with its keys.
    Stopped,
}

/// One node, as of its last turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// The dialect it speaks.
    pub kind: NodeKind,
    /// Its network.
    pub network: Network,
    /// Its public key, in hex.
    pub node_id: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Height and hash of its view of the chain; absent while it is down, and for lnd, which follows none here.
    pub tip: Option<(u32, BlockHash)>,
    /// Channels it holds, unfunded ones included.
    pub channels: usize,
    /// States of its channels that were replaced and are not proven to be revoked: of an lnd with a watchtower.
    pub unproven_states: Option<u64>,
    /// What is ordered about it, as far as it is known.
    pub orders: OrdersSummary,
    /// Requests that are waiting or being recorded.
    pub unanswered: usize,
    /// Requests that were refused in this run, other than for a busy or closing node.
    pub refused: u64,
    /// How many of them were counted in the journal rather than recorded one by one.
    pub left_out: u64,
    /// For how long the answer to the next refused request is held back; zero for a node that behaves.
    pub held_back: Duration,
    /// How often its state machine failed in this run.
    pub faults: u64,
    /// What failed last.
    pub last_fault: Option<String>,
}

/// What the state machine tells.
pub(super) struct Facts {
    /// Absent for a node that follows no chain.
    pub(super) tip: Option<(u32, BlockHash)>,
    pub(super) channels: usize,
    pub(super) orders: OrdersSummary,
    pub(super) unproven_states: Option<u64>,
}

impl Facts {
    pub(super) fn of(tip: Option<(u32, BlockHash)>, channels: usize, orders: OrdersSummary) -> Self {
        Self { tip, channels, orders, unproven_states: None }
    }
}

impl NodeStatus {
    pub(super) fn new(spec: &NodeSpec) -> Self {
        Self {
            name: spec.name.clone(),
            kind: spec.kind,
            network: spec.network,
            node_id: node_id(spec).to_string(),
            phase: Phase::Down,
            tip: None,
            channels: 0,
            unproven_states: None,
            orders: OrdersSummary::default(),
            unanswered: 0,
            refused: 0,
            left_out: 0,
            held_back: Duration::ZERO,
            faults: 0,
            last_fault: None,
        }
    }

    /// Takes over what the state machine tells.
    pub(super) fn note(&mut self, facts: Option<Facts>) {
        self.phase = if facts.is_some() { Phase::Up } else { Phase::Down };
        self.tip = facts.as_ref().and_then(|facts| facts.tip);
        if let Some(Facts { channels, orders, unproven_states, .. }) = facts {
            self.channels = channels;
            self.orders = orders;
            self.unproven_states = unproven_states;
        }
    }

    pub(super) fn fault(&mut self, what: &str) {
        self.phase = Phase::Down;
        self.faults += 1;
        self.last_fault = Some(what.to_owned());
    }
}
