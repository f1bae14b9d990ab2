//! BOLT 7: announcements and updates are parsed before they are signed, and are about this node, its channel and its
//! chain (P2).
//!
//! What is signed with the node key is the double SHA-256 of the message behind its signatures; an announcement is also
//! signed with the funding key, whose other signatures are on BIP 143 preimages, hashed the same way. So bytes that could
//! be read as something else must not get a signature here:
//!
//! - the preimage of a spend of the funding output has 228 bytes, and no announcement with at most
//!   [`MAX_CHANNEL_FEATURES`] bytes of features is as long;
//! - an update starts with the hash of our genesis block, which as a length of features exceeds both bounds here;
//! - "Lightning Signed Message:" does so too (see `tags`).

use std::sync::PoisonError;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use lightning_signer::channel::{Channel, ChannelBase, ChannelId, ChannelSlot};
use lightning_signer::node::Node;
use lightning_signer::wallet::Wallet;
use vls_protocol::msgs::Message;

use super::layout::{array, take};
use crate::facts::{Fact, Unit};
use crate::lightning::refusals;
use crate::names::NodeKind;
use crate::pipeline::ChannelRef;
use crate::reasons::{Reason, Refusal};

/// Bytes of features in a channel announcement. BOLT 9 has yet to define any for it.
pub(super) const MAX_CHANNEL_FEATURES: usize = 32;
/// Bytes of features in a node announcement: four times the highest bit in use.
pub(super) const MAX_NODE_FEATURES: usize = 1_024;

/// Message types of BOLT 7.
const CHANNEL_ANNOUNCEMENT: u16 = 256;
const NODE_ANNOUNCEMENT: u16 = 257;
const CHANNEL_UPDATE: u16 = 258;

type Key = [u8; 33];

/// Refuses with `gossip-unreadable` or `gossip-foreign` what must not be signed; and what has to do with a channel that
/// does not exist.
pub(super) fn judge(
    kind: NodeKind,
    node: &Node,
    channel: Option<ChannelRef>,
    message: &Message,
) -> Result<(), Refusal> {
    match message {
        Message::SignChannelAnnouncement(m) => match channel {
            Some(channel) => announced(kind, node, channel, &m.announcement),
            None => Err(super::no_channel("SignChannelAnnouncement")),
        },
        Message::SignAnyChannelAnnouncement(m) => {
            announced(kind, node, ChannelRef { peer_id: m.peer_id.0, dbid: m.dbid }, &m.announcement)
        }
        // LDK's name for the node's own signature on a channel announcement. Its other gossip comes as messages 3 and 6.
        Message::SignGossipMessage(m) => {
            let announcement = ChannelAnnouncement::parse(&m.message).ok_or_else(|| unreadable(&m.message))?;
            let keys = announcement.bitcoin_keys;
            let theirs =
                |channel: &Channel| keys.contains(&channel.setup.counterparty_points.funding_pubkey.serialize());
            for slot in node.get_channels().values() {
                if let ChannelSlot::Ready(channel) = &*slot.lock().unwrap_or_else(PoisonError::into_inner)
                    && theirs(channel)
                    && announcement.judge(node, channel, None).is_ok()
                {
                    return Ok(());
                }
            }
            let [one, two] = keys.map(|key| hex(&key));
            Err(foreign("the announcement is of no channel of this node")
                .with_fact(Fact::text("bitcoin_key_1", one))
                .with_fact(Fact::text("bitcoin_key_2", two)))
        }
        Message::SignNodeAnnouncement(m) => {
            let node_id = read(&m.announcement, NODE_ANNOUNCEMENT, 1, node_announcement)?;
            require_same("node_id", &node_id, &node.get_id().serialize())
        }
        Message::SignChannelUpdate(m) => {
            let chain = read(&m.update, CHANNEL_UPDATE, 1, channel_update)?;
            require_chain(node.network(), &chain)
        }
        _ => Ok(()),
    }
}

fn announced(kind: NodeKind, node: &Node, channel: ChannelRef, message: &[u8]) -> Result<(), Refusal> {
    let announcement = read(message, CHANNEL_ANNOUNCEMENT, 4, ChannelAnnouncement::parse)?;
    // Core Lightning names a channel by its peer. LDK does so by the node itself: it does not know the peer in time.
    let peer = (kind == NodeKind::Cln).then_some(channel.peer_id);
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    node.with_channel(&id, |channel| Ok(announcement.judge(node, channel, peer)))
        .map_err(|status| refusals::from_handler(status.into(), None))?
}

/// The part of a `channel_announcement` that is signed.
pub(in crate::lightning) struct ChannelAnnouncement {
    pub(in crate::lightning) chain: [u8; 32],
    short_channel_id: u64,
    pub(in crate::lightning) node_ids: [Key; 2],
    pub(in crate::lightning) bitcoin_keys: [Key; 2],
}

