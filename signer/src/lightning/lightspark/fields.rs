//! The fields of a JSON object as Lightspark writes them: ids, bytes in hex, times.

use std::collections::BTreeMap;

use super::event::EventError;
use super::json::Json;
use crate::calendar;

/// The longest id of an event, an entity, a job or an invoice, in bytes.
const MAX_ID_BYTES: usize = 128;

/// The fields of an object.
pub(super) struct Fields<'a>(pub(super) &'a BTreeMap<String, Json>);

impl<'a> Fields<'a> {
    pub(super) fn text(&self, name: &'static str) -> Result<&'a str, EventError> {
        self.maybe_text(name)?.ok_or(EventError::Field(name))
    }

    /// Absent, `null` and empty are the same to Lightspark.
    pub(super) fn maybe_text(&self, name: &'static str) -> Result<Option<&'a str>, EventError> {
        match self.0.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(text)) if text.is_empty() => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(EventError::Field(name)),
        }
    }

    /// An id, which becomes part of a record's key.
    pub(super) fn id(&self, name: &'static str) -> Result<String, EventError> {
        let text = self.text(name)?;
        let is_id = text.len() <= MAX_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if is_id { Ok(text.to_owned()) } else { Err(EventError::Field(name)) }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn maybe_number(&self, name: &'static str) -> Result<Option<u64>, EventError> {
        match self.0.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(_) => self.number(name).map(Some).ok_or(EventError::Field(name)),
        }
    }

    /// Empty if there are none.
    pub(super) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, EventError> {
        hex::decode(self.maybe_text(name)?.unwrap_or_default()).map_err(|_| EventError::Field(name))
    }

    pub(super) fn bytes32(&self, name: &'static str) -> Result<Option<[u8; 32]>, EventError> {
        let Some(text) = self.maybe_text(name)? else { return Ok(None) };
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| EventError::Field(name))?;
        Ok(Some(bytes))
    }
}

/// RFC 3339 in UTC, as milliseconds since the Unix epoch: `2024-06-05T04:28:45.171899+00:00`, the fraction optional.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let text = text.strip_suffix("+00:00").or_else(|| text.strip_suffix('Z'))?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let shape = whole.bytes().zip("dddd-dd-ddTdd:dd:dd".bytes());
    let fits = |(byte, expected): (u8, u8)| if expected == b'd' { byte.is_ascii_digit() } else { byte == expected };
    if whole.len() != 19 || !shape.into_iter().all(fits) || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let number = |from: usize, to: usize| whole[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = calendar::days(year, month, day)?;
    let milli = fraction.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{fraction:0<3}"))?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + milli[..3].parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-03-01T00:00:00.5Z", 951_868_800_500),
            ("2100-03-01T00:00:00.123456789+00:00", 4_107_542_400_123),
        ] {
            assert_eq!(milliseconds(text), Some(ms), "{text}");
        }
        for text in ["2024-06-05 04:28:45Z", "2024-06-05T04:28:45", "2024-06-05T24:00:00Z", "2024-06-05T04:28:45.+1Z"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
