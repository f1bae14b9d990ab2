//! Change detection: one small digest per entry, and the puts that are not yet in the journal.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bitcoin::OutPoint;
use lightning::types::payment::PaymentHash;
use lightning_signer::channel::ChannelId;

use crate::journal::Put;

/// A key of a [`Table`] as part of the entry's name in the journal.
pub(super) trait EntryName: Ord + Clone + Sized {
    fn to_name(&self) -> String;
    fn from_name(name: &str) -> Option<Self>;
}

/// A table that has one entry only.
impl EntryName for () {
    fn to_name(&self) -> String {
        String::new()
    }

    fn from_name(name: &str) -> Option<Self> {
        name.is_empty().then_some(())
    }
}

/// A block height, padded so that entries sort by height.
impl EntryName for u32 {
    fn to_name(&self) -> String {
        format!("{self:010}")
    }

    fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl EntryName for PaymentHash {
    fn to_name(&self) -> String {
        hex::encode(self.0)
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(name, &mut hash).ok()?;
        Some(PaymentHash(hash))
    }
}

impl EntryName for ChannelId {
    fn to_name(&self) -> String {
        hex::encode(self.as_slice())
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(ChannelId::new(&hex::decode(name).ok()?))
    }
}

impl EntryName for OutPoint {
    fn to_name(&self) -> String {
        self.to_string()
    }

    fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

/// What changed since the journal was last given the changes. The last put of a key wins.
#[derive(Default)]
pub(super) struct Changes {
    // Keyed at random per process, so that nobody can prepare two values with one digest.
    hasher: RandomState,
    puts: BTreeMap<String, Option<Vec<u8>>>,
}

impl Changes {
    /// Hands over the puts, in the order of their keys.
    pub(super) fn take(&mut self) -> Vec<Put> {
        std::mem::take(&mut self.puts).into_iter().map(|(key, value)| Put { key, value }).collect()
    }
}

/// The entries of one kind: their names and, per entry, the digest of the value last written.
pub(super) struct Table<K> {
    kind: &'static str,
    digests: BTreeMap<K, u64>,
}

impl<K: EntryName> Table<K> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, digests: BTreeMap::new() }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.digests.contains_key(key)
    }

    /// Notes a value that the journal already holds.
    pub(super) fn remember(&mut self, key: K, value: &[u8], changes: &Changes) {
        self.digests.insert(key, changes.hasher.hash_one(value));
    }

    /// Writes `value` if it differs from what was last written.
    pub(super) fn put(&mut self, key: K, value: Vec<u8>, changes: &mut Changes) {
        let digest = changes.hasher.hash_one(&value);
        if self.digests.get(&key) != Some(&digest) {
            changes.puts.insert(self.name(&key), Some(value));
            self.digests.insert(key, digest);
        }
    }

    /// Deletes an entry, if there is one.
    pub(super) fn remove(&mut self, key: &K, changes: &mut Changes) {
        if self.digests.remove(key).is_some() {
            changes.puts.insert(self.name(key), None);
        }
    }

    /// Deletes every entry for whose key `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool, changes: &mut Changes) {
        let gone: Vec<K> = self.digests.keys().filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            self.remove(&key, changes);
        }
    }

    /// Takes this table's entries out of `entries`.
    pub(super) fn extract(&self, entries: &mut BTreeMap<String, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
        // '0' follows '/': the range holds `kind` and all of `kind/…`.
        let range = self.kind.to_owned()..format!("{}0", self.kind);
        let ours = |name: &String| name[self.kind.len()..].is_empty() || name[self.kind.len()..].starts_with('/');
        entries.extract_if(range, |name, _| ours(name)).collect()
    }

    /// The entry's name in the journal.
    fn name(&self, key: &K) -> String {
        match key.to_name() {
            name if name.is_empty() => self.kind.to_owned(),
            name => format!("{}/{name}", self.kind),
        }
    }

    /// The inverse of `name`.
    pub(super) fn key(&self, name: &str) -> Option<K> {
        let name = name.strip_prefix(self.kind)?;
        K::from_name(name.strip_prefix('/').unwrap_or(name))
    }
}
