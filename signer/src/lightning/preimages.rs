//! The one message that is our own: preimages, which the hsmd messages never bring.
//!
//! LDK tells its signer the preimages of settled HTLCs with the commitment that no longer has them. `claviger-ldk` sends
//! those that are new right before that commitment: u16 type, u16 count, 32 bytes each, big endian. The answer is its
//! type alone.

use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

/// The message's number.
pub const NUMBER: u16 = 3000;
/// The reply's number.
pub const REPLY: u16 = 3100;

/// BOLT 2: 483 HTLCs in each direction.
const MOST: usize = 966;

/// The preimages of an encoded message that is laid out as the table says. Refuses with `malformed` if they are too many.
pub(super) fn decode(message: &[u8]) -> Result<Vec<[u8; 32]>, Refusal> {
    let (preimages, _) = message.get(4..).unwrap_or_default().as_chunks::<32>();
    if preimages.len() > MOST {
        let detail = format!("{} preimages; at most {MOST} are read", preimages.len());
        let fact = Fact::count("preimages", preimages.len() as u64).at_most(MOST as u64);
        return Err(Refusal::new(Reason::Malformed, detail).with_fact(fact));
    }
    Ok(preimages.to_vec())
}

/// The encoded reply.
pub(super) fn reply() -> Vec<u8> {
    REPLY.to_be_bytes().to_vec()
}
