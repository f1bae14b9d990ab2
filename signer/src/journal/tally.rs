//! Tallies of entries: each single entry authenticates by itself, its tally shows that a set of them is the last one.

use sha2::{Digest, Sha256};

use crate::keys::memory::Secret;

use super::error::{Damage, DamageKind};
use super::head::Hash;

/// What a set of live entries is: shows an entry that was removed, added or rolled back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// XOR of [`term`] over all of them.
    pub(super) terms: Hash,
    /// Their number.
    pub(super) count: u64,
}

impl Tally {
    /// The difference that an entry makes, written with `version` in place of `old`; `None` stands for no entry.
    pub(super) fn change(key: &Secret<32>, row: &str, old: Option<u64>, version: Option<u64>) -> Self {
        let mut change = Self::default();
        if let Some(old) = old {
            change.add(&Self { terms: term(key, row, old), count: u64::MAX }); // one less
        }
        if let Some(version) = version {
            change.add(&Self { terms: term(key, row, version), count: 1 });
        }
        change
    }

    /// This with the difference.
    pub(super) fn and(mut self, change: &Self) -> Self {
        self.add(change);
        self
    }

    /// Makes the difference.
    pub(super) fn add(&mut self, change: &Self) {
        self.terms.iter_mut().zip(change.terms).for_each(|(sum, term)| *sum ^= term);
        self.count = self.count.wrapping_add(change.count);
    }

    /// Whether the entries found are those `expected`; `key` names the damage if not.
    pub(super) fn compare(&self, expected: &Tally, key: &str) -> Result<(), Damage> {
        if self == expected {
            return Ok(());
        }
        Err(Damage::new(key, DamageKind::State { found: self.count, expected: expected.count }))
    }
}

/// What one entry adds to the digest. The sum is only ever stored sealed, so a keyed prefix hash is enough.
fn term(key: &Secret<32>, row: &str, version: u64) -> Hash {
    let hash = Sha256::new_with_prefix(b"claviger entry\0");
    key.expose(|key| hash.chain_update(key)).chain_update(version.to_be_bytes()).chain_update(row).finalize().into()
}
