//! The vectors that Lightspark's open SDKs test their own derivations with.

use std::str::FromStr;

use bitcoin::bip32::Xpub;
use bitcoin::secp256k1::Message;

use super::*;

/// Of BIP 32's first test vector.
const SEED: &str = "000102030405060708090a0b0c0d0e0f";
/// Of its second.
const OTHER: &str = "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542";
const HARD: u32 = 1 << 31;

fn keys(seed: &str, network: Network) -> Keys {
    let master = Xpriv::new_master(network, &hex::decode(seed).expect("hex")).expect("a key");
    let key = Secret::init(|out| out.copy_from_slice(&master.private_key[..]));
    Keys::new(&key, &Secret::init(|out| out.copy_from_slice(master.chain_code.as_bytes())), network)
}

fn bytes(text: &str) -> [u8; 32] {
    hex::decode(text).expect("hex").try_into().expect("32 bytes")
}

fn children(path: &[u32]) -> Vec<ChildNumber> {
    path.iter().map(|number| ChildNumber::from(*number)).collect()
}

fn signed(keys: &Keys, digest: [u8; 32], key: &SecretKey) -> String {
    hex::encode(keys.secp.sign_ecdsa(&Message::from_digest(digest), key).serialize_compact())
}

/// A message as those tests sign it: they hash it, and the signer of then hashes that again.
fn hello() -> [u8; 32] {
    sha256::Hash::hash(&sha256::Hash::hash(b"Hello Crypto World").to_byte_array()).to_byte_array()
}

#[test]
fn the_seed_makes_bip32_s_master_key_and_its_children() {
    let keys = keys(SEED, Network::Bitcoin);
    for (path, xpub) in [
        (
            vec![],
            "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
        ),
        (
            vec![HARD],
            "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
        ),
    ] {
        let xpub = Xpub::from_str(xpub).expect("a key");
        assert_eq!(keys.at(&children(&path)).public_key(&keys.secp), xpub.public_key);
    }
    let private = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
    assert_eq!(keys.at(&[]), Xpriv::from_str(private).expect("a key").private_key);
}

#[test]
fn a_child_of_a_hardened_child_is_that_of_the_official_signer() {
    let keys = keys(OTHER, Network::Bitcoin);
    let xpub = "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon";
    let key = keys.at(&children(&[0, 2_147_483_647 | HARD, 1]));
    assert_eq!(key.public_key(&keys.secp), Xpub::from_str(xpub).expect("a key").public_key);
    let signature = "7da82918e6fda3f13c83adb22fa8d5e70b694d5cc9ed1e2b8745edd94c387cf55dd50fb66496e44ab441463d1bbe4d6a4d2882be88827c3e423041d92f87c094";
    assert_eq!(signed(&keys, hello(), &key), signature);
}

#[test]
fn a_key_is_multiplied_first_and_added_to_then() {
    let base = SecretKey::from_slice(&std::array::from_fn::<u8, 32, _>(|at| at as u8)).expect("a key");
    let mul = bytes("efbf7ba5a074276701798376950a64a90f698997cce0dff4d24a6d2785d20963");
    let add = bytes("8be02a96a97b9a3c1c9f59ebb718401128b72ec009d85ee1656319b52319b8ce");
    let key = tweaked(base, Some(&mul), Some(&add)).expect("a key");
    let expected = "d09ffff62ddb2297ab000cc85bcb4283fdeb6aa052affbc9dddcf33b61078110";
    assert_eq!(hex::encode(key.secret_bytes()), expected);
}

#[test]
fn a_key_with_the_tweaks_of_bolt_3_s_appendix_signs_as_the_official_signer_does() {
    let keys = keys("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", Network::Bitcoin);
    let mul = bytes("efbf7ba5a074276701798376950a64a90f698997cce0dff4d24a6d2785d20963");
    let add = bytes("8be02a96a97b9a3c1c9f59ebb718401128b72ec009d85ee1656319b52319b8ce");
    let key = tweaked(keys.at(&[]), Some(&mul), Some(&add)).expect("a key");
    let signature = "648a7f7e517cad5962427f7ac1efb5d80cd670d5f643144dd4c6b9146bf561054c3edf7294b7dc1acd249dddf78c72ae3a31ce0fb4c890512828c7a54a2f5e30";
    assert_eq!(signed(&keys, hello(), &key), signature);
}

#[test]
fn preimages_and_payment_hashes_follow_from_their_nonces() {
    let keys = keys(SEED, Network::Bitcoin);
    for (nonce, preimage) in [
        ("00".repeat(32), "ceb7494bb4dc84e5963a151f26faa2e759379aeb7b8cc9b02cf9753202d39381"),
        ("01".repeat(32), "d9a850ee1be830b3af70e88ce8085b5d23a24ca8b1dcb9164a4716f6a8771a85"),
    ] {
        assert_eq!(hex::encode(&keys.preimage(&bytes(&nonce))[..]), preimage);
    }
}

#[test]
fn a_payment_hash_is_that_of_the_go_sdk() {
    let keys = keys(SEED, Network::Bitcoin);
    let nonce = bytes("5c3c1200b86db0eacbf1cbdd40b86ee5d66482b1f214ef26624aa407829a1a5b");
    let preimage = "a29ce018c174a1a8a68a0acb2acb1111aa1625f486ca1a36d9d91863d5f26a6a";
    assert_eq!(hex::encode(&keys.preimage(&nonce)[..]), preimage);
    let hash = "2e28491c129551c7bed5f1df4852d2a711965c0d6ee1948e43aa639ddcd154c3";
    assert_eq!(hex::encode(keys.payment_hash(&nonce)), hash);
}