impl ChannelAnnouncement {
    pub(in crate::lightning) fn parse(mut body: &[u8]) -> Option<Self> {
        features(&mut body, MAX_CHANNEL_FEATURES)?;
        let announcement = Self {
            chain: array(&mut body)?,
            short_channel_id: u64::from_be_bytes(array(&mut body)?),
            node_ids: [array(&mut body)?, array(&mut body)?],
            bitcoin_keys: [array(&mut body)?, array(&mut body)?],
        };
        body.is_empty().then_some(announcement)
    }

    /// Whether it announces `channel` of `node`, whose peer is `peer` where that is known.
    fn judge(&self, node: &Node, channel: &Channel, peer: Option<Key>) -> Result<(), Refusal> {
        require_chain(node.network(), &self.chain)?;
        let ids = |refusal: Refusal| {
            let [one, two] = self.node_ids.map(|id| hex(&id));
            refusal.with_fact(Fact::text("node_id_1", one)).with_fact(Fact::text("node_id_2", two))
        };
        if self.node_ids[0] >= self.node_ids[1] {
            return Err(ids(foreign("the node ids are not in ascending order")));
        }
        let node_id = node.get_id().serialize();
        let Some(us) = self.node_ids.iter().position(|id| *id == node_id) else {
            let refusal = ids(foreign(format!("neither node id is ours, {}", hex(&node_id))));
            return Err(refusal.with_fact(Fact::text("our_node_id", hex(&node_id))));
        };
        let them = 1 - us;
        if let Some(peer) = peer {
            require_same("peer_node_id", &self.node_ids[them], &peer)?;
        }
        let funding = channel.get_channel_basepoints().funding_pubkey.serialize();
        require_same("our_funding_key", &self.bitcoin_keys[us], &funding)?;
        let funding = channel.setup.counterparty_points.funding_pubkey.serialize();
        require_same("peer_funding_key", &self.bitcoin_keys[them], &funding)?;
        let (announced, funded) = (self.short_channel_id & 0xffff, u64::from(channel.setup.funding_outpoint.vout));
        if announced == funded {
            return Ok(());
        }
        let refusal = foreign(format!("the funding output is {announced}, not {funded}"));
        Err(refusal.with_fact(Fact::count("funding_output", announced).exactly(funded)))
    }
}

/// What `parse` makes of a message of this type behind its signatures.
fn read<T>(
    message: &[u8],
    message_type: u16,
    signatures: usize,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, Refusal> {
    behind(message, message_type, signatures).and_then(parse).ok_or_else(|| {
        let found = message.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        let refusal = unreadable(message);
        match found.filter(|found| *found != message_type) {
            Some(found) => {
                refusal.with_fact(Fact::count("message_type", found.into()).exactly(u64::from(message_type)))
            }
            None => refusal,
        }
    })
}

/// The node id of a `node_announcement`, without its signature.
pub(in crate::lightning) fn node_announcement(mut body: &[u8]) -> Option<Key> {
    features(&mut body, MAX_NODE_FEATURES)?;
    take(&mut body, 4)?; // timestamp
    let node_id = array(&mut body)?;
    take(&mut body, 3 + 32)?; // color, alias
    let len = u16::from_be_bytes(array(&mut body)?);
    let mut addresses = take(&mut body, len.into())?;
    while !addresses.is_empty() {
        let len = match array(&mut addresses)? {
            [1] => 4 + 2,
            [2] => 16 + 2,
            [3] => 10 + 2,
            [4] => 35 + 2,
            [5] => u8::from_be_bytes(array(&mut addresses)?) as usize + 2,
            _ => return None,
        };
        take(&mut addresses, len)?;
    }
    tlv_stream(body)?;
    Some(node_id)
}

/// The chain of a `channel_update`, without its signature.
fn channel_update(mut body: &[u8]) -> Option<[u8; 32]> {
    let chain = update_parts(&mut body)?;
    body.is_empty().then_some(chain)
}

/// The same with extensions behind it: lnd announces inbound fees in one.
pub(in crate::lightning) fn channel_update_with_extensions(mut body: &[u8]) -> Option<[u8; 32]> {
    let chain = update_parts(&mut body)?;
    tlv_stream(body)?;
    Some(chain)
}

fn update_parts(body: &mut &[u8]) -> Option<[u8; 32]> {
    let chain = array(body)?;
    take(body, 8 + 4)?; // short_channel_id, timestamp
    let [message_flags, _direction] = array(body)?;
    take(body, 2 + 8 + 4 + 4 + 8)?; // cltv_expiry_delta, htlc_minimum_msat, fees, htlc_maximum_msat
    (message_flags & 1 == 1).then_some(chain)
}

/// What follows type and signatures of a message of this type.
fn behind(mut message: &[u8], message_type: u16, signatures: usize) -> Option<&[u8]> {
    let found = u16::from_be_bytes(array(&mut message)?);
    take(&mut message, 64 * signatures)?;
    (found == message_type).then_some(message)
}

fn features(bytes: &mut &[u8], max: usize) -> Option<()> {
    let len = usize::from(u16::from_be_bytes(array(bytes)?));
    take(bytes, len)?;
    (len <= max).then_some(())
}

/// BOLT 1: records in strictly ascending order of their types.
fn tlv_stream(mut bytes: &[u8]) -> Option<()> {
    let mut before = None;
    while !bytes.is_empty() {
        let number = big_size(&mut bytes)?;
        if before.replace(number) >= Some(number) {
            return None;
        }
        let len = big_size(&mut bytes)?;
        take(&mut bytes, usize::try_from(len).ok()?)?;
    }
    Some(())
}

/// BOLT 1: BigSize, as short as possible.
fn big_size(bytes: &mut &[u8]) -> Option<u64> {
    let (value, min) = match array(bytes)? {
        [0xfd] => (u16::from_be_bytes(array(bytes)?).into(), 0xfd),
        [0xfe] => (u32::from_be_bytes(array(bytes)?).into(), 0x1_0000),
        [0xff] => (u64::from_be_bytes(array(bytes)?), 0x1_0000_0000),
        [short] => (short.into(), 0),
    };
    (value >= min).then_some(value)
}

pub(in crate::lightning) fn require_chain(network: Network, chain: &[u8; 32]) -> Result<(), Refusal> {
    let ours = ChainHash::using_genesis_block(network).to_bytes();
    require_same("chain", chain, &ours)
}

fn require_same(what: &'static str, announced: &[u8], known: &[u8]) -> Result<(), Refusal> {
    if announced == known {
        return Ok(());
    }
    let (announced, known) = (hex(announced), hex(known));
    let refusal = foreign(format!("{what} is {announced}, not {known}"));
    Err(refusal.with_fact(Fact::text(what, announced).exactly(known)))
}

fn foreign(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::GossipForeign, detail)
}

