//! The one message that is our own: preimages, which the hsmd messages never bring.
//!
//! LDK tells its signer the preimages of settled HTLCs with the commitment that no longer has them. `claviger-ldk` sends
//! those that are new right before that commitment: u16 type, u16 count, 32 bytes each, big endian. The answer is its
//! type alone.

use super::messages::Row;
use crate::reasons::{Reason, Refusal};

/// The message's number.
pub const NUMBER: u16 = 3000;
/// The reply's number.
pub const REPLY: u16 = 3100;

/// BOLT 2: 483 HTLCs in each direction.
const MOST: usize = 966;

/// The preimages of an encoded message. Refuses with `malformed`.
pub(super) fn decode(row: &Row, message: &[u8]) -> Result<Vec<[u8; 32]>, Refusal> {
    let malformed = |what: String| Refusal::new(Reason::Malformed, format!("{} ({}): {what}", row.name, row.number));
    let count = message.get(2..4).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let count = usize::from(count.ok_or_else(|| malformed("there is no count".to_owned()))?);
    if count > MOST {
        return Err(malformed(format!("{count} preimages; at most {MOST} are read")));
    }
    let (preimages, rest) = message[4..].as_chunks::<32>();
    if preimages.len() != count || !rest.is_empty() {
        return Err(malformed(format!("{count} preimages in {} bytes", message.len())));
    }
    Ok(preimages.to_vec())
}

/// The encoded reply.
pub(super) fn reply() -> Vec<u8> {
    REPLY.to_be_bytes().to_vec()
}
