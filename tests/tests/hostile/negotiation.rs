//! No negotiation of the node's makes the signer reveal more than protocol version 6 does.

use bitcoin::Network;
use bitcoin::constants::genesis_block;
use claviger::reasons::Reason;
use vls_protocol::model::{Bip32KeyVersion, DevSecret};
use vls_protocol::msgs::{self, SerBolt};
use vls_protocol::serde_bolt::{Array, WireString};

use crate::channel::{Channel, Terms};
use crate::reasons::NOT_REPLACED;
use crate::thief::Scene;

fn init(min: u32, max: u32) -> msgs::HsmdInit {
    msgs::HsmdInit {
        key_version: Bip32KeyVersion { pubkey_version: 0, privkey_version: 0 },
        chain_params: genesis_block(Network::Regtest).block_hash(),
        encryption_key: None,
        dev_privkey: None,
        dev_bip32_seed: None,
        dev_channel_secrets: None,
        dev_channel_secrets_shaseed: None,
        hsm_wire_min_version: min,
        hsm_wire_max_version: max,
    }
}

fn init2() -> msgs::HsmdInit2 {
    let network_name = WireString(Network::Regtest.to_string().into_bytes());
    msgs::HsmdInit2 { derivation_style: 1, network_name, dev_seed: None, dev_allowlist: Array::new() }
}

#[test]
fn hostile_versions_that_release_secrets_unasked_are_not_spoken() {
    let scene = Scene::new("cln");
    for (min, max) in [(2, 4), (2, 5), (4, 4), (5, 5), (7, 9)] {
        scene.thief.refused(Reason::Validation, None, &init(min, max));
    }
    let channel = Channel::set_up(&scene, 7);
    for _ in 0..2 {
        let message = msgs::RevokeCommitmentTx { commitment_number: 0 };
        scene.thief.refused(NOT_REPLACED, Some(channel.reference), &message);
    }
}

#[test]
fn hostile_the_secret_of_the_commitment_in_force_stays_inside() {
    let scene = Scene::new("ldk");
    let mut channel = Channel::open(&scene, 7);
    channel.advance(Terms::to_peer(0)).expect("a state like the one before");
    for number in [1, 2, 3] {
        assert_eq!(channel.revoke(number).expect_err("nothing replaces it").0, NOT_REPLACED, "number {number}");
    }
    channel.advance(Terms::to_peer(0)).expect("the channel works");
}

#[test]
fn hostile_keys_and_allow_lists_of_the_node_are_not_taken() {
    let scene = Scene::new("cln");
    let secret = || Some(DevSecret([1; 32]));
    scene.thief.refused(Reason::NotAllowed, None, &msgs::HsmdInit { dev_bip32_seed: secret(), ..init(5, 6) });
    let scene = Scene::new("ldk");
    scene.thief.refused(Reason::NotAllowed, None, &msgs::HsmdInit2 { dev_seed: secret(), ..init2() });
    let dev_allowlist = Array(vec![WireString(b"address:bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_vec())]);
    scene.thief.refused(Reason::NotAllowed, None, &msgs::HsmdInit2 { dev_allowlist, ..init2() });
}

#[test]
fn honest_negotiations_are_answered_as_often_as_they_come() {
    let cln = Scene::new("cln");
    let hello = || cln.thief.send(None, init(5, 6).as_vec()).expect("both know version 6");
    assert_eq!(hello(), hello());
    let ldk = Scene::new("ldk");
    let hello = || ldk.thief.send(None, init2().as_vec()).expect("LDK's own");
    assert_eq!(hello(), hello());
}
