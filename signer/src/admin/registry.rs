//! The nodes of this signer, in memory, as the link's [`Roster`].

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::admin::fingerprint::Fingerprint;
use crate::admin::record::NodeRecord;
use crate::gateway::link::{LinkDenied, Roster};
use crate::names::{NodeKind, NodeName};

/// All nodes of this signer. A change reaches open links at once.
#[derive(Debug)]
pub struct Registry {
    nodes: RwLock<BTreeMap<NodeName, NodeRecord>>,
    changes: watch::Sender<u64>,
}

impl Registry {
    /// A registry holding `records`, as read from the journal.
    pub fn new(records: impl IntoIterator<Item = NodeRecord>) -> Self {
        let nodes = records.into_iter().map(|record| (record.name.clone(), record)).collect();
        Self { nodes: RwLock::new(nodes), changes: watch::Sender::new(0) }
    }

    /// Adds or replaces a node. Call it after the record is durable (P1).
    pub fn put(&self, record: NodeRecord) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(record.name.clone(), record);
        self.changes.send_modify(|version| *version += 1);
    }

    /// Forgets a node.
    pub fn remove(&self, name: &NodeName) -> Option<NodeRecord> {
        let removed = self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.changes.send_modify(|version| *version += 1);
        removed
    }

    /// The record of `name`.
    pub fn get(&self, name: &NodeName) -> Option<NodeRecord> {
        self.read().get(name).cloned()
    }

    /// All records, by name.
    pub fn list(&self) -> Vec<NodeRecord> {
        self.read().values().cloned().collect()
    }

    // A panic while the lock was held leaves whole records behind: insert and remove are single steps.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<NodeName, NodeRecord>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster for Registry {
    fn lookup(&self, fingerprint: &Fingerprint) -> Result<(NodeName, NodeKind), LinkDenied> {
        let nodes = self.read();
        let mut all = nodes.values().flat_map(|node| node.certificates.iter().map(move |known| (node, known)));
        let (node, certificate) = all.find(|(_, known)| known.sha256 == *fingerprint).ok_or(LinkDenied::Unknown)?;
        if certificate.revoked_at.is_some() {
            return Err(LinkDenied::Revoked { node: node.name.clone() });
        }
        if certificate.not_after <= now() {
            return Err(LinkDenied::Expired { node: node.name.clone(), not_after: certificate.not_after });
        }
        Ok((node.name.clone(), node.kind))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::record::{CertificateRecord, Which};

    fn record(not_after: u64) -> (NodeRecord, Fingerprint) {
        let name = NodeName::new("alice").unwrap();
        let mut record = NodeRecord::new(name, NodeKind::Ldk, "ldk", bitcoin::Network::Regtest, 1);
        let sha256 = Fingerprint::of(b"certificate");
        let certificate = CertificateRecord { serial: "01".into(), sha256, issued_at: 1, not_after, revoked_at: None };
        record.add_certificate(certificate, 1);
        (record, sha256)
    }

    #[test]
    fn a_certificate_leads_to_its_node_until_it_is_revoked_removed_or_expired() {
        let (mut alice, fingerprint) = record(u64::MAX);
        let registry = Registry::new([alice.clone()]);
        assert_eq!(registry.lookup(&fingerprint), Ok((alice.name.clone(), NodeKind::Ldk)));
        assert_eq!(registry.lookup(&Fingerprint::of(b"another")), Err(LinkDenied::Unknown));

        let changes = registry.changes();
        alice.revoke(&Which::All, 2).unwrap();
        registry.put(alice.clone());
        assert!(changes.has_changed().unwrap());
        assert_eq!(registry.lookup(&fingerprint), Err(LinkDenied::Revoked { node: alice.name.clone() }));

        registry.remove(&alice.name);
        assert_eq!(registry.lookup(&fingerprint), Err(LinkDenied::Unknown));

        let (expired, fingerprint) = record(1_000);
        registry.put(expired.clone());
        assert_eq!(registry.lookup(&fingerprint), Err(LinkDenied::Expired { node: expired.name, not_after: 1_000 }));
    }
}
