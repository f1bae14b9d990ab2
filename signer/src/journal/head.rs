//! The head of the journal: where the chain ends and a digest of the entries, rewritten by every batch.

use zeroize::Zeroizing;

use crate::keys::memory::Secret;

use super::record::BadRecord;
use super::tally::Tally;

/// The format this version writes and the newest it reads.
pub const FORMAT: u16 = 1;
const MAGIC: &[u8; 16] = b"claviger journal";

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// What was drawn at random when the journal was made.
pub(super) struct Meta {
    /// Keys the digest's terms, so that nobody without the data key can find rows whose terms cancel out.
    pub(super) digest_key: Secret<32>,
    /// The hash before decision 1.
    pub(super) genesis: Hash,
}

impl Meta {
    /// The row's value in front of its sealed part: readable without the data key.
    pub(super) fn clear_prefix() -> Vec<u8> {
        [MAGIC.as_slice(), &FORMAT.to_be_bytes()].concat()
    }

    /// Splits a `meta` row's value into format and sealed part.
    pub(super) fn split(value: &[u8]) -> Option<(u16, &[u8])> {
        let (format, sealed) = value.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*format), sealed))
    }

    /// Fresh random values, and their encoding for the sealed part.
    pub(super) fn random() -> (Self, Zeroizing<Vec<u8>>) {
        let meta = Self { digest_key: Secret::random(), genesis: Secret::<32>::random().expose(|bytes| *bytes) };
        let plain = meta.digest_key.expose(|key| Zeroizing::new([key.as_slice(), &meta.genesis].concat()));
        (meta, plain)
    }

    /// Decodes the opened sealed part.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, BadRecord> {
        let (key, genesis) = plain.split_first_chunk().ok_or(BadRecord::Contents)?;
        let genesis = genesis.try_into().map_err(|_| BadRecord::Contents)?;
        Ok(Self { digest_key: Secret::new(Zeroizing::new(*key)), genesis })
    }
}

/// The journal's state after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Number of the last decision; 0 before the first.
    pub(super) seq: u64,
    /// Chain hash of the last decision.
    pub(super) hash: Hash,
    /// All live entries.
    pub(super) state: Tally,
    /// Decision after which the last checkpoint was written; in a checkpoint, the one before it.
    pub(super) checkpoint: u64,
}

impl Head {
    const LEN: usize = 8 + 32 + 32 + 8 + 8;

    /// Before the first batch.
    pub(super) fn new(genesis: Hash) -> Self {
        Self { seq: 0, hash: genesis, state: Tally::default(), checkpoint: 0 }
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..40].copy_from_slice(&self.hash);
        out[40..72].copy_from_slice(&self.state.terms);
        out[72..80].copy_from_slice(&self.state.count.to_be_bytes());
        out[80..].copy_from_slice(&self.checkpoint.to_be_bytes());
        out
    }

    pub(super) fn decode(plain: &[u8]) -> Result<Self, BadRecord> {
        let (seq, rest) = plain.split_first_chunk().ok_or(BadRecord::Contents)?;
        let (hash, rest) = rest.split_first_chunk().ok_or(BadRecord::Contents)?;
        let (terms, rest) = rest.split_first_chunk().ok_or(BadRecord::Contents)?;
        let (entries, rest) = rest.split_first_chunk().ok_or(BadRecord::Contents)?;
        let checkpoint = rest.try_into().map_err(|_| BadRecord::Contents)?;
        Ok(Self {
            seq: u64::from_be_bytes(*seq),
            hash: *hash,
            state: Tally { terms: *terms, count: u64::from_be_bytes(*entries) },
            checkpoint: u64::from_be_bytes(checkpoint),
        })
    }
}
