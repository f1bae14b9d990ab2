//! The outputs that an address, a descriptor or an extended key stands for.

use std::str::FromStr;
use std::sync::LazyLock;

use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::bip32::Xpub;
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::{Network, NetworkKind, ScriptBuf};
use miniscript::ForEachKey;
use miniscript::descriptor::{Descriptor, DescriptorPublicKey, Wildcard};

use super::ListFault;

/// How many addresses of each branch are listed if nothing is said.
pub const DEFAULT_ADDRESSES: u32 = 100;
/// The most addresses of a list, those of keys included.
pub const MAX_ADDRESSES: u32 = 10_000;

/// The most branches (`<0;1;…>`) of a key.
const MAX_BRANCHES: usize = 8;

/// The longest descriptor, in bytes.
const MAX_DESCRIPTOR: usize = 8_192;

/// What an extended key's addresses pay to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptKind {
    Wpkh,
    Tr,
    ShWpkh,
    Pkh,
}

impl ScriptKind {
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Wpkh => "wpkh",
            Self::Tr => "tr",
            Self::ShWpkh => "sh-wpkh",
            Self::Pkh => "pkh",
        }
    }

    pub(super) fn by_id(id: &str) -> Option<Self> {
        [Self::Wpkh, Self::Tr, Self::ShWpkh, Self::Pkh].into_iter().find(|kind| kind.id() == id)
    }
}

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

pub(super) fn of_address(text: &str, network: Network) -> Result<ScriptBuf, ListFault> {
    let address: Address<NetworkUnchecked> = text.parse().map_err(|_| ListFault::Address(text.to_owned()))?;
    let checked = address.require_network(network);
    checked.map(|address| address.script_pubkey()).map_err(|_| ListFault::Network(network))
}

/// The outputs of an extended key's receiving and change branches, `0/*` and `1/*`; at most `most`.
pub(super) fn of_xpub(
    text: &str,
    kind: ScriptKind,
    network: Network,
    count: u32,
    most: usize,
) -> Result<Vec<ScriptBuf>, ListFault> {
    let xpub = Xpub::from_str(text).map_err(|_| refused(text, ListFault::Xpub))?;
    let keys = format!("{xpub}/<0;1>/*");
    let descriptor = match kind {
        ScriptKind::Wpkh => format!("wpkh({keys})"),
        ScriptKind::Tr => format!("tr({keys})"),
        ScriptKind::ShWpkh => format!("sh(wpkh({keys}))"),
        ScriptKind::Pkh => format!("pkh({keys})"),
    };
    of_descriptor(&descriptor, network, count, most)
}

/// The first `count` outputs of each branch of the descriptor, or the one of a descriptor without `*`; at most `most`.
pub(super) fn of_descriptor(
    text: &str,
    network: Network,
    count: u32,
    most: usize,
) -> Result<Vec<ScriptBuf>, ListFault> {
    if text.len() > MAX_DESCRIPTOR {
        return Err(ListFault::Descriptor);
    }
    let unreadable = || refused(text, ListFault::Descriptor);
    let descriptor = Descriptor::<DescriptorPublicKey>::from_str(text).map_err(|_| unreadable())?;
    if descriptor.for_any_key(|key| key.xkey_network().is_some_and(|kind| kind != NetworkKind::from(network))) {
        return Err(ListFault::Network(network));
    }
    if descriptor.for_any_key(|key| key.has_hardened_step() || key.wildcard() == Some(Wildcard::Hardened)) {
        return Err(ListFault::Hardened);
    }
    if descriptor.for_any_key(|key| key.derivation_paths().len() > MAX_BRANCHES) {
        return Err(ListFault::TooManyAddresses);
    }
    let branches = descriptor.into_single_descriptors().map_err(|_| unreadable())?;
    let count = if branches.iter().any(Descriptor::has_wildcard) { count } else { 1 };
    if branches.len() * count as usize > most {
        return Err(ListFault::TooManyAddresses);
    }
    let derive = |branch: &Descriptor<DescriptorPublicKey>, index| {
        branch.derived_descriptor(&*SECP, index).map(|at| at.script_pubkey())
    };
    let scripts = branches.iter().flat_map(|branch| (0..count).map(move |index| derive(branch, index)));
    scripts.collect::<Result<_, _>>().map_err(|_| unreadable())
}

/// A fault that says so if the text holds a private key. It is never repeated (P8).
fn refused(text: &str, otherwise: ListFault) -> ListFault {
    if text.contains("prv") { ListFault::PrivateKey } else { otherwise }
}
