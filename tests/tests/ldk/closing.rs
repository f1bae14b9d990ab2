//! Closing without the peer, with payments on the way in both directions.

use bitcoin::Amount;
use claviger_demo::node::LdkNode;
use lightning::types::payment::PaymentHash;

use crate::stage::{Stage, pay, pay_held, wait};

const OUT: u64 = 60_000_000;
const IN: u64 = 70_000_000;

/// A channel with 500,000 sat on each side, of which 60,000 are on their way out and 70,000 on their way in.
fn busy_channel(stage: &Stage) -> (LdkNode, LdkNode, PaymentHash, PaymentHash) {
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 500_000_000);
    let outgoing = pay_held(&signed, &plain, OUT);
    let incoming = pay_held(&plain, &signed, IN);
    (signed, plain, outgoing, incoming)
}

/// Closes without a word, so that the other does not broadcast its own commitment.
fn force_close(stage: &Stage, closer: &LdkNode, other: &LdkNode) {
    closer.disconnect(&other.id());
    other.disconnect(&closer.id());
    wait("the connection to end", &[closer, other], || !closer.is_connected(&other.id()));
    closer.force_close(&closer.channel_with(&other.id()).unwrap()).unwrap();
    stage.broadcast("the commitment", &[closer, other]);
}

fn nothing_left(node: &LdkNode) -> bool {
    node.channels().is_empty() && node.claimable().is_empty()
}

/// Mines until both have everything; the signed node then has `expected_sat` more than `before`, fees aside.
fn settle(stage: Stage, signed: &LdkNode, plain: &LdkNode, before: Amount, expected_sat: i64) {
    let nodes = [signed, plain];
    stage.mine_until("everything to be claimed", &nodes, || nothing_left(signed) && nothing_left(plain));
    stage.mine(6, &nodes);
    stage.mine_until("the sweeps", &nodes, || stage.world.chain.mempool().is_empty());
    let gained = signed.balance().to_sat() as i64 - before.to_sat() as i64;
    let fees = expected_sat - 30_000..=expected_sat;
    assert!(fees.contains(&gained), "gained {gained}, expected {expected_sat} minus fees");
    stage.end_settled(&nodes);
}

#[test]
fn we_force_close_claim_by_preimage_and_take_back_by_timeout() {
    let stage = Stage::new();
    let (signed, plain, _outgoing, incoming) = busy_channel(&stage);
    let before = signed.balance();
    force_close(&stage, &signed, &plain);
    stage.mine(1, &[&signed, &plain]);
    signed.claim(&incoming);
    // 440,000 to_local, 70,000 by preimage, 60,000 by timeout.
    settle(stage, &signed, &plain, before, 570_000);
}

#[test]
fn the_peer_force_closes_and_we_claim_by_preimage_and_take_back_by_timeout() {
    let stage = Stage::new();
    let (signed, plain, _outgoing, incoming) = busy_channel(&stage);
    let before = signed.balance();
    force_close(&stage, &plain, &signed);
    stage.mine(1, &[&signed, &plain]);
    signed.claim(&incoming);
    settle(stage, &signed, &plain, before, 570_000);
}

#[test]
fn the_peer_claims_by_preimage_what_we_sent_and_takes_back_what_it_sent() {
    let stage = Stage::new();
    let (signed, plain, outgoing, _incoming) = busy_channel(&stage);
    let before = signed.balance();
    force_close(&stage, &signed, &plain);
    stage.mine(1, &[&signed, &plain]);
    plain.claim(&outgoing);
    settle(stage, &signed, &plain, before, 440_000);
}

#[test]
fn a_commitment_whose_fee_is_too_low_is_bumped_through_its_anchor() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 100_000_000);
    let before = signed.balance();
    signed.set_feerate(5000);
    force_close(&stage, &signed, &plain);
    wait("commitment and anchor spend", &[&signed, &plain], || stage.world.chain.mempool().len() == 2);
    let [commitment, bump] = &stage.world.chain.mempool()[..] else { unreachable!() };
    assert!(bump.input.iter().any(|input| input.previous_output.txid == commitment.compute_txid()));
    settle(stage, &signed, &plain, before, 900_000);
}

#[test]
#[ignore = "the coins come back, but a signer that lags denies the claim as `validation` until it has caught up"]
fn a_payment_that_expired_while_node_and_signer_were_away_is_taken_back() {
    let mut stage = Stage::new();
    let (signed, plain, _outgoing, incoming) = busy_channel(&stage);
    let before = signed.balance();
    force_close(&stage, &plain, &signed);
    stage.mine(1, &[&signed, &plain]);
    signed.claim(&incoming);
    stage.mine(2, &[&signed, &plain]);
    let signed = stage.restart(signed, |world| {
        world.signer.kill().unwrap();
        world.mine(200, &[&plain]).unwrap();
        world.signer.start().unwrap();
    });
    settle(stage, &signed, &plain, before, 570_000);
}
