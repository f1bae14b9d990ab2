//! The accounts of this signer: the secrets that their webhooks are signed with, and what Lightspark is called back with.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::Network;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::names::NodeName;

/// All accounts. Shared with the door, which sees a change at once.
#[derive(Default)]
pub struct Accounts(RwLock<BTreeMap<NodeName, Account>>);

/// What an account has at Lightspark.
pub struct Account {
    /// The one that it is on.
    pub network: Network,
    /// The text that Lightspark shows for the webhook, as it is.
    pub webhook_secret: Zeroizing<Vec<u8>>,
    /// `ID:TOKEN`, with which answers are called back; without it they are given directly.
    pub api_token: Option<Zeroizing<Vec<u8>>>,
}

impl Accounts {
    /// Adds or replaces an account.
    pub fn put(&self, name: NodeName, account: Account) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, account);
    }

    /// Forgets an account.
    pub fn remove(&self, name: &NodeName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn all(&self) -> RwLockReadGuard<'_, BTreeMap<NodeName, Account>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account that a path names, and its network: the only one where the path names none.
    pub(super) fn find(&self, name: &str) -> Option<(NodeName, Network)> {
        let accounts = self.all();
        let mut all = accounts.iter().map(|(name, account)| (name.clone(), account.network));
        if name.is_empty() {
            return all.next().filter(|_| all.next().is_none());
        }
        all.find(|(known, _)| known.as_str() == name)
    }

    /// Whether `signature` is the account's HMAC-SHA256 over exactly these bytes. Takes the same time for any wrong one.
    pub(super) fn is_signed(&self, name: &NodeName, body: &[u8], signature: &[u8; 32]) -> bool {
        self.all().get(name).is_some_and(|account| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&account.webhook_secret).expect("any length is a key");
            mac.update(body);
            mac.verify_slice(signature).is_ok()
        })
    }

    /// The signature that Lightspark would send with `body`.
    pub(super) fn sign(&self, name: &NodeName, body: &str) -> Option<String> {
        let accounts = self.all();
        let mut mac = Hmac::<Sha256>::new_from_slice(&accounts.get(name)?.webhook_secret).expect("any length is a key");
        mac.update(body.as_bytes());
        Some(hex::encode(mac.finalize().into_bytes()))
    }

    /// Whether its answers are called back.
    pub(super) fn calls_back(&self, name: &NodeName) -> bool {
        self.all().get(name).is_some_and(|account| account.api_token.is_some())
    }

    /// The header `Authorization` of its calls (RFC 7617).
    pub(super) fn authorization(&self, name: &NodeName) -> Option<Zeroizing<String>> {
        let accounts = self.all();
        let token = accounts.get(name)?.api_token.as_ref()?;
        Some(Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64_STANDARD.encode(token)))))
    }
}
