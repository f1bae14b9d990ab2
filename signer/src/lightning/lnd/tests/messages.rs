//! Messages, shared secrets, and MuSig2.

use super::*;

#[test]
fn secrets_are_shared_for_their_purposes_and_no_other() {
    let mut lnd = Lnd::new();
    let theirs = peer_key(4);
    for (family, index) in [(6, 0), (8, 0), (8, 31), (9, 0)] {
        assert!(lnd.share(family, index, &theirs).is_ok(), "{family}/{index}");
    }
    for (family, index) in [(0, 0), (1, 0), (2, 5), (3, 0), (4, 1), (5, 1), (6, 1), (7, 0), (9, 1)] {
        let refused = lnd.share(family, index, &theirs).expect_err("refused");
        assert_eq!(refused.reason, Reason::SecretPurpose, "{family}/{index}");
    }
    assert_eq!(lnd.share(99, 0, &theirs).expect_err("refused").reason, Reason::KeyPurpose);
    assert_eq!(lnd.share(-1, 0, &theirs).expect_err("refused").reason, Reason::Malformed);
    // A revocation root: with our own funding key, and one root for each.
    assert!(lnd.reserve(3, 1).is_ok());
    assert!(lnd.reserve(3, 1).is_ok(), "asked again");
    assert_eq!(lnd.reserve(3, 2).expect_err("another root").reason, Reason::SecretPurpose);
    lnd = lnd.restarted();
    assert_eq!(lnd.reserve(3, 2).expect_err("another root").reason, Reason::SecretPurpose);
    assert!(lnd.reserve(4, 2).is_ok());
    // The secret is what Diffie and Hellman make it.
    let ours = lnd.share(6, 0, &theirs).expect("the node's");
    let secret = SecretKey::from_slice(&[4; 32]).expect("a key");
    assert_eq!(ours, SharedSecret::new(&lnd.node.keys.node_id(), &secret).as_ref());
}

#[test]
fn lnds_ways_to_name_a_key_are_its_own() {
    let mut lnd = Lnd::new();
    let point = peer_key(4).serialize().to_vec();
    let locator = KeyLocator { key_family: 6, key_index: 0 };
    let raw_key_bytes = lnd.key(Family::NodeKey, 0).serialize().to_vec();
    let described = |raw: &[u8], index| KeyDescriptor {
        raw_key_bytes: raw.to_vec(),
        key_loc: Some(KeyLocator { key_family: 6, key_index: index }),
    };
    let call = SharedKeyRequest { ephemeral_pubkey: point.clone(), key_loc: None, key_desc: None };
    let mut ask = |change: &dyn Fn(&mut SharedKeyRequest)| {
        let mut call = call.clone();
        change(&mut call);
        lnd.ask(Method::DeriveSharedKey, &call).map(|(reply, _)| reply).map_err(|refusal| refusal.detail)
    };
    let plain = ask(&|_| {}).expect("the node's key unless said otherwise");
    assert_eq!(ask(&|call| call.key_loc = Some(locator)), Ok(plain.clone()));
    assert_eq!(ask(&|call| call.key_desc = Some(described(&raw_key_bytes, 0))), Ok(plain));
    let refused = |result: Result<Vec<u8>, String>, words: &str| {
        let detail = result.expect_err("refused");
        assert!(detail.contains(words), "{detail}");
    };
    refused(ask(&|call| call.ephemeral_pubkey.clear()), "must provide ephemeral pubkey");
    refused(
        ask(&|call| {
            call.key_loc = Some(locator);
            call.key_desc = Some(described(&[], 0));
        }),
        "use either key_desc or key_loc",
    );
    refused(ask(&|call| call.key_desc = Some(described(&raw_key_bytes, 1))), "use either raw_key_bytes or key_index");
    refused(ask(&|call| call.key_desc = Some(described(&point, 0))), "raw_key_bytes is not");
}

#[test]
fn hostile_messages_that_are_digests_of_transactions_or_meant_for_other_keys_are_not_signed() {
    let mut lnd = Lnd::new();
    let mut sign = |family: i32, msg: &[u8], change: &dyn Fn(&mut SignMessageReq)| {
        let key_loc = Some(KeyLocator { key_family: family, key_index: 0 });
        let mut call = SignMessageReq { msg: msg.to_vec(), key_loc, double_hash: true, ..SignMessageReq::default() };
        change(&mut call);
        lnd.ask(Method::SignMessage, &call).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    // What BIP 143 has signed of a commitment: version, two digests, an outpoint, script, amount and so on.
    let preimage = [&[2, 0, 0, 0][..], &[7; 224]].concat();
    assert_eq!(sign(0, &preimage, &|_| {}), Err(Reason::GossipUnreadable));
    assert_eq!(sign(6, &preimage, &|_| {}), Err(Reason::GossipUnreadable));
    assert_eq!(sign(0, &preimage, &|call| call.double_hash = false), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"anything", &|call| call.double_hash = false), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"anything", &|call| call.compact_sig = true), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"text", &|call| call.schnorr_sig = true), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"text", &|call| call.tag = b"TapSighash".to_vec()), Err(Reason::KeyPurpose));
    for family in [1, 2, 3, 4, 5, 7, 8, 9] {
        let text = b"Lightning Signed Message:hello";
        assert_eq!(sign(family, text, &|call| call.compact_sig = true), Err(Reason::KeyPurpose), "{family}");
    }
    assert_eq!(sign(10, b"text", &|_| {}), Err(Reason::KeyPurpose));
    assert_eq!(sign(6, b"Lightning Signed Message:hello", &|call| call.compact_sig = true), Ok(()));
}

