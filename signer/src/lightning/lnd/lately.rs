//! Public keys that were computed lately: a node asks for those of a few channels again and again, and each one costs as much
//! as a signature.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use bitcoin::secp256k1::PublicKey;

/// So many are kept; who asks for more begins anew.
const KEPT: usize = 1_024;

/// What public keys were made of, and the keys. Nothing in it is secret.
pub(super) struct Lately<K>(Mutex<HashMap<K, PublicKey>>);

impl<K: Eq + Hash> Lately<K> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The key of `from`, which `make` computes if it is not at hand.
    pub(super) fn key<E>(&self, from: K, make: impl FnOnce() -> Result<PublicKey, E>) -> Result<PublicKey, E> {
        // Keys are whole between statements; a panic elsewhere does not spoil them.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = kept.get(&from) {
            return Ok(*key);
        }
        let key = make()?;
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.insert(from, key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    #[test]
    fn a_key_is_computed_once_and_no_flood_of_others_fills_the_memory() {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[1; 32]).expect("a key").public_key(&secp);
        let lately = Lately::new();
        assert_eq!(lately.key(0, || Err("none")), Err("none"), "no key is none that is kept");
        assert_eq!(lately.key(0, || Ok::<_, &str>(key)), Ok(key));
        assert_eq!(lately.key(0, || Err("again")), Ok(key));
        for other in 1..=KEPT {
            assert_eq!(lately.key(other, || Ok::<_, &str>(key)), Ok(key));
        }
        assert!(lately.0.lock().expect("whole").len() <= KEPT);
        assert_eq!(lately.key(0, || Err("again")), Err("again"), "it was the oldest");
    }
}
