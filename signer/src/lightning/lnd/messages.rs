//! `SignMessage`: only what Lightning has a node sign, parsed before it is signed (P2).
//!
//! | key | hash | form | what |
//! |---|---|---|---|
//! | the node's, {6, 0} | double | DER | `node_announcement`, `channel_update`, `channel_announcement` |
//! | the node's, {6, 0} | single | compact | a BOLT 11 invoice |
//! | the node's, {6, 0} | either | compact | text behind "Lightning Signed Message:" |
//! | a funding key, {0, i} | double | DER | the `channel_announcement` that names it |
//!
//! No transaction's digest can be had this way: a funding key signs nothing but an announcement of at most 206 bytes, and
//! the preimage of a spend of the funding output has 228 (see `guard/gossip`). Schnorr signatures are not given at all.

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256, sha256d};
use bitcoin::secp256k1::{Message, PublicKey};
use claviger_proto::signrpc::SignMessageReq;

use super::keys::{Family, KeyPath, Keys};
use super::shared_key::located;
use super::windows::Windows;
use crate::lightning::guard::MAX_SIGNED_MESSAGE_BYTES;
use crate::lightning::guard::gossip::{self, ChannelAnnouncement};
use crate::lightning::guard::invoices;
use crate::lightning::payments::bolt11;
use crate::reasons::{Reason, Refusal};

const TEXT: &[u8] = b"Lightning Signed Message:";

/// What a message turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `node_announcement`
    NodeAnnouncement,
    /// `channel_update`
    ChannelUpdate,
    /// `channel_announcement`
    ChannelAnnouncement(Announced),
    /// A BOLT 11 invoice.
    Invoice(Invoice),
    /// What people sign.
    Text,
}

/// The channel in an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The index of our funding key.
    pub our_index: u32,
    /// The other funding key.
    pub counterparty_key: PublicKey,
    /// The other node.
    pub peer: PublicKey,
}

/// What an invoice asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoice {
    /// In hex.
    pub payment_hash: String,
    /// If it names an amount.
    pub amount_msat: Option<u64>,
}

impl Kind {
    /// Its name in decisions; of gossip, BOLT 7's.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::NodeAnnouncement => "node_announcement",
            Self::ChannelUpdate => "channel_update",
            Self::ChannelAnnouncement(_) => "channel_announcement",
            Self::Invoice(_) => "invoice",
            Self::Text => "text",
        }
    }
}

/// What people see of a text that is signed.
pub(super) fn shown(message: &[u8]) -> &[u8] {
    message.strip_prefix(TEXT).unwrap_or(message)
}

/// Judges a request. Returns what the message is and the signature.
pub(super) fn sign(
    request: &SignMessageReq,
    keys: &Keys,
    windows: &mut Windows,
    network: Network,
) -> Result<(Kind, Vec<u8>), Refusal> {
    let locator = request.key_loc.ok_or_else(|| Refusal::new(Reason::Malformed, "a key locator MUST be passed in"))?;
    let (family, index) = located(&locator)?;
    let key = KeyPath::Channel(family, index);
    let is_plain = !request.schnorr_sig && request.tag.is_empty() && request.schnorr_sig_tap_tweak.is_empty();
    if !is_plain {
        return Err(Refusal::new(Reason::KeyPurpose, format!("{key} gives no Schnorr signatures on messages")));
    }
    let message = &request.msg[..];
    let form = (family, index, request.double_hash, request.compact_sig);
    let kind = match form {
        (Family::NodeKey, 0, _, true) if message.starts_with(TEXT) => text(message)?,
        (Family::NodeKey, 0, false, true) => invoice(message, keys, network)?,
        (Family::NodeKey, 0, true, false) => gossip_of_node(message, keys, windows, network)?,
        (Family::Multisig, _, true, false) => {
            let announcement = ChannelAnnouncement::parse(message).ok_or_else(unreadable)?;
            let is_it = |ours: &PublicKey| (*ours == keys.public(key)).then_some(index);
            Kind::ChannelAnnouncement(announced(&announcement, keys, network, is_it)?)
        }
        _ => {
            let detail = format!("{key} signs no message of this form (double_hash {}, compact {})", form.2, form.3);
            return Err(Refusal::new(Reason::KeyPurpose, detail));
        }
    };
    let digest = if request.double_hash {
        sha256d::Hash::hash(message).to_byte_array()
    } else {
        sha256::Hash::hash(message).to_byte_array()
    };
    let (secp, digest, secret) = (keys.secp(), Message::from_digest(digest), keys.secret(key));
    if !request.compact_sig {
        return Ok((kind, secp.sign_ecdsa(&digest, &secret).serialize_der().to_vec()));
    }
    let (id, signature) = secp.sign_ecdsa_recoverable(&digest, &secret).serialize_compact();
    let header = 27 + 4 + u8::try_from(id.to_i32()).expect("0 to 3"); // 4: the key is compressed
    Ok((kind, [&[header][..], &signature].concat()))
}

