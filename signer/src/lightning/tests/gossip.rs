//! Gossip is parsed before it is signed (P2), and nothing signed as gossip is anything else (P10).

use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, ecdsa};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, EcdsaSighashType, OutPoint, Transaction, TxIn, TxOut};
use lightning::ln::chan_utils::make_funding_redeemscript;
use vls_protocol::model::{PubKey, Signature};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use super::*;
use crate::reasons::Reason;

type Key = [u8; 33];

/// The signed part of a channel announcement.
#[derive(Clone)]
struct Announcement {
    features: Vec<u8>,
    chain: [u8; 32],
    short_channel_id: u64,
    node_ids: [Key; 2],
    bitcoin_keys: [Key; 2],
    rest: Vec<u8>,
}

impl Announcement {
    fn body(&self) -> Vec<u8> {
        let [one, two] = self.node_ids;
        let [three, four] = self.bitcoin_keys;
        [
            &counted(&self.features),
            &self.chain[..],
            &self.short_channel_id.to_be_bytes(),
            &one,
            &two,
            &three,
            &four,
            &self.rest,
        ]
        .concat()
    }
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A whole message: type, signatures that are still zero, body.
fn unsigned(message_type: u16, signatures: usize, body: &[u8]) -> Vec<u8> {
    [&message_type.to_be_bytes()[..], &vec![0; 64 * signatures], body].concat()
}

fn chain(network: Network) -> [u8; 32] {
    ChainHash::using_genesis_block(network).to_bytes()
}

fn update(network: Network) -> Vec<u8> {
    let (message_flags, channel_flags) = (1, 0);
    [&chain(network)[..], &[0; 8], &[1; 4], &[message_flags, channel_flags], &[0; 26]].concat()
}

fn node_announcement(node_id: Key) -> Vec<u8> {
    node_announcement_with(&[0x80, 0, 0x02, 0xa2], node_id)
}

fn node_announcement_with(features: &[u8], node_id: Key) -> Vec<u8> {
    // IPv4, IPv6, Tor 2, Tor 3, DNS; each with its port.
    let addresses = [(1, 4), (2, 16), (3, 10), (4, 35)].map(|(kind, len)| [vec![kind], vec![7; len + 2]].concat());
    let addresses = [addresses.concat(), vec![5, 3, b'a', b'.', b'b', 0x26, 0x07]].concat();
    let records = [1, 2, 7, 7];
    [&counted(features), &[9; 4][..], &node_id, &[0; 3 + 32], &counted(&addresses), &records].concat()
}

/// A node with a channel.
struct World {
    signer: Signer,
    alice: NodeName,
    driver: Driver,
    node_id: Key,
}

impl World {
    /// A node of this dialect. The channel is set up in the driver's, LDK's.
    fn of(kind: NodeKind) -> Self {
        let mut signer = Signer::start();
        let alice = signer.add("alice", NodeKind::Ldk);
        let driver = signer.channel(&alice, 1);
        signer.restart();
        signer.add("alice", kind);
        let info = replied(signer.ask(&alice, None, msgs::NodeInfo {}.as_vec()));
        let node_id = msgs::NodeInfoReply::from_vec(info).expect("reads").node_id.0;
        Self { signer, alice, driver, node_id }
    }

    /// What announces the channel, if the peer is `peer`.
    fn announcement(&self, peer: Key) -> Announcement {
        let [ours, theirs] = self.driver.funding_keys().map(|key| key.serialize());
        let are_we_first = self.node_id < peer;
        Announcement {
            features: Vec::new(),
            chain: chain(Network::Regtest),
            short_channel_id: 700_000 << 40 | 3 << 16,
            node_ids: if are_we_first { [self.node_id, peer] } else { [peer, self.node_id] },
            bitcoin_keys: if are_we_first { [ours, theirs] } else { [theirs, ours] },
            rest: Vec::new(),
        }
    }

    fn of_channel(&self, message: &dyn SerBolt) -> Outcome {
        self.signer.ask(&self.alice, Some(self.driver.channel()), message.as_vec())
    }

    fn of_node(&self, message: &dyn SerBolt) -> Outcome {
        self.signer.ask(&self.alice, None, message.as_vec())
    }

    /// Message 2.
    fn sign(&self, body: &[u8]) -> Outcome {
        self.of_channel(&msgs::SignChannelAnnouncement { announcement: unsigned(256, 4, body).into() })
    }

    /// Message 4.
    fn sign_any(&self, peer: Key, body: &[u8]) -> Outcome {
        let (announcement, dbid) = (unsigned(256, 4, body).into(), self.driver.channel().dbid);
        self.of_node(&msgs::SignAnyChannelAnnouncement { announcement, peer_id: PubKey(peer), dbid })
    }

    /// Message 1006.
    fn sign_gossip(&self, body: &[u8]) -> Outcome {
        self.of_node(&msgs::SignGossipMessage { message: body.to_vec().into() })
    }

