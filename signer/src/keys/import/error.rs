//! Why an input gives no seed, and what to do about it.

use super::{Format, MAX_INPUT};
use crate::names::NodeKind;

/// Why an input gives no seed. Names positions and lengths, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Not the name of a format.
    #[error("the format is not ldk-seed, cln-hsm-secret, bip39, xprv, aezeed, lightspark-seed or lightspark-osk")]
    NoSuchFormat,
    /// The format belongs to nodes of another kind, which derive other keys from the same bytes.
    #[error("{0} does not make a node of kind {1}")]
    OtherKind(Format, NodeKind),
    /// Words that are not said to be, or no words where a mnemonic is expected.
    #[error("the input is not {0}")]
    OtherFormat(Format),
    /// More than `MAX_INPUT` bytes.
    #[error("the input is longer than {MAX_INPUT} bytes")]
    TooLong,
    /// Neither a seed nor words.
    #[error("{0} bytes that are neither a seed (32 bytes, or 64 hex digits) nor a mnemonic (12 to 24 words)")]
    UnknownFormat(usize),
    /// A passphrase was given, and the input is not a mnemonic.
    #[error("a mnemonic passphrase was given, but the input is not a mnemonic")]
    PassphraseUnused,
    /// BIP39 passphrases are text.
    #[error("the mnemonic passphrase is not UTF-8 text")]
    PassphraseNotText,
    /// Core Lightning's 73-byte encrypted `hsm_secret`.
    #[error("this hsm_secret is encrypted")]
    EncryptedHsmSecret,
    /// Core Lightning's `hsm_secret` that holds a mnemonic: 32 bytes before the words.
    #[error("this hsm_secret holds a mnemonic, from which Core Lightning derives keys by another scheme")]
    MnemonicHsmSecret,
    /// A mnemonic has 12, 15, 18, 21 or 24 words.
    #[error("{0} words are not a BIP39 mnemonic")]
    WordCount(usize),
    /// The word at this position, counted from 1, is not in the English list.
    #[error("word {0} is not in the English BIP39 word list")]
    UnknownWord(usize),
    /// Not the text of a BIP 32 private key, or not of a root.
    #[error("the input is no BIP 32 root key (xprv… or tprv…)")]
    NoRootKey,
    /// An aezeed has 24 words.
    #[error("{0} words are not an aezeed")]
    SeedWordCount(usize),
    /// An aezeed of a version that is not in use.
    #[error("the aezeed has version {0}, which is not known")]
    SeedVersion(u8),
    /// An aezeed does not open.
    #[error("the passphrase is not that of this aezeed")]
    SeedPassphrase,
    /// Not an encrypted operation signing key.
    #[error("the input is no encrypted operation signing key: JSON with encrypted_value, in base64, and cipher")]
    NoOperationKey,
    /// Its cipher is of no known version.
    #[error("the operation signing key has a cipher that is not known")]
    OperationKeyCipher,
    /// It asks for a computation that is too short or too long.
    #[error("the operation signing key takes {0} rounds of PBKDF2; 1 to 2000000 are computed")]
    Iterations(u32),
    /// It does not open.
    #[error("the node password is not that of this operation signing key")]
    NodePassword,
    /// It opens, and is something else.
    #[error("the operation signing key is no RSA key of 2048 to 4096 bits")]
    NoRsaKey,
    /// The words are known, but do not belong together.
    #[error("the mnemonic's checksum is wrong")]
    Checksum,
}

impl ImportError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong | Self::UnknownFormat(_) => {
                "Check that the right file was given; for LDK the seed that KeysManager is made from."
            }
            Self::NoSuchFormat | Self::OtherFormat(_) => "Say with --format what the file holds.",
            Self::OtherKind(..) => "Give the --kind of the node that the seed comes from.",
            Self::PassphraseUnused => "Leave the mnemonic passphrase out.",
            Self::PassphraseNotText => "Check that the right file was given.",
            Self::EncryptedHsmSecret => {
                "Decrypt a copy with `lightning-hsmtool decrypt` and import that, then destroy it."
            }
            Self::MnemonicHsmSecret => {
                "Add a new node without --import and move the funds to it; this one's keys stay where they are."
            }
            Self::WordCount(_) => "Enter all words of the mnemonic: 12, 15, 18, 21 or 24.",
            Self::UnknownWord(_) => "Check the spelling of that word.",
            Self::Checksum => "Check the words and their order.",
            Self::SeedWordCount(_) => "Enter all 24 words that lnd showed when the wallet was made.",
            Self::SeedVersion(_) => "Give the root key: --format xprv.",
            Self::SeedPassphrase => {
                "Give the cipher seed passphrase of the wallet, not its password, with --mnemonic-passphrase-fd; or none, if \
                 there was none."
            }
            Self::NoOperationKey | Self::OperationKeyCipher | Self::Iterations(_) | Self::NoRsaKey => {
                "Fetch it again: the field encrypted_signing_private_key of the node, in Lightspark's API."
            }
            Self::NodePassword => "Give the node password with --node-password-fd.",
            Self::NoRootKey => {
                "Give the root key itself, of depth 0: `chantools showrootkey` shows that of an lnd seed."
            }
        }
    }
}
