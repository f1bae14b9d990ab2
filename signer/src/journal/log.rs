//! The decision log: numbered from 1 without gaps, each decision chained to all before it.
//!
//! `hash(n) = SHA-256("claviger decision\0" ‖ hash(n-1) ‖ n as u64 ‖ body)`, big endian, with
//! `body = length of tenant as u8 ‖ tenant ‖ decision as JSON`. `hash(0)` was drawn at random when the journal was made.

use sha2::{Digest, Sha256};

use super::commit::Decision;
use super::head::Hash;
use super::record::BadRecord;

/// One decision of the log: what `tail`, `export` and `explain` show.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// Its number, from 1.
    pub seq: u64,
    /// The node it concerns.
    pub tenant: String,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// Chain hash up to and including this line, hex.
    pub hash: String,
}

/// A decision as recorded: `hash ‖ body`.
pub(super) struct LogRecord {
    pub(super) hash: Hash,
    body: Vec<u8>,
}

impl LogRecord {
    /// Chains `decision` as number `seq` to `previous`. `tenant` has at most 64 characters.
    pub(super) fn new(previous: &Hash, seq: u64, tenant: &str, decision: &Decision) -> Result<Self, serde_json::Error> {
        let mut body = Vec::with_capacity(512);
        body.push(tenant.len() as u8);
        body.extend_from_slice(tenant.as_bytes());
        serde_json::to_writer(&mut body, decision)?;
        Ok(Self { hash: chain(previous, seq, &body), body })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [self.hash.as_slice(), &self.body].concat()
    }

    pub(super) fn body_len(&self) -> usize {
        self.body.len()
    }

    pub(super) fn decode(plain: &[u8]) -> Result<Self, BadRecord> {
        let (hash, body) = plain.split_first_chunk().ok_or(BadRecord::Contents)?;
        Ok(Self { hash: *hash, body: body.to_vec() })
    }

    /// Whether this is decision `seq` right after `previous`.
    pub(super) fn follows(&self, previous: &Hash, seq: u64) -> bool {
        self.hash == chain(previous, seq, &self.body)
    }

    /// The readable line.
    pub(super) fn line(&self, seq: u64) -> Result<LogLine, BadRecord> {
        let (&length, rest) = self.body.split_first().ok_or(BadRecord::Contents)?;
        let (tenant, json) = rest.split_at_checked(length.into()).ok_or(BadRecord::Contents)?;
        Ok(LogLine {
            seq,
            tenant: String::from_utf8(tenant.to_vec()).map_err(|_| BadRecord::Contents)?,
            decision: serde_json::from_slice(json).map_err(|_| BadRecord::Contents)?,
            hash: hex::encode(self.hash),
        })
    }
}

fn chain(previous: &Hash, seq: u64, body: &[u8]) -> Hash {
    Sha256::new_with_prefix(b"claviger decision\0")
        .chain_update(previous)
        .chain_update(seq.to_be_bytes())
        .chain_update(body)
        .finalize()
        .into()
}
