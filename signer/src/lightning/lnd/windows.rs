//! What belongs to the node among keys and scripts that others name: looked up, as far ahead as lnd may have come.
//!
//! Indices are made in blocks, around each index that was seen in use. A far index makes its own surroundings, not all that
//! lie before it, and their number is bounded, so that naming indices costs whoever does it more than the signer (P6).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use bitcoin::ScriptBuf;
use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{CompressedPublicKey, XOnlyPublicKey};
use serde::{Deserialize, Serialize};

use super::keys::{Chain, Family, KeyPath, Keys, Purpose};
use super::scripts::payment_outputs;
use crate::journal::Put;

/// Indices are made by so many.
const BLOCK: u32 = 64;
/// From the block of an index in use so many are made.
const AHEAD: u32 = 4;
/// Blocks of one window.
const MAX_BLOCKS: usize = 512;

const ENTRY: &str = "lnd/windows";

/// All windows of a node.
pub(super) struct Windows {
    /// By public key: funding keys.
    funding: Window<PublicKey>,
    /// By output: what counterparties' commitments pay us.
    payment: Window<ScriptBuf>,
    /// By output: the wallet's addresses.
    wallet: Vec<((Purpose, Chain), Window<ScriptBuf>)>,
    changed: bool,
}

/// The made blocks of each window, in the order of their fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    blocks: Vec<BTreeSet<u32>>,
}

/// By what a key is looked up.
type Names<K> = Box<dyn Fn(&Secp256k1<All>, PublicKey) -> Vec<K> + Send>;

struct Window<K> {
    parent: Xpub,
    known: HashMap<K, u32>,
    blocks: BTreeSet<u32>,
    names: Names<K>,
}

impl Windows {
    /// The windows as `entry` remembers them, or of a new node.
    pub(super) fn restore(keys: &Keys, entry: Option<&[u8]>) -> Option<Self> {
        let funding = Window::new(keys.family_xpub(Family::Multisig), |_, key| vec![key]);
        let payment = Window::new(keys.family_xpub(Family::PaymentBase), |_, key| payment_outputs(&key).into());
        let chains =
            Purpose::ALL.into_iter().flat_map(|purpose| [Chain::External, Chain::Internal].map(|c| (purpose, c)));
        let wallet = chains.map(|(purpose, chain)| {
            let names = move |secp: &Secp256k1<All>, key| addresses(secp, purpose, key);
            ((purpose, chain), Window::new(keys.wallet_xpub(purpose, chain), names))
        });
        let mut windows = Self { funding, payment, wallet: wallet.collect(), changed: false };
        let stored = match entry {
            Some(entry) => serde_json::from_slice::<Stored>(entry).ok().filter(|stored| stored.version == 1)?.blocks,
            None => vec![BTreeSet::from([0]); 2 + windows.wallet.len()],
        };
        if stored.len() != 2 + windows.wallet.len() || stored.iter().any(|blocks| blocks.len() > MAX_BLOCKS) {
            return None;
        }
        let secp = keys.secp();
        let mut stored = stored.into_iter();
        let mut next = || stored.next().unwrap_or_default();
        next().iter().for_each(|block| windows.funding.make(secp, *block));
        next().iter().for_each(|block| windows.payment.make(secp, *block));
        for (_, window) in &mut windows.wallet {
            next().iter().for_each(|block| window.make(secp, *block));
        }
        windows.see_first(secp);
        Some(windows)
    }

    /// The index of a funding key of ours.
    pub(super) fn funding(&mut self, keys: &Keys, key: &PublicKey) -> Option<u32> {
        let found = self.funding.find(keys.secp(), key, &mut self.changed)?;
        // Reservations count both up together.
        self.changed |= self.payment.see(keys.secp(), found);
        Some(found)
    }

    /// The index of our payment key that an output of a counterparty's commitment pays.
    pub(super) fn payment(&mut self, keys: &Keys, output: &ScriptBuf) -> Option<u32> {
        self.payment.find(keys.secp(), output, &mut self.changed)
    }

