//! The files of a bundle: which there are, how large they may be, and the hash over names and contents.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::names::is_name;

/// The most files of a bundle.
pub const MAX_FILES: usize = 256;
/// The largest file, in bytes: whoever reads one reads at most a byte more.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// All files together, in bytes: a bundle is one entry of the journal.
pub const MAX_BUNDLE_BYTES: usize = 8 << 20;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 100;

const POLICY: &str = "policy.toml";
const ALLOWED_SIGNERS: &str = "allowed_signers";

/// What a file of a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `policy.toml`.
    Policy,
    /// `NAME.cedar`.
    Rules,
    /// `NAME.test.toml`.
    Tests,
    /// `lists/NAME.toml`.
    List,
    /// `allowed_signers`.
    AllowedSigners,
    /// `signatures/NAME.sig`: over the hash of all others, and no part of it.
    Signature,
}

impl Part {
    /// What the file `name` is; the parts of a path are separated by `/`.
    ///
    /// `None` for what is no part of a bundle and is passed over, as `README.md`. A name that is nearly one of a part, as
    /// `rules/night.cedar`, is an error: a rule that is silently left out would be worse than one that is missing.
    pub fn of(name: &str) -> Result<Option<Self>, FilesError> {
        let astray = || FilesError::Astray(shortened(name));
        let part = match name.split_once('/') {
            None if name == POLICY => Part::Policy,
            None if name == ALLOWED_SIGNERS => Part::AllowedSigners,
            None => match (name.strip_suffix(".cedar"), name.strip_suffix(".test.toml")) {
                (Some(stem), _) if is_name(stem) => Part::Rules,
                (_, Some(stem)) if is_name(stem) => Part::Tests,
                _ if name.ends_with(".cedar") || name.ends_with(".toml") => return Err(astray()),
                _ => return Ok(None),
            },
            Some(("lists", file)) if file.strip_suffix(".toml").is_some_and(is_name) => Part::List,
            Some(("signatures", file)) if file.strip_suffix(".sig").is_some_and(is_name) => Part::Signature,
            Some(("lists" | "signatures", _)) => return Err(astray()),
            Some(_) if name.ends_with(".cedar") || name.ends_with(".toml") => return Err(astray()),
            Some(_) => return Ok(None),
        };
        Ok(Some(part))
    }
}

/// Why files are no bundle. What stands in them is checked by [`super::Bundle::parse`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// Nearly the name of a part.
    #[error("'{0}' is not where a bundle has such a file")]
    Astray(String),
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("the name '{0}' is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong(String),
    /// Two files of one name.
    #[error("'{0}' is there twice")]
    Twice(String),
    /// Longer than [`MAX_FILE_BYTES`].
    #[error("'{0}' has more than {MAX_FILE_BYTES} bytes")]
    FileTooLarge(String),
    /// Longer than [`MAX_BUNDLE_BYTES`] together.
    #[error("with '{0}' the bundle has more than {MAX_BUNDLE_BYTES} bytes")]
    BundleTooLarge(String),
    /// More than [`MAX_FILES`].
    #[error("with '{0}' the bundle has more than {MAX_FILES} files")]
    TooMany(String),
}

impl FilesError {
    /// The file it is about.
    pub fn file(&self) -> &str {
        match self {
            Self::Astray(name)
            | Self::NameTooLong(name)
            | Self::Twice(name)
            | Self::FileTooLarge(name)
            | Self::BundleTooLarge(name)
            | Self::TooMany(name) => name,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Astray(_) | Self::NameTooLong(_) => {
                "A bundle has policy.toml, NAME.cedar, NAME.test.toml, lists/NAME.toml, allowed_signers and \
                 signatures/NAME.sig; NAME is 1–32 of a-z, 0-9 and '-', starting with a letter."
            }
            Self::Twice(_) => "Leave one.",
            Self::FileTooLarge(_) => "Split the file; a descriptor in a list stands for many addresses.",
            Self::BundleTooLarge(_) | Self::TooMany(_) => "Leave out what is not used; join small files.",
        }
    }
}

/// The SHA-256 of a bundle. Its text is lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BundleHash(pub [u8; 32]);

impl BundleHash {
    /// The hash that is written as these 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        (Self(hash).to_string() == text).then_some(Self(hash))
    }
}

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleHash({self})")
    }
}

impl From<BundleHash> for String {
    fn from(hash: BundleHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for BundleHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a hash has 64 lower-case hex digits")
    }
}

/// Named contents, within the bounds of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    contents: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Files {
    /// Adds the file `name`, a path below the bundle's directory with `/` between its parts. What is no part of a bundle
    /// is passed over ([`Part::of`]); whether a file need be read at all can be asked there before.
    pub fn add(&mut self, name: &str, contents: Vec<u8>) -> Result<(), FilesError> {
        if name.len() > MAX_NAME_BYTES {
            return Err(FilesError::NameTooLong(shortened(name)));
        }
        if Part::of(name)?.is_none() {
            return Ok(());
        }
        let named = || name.to_owned();
        if contents.len() > MAX_FILE_BYTES {
            return Err(FilesError::FileTooLarge(named()));
        }
        if self.contents.len() == MAX_FILES {
            return Err(FilesError::TooMany(named()));
        }
        if self.bytes + contents.len() > MAX_BUNDLE_BYTES {
            return Err(FilesError::BundleTooLarge(named()));
        }
        if self.contents.contains_key(name) {
            return Err(FilesError::Twice(named()));
        }
        self.bytes += contents.len();
        self.contents.insert(named(), contents);
        Ok(())
    }

    /// The contents of the file `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.contents.get(name).map(Vec::as_slice)
    }

    /// The files of one kind, sorted by name.
    pub fn of(&self, part: Part) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().filter(move |(name, _)| Part::of(name) == Ok(Some(part)))
    }

    /// All files, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents.iter().map(|(name, contents)| (name.as_str(), contents.as_slice()))
    }

    /// The hash over names and contents of all files but the signatures. Each length goes before what it is of, so that
    /// nothing can be moved between a name, its contents and the next file.
    pub fn hash(&self) -> BundleHash {
        let mut digest = Sha256::new_with_prefix(b"claviger bundle\0");
        for (name, contents) in self.iter().filter(|(name, _)| Part::of(name) != Ok(Some(Part::Signature))) {
            for bytes in [name.as_bytes(), contents] {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
        BundleHash(digest.finalize().into())
    }
}

/// What is quoted of a name of any length.
fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME_BYTES).flat_map(char::escape_debug).collect()
}