fn text(message: &[u8]) -> Result<Kind, Refusal> {
    let bytes = message.len() - TEXT.len();
    if bytes > MAX_SIGNED_MESSAGE_BYTES {
        let detail = format!("the text has {bytes} bytes; at most {MAX_SIGNED_MESSAGE_BYTES} are signed");
        return Err(Refusal::new(Reason::SignedMessageTooLong, detail));
    }
    Ok(Kind::Text)
}

fn gossip_of_node(message: &[u8], keys: &Keys, windows: &mut Windows, network: Network) -> Result<Kind, Refusal> {
    let ours = keys.node_id().serialize();
    // An update starts with the chain's hash, which as a length of features is beyond both other bounds.
    if let Some(chain) = gossip::channel_update_with_extensions(message) {
        gossip::require_chain(network, &chain)?;
        return Ok(Kind::ChannelUpdate);
    }
    if let Some(announcement) = ChannelAnnouncement::parse(message) {
        let announced = announced(&announcement, keys, network, |key| windows.funding(keys, key))?;
        return Ok(Kind::ChannelAnnouncement(announced));
    }
    let node_id = gossip::node_announcement(message).ok_or_else(unreadable)?;
    if node_id != ours {
        let detail = format!("the announcement is of node {}, not {}", hex::encode(node_id), hex::encode(ours));
        return Err(Refusal::new(Reason::GossipForeign, detail));
    }
    Ok(Kind::NodeAnnouncement)
}

/// An announcement of a channel between this node and another, on this chain, with a funding key whose index `ours` knows.
fn announced(
    announcement: &ChannelAnnouncement,
    keys: &Keys,
    network: Network,
    ours: impl FnOnce(&PublicKey) -> Option<u32>,
) -> Result<Announced, Refusal> {
    let foreign = |detail: &str| Refusal::new(Reason::GossipForeign, detail);
    gossip::require_chain(network, &announcement.chain)?;
    let node_id = keys.node_id().serialize();
    let Some(us) = announcement.node_ids.iter().position(|id| *id == node_id) else {
        return Err(foreign("neither node id is ours"));
    };
    let key = |bytes: &[u8]| PublicKey::from_slice(bytes).ok();
    let our_index = key(&announcement.bitcoin_keys[us]).and_then(|key| ours(&key));
    let our_index = our_index.ok_or_else(|| foreign("our funding key is not in it"))?;
    let them = (key(&announcement.bitcoin_keys[1 - us]), key(&announcement.node_ids[1 - us]));
    let (Some(counterparty_key), Some(peer)) = them else { return Err(foreign("the other keys in it are none")) };
    Ok(Announced { our_index, counterparty_key, peer })
}

/// lnd signs the human-readable part and the rest packed into bytes, the last one filled up with zero bits.
fn invoice(message: &[u8], keys: &Keys, network: Network) -> Result<Kind, Refusal> {
    let unreadable = || Refusal::new(Reason::InvoiceUnreadable, "the message is no BOLT 11 invoice");
    let is_hrp = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    // The rest begins with the time, whose first byte is no letter or digit before the year 2,100.
    let end = message.iter().position(|byte| !is_hrp(byte)).ok_or_else(unreadable)?;
    let (hrp, data) = message.split_at(end);
    if data.len() > MAX_SIGNED_MESSAGE_BYTES {
        return Err(unreadable());
    }
    let groups: Vec<u8> = (0..data.len() * 8 / 5).map(|at| group(data, at)).collect();
    let most = groups.len();
    // One group less may have been packed into as many bytes.
    for count in [most, most.saturating_sub(1)] {
        let (used, rest) = groups.split_at(count);
        let is_padding = rest.iter().all(|group| *group == 0) && pads_with_zeros(data, count);
        let fits = is_padding && packed_bytes(count) == data.len();
        if let Some(read) = fits.then(|| bolt11(hrp, used)).flatten() {
            invoices::judge_bolt11(hrp, used, keys.node_id(), network)?;
            let payment_hash = read.payment_hash().ok_or_else(unreadable)?;
            return Ok(Kind::Invoice(Invoice {
                payment_hash: hex::encode(payment_hash.0.to_byte_array()),
                amount_msat: read.amount_pico_btc().map(|amount_pico_btc| amount_pico_btc / 10),
            }));
        }
    }
    Err(unreadable())
}

/// The five bits at `at * 5`.
fn group(data: &[u8], at: usize) -> u8 {
    let bit = |bit: usize| data.get(bit / 8).map_or(0, |byte| byte >> (7 - bit % 8) & 1);
    (0..5).fold(0, |group, offset| group << 1 | bit(at * 5 + offset))
}

fn packed_bytes(groups: usize) -> usize {
    (groups * 5).div_ceil(8)
}

fn pads_with_zeros(data: &[u8], groups: usize) -> bool {
    (groups * 5..data.len() * 8).all(|bit| data[bit / 8] >> (7 - bit % 8) & 1 == 0)
}

fn unreadable() -> Refusal {
    Refusal::new(Reason::GossipUnreadable, "the bytes to be signed are no BOLT 7 message")
}
