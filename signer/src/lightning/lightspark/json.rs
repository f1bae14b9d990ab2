//! JSON, read strictly: bounded in size and depth, no key twice in an object, no number that other readers would round.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The largest text that is read, in bytes: a batch of jobs carries a transaction in each.
pub const MAX_BYTES: usize = 1 << 20;
/// Objects and lists in each other. Lightspark's events have four.
const MAX_DEPTH: usize = 16;
/// Beyond it, readers that know floating-point numbers alone see another one.
const MAX_NUMBER: u64 = 1 << 53;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// From 0 to 2⁵³.
    Number(u64),
    /// A negative number down to −2⁵³, or one with a fraction or an exponent: nothing that is judged has any.
    OtherNumber,
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// More than [`MAX_BYTES`].
    #[error("the text is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Objects and lists in each other.
    #[error("values are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Readers differ in which of the two they take.
    #[error("a key stands twice in an object")]
    DuplicateKey,
    /// Readers differ in what they make of it.
    #[error("a number is beyond 2^53")]
    NumberTooLarge,
    /// Not JSON.
    #[error("the text is not JSON")]
    Syntax,
}

/// Reads `text`.
pub(super) fn parse(text: &[u8]) -> Result<Json, JsonError> {
    read(text, false)
}

/// Reads `text`, in which numbers beyond 2⁵³ are [other ones](Json::OtherNumber).
pub(super) fn parse_large(text: &[u8]) -> Result<Json, JsonError> {
    read(text, true)
}

fn read(text: &[u8], is_large: bool) -> Result<Json, JsonError> {
    if text.len() > MAX_BYTES {
        return Err(JsonError::TooLong);
    }
    let cause = Cell::new(JsonError::Syntax);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Reading { depth: 0, is_large, cause: &cause }.deserialize(&mut reader).map_err(|_| cause.get())?;
    reader.end().map_err(|_| JsonError::Syntax)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    depth: usize,
    /// Whether large numbers are left alone.
    is_large: bool,
    cause: &'a Cell<JsonError>,
}

impl Reading<'_> {
    fn fail<E: serde::de::Error>(self, cause: JsonError) -> E {
        self.cause.set(cause);
        E::custom(cause)
    }

    fn other<E: serde::de::Error>(self, is_small: bool) -> Result<Json, E> {
        if is_small || self.is_large { Ok(Json::OtherNumber) } else { Err(self.fail(JsonError::NumberTooLarge)) }
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(JsonError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Json, E> {
        if value <= MAX_NUMBER { Ok(Json::Number(value)) } else { self.other(false) }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Json, E> {
        self.other(value.unsigned_abs() <= MAX_NUMBER)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        self.other(value.abs() <= MAX_NUMBER as f64)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let (deeper, mut values) = (self.deeper()?, Vec::new());
        while let Some(value) = list.next_element_seed(deeper)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let (deeper, mut values) = (self.deeper()?, BTreeMap::new());
        while let Some(key) = object.next_key::<String>()? {
            if values.insert(key, object.next_value_seed(deeper)?).is_some() {
                return Err(self.fail(JsonError::DuplicateKey));
            }
        }
        Ok(Json::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_refused_for_their_reason_and_their_twins_pass() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        let text = |len: usize| format!("\"{}\"", "a".repeat(len - 2)).into_bytes();
        for (hostile, why, honest) in [
            (text(MAX_BYTES + 1), JsonError::TooLong, text(MAX_BYTES)),
            (nested(MAX_DEPTH + 1), JsonError::TooDeep, nested(MAX_DEPTH)),
            (nested(100_000), JsonError::TooDeep, nested(1)),
            (br#"{"a":{"b":1,"b":1}}"#.to_vec(), JsonError::DuplicateKey, br#"{"a":{"b":1},"b":1}"#.to_vec()),
            // The same key, written in another way.
            (br#"{"a":1,"\u0061":1}"#.to_vec(), JsonError::DuplicateKey, br#"{"a":1,"\u0062":1}"#.to_vec()),
            (b"9007199254740993".to_vec(), JsonError::NumberTooLarge, b"9007199254740992".to_vec()),
            (b"-9007199254740993".to_vec(), JsonError::NumberTooLarge, b"-1".to_vec()),
            (b"1e300".to_vec(), JsonError::NumberTooLarge, b"1e3".to_vec()),
            (b"1 2".to_vec(), JsonError::Syntax, b"1 ".to_vec()),
            (b"{'a':1}".to_vec(), JsonError::Syntax, b"{\"a\":1}".to_vec()),
            (b"\"\xff\"".to_vec(), JsonError::Syntax, "\"ÿ\"".as_bytes().to_vec()),
            (b"".to_vec(), JsonError::Syntax, b"null".to_vec()),
        ] {
            assert_eq!(parse(&hostile), Err(why), "{}", String::from_utf8_lossy(&hostile[..hostile.len().min(40)]));
            assert!(parse(&honest).is_ok(), "{}", String::from_utf8_lossy(&honest[..honest.len().min(40)]));
        }
    }
}
