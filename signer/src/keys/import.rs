//! Seeds of nodes that exist already: what `claviger node add --import` understands.
//!
//! The operator says what it is; content that is something else, and formats that cannot be taken over, are named with the
//! next step.

mod aez;
mod aezeed;
mod error;
mod osk;

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};
use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use lightning_signer::signer::derive::KeyDerivationStyle;
use zeroize::Zeroizing;

pub use self::error::ImportError;
use super::memory::{Secret, scrubbed};
use super::rsa::RsaKey;
use crate::names::NodeKind;

/// The longest input: 24 words with room to spare, in bytes.
pub const MAX_INPUT: usize = 1024;
/// The same of an encrypted RSA key.
const MAX_OSK: usize = 8_192;

/// What an input is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32 bytes or 64 hex digits, as LDK's `KeysManager` takes them; also the 64 bytes of ldk-node's `keys_seed`.
    LdkSeed,
    /// Core Lightning's `hsm_secret` of 32 bytes.
    ClnHsmSecret,
    /// A BIP39 mnemonic, for LDK, Core Lightning and Lightspark.
    Bip39,
    /// A BIP 32 root key, `xprv…` or `tprv…`, for lnd.
    Xprv,
    /// The 24 words of an lnd's seed.
    Aezeed,
    /// 16, 32 or 64 bytes in hex: a Lightspark account's `MASTER_SEED_HEX`.
    LightsparkSeed,
    /// A Lightspark account's operation signing key, encrypted with the node password.
    LightsparkOsk,
}

impl FromStr for Format {
    type Err = ImportError;

    fn from_str(text: &str) -> Result<Self, ImportError> {
        match text {
            "ldk-seed" => Ok(Self::LdkSeed),
            "cln-hsm-secret" => Ok(Self::ClnHsmSecret),
            "bip39" => Ok(Self::Bip39),
            "xprv" => Ok(Self::Xprv),
            "aezeed" => Ok(Self::Aezeed),
            "lightspark-seed" => Ok(Self::LightsparkSeed),
            "lightspark-osk" => Ok(Self::LightsparkOsk),
            _ => Err(ImportError::NoSuchFormat),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LdkSeed => "an LDK seed",
            Self::ClnHsmSecret => "an hsm_secret",
            Self::Bip39 => "a mnemonic",
            Self::Xprv => "a BIP 32 root key",
            Self::Aezeed => "an aezeed",
            Self::LightsparkSeed => "a Lightspark seed (16, 32 or 64 bytes in hex)",
            Self::LightsparkOsk => "an encrypted operation signing key",
        })
    }
}

/// The seed of a node and how its keys follow from it.
#[derive(Debug)]
pub struct ImportedSeed {
    /// The seed.
    pub seed: Secret<32>,
    /// The derivation of the implementation it comes from.
    pub style: Derivation,
    /// For lnd and Lightspark: the seed is a BIP 32 master key, and this is its chain code.
    pub chain_code: Option<Secret<32>>,
    /// For a Lightspark account without remote signing, whose seed is a new one that nothing is signed with.
    pub operations_key: Option<RsaKey>,
}

/// How a node's keys are derived from its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Derivation {
    /// As Core Lightning derives them from `hsm_secret`; also that of seeds made here.
    Native,
    /// As LDK's `KeysManager` derives them.
    Ldk,
}

impl From<Derivation> for KeyDerivationStyle {
    fn from(derivation: Derivation) -> Self {
        match derivation {
            Derivation::Native => Self::Native,
            Derivation::Ldk => Self::Ldk,
        }
    }
}

