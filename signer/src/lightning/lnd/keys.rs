//! An lnd node's keys: BIP 32, in the paths that lnd uses.
//!
//! Channel keys are `m/1017'/coin'/family'/0/index`, coin 0' on mainnet and 1' elsewhere; wallet keys are
//! `m/purpose'/0'/0'/change/index` on every network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpriv, Xpub};
use bitcoin::secp256k1::{self, All, PublicKey, Scalar, Secp256k1, SecretKey};
use bitcoin::{Network, NetworkKind};

use super::lately::Lately;
use crate::keys::memory::{Secret, scrubbed};

/// Accounts below the purpose of channel keys that lnd imports: families 0 to 255.
const FAMILIES: u32 = 256;

/// The purpose of channel keys.
const CHANNELS: u32 = 1_017;

const HARDENED: u32 = 1 << 31;

/// Declares the key families that have a purpose here: variant, number, what its keys are for.
macro_rules! families {
    ($( $variant:ident $number:literal $doc:literal; )*) => {
        /// What a channel key, or one of the node itself, is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family { $( #[doc = $doc] $variant = $number, )* }

        impl Family {
            /// All families that have a purpose here.
            pub const ALL: &'static [Family] = &[ $( Family::$variant, )* ];
        }
    };
}

families! {
    Multisig 0 "Funding outputs, and anchors.";
    RevocationBase 1 "Punishes revoked commitments.";
    HtlcBase 2 "HTLCs.";
    PaymentBase 3 "What the counterparty's commitment pays us.";
    DelayBase 4 "What our own commitment pays us after a delay.";
    RevocationRoot 5 "Secrets by which our commitments are revoked.";
    NodeKey 6 "The node's identity.";
    BaseEncryption 7 "Backups; its public key is all that is used.";
    TowerSession 8 "Sessions with watchtowers.";
    TowerId 9 "The identity of a watchtower of our own.";
}

impl Family {
    /// The family with this number.
    pub fn by_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|family| *family as u32 == number)
    }

    /// Whether its keys speak with watchtowers, or as one.
    pub fn is_for_towers(self) -> bool {
        matches!(self, Self::TowerSession | Self::TowerId)
    }
}

/// Whose wallet accounts lnd keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// P2WPKH nested in P2SH; change is plain P2WPKH.
    Nested = 49,
    /// P2WPKH.
    Witness = 84,
    /// P2TR, spent by its key (BIP 86).
    Taproot = 86,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 3] = [Self::Nested, Self::Witness, Self::Taproot];
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPath {
    /// A key of a family.
    Channel(Family, u32),
    /// A key of the wallet: account 0, external or internal chain, index.
    Wallet(Purpose, Chain, u32),
}

/// BIP 44's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// For receiving.
    External = 0,
    /// For change.
    Internal = 1,
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(family, index) => write!(f, "m/1017'/…/{}'/0/{index}", *family as u32),
            Self::Wallet(purpose, chain, index) => {
                write!(f, "m/{}'/0'/0'/{}/{index}", *purpose as u32, *chain as u32)
            }
        }
    }
}

/// An account whose public key lnd is given.
pub struct Account {
    /// `m/…`
    pub path: String,
    /// 49, 84, 86 or 1017.
    pub purpose: u32,
    /// Its extended public key.
    pub xpub: Xpub,
}

/// The keys of one node. Boxed: moving it leaves no copies, and the allocator wipes what it frees (P8).
pub struct Keys {
    secp: Secp256k1<All>,
    coin: u32,
    /// `m/1017'/coin'/family'/0`
    families: BTreeMap<Family, Parent>,
    /// `m/purpose'/0'/0'/chain`
    wallet: BTreeMap<(Purpose, Chain), Parent>,
    node_id: PublicKey,
    /// By where they stand.
    children: Lately<KeyPath>,
    /// By the key and what was added to it.
    tweaked: Lately<(PublicKey, [u8; 32])>,
}

