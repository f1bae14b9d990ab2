//! Names that appear in keys, files and logs: checked once, when they are made.

use std::fmt;
use std::str::FromStr;

use crate::journal::HOUSE;

/// A node's name: 1–32 characters of `a-z 0-9 -`, starting with a letter. It is also the node's tenant in the journal,
/// so it is never that of the signer itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The text is not a node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a node name: use 1–32 of a-z, 0-9 and '-', starting with a letter, and not '{HOUSE}'")]
pub struct BadName(pub String);

impl NodeName {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let mut bytes = text.bytes();
        let good = text.len() <= 32
            && text != HOUSE
            && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good { Ok(Self(text.to_owned())) } else { Err(BadName(text.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node runs: decides the dialect it speaks and the messages it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// An LDK node with `claviger-ldk`.
    Ldk,
    /// Core Lightning with `claviger-hsmd`.
    Cln,
    /// A stock lnd with `remotesigner.enable`.
    Lnd,
    /// A Lightspark account with remote signing.
    Lightspark,
}

impl NodeKind {
    /// Whether its keys come from a BIP 32 master key, which has a chain code.
    pub fn has_chain_code(self) -> bool {
        matches!(self, Self::Lnd | Self::Lightspark)
    }

    /// Whether it follows the chain here.
    pub fn follows_chain(self) -> bool {
        matches!(self, Self::Ldk | Self::Cln)
    }
}

/// The text is not a kind of node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a kind of node: use ldk, cln, lnd or lightspark")]
pub struct BadKind(pub String);

impl FromStr for NodeKind {
    type Err = BadKind;

    fn from_str(text: &str) -> Result<Self, BadKind> {
        match text {
            "ldk" => Ok(Self::Ldk),
            "cln" => Ok(Self::Cln),
            "lnd" => Ok(Self::Lnd),
            "lightspark" => Ok(Self::Lightspark),
            _ => Err(BadKind(text.to_owned())),
        }
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ldk => "ldk",
            Self::Cln => "cln",
            Self::Lnd => "lnd",
            Self::Lightspark => "lightspark",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_not_called_as_the_signers_own_records_are() {
        for name in [HOUSE, "", "1a", "-a", "Alice", "a b", "a/b", &"a".repeat(33)] {
            assert_eq!(NodeName::new(name), Err(BadName(name.to_owned())));
        }
        for name in ["houses", "h", "a-1", &"a".repeat(32)] {
            assert_eq!(NodeName::new(name).map(String::from), Ok(name.to_owned()));
        }
    }
}
