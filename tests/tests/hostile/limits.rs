//! The operator's limits outlive restarts, and there are none for how many channels and invoices a node has.

use claviger::lightning::driver::{invoice_to_sign, keysend};
use claviger::reasons::Reason;
use vls_protocol::model::PubKey;
use vls_protocol::msgs;

use crate::sweeps::withdrawal;
use crate::thief::Scene;

fn five_payments_an_hour(config: &mut toml::Table) {
    config["limits"]["max_payment_msat"] = 1_000_000.into();
    config["limits"]["max_payment_msat_per_hour"] = 5_000_000.into();
}

#[test]
fn hostile_a_restart_does_not_empty_the_hour() {
    let mut scene = Scene::with("ldk", five_payments_an_hour);
    for n in 0..5 {
        scene.thief.send(None, keysend(n, 1_000_000)).expect("within the limits");
        scene.restart();
    }
    scene.thief.refused_bytes(Reason::Limit, None, keysend(5, 1_000_000));
}

#[test]
fn honest_payments_up_to_the_limits_pass_over_restarts() {
    let mut scene = Scene::with("ldk", five_payments_an_hour);
    for n in 0..4 {
        scene.thief.send(None, keysend(n, 1_000_000)).expect("within the limits");
    }
    scene.restart();
    scene.thief.send(None, keysend(4, 1_000_000)).expect("the fifth");
}

fn onchain(config: &mut toml::Table) {
    config["limits"]["max_onchain_sat"] = 60_000.into();
    config["limits"]["max_onchain_sat_per_day"] = 100_000.into();
    config["limits"]["max_onchain_fee_sat"] = 5_000.into();
}

#[test]
fn hostile_what_is_sent_to_an_approved_stranger_does_not_go_to_miners() {
    let scene = Scene::with("ldk", onchain);
    let key = scene.thief.wallet_key(1);
    scene.thief.refused_bytes(Reason::Limit, None, withdrawal(&key, 50_000, 144_999));
    scene.thief.refused_bytes(Reason::Limit, None, withdrawal(&key, 1_000, 0));
    scene.thief.refused_bytes(Reason::Limit, None, withdrawal(&key, 60_001, 139_000));
}

#[test]
fn honest_a_send_within_the_limits_is_signed() {
    let scene = Scene::with("ldk", onchain);
    scene.thief.send(None, withdrawal(&scene.thief.wallet_key(1), 50_000, 149_000)).expect("within the limits");
}

/// More of each than a built-in table of the usual size holds.
#[test]
fn honest_a_node_has_as_many_channels_and_open_invoices_as_it_likes() {
    let scene = Scene::new("ldk");
    for dbid in 1..=1_200 {
        let peer_id = PubKey(scene.thief.node_id().serialize());
        let _: msgs::NewChannelReply = scene.thief.answered(None, &msgs::NewChannel { peer_id, dbid });
        scene.thief.send(None, invoice_to_sign(dbid, 1_000)).expect("one more invoice");
    }
}
