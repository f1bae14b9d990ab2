//! Seeds of nodes that exist already: what `claviger node add --import` understands.
//!
//! The operator says what it is; content that is something else, and formats that cannot be taken over, are named with the
//! next step.

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};
use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use lightning_signer::signer::derive::KeyDerivationStyle;
use zeroize::Zeroizing;

use super::memory::{Secret, scrubbed};
use crate::names::NodeKind;

/// The longest input: 24 words with room to spare, in bytes.
pub const MAX_INPUT: usize = 1024;

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
    /// 16, 32 or 64 bytes in hex: a Lightspark account's `MASTER_SEED_HEX`.
    LightsparkSeed,
}

impl FromStr for Format {
    type Err = ImportError;

    fn from_str(text: &str) -> Result<Self, ImportError> {
        match text {
            "ldk-seed" => Ok(Self::LdkSeed),
            "cln-hsm-secret" => Ok(Self::ClnHsmSecret),
            "bip39" => Ok(Self::Bip39),
            "xprv" => Ok(Self::Xprv),
            "lightspark-seed" => Ok(Self::LightsparkSeed),
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
            Self::LightsparkSeed => "a Lightspark seed (16, 32 or 64 bytes in hex)",
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

/// Why an input gives no seed. Names positions and lengths, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Not the name of a format.
    #[error("the format is not ldk-seed, cln-hsm-secret, bip39, xprv or lightspark-seed")]
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
            Self::NoRootKey => {
                "Give the root key itself, of depth 0: `chantools showrootkey` shows that of an lnd seed."
            }
        }
    }
}