/// What the keys of a family, or of a chain of the wallet, come from. Its public half is at hand: BIP 32 makes each
/// child from it, which would otherwise cost a multiplication for every signature.
struct Parent {
    private: Box<Xpriv>,
    public: Xpub,
}

impl Parent {
    fn new(secp: &Secp256k1<All>, private: Xpriv) -> Self {
        let private = Box::new(private);
        let public = Xpub::from_priv(secp, &private);
        Self { private, public }
    }

    fn secret(&self, index: u32) -> SecretKey {
        let (tweak, _) = self.public.ckd_pub_tweak(ChildNumber::from(index)).expect("an index below 2^31");
        self.private.private_key.add_tweak(&tweak.into()).expect(NO_CHILD)
    }

    fn public(&self, secp: &Secp256k1<All>, index: u32) -> PublicKey {
        self.public.ckd_pub(secp, ChildNumber::from(index)).expect(NO_CHILD).public_key
    }
}

const NO_CHILD: &str = "a child without a key does not occur (1 in 2^127)";

impl Keys {
    /// The keys below a BIP 32 master key with its chain code.
    pub fn new(key: &Secret<32>, chain_code: &Secret<32>, network: Network) -> Self {
        scrubbed(|| {
            let secp = Secp256k1::new();
            let coin = coin(network);
            let master = master(key, chain_code, network);
            let derive = |path: &[u32]| Parent::new(&secp, derive(&secp, &master, path));
            let families = Family::ALL.iter().map(|family| {
                let path = [CHANNELS + HARDENED, coin + HARDENED, *family as u32 + HARDENED, 0];
                (*family, derive(&path))
            });
            let families: BTreeMap<_, _> = families.collect();
            let mut wallet = BTreeMap::new();
            for purpose in Purpose::ALL {
                for chain in [Chain::External, Chain::Internal] {
                    let path = [purpose as u32 + HARDENED, HARDENED, HARDENED, chain as u32];
                    wallet.insert((purpose, chain), derive(&path));
                }
            }
            let node_id = families[&Family::NodeKey].public(&secp, 0);
            Self { secp, coin, families, wallet, node_id, children: Lately::new(), tweaked: Lately::new() }
        })
    }

    /// The context that everything of this node is computed with.
    pub fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// The node's public key.
    pub fn node_id(&self) -> PublicKey {
        self.node_id
    }

    /// The key at `path`.
    pub fn secret(&self, path: KeyPath) -> SecretKey {
        let (parent, index) = self.parent(path);
        parent.secret(index)
    }

    /// The public key at `path`.
    pub fn public(&self, path: KeyPath) -> PublicKey {
        let child = || {
            let (parent, index) = self.parent(path);
            Ok::<_, Infallible>(parent.public(&self.secp, index))
        };
        let Ok(key) = self.children.key(path, child);
        key
    }

    /// `key` plus `tweak` times the generator.
    pub fn tweaked(&self, key: &PublicKey, tweak: [u8; 32]) -> Result<PublicKey, secp256k1::Error> {
        self.tweaked.key((*key, tweak), || {
            let tweak = Scalar::from_be_bytes(tweak).map_err(|_| secp256k1::Error::InvalidTweak)?;
            key.add_exp_tweak(&self.secp, &tweak)
        })
    }

    /// What the public keys of a family come from.
    pub fn family_xpub(&self, family: Family) -> Xpub {
        self.families[&family].public
    }

    /// What the public keys of a chain of the wallet come from.
    pub fn wallet_xpub(&self, purpose: Purpose, chain: Chain) -> Xpub {
        self.wallet[&(purpose, chain)].public
    }

    fn parent(&self, path: KeyPath) -> (&Parent, u32) {
        match path {
            KeyPath::Channel(family, index) => (&self.families[&family], index),
            KeyPath::Wallet(purpose, chain, index) => (&self.wallet[&(purpose, chain)], index),
        }
    }

