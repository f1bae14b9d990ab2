//! What vls remembers of one node, kept as journal entries: a message writes the entries it changed and no others.
//!
//! | entry | holds | changes with |
//! |---|---|---|
//! | `node` | identity, velocity, excess, dbid high-water mark | payments approved |
//! | `allowlist` | destinations | the operator |
//! | `invoice/<hash>` | invoices and keysends approved for paying | PreapproveInvoice, PreapproveKeysend |
//! | `issued/<hash>` | invoices signed for receiving | SignInvoice, SignBolt12Invoice |
//! | `payment/<hash>` | amounts in and out per channel, preimage | commitments with an HTLC of this hash |
//! | `channel/<id0>` | setup and enforcement state | the channel's messages |
//! | `tracker` | tip | blocks |
//! | `header/<height>` | up to 100 headers before the tip | blocks: one comes, one goes |
//! | `listener/<outpoint>` | what the chain did to a channel | blocks that concern the channel |
//!
//! The actor's order: [`NodePersister::load`], build the vls `Node`, [`NodePersister::after_restore`]; then per message
//! [`touch`](NodePersister::touch) or [`expect_block`](NodePersister::expect_block) where they apply, handle,
//! [`take_changes`](NodePersister::take_changes), commit. If the commit fails, memory is ahead of the journal: drop the
//! node and the persister and load again (P1).
//!
//! Not kept, because nothing depends on it after a restart: a block that was being streamed (it is streamed again from
//! its start), whether a monitor saw a block yet, and vls's entropy counter (its start time is new).

mod genesis;
mod load;
mod record;
mod table;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, OutPoint};
use lightning::types::payment::PaymentHash;
use lightning_signer::SendSync;
use lightning_signer::chain::tracker::ChainTracker;
use lightning_signer::channel::{Channel, ChannelId, ChannelStub};
use lightning_signer::monitor::ChainMonitor;
use lightning_signer::node::{Node, NodeConfig, NodeState, RoutedPayment};
use lightning_signer::persist::model::{ChannelEntry, NodeEntry};
use lightning_signer::persist::{ChainTrackerListenerEntry, Error, Mutations, Persist, SignerId};
use lightning_signer::policy::validator::ValidatorFactory;
use lightning_signer::util::velocity::{VelocityControl, VelocityControlSpec};

pub use self::genesis::{ChainStart, genesis};
pub use self::load::LoadError;
use self::load::{Loaded, LoadedTracker};
use self::record::{Identity, Velocities};
use self::table::Changes;
use self::tables::Tables;
use crate::chain::ChainBlock;
use crate::journal::Put;

/// Keeps one node's state for vls; see the module.
pub struct NodePersister {
    inner: Mutex<Inner>,
}

struct Inner {
    identity: Identity,
    tables: Tables,
    changes: Changes,
    restoring: Option<Restoring>,
}

/// What was loaded and not yet handed to vls. Each part is given once; a second request fails instead of giving
/// nothing.
struct Restoring {
    node: Option<NodeEntry>,
    allowlist: Vec<String>,
    network: Network,
    tracker: Option<LoadedTracker>,
    channels: Option<Vec<(ChannelId, ChannelEntry)>>,
    payments: Vec<(PaymentHash, RoutedPayment)>,
    velocity: Option<Velocities>,
}

