//! Which parts of vls's state changed, and the entries written for them.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use bitcoin::{BlockHash, OutPoint};
use lightning::types::payment::PaymentHash;
use lightning_signer::chain::tracker::ChainTracker;
use lightning_signer::channel::{Channel, ChannelId, ChannelStub};
use lightning_signer::monitor::ChainMonitor;
use lightning_signer::node::NodeState;
use lightning_signer::persist::Error;

use super::load::Loaded;
use super::record::{self, ChannelRecord, HeaderRecord, Identity, ListenerRecord, NodeRecord, PaymentRecord, encode};
use super::table::{Changes, Table};
use crate::chain::Watches;

/// The entries of one node.
pub(super) struct Tables {
    pub(super) node: Table<()>,
    pub(super) allowlist: Table<()>,
    pub(super) tracker: Table<()>,
    pub(super) headers: Table<u32>,
    pub(super) listeners: Table<OutPoint>,
    /// What the listeners watch, as they are written.
    pub(super) watches: Watches,
    pub(super) channels: Table<ChannelId>,
    pub(super) invoices: Table<PaymentHash>,
    pub(super) issued: Table<PaymentHash>,
    pub(super) payments: Table<PaymentHash>,
    hints: Hints,
}

/// What is known about the changes to come. Everything here saves comparisons; nothing is needed to be right about
/// entries that come or go.
#[derive(Default)]
struct Hints {
    /// Payment hashes whose entries may have changed since the changes were last taken.
    touched: BTreeSet<PaymentHash>,
    /// The HTLCs' payment hashes per channel at its last write: those that a new commitment drops are touched too.
    in_flight: BTreeMap<ChannelId, Vec<PaymentHash>>,
    /// The listeners that the next block concerns.
    block: Option<Vec<OutPoint>>,
    /// Height and hash of the tip at the tracker's last write.
    tip: Option<(u32, BlockHash)>,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            node: Table::new("node"),
            allowlist: Table::new("allowlist"),
            tracker: Table::new("tracker"),
            headers: Table::new("header"),
            listeners: Table::new("listener"),
            watches: Watches::default(),
            channels: Table::new("channel"),
            invoices: Table::new("invoice"),
            issued: Table::new("issued"),
            payments: Table::new("payment"),
            hints: Hints::default(),
        }
    }

    /// Notes what the channels and the tracker were when they were written.
    pub(super) fn resume(&mut self, loaded: &Loaded) {
        self.hints.tip = Some((loaded.tracker.height, loaded.tracker.tip.0.block_hash()));
        loaded.tracker.listeners.iter().for_each(|(funding, _, slot)| self.watches.add(*funding, slot));
        self.hints.in_flight = loaded
            .channels
            .iter()
            .map(|(id, entry)| (id.clone(), record::payment_hashes(&entry.enforcement_state)))
            .collect();
    }

    pub(super) fn touch(&mut self, hashes: &[PaymentHash]) {
        self.hints.touched.extend(hashes);
    }

    pub(super) fn expect_block(&mut self, concerned: &[OutPoint]) {
        self.hints.block = Some(concerned.to_vec());
    }

    /// Forgets the hints: the message they were given for is done.
    pub(super) fn settle(&mut self) {
        self.hints.touched.clear();
        self.hints.block = None;
    }

    /// Writes what changed in the node's state.
    ///
    /// Compared are the small fields and the touched payment hashes. An entry of another hash can only have come or gone,
    /// which the lengths show; then everything is compared. vls changes an existing entry in place only on behalf of a
    /// commitment, whose hashes [`Self::put_channel`] notes, or of a preimage, for which the caller must `touch`.
    pub(super) fn put_state(
        &mut self,
        identity: &Identity,
        state: &NodeState,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        self.node.put((), encode(&NodeRecord::new(identity.clone(), state))?, changes);
        let touched = mem::take(&mut self.hints.touched);
        let invoices = |hash: &PaymentHash| state.invoices.get(hash).map(encode);
        let issued = |hash: &PaymentHash| state.issued_invoices.get(hash).map(encode);
        let payments = |hash: &PaymentHash| state.payments.get(hash).map(|p| encode(&PaymentRecord::from(p)));
        put_entries(&mut self.invoices, &touched, state.invoices.keys(), invoices, changes)?;
        put_entries(&mut self.issued, &touched, state.issued_invoices.keys(), issued, changes)?;
        put_entries(&mut self.payments, &touched, state.payments.keys(), payments, changes)?;
        self.hints.touched = touched;
        Ok(())
    }

    pub(super) fn put_stub(&mut self, stub: &ChannelStub, changes: &mut Changes) -> Result<(), Error> {
        self.channels.put(stub.id0.clone(), encode(&ChannelRecord::stub(stub))?, changes);
        Ok(())
    }

    /// Writes a channel. Must not look at the node's state, which vls may have locked.
    pub(super) fn put_channel(&mut self, channel: &Channel, changes: &mut Changes) -> Result<(), Error> {
        let hashes = record::payment_hashes(&channel.enforcement_state);
        self.hints.touched.extend(&hashes);
        let before = self.hints.in_flight.insert(channel.id0.clone(), hashes);
        self.hints.touched.extend(before.unwrap_or_default());
        self.channels.put(channel.id0.clone(), encode(&ChannelRecord::ready(channel))?, changes);
        Ok(())
    }

    pub(super) fn remove_channel(&mut self, id: &ChannelId, changes: &mut Changes) {
        let before = self.hints.in_flight.remove(id);
        self.hints.touched.extend(before.unwrap_or_default());
        self.channels.remove(id, changes);
    }

    pub(super) fn put_allowlist(&mut self, allowlist: &[String], changes: &mut Changes) -> Result<(), Error> {
        self.allowlist.put((), encode(&allowlist)?, changes);
        Ok(())
    }

    /// Writes what changed in the tracker.
    pub(super) fn put_tracker(
        &mut self,
        tracker: &ChainTracker<ChainMonitor>,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let tip = (tracker.height(), tracker.tip().0.block_hash());
        let changed = self.changed_listeners(tracker, tip);
        let before = self.hints.tip.replace(tip);
        if before != Some(tip) {
            self.put_headers(tracker, before, changes)?;
        }
        match changed {
            Some(listeners) => listeners.iter().try_for_each(|outpoint| self.put_listener(tracker, outpoint, changes)),
            None => {
                self.listeners.retain(|outpoint| tracker.listeners.contains_key(outpoint), changes);
                self.watches.retain(|funding| tracker.listeners.contains_key(funding));
                tracker.listeners.keys().try_for_each(|outpoint| self.put_listener(tracker, outpoint, changes))
            }
        }
    }

    /// The only listeners that can have changed, or `None` if all have to be compared.
    fn changed_listeners(
        &mut self,
        tracker: &ChainTracker<ChainMonitor>,
        tip: (u32, BlockHash),
    ) -> Option<Vec<OutPoint>> {
        let concerned = self.hints.block.take();
        let before = self.hints.tip?;
        let more = tracker.listeners.len().checked_sub(self.listeners.len())?;
        // A block without a transaction for it changes no more of a monitor than its height and `saw_block` (vls's
        // `ChainMonitor::on_add_block` and `on_remove_block`), which are not written; and a block adds no listener.
        if tip.0.abs_diff(before.0) == 1 && more == 0 {
            return concerned;
        }
        // vls writes the tracker after each change to a listener. One listener more at the same tip is the one that
        // `setup_channel` added, and it changes no other.
        if tip == before && more == 1 {
            let unknown = tracker.listeners.keys().filter(|outpoint| !self.listeners.contains(outpoint));
            let unknown: Vec<OutPoint> = unknown.copied().collect();
            return (unknown.len() == 1).then_some(unknown);
        }
        None
    }

    /// Writes the tip and the headers below it. If `before` is the block below the tip, it is the only new one of them.
    fn put_headers(
        &mut self,
        tracker: &ChainTracker<ChainMonitor>,
        before: Option<(u32, BlockHash)>,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let (height, headers) = (tracker.height(), tracker.headers());
        self.tracker.put((), encode(&HeaderRecord::new(height, tracker.tip()))?, changes);
        let below = headers.front().map(|below| (height.wrapping_sub(1), below.0.block_hash()));
        let new = if below.is_some() && below == before { 1 } else { headers.len() };
        for (height, headers) in (0..height).rev().zip(headers.iter().take(new)) {
            self.headers.put(height, encode(&HeaderRecord::new(height, headers))?, changes);
        }
        let remembered = height.saturating_sub(headers.len() as u32)..height;
        self.headers.retain(|height| remembered.contains(height), changes);
        Ok(())
    }

    fn put_listener(
        &mut self,
        tracker: &ChainTracker<ChainMonitor>,
        outpoint: &OutPoint,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        if let Some((monitor, slot)) = tracker.listeners.get(outpoint) {
            self.watches.add(*outpoint, slot);
            self.listeners.put(*outpoint, encode(&ListenerRecord::new(monitor, slot, tracker)?)?, changes);
        }
        Ok(())
    }

    /// Deletes every entry of the node.
    pub(super) fn clear(&mut self, changes: &mut Changes) {
        self.node.retain(|()| false, changes);
        self.allowlist.retain(|()| false, changes);
        self.tracker.retain(|()| false, changes);
        self.headers.retain(|_| false, changes);
        self.listeners.retain(|_| false, changes);
        self.watches = Watches::default();
        self.channels.retain(|_| false, changes);
        self.invoices.retain(|_| false, changes);
        self.issued.retain(|_| false, changes);
        self.payments.retain(|_| false, changes);
        self.hints = Hints::default();
    }
}

/// Writes the touched entries of one of the state's maps, and all of them if entries came or went besides.
fn put_entries<'a>(
    table: &mut Table<PaymentHash>,
    touched: &BTreeSet<PaymentHash>,
    live: impl ExactSizeIterator<Item = &'a PaymentHash>,
    value: impl Fn(&PaymentHash) -> Option<Result<Vec<u8>, Error>>,
    changes: &mut Changes,
) -> Result<(), Error> {
    let mut put = |table: &mut Table<PaymentHash>, hash: &PaymentHash| -> Result<(), Error> {
        match value(hash) {
            Some(value) => table.put(*hash, value?, changes),
            None => table.remove(hash, changes),
        }
        Ok(())
    };
    touched.iter().try_for_each(|hash| put(table, hash))?;
    if table.len() != live.len() {
        let live: BTreeSet<&PaymentHash> = live.collect();
        // Only what came and went: what stayed is as it was written, and of a million invoices few expire at once.
        let came: Vec<_> = live.iter().filter(|hash| !table.contains(hash)).collect();
        came.into_iter().try_for_each(|hash| put(table, hash))?;
        table.retain(|hash| live.contains(hash), changes);
    }
    Ok(())
}
