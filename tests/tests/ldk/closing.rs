//! Closing without the peer, with payments on the way in both directions.

use crate::busy::Busy;
use crate::stage::{Stage, disconnect, force_close, pay, wait};

#[test]
fn we_force_close_claim_by_preimage_and_take_back_by_timeout() {
    let stage = Stage::new();
    let busy = Busy::channel(&stage);
    force_close(&stage, &busy.signed, &busy.plain);
    stage.mine(1, &busy.nodes());
    busy.signed.claim(&busy.incoming);
    busy.settle(&stage, Busy::TO_US + Busy::IN + Busy::OUT);
}

#[test]
fn the_peer_force_closes_and_we_claim_by_preimage_and_take_back_by_timeout() {
    let stage = Stage::new();
    let busy = Busy::channel(&stage);
    force_close(&stage, &busy.plain, &busy.signed);
    stage.mine(1, &busy.nodes());
    busy.signed.claim(&busy.incoming);
    busy.settle(&stage, Busy::TO_US + Busy::IN + Busy::OUT);
}

#[test]
fn the_peer_claims_by_preimage_what_we_sent_and_takes_back_what_it_sent() {
    let stage = Stage::new();
    let busy = Busy::channel(&stage);
    force_close(&stage, &busy.signed, &busy.plain);
    stage.mine(1, &busy.nodes());
    busy.plain.claim(&busy.outgoing);
    busy.settle(&stage, Busy::TO_US);
}

#[test]
fn a_commitment_whose_fee_is_too_low_is_bumped_through_its_anchor() {
    let stage = Stage::new();
    let (signed, plain) = (stage.signed(), stage.plain("bob"));
    let nodes = [&signed, &plain];
    stage.channel(&signed, &plain);
    pay(&signed, &plain, 100_000_000);
    let before = signed.balance();
    disconnect(&signed, &plain);
    // Not before: the peer would agree to a commitment that pays it.
    signed.set_feerate(5000);
    force_close(&stage, &signed, &plain);
    wait("commitment and anchor spend", &nodes, || stage.world.chain.mempool().len() == 2);
    let [commitment, bump] = &stage.world.chain.mempool()[..] else { unreachable!() };
    assert!(bump.input.iter().any(|input| input.previous_output.txid == commitment.compute_txid()));
    stage.settle(&signed, &plain, before, 900_000);
}

#[test]
fn a_payment_that_expired_while_node_and_signer_were_away_is_taken_back() {
    let mut stage = Stage::new();
    let mut busy = Busy::channel(&stage);
    force_close(&stage, &busy.plain, &busy.signed);
    stage.mine(1, &busy.nodes());
    busy.signed.claim(&busy.incoming);
    stage.mine(2, &busy.nodes());
    busy = busy.restart_signed(&mut stage, |world, plain| {
        world.signer.kill().unwrap();
        world.mine(200, &[plain]).unwrap();
        world.signer.start().unwrap();
    });
    // The signer has 200 blocks to catch up with; until then it asks the node to wait.
    stage.broadcast("the expired payment", &busy.nodes());
    busy.settle(&stage, Busy::TO_US + Busy::IN + Busy::OUT);
}