    /// The path that a PSBT names, if one of this node's keys stands there.
    pub fn path(&self, path: &[ChildNumber]) -> Option<KeyPath> {
        let numbers: Vec<u32> = path.iter().map(|number| u32::from(*number)).collect();
        let [purpose, coin, account, chain, index] = numbers[..] else { return None };
        let [purpose, coin, account] = [purpose, coin, account].map(|number| number.checked_sub(HARDENED));
        if index >= HARDENED {
            return None;
        }
        if purpose? == CHANNELS {
            let family = Family::by_number(account?)?;
            return (coin? == self.coin && chain == 0).then_some(KeyPath::Channel(family, index));
        }
        let purpose = Purpose::ALL.into_iter().find(|known| Some(*known as u32) == purpose)?;
        let chain = [Chain::External, Chain::Internal].into_iter().find(|known| *known as u32 == chain)?;
        (coin? == 0 && account? == 0).then_some(KeyPath::Wallet(purpose, chain, index))
    }
}

/// The accounts that a watch-only lnd is made from: three of the wallet, and 256 key families.
pub fn accounts(key: &Secret<32>, chain_code: &Secret<32>, network: Network) -> Vec<Account> {
    scrubbed(|| {
        let secp = Secp256k1::new();
        let master = Box::new(master(key, chain_code, network));
        let coin = coin(network);
        let wallet = Purpose::ALL.into_iter().map(|purpose| (purpose as u32, 0, 0));
        let families = (0..FAMILIES).map(|family| (CHANNELS, coin, family));
        let account = |(purpose, coin, account): (u32, u32, u32)| {
            let xpriv = Box::new(derive(&secp, &master, &[purpose, coin, account].map(|number| number + HARDENED)));
            let path = format!("m/{purpose}'/{coin}'/{account}'");
            Account { path, purpose, xpub: Xpub::from_priv(&secp, &xpriv) }
        };
        wallet.chain(families).map(account).collect()
    })
}

/// The node's public key.
pub fn node_id(key: &Secret<32>, chain_code: &Secret<32>, network: Network) -> PublicKey {
    scrubbed(|| {
        let secp = Secp256k1::new();
        let master = Box::new(master(key, chain_code, network));
        let path = [CHANNELS + HARDENED, coin(network) + HARDENED, Family::NodeKey as u32 + HARDENED, 0, 0];
        derive(&secp, &master, &path).private_key.public_key(&secp)
    })
}

fn coin(network: Network) -> u32 {
    u32::from(network != Network::Bitcoin)
}

fn master(key: &Secret<32>, chain_code: &Secret<32>, network: Network) -> Xpriv {
    Xpriv {
        network: NetworkKind::from(network),
        depth: 0,
        parent_fingerprint: Fingerprint::default(),
        child_number: ChildNumber::Normal { index: 0 },
        private_key: key.expose(|key| SecretKey::from_slice(key)).expect("checked when the key was made or imported"),
        chain_code: chain_code.expose(|code| ChainCode::from(*code)),
    }
}

