//! What a node keeps over a restart, in memory or in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;

use super::keys::AnySigner;

/// Names and their bytes.
pub struct Store {
    dir: Option<PathBuf>,
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Store {
    /// Gone with the value.
    pub fn in_memory() -> Self {
        Self { dir: None, entries: Mutex::default() }
    }

    /// One file for each name.
    pub fn in_dir(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(&dir)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".new") {
                entries.insert(name, fs::read(file.path())?);
            }
        }
        Ok(Self { dir: Some(dir), entries: Mutex::new(entries) })
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.entries().get(name).cloned()
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        let mut entries = self.entries();
        if let Some(dir) = &self.dir {
            let new = dir.join(format!("{name}.new"));
            fs::write(&new, &bytes)?;
            fs::rename(new, dir.join(name))?;
        }
        entries.insert(name.into(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) {
        if let Some(dir) = &self.dir {
            let _ = fs::remove_file(dir.join(name));
        }
        self.entries().remove(name);
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
        match self.put(&format!("{MONITOR}{name}"), monitor.encode()) {
            Ok(()) => ChannelMonitorUpdateStatus::Completed,
            Err(_) => ChannelMonitorUpdateStatus::UnrecoverableError,
        }
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
        self.remove(&format!("{MONITOR}{name}"));
    }
}