/// The seed in `input`, which is said to be of `format`, for a node of `kind`. `passphrase` belongs to a mnemonic, and is
/// empty if there is none.
///
/// A mnemonic becomes a seed as the node's own software does it: for LDK as ldk-node (the private key of the BIP32
/// master key), for Core Lightning as `hsmtool generatehsm` (the first 32 bytes of the BIP39 seed).
pub fn import(kind: NodeKind, format: Format, input: &[u8], passphrase: &str) -> Result<ImportedSeed, ImportError> {
    if format == Format::LightsparkOsk {
        if kind != NodeKind::Lightspark {
            return Err(ImportError::OtherKind(format, kind));
        }
        if input.len() > MAX_OSK {
            return Err(ImportError::TooLong);
        }
        let key = scrubbed(|| osk::open(input, passphrase))?;
        return Ok(ImportedSeed { operations_key: Some(key), ..new_root_key() });
    }
    if input.len() > MAX_INPUT {
        return Err(ImportError::TooLong);
    }
    if (kind, format) == (NodeKind::Lnd, Format::Xprv) {
        return scrubbed(|| from_root_key(input, passphrase));
    }
    if (kind, format) == (NodeKind::Lnd, Format::Aezeed) {
        let words = words(input).ok_or(ImportError::OtherFormat(format))?;
        return scrubbed(|| from_bip32_root(aezeed::open(&words, passphrase)?.as_slice()));
    }
    if kind == NodeKind::Lightspark {
        return scrubbed(|| for_lightspark(format, input, passphrase));
    }
    let style = match (kind, format) {
        (NodeKind::Ldk, Format::LdkSeed | Format::Bip39) => Derivation::Ldk,
        (NodeKind::Cln, Format::ClnHsmSecret | Format::Bip39) => Derivation::Native,
        _ => return Err(ImportError::OtherKind(format, kind)),
    };
    let seed = match (format, words(input)) {
        (Format::Bip39, Some(words)) => scrubbed(|| from_mnemonic(kind, &words, passphrase))?,
        (Format::Bip39, None) | (_, Some(_)) => return Err(ImportError::OtherFormat(format)),
        _ if !passphrase.is_empty() => return Err(ImportError::PassphraseUnused),
        _ => from_bytes(kind, input)?,
    };
    Ok(ImportedSeed { seed, style, chain_code: None, operations_key: None })
}

/// Fresh keys for an lnd node: a BIP 32 master key.
pub fn new_root_key() -> ImportedSeed {
    scrubbed(|| {
        let seed = Secret::<32>::random();
        let mut master = seed.expose(|seed| Xpriv::new_master(Network::Bitcoin, seed)).expect("fails 1 in 2^127");
        root_key(&mut master)
    })
}

/// A Lightspark account's master key: from its seed, or from its mnemonic.
fn for_lightspark(format: Format, input: &[u8], passphrase: &str) -> Result<ImportedSeed, ImportError> {
    let seed = match (format, words(input)) {
        (Format::Bip39, Some(words)) => Zeroizing::new(parse_mnemonic(&words)?.to_seed(passphrase).to_vec()),
        (Format::LightsparkSeed, None) if passphrase.is_empty() => {
            let digits = input.trim_ascii();
            let mut seed = Zeroizing::new(vec![0; digits.len() / 2]);
            let is_hex = hex::decode_to_slice(digits, &mut seed).is_ok();
            if !is_hex || !matches!(seed.len(), 16 | 32 | 64) {
                return Err(ImportError::OtherFormat(format));
            }
            seed
        }
        (Format::LightsparkSeed, None) => return Err(ImportError::PassphraseUnused),
        (Format::Bip39 | Format::LightsparkSeed, _) => return Err(ImportError::OtherFormat(format)),
        _ => return Err(ImportError::OtherKind(format, NodeKind::Lightspark)),
    };
    from_bip32_root(&seed)
}

/// BIP 32's master key of this seed, with its chain code.
fn from_bip32_root(seed: &[u8]) -> Result<ImportedSeed, ImportError> {
    let mut master = Xpriv::new_master(Network::Bitcoin, seed).map_err(|_| ImportError::UnknownFormat(seed.len()))?;
    Ok(root_key(&mut master))
}