fn unreadable(message: &[u8]) -> Refusal {
    let detail = "the bytes to be signed are not the BOLT 7 message that is to be signed";
    let fact = Fact::number("message", message.len() as u64, Unit::Bytes);
    Refusal::new(Reason::GossipUnreadable, detail).with_fact(fact)
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lightning::guard::MAX_SIGNED_MESSAGE_BYTES;

    /// What is in front of a signed text.
    const TAG: &[u8] = b"Lightning Signed Message:";

    /// No message that is signed for one purpose can be read as one for another: their lengths and first bytes exclude it.
    #[test]
    fn no_signed_message_can_be_read_as_another() {
        // BIP 143: version, prevouts, sequences, outpoint, script (a length and BOLT 3's 71 bytes), amount, sequence,
        // outputs, lock time, sighash type.
        let preimage = 4 + 32 + 32 + 36 + (1 + 71) + 8 + 4 + 32 + 4 + 4;
        let longest_announcement = 2 + MAX_CHANNEL_FEATURES + 32 + 8 + 2 * 33 + 2 * 33;
        assert!(longest_announcement < preimage);
        let features = |first: &[u8]| usize::from(u16::from_be_bytes([first[0], first[1]]));
        for network in [Network::Bitcoin, Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest] {
            let chain = ChainHash::using_genesis_block(network).to_bytes();
            assert!(features(&chain) > MAX_NODE_FEATURES.max(MAX_CHANNEL_FEATURES), "{network}");
        }
        // Nor by other nodes, which may read more features.
        assert!(2 + features(TAG) > TAG.len() + MAX_SIGNED_MESSAGE_BYTES);
    }

    #[test]
    fn tlv_streams_ascend() {
        let honest = [
            &[][..],
            &[1, 0],
            &[1, 1, 7, 3, 0],
            &[1, 0, 0xfd, 0x00, 0xfd, 0],
            &[0xfe, 0x00, 0x01, 0x00, 0x00, 0],
            &[0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        ];
        for honest in honest {
            assert_eq!(tlv_stream(honest), Some(()), "{honest:?}");
        }
        let hostile = [
            &[1][..],
            &[1, 2, 7],
            &[3, 0, 1, 0],
            &[1, 0, 1, 0],
            &[0xfd, 0x00, 0xfc, 0],
            &[0xfe, 0x00, 0x00, 0xff, 0xff, 0],
            &[0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0],
        ];
        for hostile in hostile {
            assert_eq!(tlv_stream(hostile), None, "{hostile:?}");
        }
    }
}