impl NodePersister {
    /// A persister for the node with these live entries, as [`genesis`] or an earlier run wrote them. Entries of kinds
    /// that are not listed in the module are other rooms' and ignored.
    pub fn load(entries: BTreeMap<String, Vec<u8>>) -> Result<Self, LoadError> {
        let (mut tables, changes) = (Tables::new(), Changes::default());
        let loaded = Loaded::decode(entries, &mut tables, &changes)?;
        tables.resume(&loaded);
        let identity = loaded.node.identity.clone();
        let inner = Inner { identity, tables, changes, restoring: Some(loaded.into()) };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// The latest time that the loaded entries know of, in seconds since 1970. vls's clock must not be behind it: vls
    /// subtracts without a check (P7).
    pub fn latest_time_s(&self) -> u64 {
        let inner = self.lock();
        let velocity = inner.restoring.as_ref().and_then(|restoring| restoring.velocity.as_ref());
        velocity.map_or(0, Velocities::latest_time_s)
    }

    /// Call once, right after vls restored `node` and before its first message: gives back what vls's restore drops,
    /// which is the payments' preimages and amounts, and the velocity already used (kept only while the policy's
    /// interval and limit are still the same).
    pub fn after_restore(&self, node: &Node) {
        let Some(restoring) = self.lock().restoring.take() else { return };
        {
            let mut state = node.get_state();
            state.payments = restoring.payments.into_iter().collect();
            if let Some(velocity) = restoring.velocity {
                state.velocity_control = velocity.payments.into();
                state.fee_velocity_control = velocity.fees.into();
            }
        }
        node.update_velocity_controls();
    }

    /// A hint before a message: the payment hashes it names (PreapproveInvoice, PreapproveKeysend, SignInvoice,
    /// SignBolt12Invoice, preimages). Those in commitments are noticed without it. Without the hint all payments are
    /// compared when one came or went.
    pub fn touch(&self, hashes: &[PaymentHash]) {
        self.lock().tables.touch(hashes);
    }

    /// The funding outpoints of the channels that `block`, added or removed, may concern.
    pub fn concerned(&self, block: &ChainBlock) -> BTreeSet<OutPoint> {
        self.lock().tables.watches.concerned(block)
    }

    /// A hint before one block is added or removed: the funding outpoints of the channels whose monitors are shown a
    /// transaction of it. For all others only the height changes. Without the hint all listeners are compared.
    pub fn expect_block(&self, concerned: &[OutPoint]) {
        self.lock().tables.expect_block(concerned);
    }

    /// After each message, also a refused one: the entries that changed since the last call, for the journal.
    ///
    /// `state` is `node.get_state()`. It is needed because vls does not tell its persister of issued invoices, nor of
    /// the payments that commitments change.
    pub fn take_changes(&self, state: &NodeState) -> Result<Vec<Put>, Error> {
        let Inner { identity, tables, changes, .. } = &mut *self.lock();
        tables.put_state(identity, state, changes)?;
        tables.settle();
        Ok(changes.take())
    }

    // A panic while the lock is held stays with this node: the actor drops the node and this persister with it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inner state, if `node_id` is the node this persister was made for.
    fn of(&self, node_id: &PublicKey) -> Result<MutexGuard<'_, Inner>, Error> {
        let inner = self.lock();
        if inner.identity.node_id != *node_id {
            return Err(Error::NotFound(format!("node {node_id}")));
        }
        Ok(inner)
    }
}

impl Inner {
    fn restoring(&mut self) -> Result<&mut Restoring, Error> {
        self.restoring.as_mut().ok_or_else(restored)
    }
}

fn restored() -> Error {
    Error::Unavailable("the node is already restored; its entries are in the journal".to_owned())
}

impl From<Loaded> for Restoring {
    fn from(loaded: Loaded) -> Self {
        // vls replaces these two; see `NodePersister::after_restore`.
        let unlimited = || VelocityControl::new(VelocityControlSpec::UNLIMITED);
        let bytes = |invoices: Vec<(PaymentHash, _)>| invoices.into_iter().map(|(k, v)| (k.0.to_vec(), v)).collect();
        let state = NodeState::restore(
            bytes(loaded.invoices),
            bytes(loaded.issued),
            Vec::new(),
            loaded.node.excess_amount_sat,
            unlimited(),
            unlimited(),
            loaded.node.dbid_high_water_mark,
            Vec::new(),
        );
        let node = NodeEntry {
            key_derivation_style: loaded.node.identity.key_derivation_style,
            network: loaded.node.identity.network,
            state,
        };
        Self {
            node: Some(node),
            allowlist: loaded.allowlist,
            network: loaded.network,
            tracker: Some(loaded.tracker),
            channels: Some(loaded.channels),
            payments: loaded.payments,
            velocity: loaded.node.velocity,
        }
    }
}

impl SendSync for NodePersister {}

impl Persist for NodePersister {
    fn new_node(&self, node_id: &PublicKey, config: &NodeConfig, state: &NodeState) -> Result<(), Error> {
        let Inner { identity, tables, changes, .. } = &mut *self.of(node_id)?;
        identity.network = config.network.to_string();
        identity.key_derivation_style = config.key_derivation_style as u8;
        tables.put_state(identity, state, changes)
    }

