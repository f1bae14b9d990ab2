//! The accounts of this signer and the secrets that their webhooks are signed with.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use bitcoin::Network;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::names::NodeName;

/// All accounts. Shared with the door, which sees a change at once.
#[derive(Default)]
pub struct Accounts(RwLock<BTreeMap<NodeName, Account>>);

struct Account {
    network: Network,
    secret: Zeroizing<Vec<u8>>,
}

impl Accounts {
    /// Adds or replaces an account. `secret` is the text that Lightspark shows, as it is.
    pub fn put(&self, name: NodeName, network: Network, secret: Zeroizing<Vec<u8>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, Account { network, secret });
    }

    /// Forgets an account.
    pub fn remove(&self, name: &NodeName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The account that a path names, and its network: the only one where the path names none.
    pub(super) fn find(&self, name: &str) -> Option<(NodeName, Network)> {
        let accounts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = accounts.iter().map(|(name, account)| (name.clone(), account.network));
        if name.is_empty() {
            return all.next().filter(|_| all.next().is_none());
        }
        all.find(|(known, _)| known.as_str() == name)
    }

    /// Whether `signature` is the account's HMAC-SHA256 over exactly these bytes. Takes the same time for any wrong one.
    pub(super) fn is_signed(&self, name: &NodeName, body: &[u8], signature: &[u8; 32]) -> bool {
        let accounts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(name).is_some_and(|account| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&account.secret).expect("any length is a key");
            mac.update(body);
            mac.verify_slice(signature).is_ok()
        })
    }
}