/// The seed in `input`, which is said to be of `format`, for a node of `kind`. `passphrase` belongs to a mnemonic, and is
/// empty if there is none.
///
/// A mnemonic becomes a seed as the node's own software does it: for LDK as ldk-node (the private key of the BIP32
/// master key), for Core Lightning as `hsmtool generatehsm` (the first 32 bytes of the BIP39 seed).
pub fn import(kind: NodeKind, format: Format, input: &[u8], passphrase: &str) -> Result<ImportedSeed, ImportError> {
    if input.len() > MAX_INPUT {
        return Err(ImportError::TooLong);
    }
    if (kind, format) == (NodeKind::Lnd, Format::Xprv) {
        return scrubbed(|| from_root_key(input, passphrase));
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
    Ok(ImportedSeed { seed, style, chain_code: None })
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
    let mut master = Xpriv::new_master(Network::Bitcoin, &seed).map_err(|_| ImportError::UnknownFormat(seed.len()))?;
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
    ImportedSeed { seed, style: Derivation::Native, chain_code: Some(chain_code) }
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
mod tests {
    use lightning::sign::{KeysManager, NodeSigner, Recipient};
    use lightning::util::ser::Writeable;

    use super::*;

    /// The first vector of BIP39 with the passphrase TREZOR: its seed and its BIP32 master key.
    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    const SEED: &str = "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04";
    const MASTER: &str = "xprv9s21ZrQH143K3h3fDYiay8mocZ3afhfULfb5GX8kCBdno77K4HiA15Tg23wpbeF1pLfs1c5SPmYHrEpTuuRhxMwvKDwqdKiGJS9XFKzUsAF";

    /// What the input looks like.
    fn format(kind: NodeKind, input: &[u8]) -> Format {
        match kind {
            _ if words(input).is_some() => Format::Bip39,
            NodeKind::Ldk => Format::LdkSeed,
            NodeKind::Cln => Format::ClnHsmSecret,
            NodeKind::Lnd => Format::Xprv,
            NodeKind::Lightspark => Format::LightsparkSeed,
        }
    }

    fn seed(kind: NodeKind, input: &[u8], passphrase: &str) -> Result<String, ImportError> {
        import(kind, format(kind, input), input, passphrase)
            .map(|imported| imported.seed.expose(|seed| hex::encode(seed)))
    }

    fn master_key() -> String {
        MASTER.parse::<Xpriv>().expect("an xprv").private_key.display_secret().to_string()
    }

    #[test]
    fn a_seed_is_taken_as_bytes_or_hex_for_both_kinds() {
        let bytes: [u8; 32] = std::array::from_fn(|at| 255 - at as u8);
        let hex = hex::encode(bytes);
        for kind in [NodeKind::Ldk, NodeKind::Cln] {
            assert_eq!(seed(kind, &bytes, ""), Ok(hex.clone()));
            assert_eq!(seed(kind, format!(" {}\n", hex.to_uppercase()).as_bytes(), ""), Ok(hex.clone()));
        }
        let style = |kind| import(kind, format(kind, &bytes), &bytes, "").map(|imported| imported.style);
        assert_eq!([NodeKind::Ldk, NodeKind::Cln].map(style), [Ok(Derivation::Ldk), Ok(Derivation::Native)]);
    }

    #[test]
    fn an_input_is_what_it_is_said_to_be_or_refused() {
        use Format::{Bip39, ClnHsmSecret, LdkSeed};
        let refused = |kind, format, input: &[u8]| import(kind, format, input, "").map(|_| ()).expect_err("refused");
        // The same bytes make other keys in a node of another kind.
        assert_eq!(refused(NodeKind::Ldk, ClnHsmSecret, &[7; 32]), ImportError::OtherKind(ClnHsmSecret, NodeKind::Ldk));
        assert_eq!(refused(NodeKind::Cln, LdkSeed, &[7; 32]), ImportError::OtherKind(LdkSeed, NodeKind::Cln));
        assert_eq!(refused(NodeKind::Ldk, Bip39, &[7; 32]), ImportError::OtherFormat(Bip39));
        assert_eq!(refused(NodeKind::Ldk, LdkSeed, WORDS.as_bytes()), ImportError::OtherFormat(LdkSeed));
        assert_eq!("seed".parse::<Format>(), Err(ImportError::NoSuchFormat));
    }

    #[test]
    fn a_root_key_is_taken_for_lnd_and_nothing_that_is_derived_from_one() {
        let master: Xpriv = MASTER.parse().expect("an xprv");
        let imported = import(NodeKind::Lnd, Format::Xprv, MASTER.as_bytes(), "").expect("a root key");
        assert_eq!(imported.seed.expose(|seed| *seed), master.private_key.secret_bytes());
        assert_eq!(imported.chain_code.expect("there").expose(|code| *code), master.chain_code.to_bytes());
        let child = master.derive_priv(&secp256k1::Secp256k1::new(), &[0u32.into()]).expect("derives").to_string();
        for no_root in [child.as_bytes(), &MASTER.as_bytes()[..100], &[7; 32]] {
            assert_eq!(import(NodeKind::Lnd, Format::Xprv, no_root, "").err(), Some(ImportError::NoRootKey));
        }
        let other = import(NodeKind::Ldk, Format::Xprv, MASTER.as_bytes(), "").err();
        assert_eq!(other, Some(ImportError::OtherKind(Format::Xprv, NodeKind::Ldk)));
    }

    #[test]
    fn a_lightspark_seed_makes_the_master_key_that_bip32_makes_of_it() {
        // The first vector of BIP 32, and the mnemonic's own.
        let key = |format, input: &[u8]| {
            let imported = import(NodeKind::Lightspark, format, input, "")?;
            Ok(imported.seed.expose(|seed| hex::encode(seed)))
        };
        let first = "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35".to_owned();
        assert_eq!(key(Format::LightsparkSeed, b"000102030405060708090a0b0c0d0e0f\n"), Ok(first));
        assert!(key(Format::Bip39, WORDS.as_bytes()).is_ok());
        for wrong in [&[7; 32][..], &[b'0'; 62], b"", WORDS.as_bytes()] {
            let refused = ImportError::OtherFormat(Format::LightsparkSeed);
            assert_eq!(key(Format::LightsparkSeed, wrong), Err(refused));
        }
        let other = ImportError::OtherKind(Format::LdkSeed, NodeKind::Lightspark);
        assert_eq!(key(Format::LdkSeed, &[7; 32]), Err(other));
    }

    #[test]
    fn a_mnemonic_becomes_the_seed_its_own_software_makes_of_it() {
        assert_eq!(seed(NodeKind::Cln, WORDS.as_bytes(), "TREZOR"), Ok(SEED[..64].to_owned()));
        assert_eq!(seed(NodeKind::Ldk, WORDS.as_bytes(), "TREZOR"), Ok(master_key()));
        for typed in [format!("  {}\r\n", WORDS.to_uppercase().replace(' ', "  ")), WORDS.replace(' ', "\n")] {
            assert_eq!(seed(NodeKind::Ldk, typed.as_bytes(), "TREZOR"), Ok(master_key()));
        }
        assert_ne!(seed(NodeKind::Ldk, WORDS.as_bytes(), ""), Ok(master_key()));
    }

    #[test]
    fn the_seed_file_of_ldk_node_is_its_bip32_seed() {
        let file = hex::decode(SEED).expect("hex");
        assert_eq!(seed(NodeKind::Ldk, &file, ""), Ok(master_key()));
        assert_eq!(seed(NodeKind::Cln, &file, ""), Err(ImportError::UnknownFormat(64)));
    }

    #[test]
    fn an_imported_ldk_seed_keeps_its_node_id() {
        use lightning_signer::signer::derive::key_derive;
        let imported = import(NodeKind::Ldk, Format::LdkSeed, &[42; 32], "").expect("a seed");
        let (node_id, _) = imported.seed.expose(|seed| {
            key_derive(imported.style.into(), Network::Regtest).node_keys(seed, &secp256k1::Secp256k1::new())
        });
        let ldk = KeysManager::new(&[42; 32], 1, 2, true).get_node_id(Recipient::Node).expect("a node id");
        assert_eq!(node_id.serialize().to_vec(), ldk.encode());
    }

    #[test]
    fn formats_that_cannot_be_taken_over_are_named() {
        assert_eq!(seed(NodeKind::Cln, &[0x91; 73], ""), Err(ImportError::EncryptedHsmSecret));
        for prefix in [[0; 32], [0x91; 32]] {
            let file = [&prefix, WORDS.as_bytes()].concat();
            assert_eq!(seed(NodeKind::Cln, &file, ""), Err(ImportError::MnemonicHsmSecret));
        }
        for input in [&b""[..], b"x", &[1; 31], &[1; 33], &[1; 65], b"not a seed!", &[b'g'; 64]] {
            let kind = if input.len() == 64 { NodeKind::Cln } else { NodeKind::Ldk };
            assert_eq!(seed(kind, input, ""), Err(ImportError::UnknownFormat(input.len())));
        }
        assert_eq!(seed(NodeKind::Ldk, &[b'a'; MAX_INPUT + 1], ""), Err(ImportError::TooLong));
        assert_eq!(seed(NodeKind::Ldk, &[1; 32], "TREZOR"), Err(ImportError::PassphraseUnused));
    }

    #[test]
    fn mistakes_in_a_mnemonic_are_located_without_repeating_it() {
        let with = |from: &str, to: &str| seed(NodeKind::Ldk, WORDS.replace(from, to).as_bytes(), "");
        assert_eq!(with("about", "abuot"), Err(ImportError::UnknownWord(12)));
        assert_eq!(with("about", "abandon"), Err(ImportError::Checksum));
        assert_eq!(with(" about", ""), Err(ImportError::WordCount(11)));
        let shown = with("about", "abuot").map_err(|error| error.to_string()).expect_err("unknown");
        assert!(!shown.contains("abuot"));
    }
}