fn derive(secp: &Secp256k1<All>, from: &Xpriv, path: &[u32]) -> Xpriv {
    let path: Vec<ChildNumber> = path.iter().map(|number| ChildNumber::from(*number)).collect();
    from.derive_priv(secp, &path).expect(NO_CHILD)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root key of lnd's own integration test for remote signing, and the node id that lnd has with it.
    const ROOT: &str = "tprv8ZgxMBicQKsPe6jS4vDm2n7s42Q6MpvghUQqMmSKG7bTZvGKtjrcU3PGzMNG37yzxywrcdvgkwrr8eYXJmbwdvUNVT4Ucv7ris4jvA7BUmg";
    const NODE_ID: &str = "033f55d436d4f7d24aeffb1b976647380f22ebf9e74390e8c76dcff9fea0093b7a";

    fn root() -> (Secret<32>, Secret<32>) {
        let root: Xpriv = ROOT.parse().expect("an xprv");
        let key = Secret::init(|out| out.copy_from_slice(&root.private_key[..]));
        (key, Secret::init(|out| out.copy_from_slice(root.chain_code.as_bytes())))
    }

    #[test]
    fn a_node_has_the_id_that_lnd_derives_from_the_same_root() {
        let (key, code) = root();
        assert_eq!(Keys::new(&key, &code, Network::Regtest).node_id().to_string(), NODE_ID);
        assert_eq!(node_id(&key, &code, Network::Regtest).to_string(), NODE_ID);
        assert_ne!(node_id(&key, &code, Network::Bitcoin).to_string(), NODE_ID, "mainnet has a coin of its own");
    }

    #[test]
    fn keys_are_those_of_bip_32_and_their_public_halves_fit() {
        let (key, code) = root();
        let keys = Keys::new(&key, &code, Network::Regtest);
        let root: Xpriv = ROOT.parse().expect("an xprv");
        for (path, text) in [
            (KeyPath::Channel(Family::HtlcBase, 7), "m/1017'/1'/2'/0/7"),
            (KeyPath::Channel(Family::TowerId, HARDENED - 1), "m/1017'/1'/9'/0/2147483647"),
            (KeyPath::Wallet(Purpose::Taproot, Chain::Internal, 3), "m/86'/0'/0'/1/3"),
        ] {
            let by_path: bitcoin::bip32::DerivationPath = text.parse().expect("a path");
            let derived = root.derive_priv(keys.secp(), &by_path).expect("derives").private_key;
            assert_eq!(keys.secret(path), derived, "{text}");
            assert_eq!(keys.public(path), derived.public_key(keys.secp()), "{text}");
        }
    }

    #[test]
    fn lnd_gets_all_accounts_and_no_private_key() {
        let (key, code) = root();
        let accounts = accounts(&key, &code, Network::Regtest);
        assert_eq!(accounts.len(), 259);
        let paths: Vec<_> = accounts.iter().map(|account| account.path.as_str()).collect();
        assert_eq!(paths[..4], ["m/49'/0'/0'", "m/84'/0'/0'", "m/86'/0'/0'", "m/1017'/1'/0'"]);
        assert_eq!(paths[258], "m/1017'/1'/255'");
        for account in &accounts {
            assert!(account.xpub.to_string().starts_with("tpub") && account.xpub.depth == 3);
            assert!(account.xpub.child_number.is_hardened());
        }
        let keys = Keys::new(&key, &code, Network::Regtest);
        let family = accounts[3 + 6].xpub.derive_pub(keys.secp(), &[ChildNumber::from(0), ChildNumber::from(0)]);
        assert_eq!(family.expect("derives").public_key, keys.node_id());
    }

    #[test]
    fn hostile_paths_lead_to_no_key() {
        let (key, code) = root();
        let keys = Keys::new(&key, &code, Network::Regtest);
        let h = HARDENED;
        let path = |numbers: &[u32]| keys.path(&numbers.iter().map(|n| ChildNumber::from(*n)).collect::<Vec<_>>());
        assert_eq!(path(&[1017 + h, 1 + h, h, 0, 7]), Some(KeyPath::Channel(Family::Multisig, 7)));
        assert_eq!(path(&[84 + h, h, h, 1, 7]), Some(KeyPath::Wallet(Purpose::Witness, Chain::Internal, 7)));
        for hostile in [
            &[1017 + h, h, h, 0, 7][..],      // another network's coin
            &[1017 + h, 1 + h, 10 + h, 0, 7], // a family without a purpose
            &[1017 + h, 1 + h, h, 1, 7],
            &[1017 + h, 1 + h, h, 0, 7 + h],
            &[1017, 1 + h, h, 0, 7],
            &[84 + h, 1 + h, h, 0, 7],
            &[84 + h, h, 1 + h, 0, 7],
            &[84 + h, h, h, 2, 7],
            &[44 + h, h, h, 0, 7],
            &[84 + h, h, h, 0],
            &[],
        ] {
            assert_eq!(path(hostile), None, "{hostile:?}");
        }
    }
}
