//! What is signed as gossip is gossip, about this node and its channels. Funding keys sign announcements and commitments
//! by the same digest: bytes that are not parsed could be either.

use bitcoin::absolute::LockTime;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, Sequence, Transaction, TxIn, TxOut};
use lightning::ln::chan_utils::make_funding_redeemscript;
use lightning::ln::msgs::{UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedNodeAnnouncement};
use lightning::routing::gossip::{NodeAlias, NodeId};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::util::ser::Writeable;
use vls_protocol::model::PubKey;
use vls_protocol::msgs;

use crate::channel::{CHANNEL_SAT, Channel};
use crate::reasons::{FOREIGN_GOSSIP, NO_GOSSIP};
use crate::thief::Scene;

/// Where a signature covers the message: after its type and its own signatures.
const CHANNEL_ANNOUNCEMENT: usize = 2 + 4 * 64;
const OTHERS: usize = 2 + 64;

/// A message as it goes over the wire, its signatures still zero.
fn unsigned(number: u16, prefix: usize, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; prefix];
    message[..2].copy_from_slice(&number.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// The preimage of the digest that takes the whole channel (BIP 143).
fn theft(channel: &Channel<'_>) -> Vec<u8> {
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: channel.funding, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(CHANNEL_SAT - 1_000), script_pubkey: Default::default() }],
    };
    let theirs = PublicKey::from_slice(&channel.reference.peer_id).unwrap();
    let script = make_funding_redeemscript(&channel.ours.funding_pubkey, &theirs);
    let mut preimage = Vec::new();
    SighashCache::new(&tx)
        .segwit_v0_encode_signing_data_to(
            &mut preimage,
            0,
            &script,
            Amount::from_sat(CHANNEL_SAT),
            EcdsaSighashType::All,
        )
        .unwrap();
    preimage
}

/// An announcement of the channel: node keys, then funding keys, both in the order of the former (BOLT 7).
fn announcement(node: PublicKey, channel: &Channel<'_>) -> UnsignedChannelAnnouncement {
    let peer = PublicKey::from_slice(&channel.reference.peer_id).unwrap();
    let mut ends = [(node, channel.ours.funding_pubkey), (peer, peer)];
    ends.sort_by_key(|(node, _)| node.serialize());
    let [first, second] = ends.map(|(node, key)| (NodeId::from_pubkey(&node), NodeId::from_pubkey(&key)));
    UnsignedChannelAnnouncement {
        features: ChannelFeatures::empty(),
        chain_hash: ChainHash::using_genesis_block(Network::Regtest),
        short_channel_id: 121 << 40 | 1 << 16,
        node_id_1: first.0,
        node_id_2: second.0,
        bitcoin_key_1: first.1,
        bitcoin_key_2: second.1,
        excess_data: Vec::new(),
    }
}

fn sign_announcement(body: &[u8]) -> msgs::SignChannelAnnouncement {
    msgs::SignChannelAnnouncement { announcement: unsigned(256, CHANNEL_ANNOUNCEMENT, body).into() }
}

fn sign_any_announcement(body: &[u8], channel: &Channel<'_>) -> msgs::SignAnyChannelAnnouncement {
    msgs::SignAnyChannelAnnouncement {
        announcement: unsigned(256, CHANNEL_ANNOUNCEMENT, body).into(),
        peer_id: PubKey(channel.reference.peer_id),
        dbid: channel.reference.dbid,
    }
}

fn verifies(body: &[u8], signature: &[u8; 64], key: &PublicKey) -> bool {
    let digest = Message::from_digest(sha256d::Hash::hash(body).to_byte_array());
    let signature = ecdsa::Signature::from_compact(signature).unwrap();
    Secp256k1::new().verify_ecdsa(&digest, &signature, key).is_ok()
}

#[test]
fn hostile_announcement_bytes_are_parsed() {
    for kind in ["ldk", "cln"] {
        let scene = Scene::new(kind);
        let channel = Channel::set_up(&scene, 7);
        let theft = theft(&channel);
        scene.thief.refused(NO_GOSSIP, Some(channel.reference), &sign_announcement(&theft));
        if kind == "cln" {
            scene.thief.refused(NO_GOSSIP, None, &sign_any_announcement(&theft, &channel));
        }
    }
}

#[test]
fn honest_announcement_is_signed() {
    for kind in ["ldk", "cln"] {
        let scene = Scene::new(kind);
        let channel = Channel::set_up(&scene, 7);
        scene.mine(6);
        let body = announcement(scene.thief.node_id(), &channel).encode();
        let reply: msgs::SignChannelAnnouncementReply =
            scene.thief.answered(Some(channel.reference), &sign_announcement(&body));
        assert!(verifies(&body, &reply.bitcoin_signature.0, &channel.ours.funding_pubkey));
        assert!(verifies(&body, &reply.node_signature.0, &scene.thief.node_id()));
        if kind == "cln" {
            let reply: msgs::SignAnyChannelAnnouncementReply =
                scene.thief.answered(None, &sign_any_announcement(&body, &channel));
            assert!(verifies(&body, &reply.bitcoin_signature.0, &channel.ours.funding_pubkey));
        }
    }
}

