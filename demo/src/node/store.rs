//! What a node keeps over a restart, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::types::ChannelId;
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;

use super::keys::AnySigner;
use super::{History, lock};

/// Names and their bytes.
pub struct Store {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Updates of channel monitors that were kept, and that LDK was not told of yet.
    kept: Mutex<Vec<(ChannelId, u64)>>,
    history: Mutex<History>,
}

impl Store {
    /// Empty.
    pub fn in_memory() -> Self {
        Self { entries: Mutex::default(), kept: Mutex::default(), history: Mutex::default() }
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.entries().get(name).cloned()
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.entries().insert(name.into(), bytes);
    }

    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<Vec<u8>> {
        self.entries().iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Takes an entry out.
    pub(super) fn take(&self, name: &str) -> Option<Vec<u8>> {
        self.entries().remove(name)
    }

    /// The names that start with `prefix`, without it.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        self.entries().keys().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    /// What happened to the node, over all its starts.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        lock(&self.entries)
    }

    fn keep(&self, name: MonitorName, monitor: &ChannelMonitor<AnySigner>) -> ChannelMonitorUpdateStatus {
        self.put(&format!("{MONITOR}{name}"), monitor.encode());
        ChannelMonitorUpdateStatus::InProgress
    }
}

/// Prefix of the names of channel monitors.
pub(super) const MONITOR: &str = "monitor-";

/// A monitor is kept before the method returns, and LDK is told when it next looks: `Completed` at once would be an
/// answer of the other mode to LDK, which has `InProgress` of its own for a channel whose funding output was spent.
impl Persist<AnySigner> for Store {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<AnySigner>,
    ) -> ChannelMonitorUpdateStatus {
        lock(&self.kept).push((monitor.channel_id(), monitor.get_latest_update_id()));
        self.keep(name, monitor)
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<AnySigner>,
    ) -> ChannelMonitorUpdateStatus {
        // Without an update LDK waits for nothing: it is the chain that moved.
        lock(&self.kept).extend(update.map(|update| (monitor.channel_id(), update.update_id)));
        self.keep(name, monitor)
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        self.entries().remove(&format!("{MONITOR}{name}"));
    }

    fn get_and_clear_completed_updates(&self) -> Vec<(ChannelId, u64)> {
        std::mem::take(&mut lock(&self.kept))
    }
}
