//! What a fact may be: a number, a text, a flag, or several texts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All bitcoin there can be, in msat. No number is larger, so that sums of four numbers fit Cedar's 64-bit integers.
pub const MAX_MONEY_MSAT: u64 = 2_100_000_000_000_000_000;

/// A fact's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// In the fact's unit, at most [`MAX_MONEY_MSAT`].
    Number(#[serde(deserialize_with = "clamped")] u64),
    /// Yes or no.
    Flag(bool),
    /// A name, a key, a hash.
    Text(String),
    /// Several of them, in the order they came.
    Texts(Vec<String>),
}

impl Value {
    /// The longest text, in bytes.
    pub const MAX_TEXT: usize = 1_024;
    /// The most texts in one value.
    pub const MAX_TEXTS: usize = 256;

    /// A number; more than all money counts as [`MAX_MONEY_MSAT`].
    pub fn number(number: u64) -> Self {
        Self::Number(number.min(MAX_MONEY_MSAT))
    }

    /// Whether it is within the bounds of this page.
    pub fn fits(&self) -> bool {
        match self {
            Self::Number(number) => *number <= MAX_MONEY_MSAT,
            Self::Flag(_) => true,
            Self::Text(text) => text.len() <= Self::MAX_TEXT,
            Self::Texts(texts) => {
                texts.len() <= Self::MAX_TEXTS && texts.iter().all(|text| text.len() <= Self::MAX_TEXT)
            }
        }
    }
}

fn clamped<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    u64::deserialize(from).map(|number| number.min(MAX_MONEY_MSAT))
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(text),
            Self::Texts(texts) => f.write_str(&texts.join(", ")),
        }
    }
}