#[test]
fn hostile_announcements_of_other_chains_nodes_and_keys_are_not_signed() {
    let scene = Scene::new("ldk");
    let (channel, other) = (Channel::set_up(&scene, 7), Channel::set_up(&scene, 8));
    let node = scene.thief.node_id();
    let honest = announcement(node, &channel);
    let stranger = NodeId::from_pubkey(&other.ours.funding_pubkey);
    let foreign = [
        UnsignedChannelAnnouncement { chain_hash: ChainHash::using_genesis_block(Network::Bitcoin), ..honest.clone() },
        UnsignedChannelAnnouncement { node_id_1: stranger, node_id_2: stranger, ..honest.clone() },
        UnsignedChannelAnnouncement { bitcoin_key_1: stranger, bitcoin_key_2: stranger, ..honest.clone() },
        announcement(node, &other),
    ];
    for body in foreign {
        scene.thief.refused(FOREIGN_GOSSIP, Some(channel.reference), &sign_announcement(&body.encode()));
    }
}

#[test]
fn hostile_gossip_of_other_nodes_and_bytes_that_are_no_gossip_are_not_signed() {
    let scene = Scene::new("ldk");
    let channel = Channel::set_up(&scene, 7);
    let other = NodeId::from_pubkey(&channel.ours.funding_pubkey);
    let (others, theft) = (node_announcement(other).encode(), theft(&channel));
    let announce = |body| msgs::SignNodeAnnouncement { announcement: unsigned(257, OTHERS, body).into() };
    let update = |body| msgs::SignChannelUpdate { update: unsigned(258, OTHERS, body).into() };
    let gossip = |body: &[u8]| msgs::SignGossipMessage { message: body.to_vec().into() };
    scene.thief.refused(FOREIGN_GOSSIP, None, &announce(&others));
    scene.thief.refused(NO_GOSSIP, None, &announce(&theft));
    for body in [&others, &theft] {
        scene.thief.refused(NO_GOSSIP, None, &update(body));
        scene.thief.refused(NO_GOSSIP, None, &gossip(body));
    }
    let elsewhere =
        UnsignedChannelUpdate { chain_hash: ChainHash::using_genesis_block(Network::Bitcoin), ..channel_update() };
    scene.thief.refused(FOREIGN_GOSSIP, None, &update(&elsewhere.encode()));
}

#[test]
fn honest_gossip_of_the_node_is_signed() {
    let scene = Scene::new("ldk");
    let channel = Channel::open(&scene, 7);
    let node = scene.thief.node_id();

    let body = node_announcement(NodeId::from_pubkey(&node)).encode();
    let message = msgs::SignNodeAnnouncement { announcement: unsigned(257, OTHERS, &body).into() };
    let reply: msgs::SignNodeAnnouncementReply = scene.thief.answered(None, &message);
    assert!(verifies(&body, &reply.signature.0, &node));

    let body = channel_update().encode();
    let message = msgs::SignChannelUpdate { update: unsigned(258, OTHERS, &body).into() };
    let reply: msgs::SignChannelUpdateReply = scene.thief.answered(None, &message);
    assert!(verifies(&body, reply.update[2..OTHERS].try_into().unwrap(), &node));

    let body = announcement(node, &channel).encode();
    let message = msgs::SignGossipMessage { message: body.clone().into() };
    let reply: msgs::SignGossipMessageReply = scene.thief.answered(None, &message);
    assert!(verifies(&body, &reply.signature.0, &node));
}

fn node_announcement(node_id: NodeId) -> UnsignedNodeAnnouncement {
    UnsignedNodeAnnouncement {
        features: NodeFeatures::empty(),
        timestamp: 1_700_000_000,
        node_id,
        rgb: [1, 2, 3],
        alias: NodeAlias([0; 32]),
        addresses: Vec::new(),
        excess_address_data: Vec::new(),
        excess_data: Vec::new(),
    }
}

fn channel_update() -> UnsignedChannelUpdate {
    UnsignedChannelUpdate {
        chain_hash: ChainHash::using_genesis_block(Network::Regtest),
        short_channel_id: 121 << 40 | 1 << 16,
        timestamp: 1_700_000_000,
        message_flags: 1,
        channel_flags: 0,
        cltv_expiry_delta: 72,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: 900_000_000,
        fee_base_msat: 1_000,
        fee_proportional_millionths: 0,
        excess_data: Vec::new(),
    }
}
