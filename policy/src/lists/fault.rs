//! What may be wrong with a list, where it is, and what to do about it.

use bitcoin::Network;

use super::file::{MAX_ENTRIES, MAX_FILE_BYTES, MAX_LABEL_CHARS};
use super::script::MAX_ADDRESSES;
use crate::place::Place;

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct ListError {
    /// In the file.
    pub place: Place,
    /// What is wrong.
    pub fault: ListFault,
}

/// What is wrong with a list. Descriptors and keys are not repeated: they might be private ones (P8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// The file's name, without `.toml`.
    #[error("'{0}' is not a list's name")]
    Name(String),
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("the list has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge(usize),
    /// Not TOML, or not the keys of a list.
    #[error("{0}")]
    Syntax(String),
    /// More than [`MAX_ENTRIES`].
    #[error("{0} entries, more than {MAX_ENTRIES}")]
    TooManyEntries(usize),
    /// No label, or none that can be shown.
    #[error("a label has 1 to {MAX_LABEL_CHARS} printable characters")]
    Label,
    /// None of the three, or several.
    #[error("a destination is one of address, descriptor and xpub")]
    NotOne,
    /// A key that the entry has no use for.
    #[error("'{0}' does not go with what is listed")]
    Needless(&'static str),
    /// Not an address.
    #[error("'{0}' is not an address")]
    Address(String),
    /// Not a descriptor that can be derived.
    #[error("not a descriptor")]
    Descriptor,
    /// Not an extended public key.
    #[error("not an extended public key")]
    Xpub,
    /// It holds a private key.
    #[error("a private key does not belong in a list")]
    PrivateKey,
    /// A step that needs the private key.
    #[error("a hardened step cannot be derived from a public key")]
    Hardened,
    /// Not a kind of script.
    #[error("'{0}' is not a kind of script")]
    Script(String),
    /// Not between 1 and [`MAX_ADDRESSES`].
    #[error("{0} addresses: not between 1 and {MAX_ADDRESSES}")]
    Addresses(u32),
    /// More than [`MAX_ADDRESSES`] in the list.
    #[error("the list stands for more than {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
    /// Of another network.
    #[error("not of the network {0}")]
    Network(Network),
    /// Not a node id.
    #[error("'{0}' is not a node id")]
    NodeId(String),
    /// Not a time.
    #[error("not a time in UTC to the second")]
    Time,
    /// Listed before.
    #[error("the same is listed at {0}")]
    Duplicate(Place),
}

impl ListFault {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(_) => "Name the file with 1–32 of a-z, 0-9 and '-', starting with a letter, and .toml.",
            Self::TooLarge(_) | Self::TooManyEntries(_) => "Split the list, or list a descriptor instead of addresses.",
            Self::Syntax(_) => "A list has [[destination]], [[payee]] and [[peer]]; docs/policy/lists.md shows each.",
            Self::Label => "Say in a few words what it is.",
            Self::NotOne => "Write one [[destination]] for each.",
            Self::Needless(_) => {
                "Take it out: script goes with xpub, addresses with xpub and with descriptors that have *."
            }
            Self::Address(_) => "Compare the address with where it comes from.",
            Self::Descriptor => "Check it with `bitcoin-cli getdescriptorinfo`; it has public keys only.",
            Self::Xpub => "Write the key as xpub… or tpub…, and of others (ypub, zpub) the descriptor.",
            Self::PrivateKey => "Take it out, regard it as known to others, and list the public key.",
            Self::Hardened => "Derive hardened steps beforehand, and write the key with its origin.",
            Self::Script(_) => "Use one of: wpkh, tr, sh-wpkh, pkh.",
            Self::Addresses(_) | Self::TooManyAddresses => "List fewer addresses of each key.",
            Self::Network(_) => {
                "List addresses and keys of the network that the signer runs on; without a signer, --network says it."
            }
            Self::NodeId(_) => "Write the 33 bytes of the node's public key in lower-case hex.",
            Self::Time => "Write it as 2026-12-01T09:00:00Z.",
            Self::Duplicate(_) => "Leave one of the two.",
        }
    }
}
