//! Byte arrays as hex in JSON, for `#[serde(with = "hexed")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
    hex::encode(bytes).serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
    let mut bytes = [0; N];
    hex::decode_to_slice(String::deserialize(from)?, &mut bytes).map_err(de::Error::custom)?;
    Ok(bytes)
}