    /// Where the wallet has the key of this output.
    pub(super) fn wallet(&mut self, keys: &Keys, output: &ScriptBuf) -> Option<KeyPath> {
        self.wallet.iter_mut().find_map(|((purpose, chain), window)| {
            let index = window.find(keys.secp(), output, &mut self.changed)?;
            Some(KeyPath::Wallet(*purpose, *chain, index))
        })
    }

    /// A channel has our funding key and our payment key of these indices.
    pub(super) fn saw_channel(&mut self, keys: &Keys, funding: u32, payment: Option<u32>) {
        self.changed |= self.funding.see(keys.secp(), funding);
        self.changed |= payment.is_some_and(|payment| self.payment.see(keys.secp(), payment));
    }

    /// A coin of the wallet at this path was spent: lnd may have come this far.
    pub(super) fn saw(&mut self, keys: &Keys, path: KeyPath) {
        let KeyPath::Wallet(purpose, chain, index) = path else { return };
        for (_, window) in self.wallet.iter_mut().filter(|(known, _)| *known == (purpose, chain)) {
            self.changed |= window.see(keys.secp(), index);
        }
    }

    /// The entry, if it changed.
    pub(super) fn take_put(&mut self) -> Option<Put> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let wallet = self.wallet.iter().map(|(_, window)| window.blocks.clone());
        let blocks = [self.funding.blocks.clone(), self.payment.blocks.clone()].into_iter().chain(wallet).collect();
        let value = serde_json::to_vec(&Stored { version: 1, blocks }).expect("numbers always encode");
        Some(Put { key: ENTRY.to_owned(), value: Some(value) })
    }

    /// The key of the entry in a node's tenant.
    pub(super) const fn entry() -> &'static str {
        ENTRY
    }

    fn see_first(&mut self, secp: &Secp256k1<All>) {
        self.funding.see(secp, 0);
        self.payment.see(secp, 0);
        for (_, window) in &mut self.wallet {
            window.see(secp, 0);
        }
    }
}

impl<K: Hash + Eq> Window<K> {
    fn new(parent: Xpub, names: impl Fn(&Secp256k1<All>, PublicKey) -> Vec<K> + Send + 'static) -> Self {
        Self { parent, known: HashMap::new(), blocks: BTreeSet::new(), names: Box::new(names) }
    }

    fn find(&mut self, secp: &Secp256k1<All>, name: &K, changed: &mut bool) -> Option<u32> {
        let index = *self.known.get(name)?;
        *changed |= self.see(secp, index);
        Some(index)
    }

    /// `index` is in use. Returns whether anything was made.
    fn see(&mut self, secp: &Secp256k1<All>, index: u32) -> bool {
        let first = index / BLOCK;
        let before = self.blocks.len();
        for block in first..first.saturating_add(AHEAD) {
            self.make(secp, block);
        }
        self.blocks.len() > before
    }

    fn make(&mut self, secp: &Secp256k1<All>, block: u32) {
        if self.blocks.len() >= MAX_BLOCKS || !self.blocks.insert(block) {
            return;
        }
        for index in block * BLOCK..(block + 1) * BLOCK {
            let Ok(number) = ChildNumber::from_normal_idx(index) else { return };
            // An index without a key does not occur (1 in 2^127).
            let Ok(child) = self.parent.ckd_pub(secp, number) else { continue };
            self.known.extend((self.names)(secp, child.public_key).into_iter().map(|name| (name, index)));
        }
    }
}

/// The outputs that pay `key` in an account of this purpose. The nested account's change is plain.
pub(super) fn addresses(secp: &Secp256k1<All>, purpose: Purpose, key: PublicKey) -> Vec<ScriptBuf> {
    let plain = || ScriptBuf::new_p2wpkh(&CompressedPublicKey(key).wpubkey_hash());
    match purpose {
        Purpose::Nested => vec![plain().to_p2sh(), plain()],
        Purpose::Witness => vec![plain()],
        Purpose::Taproot => vec![ScriptBuf::new_p2tr(secp, XOnlyPublicKey::from(key), None)],
    }
}