    /// Message 3.
    fn sign_update(&self, body: &[u8]) -> Outcome {
        self.of_node(&msgs::SignChannelUpdate { update: unsigned(258, 1, body).into() })
    }

    /// Message 6.
    fn sign_node(&self, body: &[u8]) -> Outcome {
        self.of_node(&msgs::SignNodeAnnouncement { announcement: unsigned(257, 1, body).into() })
    }

    fn verify(&self, body: &[u8], signature: &Signature, key: &Key) {
        let digest = Message::from_digest(sha256d::Hash::hash(body).to_byte_array());
        let signature = ecdsa::Signature::from_compact(&signature.0).expect("a signature");
        let key = PublicKey::from_slice(key).expect("a key");
        Secp256k1::new().verify_ecdsa(&digest, &signature, &key).expect("the signature is over the body");
    }

    /// What BIP 143 has signed to spend the funding output, all of it to whoever wrote the script.
    fn theft(&self) -> Vec<u8> {
        let funding = self.driver.funding();
        let tx = Transaction {
            input: vec![TxIn {
                previous_output: OutPoint { txid: funding.compute_txid(), vout: 0 },
                ..TxIn::default()
            }],
            output: vec![TxOut { value: Amount::from_sat(9_000_000), ..funding.output[0].clone() }],
            ..funding.clone()
        };
        let [ours, theirs] = self.driver.funding_keys();
        let script = make_funding_redeemscript(&ours, &theirs);
        let mut preimage = Vec::new();
        SighashCache::new(&tx)
            .segwit_v0_encode_signing_data_to(&mut preimage, 0, &script, funding.output[0].value, EcdsaSighashType::All)
            .expect("the input is there");
        preimage
    }
}

const PEER: Key = [2; 33]; // no point, and nobody asks whether it is one
/// Greater than any node id.
const LATE_PEER: Key = [3; 33];

fn reason(outcome: Outcome) -> Reason {
    refused(outcome).1.reason
}

#[test]
fn honest_announcements_are_signed_with_both_keys() {
    let world = World::of(NodeKind::Ldk);
    for peer in [PEER, LATE_PEER] {
        for (features, vout) in [(vec![], 0), (vec![0x20; 32], 0)] {
            let announcement = Announcement { features, ..world.announcement(peer) };
            assert_eq!(announcement.short_channel_id & 0xffff, vout);
            let body = announcement.body();
            let reply = msgs::SignChannelAnnouncementReply::from_vec(replied(world.sign(&body))).expect("reads");
            world.verify(&body, &reply.node_signature, &world.node_id);
            world.verify(&body, &reply.bitcoin_signature, &world.driver.funding_keys()[0].serialize());
            let reply = msgs::SignGossipMessageReply::from_vec(replied(world.sign_gossip(&body))).expect("reads");
            world.verify(&body, &reply.signature, &world.node_id);
        }
    }
    let cln = World::of(NodeKind::Cln);
    let peer = cln.driver.channel().peer_id;
    let body = cln.announcement(peer).body();
    replied(cln.sign(&body));
    replied(cln.sign_any(peer, &body));
}

#[test]
fn hostile_announcements_of_other_keys_nodes_and_chains_are_refused() {
    let world = World::of(NodeKind::Ldk);
    let honest = world.announcement(PEER);
    let [ours, theirs] = world.driver.funding_keys().map(|key| key.serialize());
    let swapped = |keys: [Key; 2]| [keys[1], keys[0]];
    let mut foreign = vec![
        Announcement { chain: chain(Network::Bitcoin), ..honest.clone() },
        Announcement { short_channel_id: honest.short_channel_id + 1, ..honest.clone() },
        Announcement { node_ids: swapped(honest.node_ids), ..honest.clone() },
        Announcement { node_ids: [PEER, LATE_PEER], ..honest.clone() },
        Announcement { node_ids: [world.node_id; 2], ..honest.clone() },
        Announcement { bitcoin_keys: swapped(honest.bitcoin_keys), ..honest.clone() },
        Announcement { bitcoin_keys: [ours; 2], ..honest.clone() },
    ];
    foreign.push(Announcement { bitcoin_keys: [theirs; 2], ..honest.clone() });
    for (n, announcement) in foreign.iter().enumerate() {
        assert_eq!(reason(world.sign(&announcement.body())), Reason::GossipForeign, "case {n}");
        assert_eq!(reason(world.sign_gossip(&announcement.body())), Reason::GossipForeign, "case {n}");
    }
    let unreadable = [
        Announcement { features: vec![0; 33], ..honest.clone() }.body(),
        Announcement { rest: vec![0], ..honest.clone() }.body(),
        honest.body()[1..].to_vec(),
        Vec::new(),
    ];
    for body in unreadable {
        assert_eq!(reason(world.sign(&body)), Reason::GossipUnreadable);
        assert_eq!(reason(world.sign_gossip(&body)), Reason::GossipUnreadable);
    }
    // Another channel's announcement is not signed with this channel's key.
    let nowhere = msgs::SignChannelAnnouncement { announcement: unsigned(256, 4, &honest.body()).into() };
    let elsewhere = ChannelRef { dbid: 77, ..world.driver.channel() };
    let outcome = world.signer.ask(&world.alice, Some(elsewhere), nowhere.as_vec());
    assert_eq!(reason(outcome), Reason::ChannelUnknown);

    // Core Lightning names the peer, so it is compared.
    let cln = World::of(NodeKind::Cln);
    let peer = cln.driver.channel().peer_id;
    let body = cln.announcement(PEER).body();
    assert_eq!(reason(cln.sign(&body)), Reason::GossipForeign);
    assert_eq!(reason(cln.sign_any(peer, &body)), Reason::GossipForeign);
    assert_eq!(reason(cln.sign_any(PEER, &body)), Reason::ChannelUnknown);
}

#[test]
fn hostile_bytes_that_spend_the_channel_are_not_signed_as_gossip() {
    let world = World::of(NodeKind::Ldk);
    let theft = world.theft();
    assert_eq!(theft.len(), 228);
    for outcome in [world.sign(&theft), world.sign_gossip(&theft), world.sign_update(&theft), world.sign_node(&theft)] {
        assert_eq!(reason(outcome), Reason::GossipUnreadable);
    }
    let cln = World::of(NodeKind::Cln);
    assert_eq!(reason(cln.sign_any(cln.driver.channel().peer_id, &cln.theft())), Reason::GossipUnreadable);
}

/// Every body is signed by its own message and by no other.
#[test]
fn hostile_use_of_one_message_for_another_is_refused() {
    let world = World::of(NodeKind::Ldk);
    let announcement = world.announcement(PEER).body();
    let bodies = [announcement, update(Network::Regtest), node_announcement(world.node_id), b"hello".to_vec()];
    for (n, body) in bodies.iter().enumerate() {
        let outcomes = [
            (world.sign(body), 0),
            (world.sign_gossip(body), 0),
            (world.sign_update(body), 1),
            (world.sign_node(body), 2),
        ];
        for (m, (outcome, own)) in outcomes.into_iter().enumerate() {
            match n == own {
                true => drop(replied(outcome)),
                false => assert_eq!(reason(outcome), Reason::GossipUnreadable, "body {n} as message {m}"),
            }
        }
    }
    // Neither is a whole message of another type.
    for message_type in [256, 257, 0] {
        let message = unsigned(message_type, 1, &update(Network::Regtest));
        let outcome = world.of_node(&msgs::SignChannelUpdate { update: message.into() });
        assert_eq!(reason(outcome), Reason::GossipUnreadable);
    }
}

#[test]
fn honest_updates_and_node_announcements_are_signed() {
    let world = World::of(NodeKind::Cln);
    let body = update(Network::Regtest);
    let reply = msgs::SignChannelUpdateReply::from_vec(replied(world.sign_update(&body))).expect("reads");
    world.verify(&body, &Signature(reply.update[2..66].try_into().expect("64 bytes")), &world.node_id);
    replied(world.sign_node(&node_announcement_with(&[0; 1_024], world.node_id)));
    let body = node_announcement(world.node_id);
    let reply = msgs::SignNodeAnnouncementReply::from_vec(replied(world.sign_node(&body))).expect("reads");
    world.verify(&body, &reply.signature, &world.node_id);
    // A channel's client may have an update signed.
    replied(world.of_channel(&msgs::SignChannelUpdate { update: unsigned(258, 1, &update(Network::Regtest)).into() }));
}

#[test]
fn hostile_updates_and_node_announcements_are_refused() {
    let world = World::of(NodeKind::Ldk);
    assert_eq!(reason(world.sign_update(&update(Network::Bitcoin))), Reason::GossipForeign);
    assert_eq!(reason(world.sign_node(&node_announcement(PEER))), Reason::GossipForeign);
    let long = [update(Network::Regtest), vec![0]].concat();
    assert_eq!(reason(world.sign_update(&long)), Reason::GossipUnreadable);
    let mut unflagged = update(Network::Regtest);
    unflagged[44] = 0;
    assert_eq!(reason(world.sign_update(&unflagged)), Reason::GossipUnreadable);
    let features = node_announcement_with(&[0; 1_025], world.node_id);
    assert_eq!(reason(world.sign_node(&features)), Reason::GossipUnreadable);
    let long = [node_announcement(world.node_id), vec![0, 0]].concat(); // a record out of order
    assert_eq!(reason(world.sign_node(&long)), Reason::GossipUnreadable);
    let mut unknown = node_announcement(world.node_id);
    let address = 2 + 4 + 4 + 33 + 35 + 2;
    unknown[address] = 9;
    assert_eq!(reason(world.sign_node(&unknown)), Reason::GossipUnreadable);
}
