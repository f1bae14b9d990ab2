//! What a decision compared, as data beside its words (P11): for programs, which must not have to read sentences.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A text value keeps at most so many characters.
const MAX_TEXT: usize = 200;

/// One thing that was looked at, and what it was held against, if anything. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is, in snake case.
    pub name: Cow<'static, str>,
    /// What it was.
    pub value: Value,
    /// What a number counts.
    #[serde(default, skip_serializing_if = "Unit::is_none")]
    pub unit: Unit,
    /// What would have passed, in the same unit; absent for what was only looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// A number or a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Counted in the fact's unit.
    Number(u64),
    /// A name, an id, a rule's tag.
    Text(String),
}

/// What a value is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// This or less passes.
    AtMost(Value),
    /// This or more passes.
    AtLeast(Value),
    /// Only this passes.
    Exactly(Value),
}

/// Declares the units: variant and how it is written.
macro_rules! units {
    ($( $variant:ident $text:literal; )*) => {
        /// What a number counts.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Unit {
            /// Things, or a plain number.
            #[default]
            #[serde(rename = "")]
            None,
            $( #[doc = $text] #[serde(rename = $text)] $variant, )*
        }

        impl Unit {
            /// How it is written; empty for a plain number.
            pub const fn text(self) -> &'static str {
                match self { Self::None => "", $( Self::$variant => $text, )* }
            }
        }
    };
}

units! {
    Sat "sat";
    Msat "msat";
    SatPerKw "sat/kw";
    Blocks "blocks";
    Seconds "s";
    Bytes "bytes";
}

impl Unit {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Fact {
    /// A number counted in `unit`.
    pub fn number(name: &'static str, value: u64, unit: Unit) -> Self {
        Self { name: name.into(), value: Value::Number(value), unit, limit: None }
    }

    /// An amount in msat as the channel book computes it; below zero counts as 0.
    pub fn msat(name: &'static str, value_msat: i128) -> Self {
        Self::number(name, clamped(value_msat), Unit::Msat)
    }

    /// A plain number: of things, of a commitment, a height.
    pub fn count(name: &'static str, value: u64) -> Self {
        Self::number(name, value, Unit::None)
    }

    /// A word. Cut at 200 characters.
    pub fn text(name: &'static str, value: impl Into<String>) -> Self {
        let mut text = value.into();
        if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
            text.truncate(end);
        }
        Self { name: name.into(), value: Value::Text(text), unit: Unit::None, limit: None }
    }

    /// What was compared with it: `limit` or less passes.
    #[must_use]
    pub fn at_most(self, limit: u64) -> Self {
        Self { limit: Some(Limit::AtMost(Value::Number(limit))), ..self }
    }

    /// The same for an amount in msat.
    #[must_use]
    pub fn at_most_msat(self, limit_msat: i128) -> Self {
        self.at_most(clamped(limit_msat))
    }

    /// What was compared with it: `limit` or more passes.
    #[must_use]
    pub fn at_least(self, limit: u64) -> Self {
        Self { limit: Some(Limit::AtLeast(Value::Number(limit))), ..self }
    }

    /// What was compared with it: only `wanted` passes.
    #[must_use]
    pub fn exactly(self, wanted: impl Into<Value>) -> Self {
        Self { limit: Some(Limit::Exactly(wanted.into())), ..self }
    }
}

/// What a `u64` holds of it.
fn clamped(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

impl Limit {
    /// The rule's stable name and the value.
    pub fn parts(&self) -> (&'static str, &Value) {
        match self {
            Self::AtMost(value) => ("at-most", value),
            Self::AtLeast(value) => ("at-least", value),
            Self::Exactly(value) => ("exactly", value),
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
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

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// `payment=1001 msat (at-most 1000)`, for a log line.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)?;
        if !self.unit.is_none() {
            write!(f, " {}", self.unit.text())?;
        }
        match &self.limit {
            Some(limit) => {
                let (rule, value) = limit.parts();
                write!(f, " ({rule} {value})")
            }
            None => Ok(()),
        }
    }
}

/// For the link and the administrator: numbers in decimal.
impl From<&Fact> for claviger_proto::v1::Fact {
    fn from(fact: &Fact) -> Self {
        let (rule, limit) =
            fact.limit.as_ref().map(Limit::parts).map_or(("", String::new()), |(r, v)| (r, v.to_string()));
        Self {
            name: fact.name.to_string(),
            value: fact.value.to_string(),
            unit: fact.unit.text().to_owned(),
            rule: rule.to_owned(),
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_the_same_after_it_was_stored() {
        let facts = [
            Fact::number("payment", 1_001, Unit::Msat).at_most(1_000),
            Fact::count("commitment_number", 7).exactly(8),
            Fact::text("rule", "policy-other"),
            Fact::text("network", "signet").exactly("regtest"),
        ];
        let json = serde_json::to_string(&facts).expect("plain data");
        assert_eq!(serde_json::from_str::<Vec<Fact>>(&json).expect("the same"), facts);
        let first = r#"{"name":"payment","value":1001,"unit":"msat","limit":{"at_most":1000}}"#;
        assert!(json.starts_with(&format!("[{first},")), "{json}");
        assert_eq!(facts[0].to_string(), "payment=1001 msat (at-most 1000)");
    }

    #[test]
    fn a_long_word_is_cut() {
        let fact = Fact::text("peer", "é".repeat(5_000));
        assert_eq!(fact.value, Value::Text("é".repeat(MAX_TEXT)));
    }
}