#[test]
fn a_point_is_that_of_its_secret() {
    let (keys, channel, index) = (keys(SEED, Network::Bitcoin), 2_104_864_975, 281_474_976_710_654);
    let point = keys.per_commitment_point(channel, index);
    assert_eq!(point.to_string(), "03799e5fbe4a43c4a501fbf54df991756c34c29998e460ccd378c31acba0b5576c");
    let secret = SecretKey::from_slice(&*keys.per_commitment_secret(channel, index)).expect("a key");
    assert_eq!(secret.public_key(&keys.secp), point);
}

#[test]
fn a_funding_key_signs_as_the_official_signer_does() {
    let digest = bytes("476bdd1db5d91897d00d75300eef50c0da7e0b2dada06dde93cbb5903b7e16b2");
    for (seed, signature) in [
        (
            SEED,
            "0e4ba754a6c8413ba15cda950e256ac8c13f033c9e592649129b5c29b61258954694761ab296c53e2a92b75d9dd63d965cd0f6f5d3eced3079d15eb0f0b9dcfb",
        ),
        (
            "1a6deac8f74fb2e332677e3f4833b5e962f80d153fb368b8ee322a9caca4113d56cccd88f1c6a74e152669d8cd373fee2f27e3645d80de27640177a8c71395f8",
            "47f513244205ac51dd7cb2f845be0a96e00e504e699b2b8cfaf2178be9c528626c0ec0db497ad475dfd6aeef2f6fc07e366e63a536505be877d49d72e9506158",
        ),
    ] {
        let keys = keys(seed, Network::Bitcoin);
        let key = keys.secret(KeyPath::ChannelKey(2_106_220_917, ChannelKey::Funding));
        assert_eq!(signed(&keys, digest, &key), signature);
    }
}

#[test]
fn a_node_s_identity_is_the_one_that_peers_know() {
    for (seed, id) in [
        (SEED, "027c4b09ffb985c298afe7e5813266cbfcb7780b480ac294b0b43dc21f2be3d13c"),
        (OTHER, "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea"),
    ] {
        assert_eq!(keys(seed, Network::Bitcoin).node_id().to_string(), id);
    }
}

#[test]
fn the_captured_event_s_point_is_the_one_that_lightspark_took() {
    let keys = keys(
        "1a6deac8f74fb2e332677e3f4833b5e962f80d153fb368b8ee322a9caca4113d56cccd88f1c6a74e152669d8cd373fee2f27e3645d80de27640177a8c71395f8",
        Network::Regtest,
    );
    let point = keys.per_commitment_point(19_328, 27_363_191);
    assert_eq!(point.to_string(), "027ba8a666d57947ba8337d0e211cae9125dbaf7c9883cb34f49393bc1a4907dd8");
}

#[test]
fn a_tweaked_htlc_key_signs_as_the_official_signer_does() {
    let keys = keys(SEED, Network::Bitcoin);
    let add = bytes("a66cd04862ae9041906f027db9cd43783dad06615fdf9001c5369b315fbef90a");
    let mul = bytes("d273f16519917211ffee805216b7cb5ae14600eeca5fbc84cefae62cf6a011a4");
    let key = keys.secret(KeyPath::ChannelKey(1_234_856, ChannelKey::HtlcBase));
    let key = tweaked(key, Some(&mul), Some(&add)).expect("a key");
    let public = "025c9fd548d85c9ccfcae030573d3e37407895ff4412a2c99791f41753221f504a";
    assert_eq!(key.public_key(&keys.secp).to_string(), public);
    let digest = bytes("9a0c7185121c40850e3e40d3170a5b408374217dc617067f3d7760c522733cef");
    let signature = "649fc9ea09fdeafd58611f55407039e02a4557ce405eae5b2aa17e111230d0fc529c574200c5e29edc9f5c89626696429c008d5730371807004662b862d0b665";
    assert_eq!(signed(&keys, digest, &key), signature);
}

#[test]
fn the_l1_wallet_s_account_is_that_of_its_network() {
    let seed = "69f580170954f411bbabc60118c0a3a0e483381d196d4087d32b78bdfee4a114";
    for (network, account, key) in [
        (
            Network::Bitcoin,
            "xpub6D87MELKGzkxrhQcQVNddwHLC3td1ftP4sS6zBaz5JU4MimSwKqK3XcEnrE38mgfydBmsedXc35tETx5HALSzBfre3ZXo26nS2kBmPwvJ3n",
            "02032bce35f0bcc0be87576cf97e34478a124788e2fbac457f0efd2a9b1c6bd4ef",
        ),
        (
            Network::Testnet,
            "tpubDDPLaqgr8bawQ6chGQ7ZkSChHBjVihms7dXdcZF8XvDNirxsctoK17brjJt7eMb7ZgppHz86uQNT1ksw89svDiAqNeMKsHfYfs8K8F1kq8m",
            "03d9b4f65f45e270decbfb7dc560fae00ddc9eaa6c12f330890ad158824390df0c",
        ),
        (
            Network::Regtest,
            "tpubDC7fZywQZQ45q3ebc3HC2CiCWUe1p3g5ZrM4uh7GBXRqnBzpG5qLD8swyYqUThvmNksGLEHYcjtChXUXGUWXuH1FqTF6rwwr2ErEoZJQnE3",
            "039e9d87e27d823993c83b10356edd3978a760c135332835bf0d554bc82dbfc4be",
        ),
    ] {
        let keys = keys(seed, network);
        let account = Xpub::from_str(account).expect("a key");
        let seventh = account.derive_pub(&keys.secp, &children(&[0, 7])).expect("a key").public_key;
        assert_eq!(keys.public(KeyPath::Wallet(0, 7)), seventh);
        assert_eq!(seventh.to_string(), key);
    }
}
