//! Tells the signer the preimages of settled HTLCs: it lets no payment go to the peer without.
//!
//! hsmd has no message for them; this one is Claviger's own: u16 type, u16 count, 32 bytes each, big endian. The reply is
//! its type alone.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use lightning::types::payment::PaymentPreimage;
use vls_protocol::msgs::SerBolt;

use super::ClavigerSigner;
use crate::call::Reply;

const LEARN_PREIMAGES: u16 = 3000;
const LEARN_PREIMAGES_REPLY: u16 = 3100;

/// What the signer knows already, of what LDK still tells: LDK repeats a preimage with every commitment until both sides
/// have removed its HTLC.
#[derive(Default)]
pub(super) struct Told(Mutex<HashSet<[u8; 32]>>);

#[derive(Debug)]
struct LearnPreimages(Vec<[u8; 32]>);

struct LearnPreimagesReply;

impl ClavigerSigner {
    /// Before the commitment that no longer has their HTLCs: sends those that are new, if there are any. `patiently`:
    /// waits for a signer that is away.
    pub(super) fn tell_preimages(
        &self,
        preimages: impl Iterator<Item = PaymentPreimage>,
        patiently: bool,
    ) -> Result<(), ()> {
        let mut told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current: HashSet<[u8; 32]> = preimages.map(|preimage| preimage.0).collect();
        let new: Vec<[u8; 32]> = current.difference(&told).copied().collect();
        if !new.is_empty() {
            let request = LearnPreimages(new);
            let reply = match patiently {
                true => self.caller.call_patiently(Some(self.channel), &request),
                false => self.caller.call(Some(self.channel), &request),
            };
            reply.map(|_: LearnPreimagesReply| ()).map_err(|_| ())?;
        }
        // A holder commitment comes with the preimages of outgoing HTLCs alone.
        match patiently {
            true => told.extend(current),
            false => *told = current,
        }
        Ok(())
    }
}

impl SerBolt for LearnPreimages {
    fn as_vec(&self) -> Vec<u8> {
        // BOLT 2 allows 966 HTLCs in a channel.
        let count = self.0.len() as u16;
        let mut message = [LEARN_PREIMAGES.to_be_bytes(), count.to_be_bytes()].concat();
        message.extend(self.0.iter().flatten());
        message
    }

    fn name(&self) -> &'static str {
        "LearnPreimages"
    }
}

impl Reply for LearnPreimagesReply {
    fn decode(reply: Vec<u8>) -> Result<Self, String> {
        match reply == LEARN_PREIMAGES_REPLY.to_be_bytes() {
            true => Ok(Self),
            false => Err("not what it is answered with".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preimages_are_counted_and_follow_each_other() {
        let message = LearnPreimages(vec![[1; 32], [2; 32]]).as_vec();
        assert_eq!(message[..4], [0x0b, 0xb8, 0, 2]);
        assert_eq!(message[4..], [[1; 32], [2; 32]].concat());
        assert!(LearnPreimagesReply::decode(vec![0x0c, 0x1c]).is_ok());
        assert!(LearnPreimagesReply::decode(vec![0x0c, 0x1c, 0]).is_err());
    }
}