#[test]
fn announcements_are_signed_with_the_keys_that_they_name() {
    let mut lnd = Lnd::new();
    let (node_id, funding) = (lnd.node.keys.node_id(), lnd.key(Family::Multisig, 2));
    let announcement = |node: &PublicKey, ours: &PublicKey, network: Network| {
        let chain = bitcoin::constants::ChainHash::using_genesis_block(network).to_bytes();
        let keys = [node.serialize(), peer_key(8).serialize(), ours.serialize(), peer_key(7).serialize()].concat();
        [&[0, 0][..], &chain, &[1; 8], &keys].concat()
    };
    let mut sign = |key_family: i32, key_index: i32, msg: Vec<u8>| {
        let key_loc = Some(KeyLocator { key_family, key_index });
        let call = SignMessageReq { msg, key_loc, double_hash: true, ..SignMessageReq::default() };
        lnd.ask(Method::SignMessage, &call).map(|(reply, _)| reply).map_err(|refusal| refusal.reason)
    };
    let honest = announcement(&node_id, &funding, Network::Regtest);
    for (family, index, key) in [(6, 0, node_id), (0, 2, funding)] {
        let reply = sign(family, index, honest.clone()).expect("honest");
        let signature = SignMessageResp::decode(&reply[..]).expect("a reply").signature;
        let signature = ecdsa::Signature::from_der(&signature).expect("DER");
        let digest = Digest::from_digest(sha256d::Hash::hash(&honest).to_byte_array());
        assert!(Secp256k1::new().verify_ecdsa(&digest, &signature, &key).is_ok());
    }
    assert_eq!(sign(0, 3, honest), Err(Reason::GossipForeign), "another channel's key");
    for foreign in [
        announcement(&peer_key(6), &funding, Network::Regtest),
        announcement(&node_id, &peer_key(6), Network::Regtest),
        announcement(&node_id, &funding, Network::Bitcoin),
    ] {
        assert_eq!(sign(0, 2, foreign.clone()), Err(Reason::GossipForeign));
        assert_eq!(sign(6, 0, foreign), Err(Reason::GossipForeign));
    }
}

/// BOLT 7, with what lnd puts behind it.
#[test]
fn updates_are_signed_with_inbound_fees_or_without_and_hostile_ones_are_not() {
    let update = |network: Network, flags: u8, behind: &[u8]| {
        let chain = bitcoin::constants::ChainHash::using_genesis_block(network).to_bytes();
        [&chain[..], &[1; 8 + 4], &[flags, 0], &[2; 2 + 8 + 4 + 4 + 8], behind].concat()
    };
    // Type 55555 as BigSize, eight bytes: base and proportional inbound fee.
    let inbound_fee = [&[0xfd, 0xd9, 0x03, 8][..], &[0xff; 8]].concat();
    let mut lnd = Lnd::new();
    let mut sign = |msg: Vec<u8>| {
        let key_loc = Some(KeyLocator { key_family: 6, key_index: 0 });
        let call = SignMessageReq { msg, key_loc, double_hash: true, ..SignMessageReq::default() };
        lnd.ask(Method::SignMessage, &call).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(sign(update(Network::Regtest, 1, &[])), Ok(()));
    assert_eq!(sign(update(Network::Regtest, 1, &inbound_fee)), Ok(()));
    assert_eq!(sign(update(Network::Bitcoin, 1, &inbound_fee)), Err(Reason::GossipForeign));
    assert_eq!(sign(update(Network::Regtest, 1, &inbound_fee[..11])), Err(Reason::GossipUnreadable));
    assert_eq!(sign(update(Network::Regtest, 0, &inbound_fee)), Err(Reason::GossipUnreadable));
}

#[test]
fn no_musig2_session_begins_whether_it_brings_its_nonce_or_not() {
    let mut lnd = Lnd::new();
    let mut session = MuSig2SessionRequest { pregenerated_local_nonce: vec![7; 97], ..MuSig2SessionRequest::default() };
    let reason = |result: Result<(Vec<u8>, Vec<Fact>), Refusal>| result.expect_err("refused").reason;
    assert_eq!(reason(lnd.ask(Method::MuSig2CreateSession, &session)), Reason::NonceForeign);
    session.pregenerated_local_nonce.clear();
    assert_eq!(reason(lnd.ask(Method::MuSig2CreateSession, &session)), Reason::BlindDigest);
    let digest = MuSig2SignRequest { message_digest: vec![7; 32], ..MuSig2SignRequest::default() };
    for method in &Method::ALL[4..] {
        assert_eq!(reason(lnd.ask(*method, &digest)), Reason::BlindDigest, "{method:?}");
    }
}
