//! What the signer remembers of a node, apart from its seed and channels: one record per node, changed by pure functions.
//!
//! The caller stores the bytes in the journal, tenant `house`, key `node/NAME`.

use serde::{Deserialize, Serialize};

use crate::admin::fingerprint::Fingerprint;
use crate::names::{NodeKind, NodeName};

/// The version byte in front of each stored record.
const RECORD_VERSION: u8 = 1;

/// At most this many certificates of a node are valid at once: the one in use and its successor.
const MAX_VALID_CERTIFICATES: usize = 2;

/// One node in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Unique within the signer.
    pub name: NodeName,
    /// The dialect it speaks.
    pub kind: NodeKind,
    /// How channel keys come from the seed: `native` or `ldk`.
    pub derivation: String,
    /// The Bitcoin network.
    pub network: bitcoin::Network,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    /// Every certificate issued and not yet expired, oldest first, revoked ones included.
    pub certificates: Vec<CertificateRecord>,
}

/// One client certificate. All times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRecord {
    /// The X.509 serial number, hex.
    pub serial: String,
    /// What the link compares.
    pub sha256: Fingerprint,
    /// When it was issued.
    pub issued_at: u64,
    /// When it ends.
    pub not_after: u64,
    /// When it was revoked, if it was.
    pub revoked_at: Option<u64>,
}

/// Which certificates of a node to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// The one with this serial number, hex.
    Serial(String),
}

/// A stored record cannot be read, or a change does not fit the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer signer.
    #[error("the node record has version {0}, this signer reads version {RECORD_VERSION}")]
    Version(u8),
    /// Not a node record.
    #[error("the node record is damaged: {0}")]
    Damaged(String),
    /// The node has no certificate with this serial number.
    #[error("node '{node}' has no certificate with serial {serial}")]
    NoSuchCertificate {
        /// The node.
        node: NodeName,
        /// As given.
        serial: String,
    },
}

impl RecordError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Version(_) => "Start the signer version that wrote this data directory, or a newer one.",
            Self::Damaged(_) => "Run `claviger journal verify --offline`, then restore from a backup.",
            Self::NoSuchCertificate { .. } => "List the node's certificates with `claviger node show`.",
        }
    }
}

impl NodeRecord {
    /// A node without certificates, created at `now`.
    pub fn new(name: NodeName, kind: NodeKind, derivation: &str, network: bitcoin::Network, now: u64) -> Self {
        Self { name, kind, derivation: derivation.to_owned(), network, created_at: now, certificates: Vec::new() }
    }

    /// Adds a certificate at `now`. The one before it stays valid, so that the node's process can be moved over at leisure;
    /// older ones are revoked, and expired ones forgotten.
    pub fn add_certificate(&mut self, certificate: CertificateRecord, now: u64) {
        self.certificates.retain(|known| known.not_after > now);
        self.certificates.push(certificate);
        let mut valid = 0;
        for known in self.certificates.iter_mut().rev().filter(|known| known.revoked_at.is_none()) {
            valid += 1;
            if valid > MAX_VALID_CERTIFICATES {
                known.revoked_at = Some(now);
            }
        }
    }

    /// Revokes certificates at `now`. Returns how many were still valid.
    pub fn revoke(&mut self, which: &Which, now: u64) -> Result<usize, RecordError> {
        if let Which::Serial(serial) = which
            && !self.certificates.iter().any(|known| known.serial == *serial)
        {
            return Err(RecordError::NoSuchCertificate { node: self.name.clone(), serial: serial.clone() });
        }
        let chosen = |known: &&mut CertificateRecord| match which {
            Which::All => true,
            Which::Serial(serial) => known.serial == *serial,
        };
        let mut revoked = 0;
        for known in self.certificates.iter_mut().filter(chosen).filter(|known| known.revoked_at.is_none()) {
            known.revoked_at = Some(now);
            revoked += 1;
        }
        Ok(revoked)
    }

    /// The record as it is stored: a version byte, then JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![RECORD_VERSION];
        serde_json::to_writer(&mut bytes, self).expect("plain data, written to memory");
        bytes
    }

    /// Reads a stored record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&RECORD_VERSION, json)) => {
                serde_json::from_slice(json).map_err(|error| RecordError::Damaged(error.to_string()))
            }
            Some((&version, _)) => Err(RecordError::Version(version)),
            None => Err(RecordError::Damaged("it is empty".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        let name = NodeName::new("alice").unwrap();
        NodeRecord::new(name, NodeKind::Ldk, "ldk", bitcoin::Network::Regtest, 1_000)
    }

    fn certificate(serial: &str, not_after: u64) -> CertificateRecord {
        let sha256 = Fingerprint::of(serial.as_bytes());
        CertificateRecord { serial: serial.to_owned(), sha256, issued_at: 1_000, not_after, revoked_at: None }
    }

    fn valid(record: &NodeRecord) -> Vec<&str> {
        let valid = record.certificates.iter().filter(|known| known.revoked_at.is_none());
        valid.map(|known| known.serial.as_str()).collect()
    }

    #[test]
    fn a_record_survives_storage() {
        let mut record = record();
        record.add_certificate(certificate("01", 9_000), 1_000);
        record.revoke(&Which::All, 1_001).unwrap();
        assert_eq!(NodeRecord::from_bytes(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn a_newer_or_damaged_record_is_named() {
        let mut bytes = record().to_bytes();
        bytes[0] = 9;
        assert_eq!(NodeRecord::from_bytes(&bytes), Err(RecordError::Version(9)));
        assert!(matches!(NodeRecord::from_bytes(&[RECORD_VERSION, b'{']), Err(RecordError::Damaged(_))));
        assert!(matches!(NodeRecord::from_bytes(&[]), Err(RecordError::Damaged(_))));
    }

    #[test]
    fn renewing_keeps_the_certificate_in_use_and_revokes_older_ones() {
        let mut record = record();
        for serial in ["01", "02", "03"] {
            record.add_certificate(certificate(serial, 9_000), 2_000);
        }
        assert_eq!(valid(&record), ["02", "03"]);
    }

    #[test]
    fn an_expired_certificate_is_forgotten_when_the_node_is_renewed() {
        let mut record = record();
        record.add_certificate(certificate("01", 3_000), 2_000);
        record.add_certificate(certificate("02", 9_000), 3_000);
        assert_eq!(record.certificates.len(), 1);
    }

    #[test]
    fn revoking_names_one_certificate_or_all() {
        let mut record = record();
        record.add_certificate(certificate("01", 9_000), 2_000);
        record.add_certificate(certificate("02", 9_000), 2_000);
        assert_eq!(record.revoke(&Which::Serial("01".to_owned()), 2_001), Ok(1));
        assert_eq!(valid(&record), ["02"]);
        assert_eq!(record.revoke(&Which::All, 2_002), Ok(1));
        assert!(valid(&record).is_empty());
        let unknown = RecordError::NoSuchCertificate { node: record.name.clone(), serial: "77".to_owned() };
        assert_eq!(record.revoke(&Which::Serial("77".to_owned()), 2_003), Err(unknown));
    }
}
