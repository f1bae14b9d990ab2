//! What a node signs and decrypts under its own name, checked by those who read it.

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey};
use lightning::ln::msgs::{UnsignedGossipMessage, UnsignedNodeAnnouncement};
use lightning::routing::gossip::{NodeAlias, NodeId};
use lightning::sign::{EntropySource, NodeSigner, Recipient, SignerProvider};
use lightning::types::features::NodeFeatures;
use lightning::util::message_signing;
use lightning::util::ser::Writeable;

use crate::world::World;

#[test]
fn a_signed_message_names_the_node() {
    let keys = World::new().keys();
    let node = keys.get_node_id(Recipient::Node).unwrap();
    let signed = keys.sign_message(b"who is it").unwrap();
    assert!(message_signing::verify(b"who is it", &signed, &node));
    assert!(!message_signing::verify(b"who was it", &signed, &node));
}

#[test]
fn a_shared_secret_is_shared_with_and_without_a_tweak() {
    let keys = World::new().keys();
    let secp = Secp256k1::new();
    let node = keys.get_node_id(Recipient::Node).unwrap();
    let other = SecretKey::from_slice(&[5; 32]).unwrap();
    let tweak = Scalar::from_be_bytes([9; 32]).unwrap();
    let ours = keys.ecdh(Recipient::Node, &other.public_key(&secp), None).unwrap();
    assert_eq!(ours, SharedSecret::new(&node, &other));
    let ours = keys.ecdh(Recipient::Node, &other.public_key(&secp), Some(&tweak)).unwrap();
    assert_eq!(ours, SharedSecret::new(&node.mul_tweak(&secp, &tweak).unwrap(), &other));
}

#[test]
fn phantom_nodes_are_refused() {
    let keys = World::new().keys();
    let point = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[5; 32]).unwrap());
    assert_eq!(keys.get_node_id(Recipient::PhantomNode), Err(()));
    assert!(keys.ecdh(Recipient::PhantomNode, &point, None).is_err());
}

#[test]
fn a_node_announcement_verifies() {
    let keys = World::new().keys();
    let node = keys.get_node_id(Recipient::Node).unwrap();
    let announcement = UnsignedNodeAnnouncement {
        features: NodeFeatures::empty(),
        timestamp: 1,
        node_id: NodeId::from_pubkey(&node),
        rgb: [1, 2, 3],
        alias: NodeAlias([b'c'; 32]),
        addresses: Vec::new(),
        excess_address_data: Vec::new(),
        excess_data: Vec::new(),
    };
    let digest = Message::from_digest(sha256d::Hash::hash(&announcement.encode()).to_byte_array());
    let signature = keys.sign_gossip_message(UnsignedGossipMessage::NodeAnnouncement(&announcement)).unwrap();
    assert_eq!(Secp256k1::new().verify_ecdsa(&digest, &signature, &node), Ok(()));
}

#[test]
fn keys_are_the_same_after_a_restart_and_channels_never() {
    let world = World::new();
    let (before, after) = (world.keys(), world.keys());
    assert_eq!(before.get_node_id(Recipient::Node), after.get_node_id(Recipient::Node));
    assert!(before.get_expanded_key() == after.get_expanded_key());
    assert!(before.get_peer_storage_key() == after.get_peer_storage_key());
    assert!(before.get_receive_auth_key() == after.get_receive_auth_key());
    assert_ne!(before.get_receive_auth_key().0, before.get_peer_storage_key().inner, "one key, one purpose");
    assert_ne!(before.generate_channel_keys_id(false, 1), after.generate_channel_keys_id(false, 1));
    assert_ne!(before.get_secure_random_bytes(), before.get_secure_random_bytes());
}