    fn update_node(&self, node_id: &PublicKey, state: &NodeState) -> Result<(), Error> {
        let Inner { identity, tables, changes, .. } = &mut *self.of(node_id)?;
        tables.put_state(identity, state, changes)
    }

    fn delete_node(&self, node_id: &PublicKey) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        tables.clear(changes);
        Ok(())
    }

    fn new_channel(&self, node_id: &PublicKey, stub: &ChannelStub) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        if tables.channels.contains(&stub.id0) {
            return Err(Error::AlreadyExists(format!("channel {}", stub.id0)));
        }
        tables.put_stub(stub, changes)
    }

    fn delete_channel(&self, node_id: &PublicKey, channel: &ChannelId) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        tables.remove_channel(channel, changes);
        Ok(())
    }

    fn new_tracker(&self, node_id: &PublicKey, tracker: &ChainTracker<ChainMonitor>) -> Result<(), Error> {
        self.update_tracker(node_id, tracker)
    }

    fn update_tracker(&self, node_id: &PublicKey, tracker: &ChainTracker<ChainMonitor>) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        tables.put_tracker(tracker, changes)
    }

    fn get_tracker(
        &self,
        node_id: PublicKey,
        validator_factory: Arc<dyn ValidatorFactory>,
    ) -> Result<(ChainTracker<ChainMonitor>, Vec<ChainTrackerListenerEntry>), Error> {
        let mut inner = self.of(&node_id)?;
        let network = inner.restoring()?.network;
        let tracker = inner.restoring()?.tracker.take().ok_or_else(restored)?;
        let listeners = tracker.listeners.into_iter().map(|(o, s, slot)| ChainTrackerListenerEntry(o, (s, slot)));
        let restored = ChainTracker::restore(
            tracker.headers,
            tracker.tip,
            tracker.height,
            network,
            BTreeMap::new(), // vls adds the listeners itself, with their channels
            node_id,
            validator_factory,
            Vec::new(), // vls sets the oracle's keys from its services
        );
        Ok((restored, listeners.collect()))
    }

    fn update_channel(&self, node_id: &PublicKey, channel: &Channel) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        tables.put_channel(channel, changes)
    }

    fn get_channel(&self, _node_id: &PublicKey, _channel_id: &ChannelId) -> Result<ChannelEntry, Error> {
        // Only CheckChannelStateSync asks, which would show the node the channel's whole state.
        Err(restored())
    }

    fn get_node_channels(&self, node_id: &PublicKey) -> Result<Vec<(ChannelId, ChannelEntry)>, Error> {
        self.of(node_id)?.restoring()?.channels.take().ok_or_else(restored)
    }

    fn update_node_allowlist(&self, node_id: &PublicKey, allowlist: Vec<String>) -> Result<(), Error> {
        let Inner { tables, changes, .. } = &mut *self.of(node_id)?;
        tables.put_allowlist(&allowlist, changes)
    }

    fn get_node_allowlist(&self, node_id: &PublicKey) -> Result<Vec<String>, Error> {
        Ok(self.of(node_id)?.restoring()?.allowlist.clone())
    }

    fn get_nodes(&self) -> Result<Vec<(PublicKey, NodeEntry)>, Error> {
        let mut inner = self.lock();
        let node_id = inner.identity.node_id;
        let node = inner.restoring()?.node.take().ok_or_else(restored)?;
        Ok(vec![(node_id, node)])
    }

    fn clear_database(&self) -> Result<(), Error> {
        Err(Error::Unavailable("a node's entries are deleted with the node".to_owned()))
    }

    fn put_batch_unlogged(&self, _mutations: Mutations) -> Result<(), Error> {
        Err(Error::Unavailable("the journal replicates, not vls".to_owned()))
    }

    fn begin_replication(&self) -> Result<Mutations, Error> {
        Err(Error::Unavailable("the journal replicates, not vls".to_owned()))
    }

    // Tells writers of a shared store apart; the journal has one writer.
    fn signer_id(&self) -> SignerId {
        SignerId::default()
    }
}
