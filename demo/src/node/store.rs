//! What a node keeps over a restart: bytes by name, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;

use super::keys::AnySigner;

/// Names and their bytes.
pub struct Store {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Store {
    /// Gone with the value.
    pub fn in_memory() -> Self {
        Self { entries: Mutex::default() }
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

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prefix of the names of channel monitors.
pub(super) const MONITOR: &str = "monitor-";

impl Persist<AnySigner> for Store {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<AnySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.put(&format!("{MONITOR}{name}"), monitor.encode());
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<AnySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.persist_new_channel(name, monitor)
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        self.entries().remove(&format!("{MONITOR}{name}"));
    }
}