fn from_root_key(input: &[u8], passphrase: &str) -> Result<ImportedSeed, ImportError> {
    let text = std::str::from_utf8(input).map_err(|_| ImportError::NoRootKey)?;
    let mut master: Xpriv = text.trim_ascii().parse().map_err(|_| ImportError::NoRootKey)?;
    let imported = match (master.depth, passphrase.is_empty()) {
        (0, true) => Ok(root_key(&mut master)),
        (0, false) => Err(ImportError::PassphraseUnused),
        _ => Err(ImportError::NoRootKey),
    };
    master.private_key.non_secure_erase();
    imported
}

/// Takes the key out of `master`.
fn root_key(master: &mut Xpriv) -> ImportedSeed {
    let seed = Secret::init(|out| out.copy_from_slice(&master.private_key[..]));
    let chain_code = Secret::init(|out| out.copy_from_slice(master.chain_code.as_bytes()));
    master.private_key.non_secure_erase();
    ImportedSeed { seed, style: Derivation::Native, chain_code: Some(chain_code), operations_key: None }
}

/// The input as words in lower case with single spaces, if it is text of several words.
fn words(input: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(input).ok()?.trim_ascii();
    let is_words =
        text.contains([' ', '\n']) && text.bytes().all(|b| b.is_ascii_alphabetic() || b.is_ascii_whitespace());
    is_words.then(|| {
        let mut words = Zeroizing::new(String::with_capacity(text.len() + 1));
        for word in text.split_ascii_whitespace() {
            words.push_str(word);
            words.push(' ');
        }
        words.pop();
        words.make_ascii_lowercase();
        words
    })
}

fn from_mnemonic(kind: NodeKind, words: &str, passphrase: &str) -> Result<Secret<32>, ImportError> {
    let seed = Zeroizing::new(parse_mnemonic(words)?.to_seed(passphrase));
    match kind {
        NodeKind::Ldk => from_bip32_seed(seed.as_slice()),
        _ => Ok(Secret::init(|out| out.copy_from_slice(&seed[..32]))),
    }
}

fn parse_mnemonic(words: &str) -> Result<Mnemonic, ImportError> {
    Mnemonic::parse_in(Language::English, words).map_err(|error| match error {
        bip39::Error::BadWordCount(count) => ImportError::WordCount(count),
        bip39::Error::UnknownWord(at) => ImportError::UnknownWord(at + 1),
        _ => ImportError::Checksum,
    })
}

fn from_bytes(kind: NodeKind, input: &[u8]) -> Result<Secret<32>, ImportError> {
    let digits = input.trim_ascii();
    if let Ok(seed) = Secret::try_init(|out: &mut [u8; 32]| hex::decode_to_slice(digits, out)) {
        return Ok(seed);
    }
    match (kind, input.len()) {
        (_, 32) => Ok(Secret::init(|out| out.copy_from_slice(input))),
        // ldk-node's `keys_seed` file.
        (NodeKind::Ldk, 64) => scrubbed(|| from_bip32_seed(input)),
        (NodeKind::Cln, 73) => Err(ImportError::EncryptedHsmSecret),
        (NodeKind::Cln, 33..) if words(&input[32..]).is_some() => Err(ImportError::MnemonicHsmSecret),
        (_, len) => Err(ImportError::UnknownFormat(len)),
    }
}

/// The private key of the BIP32 master key that belongs to `seed`.
fn from_bip32_seed(seed: &[u8]) -> Result<Secret<32>, ImportError> {
    // The network only marks the key's text form. A seed without a master key does not occur (1 in 2^127).
    let mut master =
        Xpriv::new_master(Network::Bitcoin, seed).map_err(|_| ImportError::UnknownFormat(seed.len()))?.private_key;
    let secret = Secret::init(|out| out.copy_from_slice(&master[..]));
    master.non_secure_erase();
    Ok(secret)
}

#[cfg(test)]
mod tests;
