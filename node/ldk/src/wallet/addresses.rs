//! The wallet's addresses: the first thousand children of the account key, all known in advance, so that any script
//! that was ever handed out is recognised after a restart without saved state.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{CompressedPublicKey, ScriptBuf};

/// Index 0 stays unused, as in Core Lightning's wallet.
const FIRST: u32 = 1;
const COUNT: u32 = 1000;

pub(super) struct Addresses {
    account: Xpub,
    known: OnceLock<Known>,
    handed_out: AtomicU32,
}

struct Known {
    keys: Vec<PublicKey>,
    indexes: HashMap<ScriptBuf, u32>,
}

impl Addresses {
    pub(super) fn new(account: Xpub) -> Self {
        Self { account, known: OnceLock::new(), handed_out: AtomicU32::new(0) }
    }

    pub(super) fn next(&self) -> ScriptBuf {
        p2wpkh(&self.known().keys[(self.handed_out.fetch_add(1, Ordering::Relaxed) % COUNT) as usize])
    }

    pub(super) fn for_channel(&self, dbid: u64) -> ScriptBuf {
        p2wpkh(&self.known().keys[(dbid % u64::from(COUNT)) as usize])
    }

    pub(super) fn index_of(&self, script: &ScriptBuf) -> Option<u32> {
        self.known().indexes.get(script).copied()
    }

    pub(super) fn key(&self, index: u32) -> Option<PublicKey> {
        self.known().keys.get(index.checked_sub(FIRST)? as usize).copied()
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| {
            let secp = Secp256k1::verification_only();
            let key = |index| {
                let child = ChildNumber::Normal { index };
                // Fails for one child in 2^127. The signer could not derive it either: no script is made from it.
                self.account.ckd_pub(&secp, child).ok().map(|child| child.public_key)
            };
            let keys: Vec<_> = (FIRST..FIRST + COUNT).map_while(key).collect();
            let indexes = keys.iter().zip(FIRST..).map(|(key, index)| (p2wpkh(key), index)).collect();
            Known { keys, indexes }
        })
    }
}

fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;
    use bitcoin::bip32::Xpriv;

    use super::*;

    fn addresses() -> Addresses {
        let master = Xpriv::new_master(Network::Regtest, &[1; 32]).unwrap();
        Addresses::new(Xpub::from_priv(&Secp256k1::new(), &master))
    }

    #[test]
    fn every_script_handed_out_is_recognised_after_a_restart() {
        let (before, after) = (addresses(), addresses());
        for dbid in [0, 1, 999, 1000, u64::MAX] {
            assert!(after.index_of(&before.for_channel(dbid)).is_some());
        }
        let first = before.next();
        assert_ne!(first, before.next());
        assert_eq!(after.index_of(&first), Some(FIRST));
        assert_eq!(after.key(FIRST).map(|key| p2wpkh(&key)), Some(first));
    }

    #[test]
    fn a_foreign_script_is_not() {
        assert_eq!(addresses().index_of(&ScriptBuf::new_op_return([1])), None);
    }
}
