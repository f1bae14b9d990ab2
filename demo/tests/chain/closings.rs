//! Closes as the chain may show them: read where possible, survived always.

use std::sync::Arc;

use crate::world::{
    World, apply, depths, followed, open_channel, open_coin, open_script, payment_point, pays, point, revert, secret,
    spend,
};
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, Witness, transaction};
use claviger::chain::{ApplyError, Attestor};
use lightning::ln::chan_utils::{
    get_commitment_transaction_number_obscure_factor, get_to_countersigner_keyed_anchor_redeemscript,
};
use lightning_signer::channel::ChannelId;
use lightning_signer::node::Node;

/// A world with one node and one channel whose funding is confirmed.
fn funded() -> (World, Arc<Node>, ChannelId, OutPoint) {
    let world = World::new();
    let node = world.node(1, 3);
    world.catch_up(&node);
    let funding_tx = spend(&[open_coin(&world.chain, 1_000_000)], vec![pays(1_000_000, open_script().to_p2wsh())]);
    let funding = OutPoint { txid: funding_tx.compute_txid(), vout: 0 };
    let id = open_channel(&node, funding);
    world.chain.broadcast(&funding_tx).unwrap();
    world.chain.mine(1);
    assert_eq!(world.catch_up(&node).unwrap().touched, [funding]);
    (world, node, id, funding)
}

/// A commitment of the counterparty with this number, as far as its form shows: an output that is ours, and others.
fn counterparty_commitment(node: &Node, id: &ChannelId, funding: OutPoint, number: u64) -> Transaction {
    let ours = payment_point(node, id);
    let obscured = number ^ get_commitment_transaction_number_obscure_factor(&ours, &point(23), true);
    let main = get_to_countersigner_keyed_anchor_redeemscript(&ours).to_p2wsh();
    let htlc = ScriptBuf::from(vec![0x51, 0x51]).to_p2wsh();
    let outputs = vec![pays(100_000, htlc.clone()), pays(800_000, main), pays(50_000, htlc)];
    let mut tx = spend(&[funding], outputs);
    tx.input[0].sequence = Sequence(0x8000_0000 | (obscured >> 24) as u32);
    tx.lock_time = LockTime::from_consensus(0x2000_0000 | (obscured & 0xff_ffff) as u32);
    tx
}

/// Spends our main output of `commitment` with the channel's key.
fn sweep(node: &Node, id: &ChannelId, commitment: &Transaction) -> Transaction {
    let secp = Secp256k1::new();
    let (key, suffix) = node.with_channel(id, |channel| channel.get_unilateral_close_key(&None, &None)).unwrap();
    let outpoint = OutPoint { txid: commitment.compute_txid(), vout: 1 };
    let input = TxIn { previous_output: outpoint, sequence: Sequence(1), ..TxIn::default() };
    let mut tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![pays(799_000, open_script().to_p2wsh())],
    };
    let script = ScriptBuf::from(suffix[0].clone());
    let value = Amount::from_sat(800_000);
    let hash = SighashCache::new(&tx).p2wsh_signature_hash(0, &script, value, EcdsaSighashType::All).unwrap();
    let signature = bitcoin::ecdsa::Signature::sighash_all(secp.sign_ecdsa(&Message::from(hash), &key));
    tx.input[0].witness = Witness::from_slice(&[&signature.to_vec(), script.as_bytes()]);
    tx
}

#[test]
fn a_commitment_the_signer_cannot_read_still_closes_the_channel_and_our_output_is_watched() {
    let (world, node, id, funding) = funded();
    let commitment = counterparty_commitment(&node, &id, funding, 3);
    let ours = OutPoint { txid: world.chain.broadcast(&commitment).unwrap(), vout: 1 };
    world.chain.mine(1);
    assert_eq!(world.catch_up(&node).unwrap().touched, [funding]);
    assert_eq!(depths(&node, &funding), (2, 1));
    assert!(followed(&node, &funding).1.watches.contains(&ours));

    world.chain.broadcast(&sweep(&node, &id, &commitment)).unwrap();
    world.chain.mine(1);
    assert_eq!(world.catch_up(&node).unwrap().touched, [funding]);
    let slot = followed(&node, &funding).1;
    assert!(slot.seen.contains(&ours) && !slot.watches.contains(&ours));

    // The sweep is undone, then the close: what was spent is watched again, what never was is not.
    world.step_back(&node);
    let slot = followed(&node, &funding).1;
    assert!(slot.watches.contains(&ours) && !slot.seen.contains(&ours));
    assert_eq!(world.step_back(&node).touched, [funding]);
    let slot = followed(&node, &funding).1;
    assert!(slot.watches.contains(&funding) && !slot.watches.contains(&ours));
    assert_eq!(depths(&node, &funding), (1, 0));
    world.catch_up(&node);
    assert_eq!(depths(&node, &funding), (3, 2));
}

#[test]
fn a_close_and_its_sweep_in_one_block_are_both_seen() {
    let (world, node, id, funding) = funded();
    // Everything before the close is unwound again at the end, so nothing of it may be left over.
    let before = followed(&node, &funding).1;
    let close = spend(&[funding], vec![pays(999_000, open_script().to_p2wsh())]);
    let next = OutPoint { txid: world.chain.broadcast(&close).unwrap(), vout: 0 };
    world.chain.broadcast(&spend(&[next], vec![pays(998_000, open_script().to_p2wsh())])).unwrap();
    world.chain.mine(1);
    world.catch_up(&node);
    assert_eq!(depths(&node, &funding), (2, 1));
    world.step_back(&node);
    let after = followed(&node, &funding).1;
    assert_eq!((after.watches, after.seen), (before.watches, before.seen));
    assert!(payment_point(&node, &id) != point(23));
}

#[test]
fn a_close_with_another_input_is_a_close() {
    let (world, node, _, funding) = funded();
    let other = open_coin(&world.chain, 50_000);
    world.chain.broadcast(&spend(&[other, funding], vec![pays(1_000_000, open_script().to_p2wsh())])).unwrap();
    world.chain.mine(1);
    world.catch_up(&node);
    assert_eq!(depths(&node, &funding).1, 1);
    world.step_back(&node);
    assert_eq!(depths(&node, &funding).1, 0);
}

#[test]
fn a_close_with_more_outputs_than_a_commitment_can_have_is_a_close() {
    let (world, node, _, funding) = funded();
    let outputs = (0..700).map(|_| pays(1_000, open_script().to_p2wsh())).collect();
    world.chain.broadcast(&spend(&[funding], outputs)).unwrap();
    world.chain.mine(1);
    world.catch_up(&node);
    assert_eq!(depths(&node, &funding).1, 1);
}

#[test]
fn a_channel_on_an_output_that_does_not_exist_is_never_funded() {
    let world = World::new();
    let node = world.node(1, 3);
    world.catch_up(&node);
    let tx = spend(&[open_coin(&world.chain, 1_000_000)], vec![pays(1_000_000, open_script().to_p2wsh())]);
    let funding = OutPoint { txid: tx.compute_txid(), vout: 7 };
    open_channel(&node, funding);
    world.chain.broadcast(&tx).unwrap();
    world.chain.mine(2);
    world.catch_up(&node);
    assert_eq!(depths(&node, &funding), (0, 0));
}

#[test]
fn a_block_that_concerns_no_channel_changes_heights_only() {
    let (world, node, _, funding) = funded();
    let before = followed(&node, &funding).1;
    open_coin(&world.chain, 5_000);
    let effect = world.catch_up(&node).unwrap();
    assert_eq!((effect.height, effect.hash), world.chain.tip());
    assert!(effect.touched.is_empty());
    let after = followed(&node, &funding).1;
    assert_eq!((after.watches, after.seen), (before.watches, before.seen));
    assert_eq!(depths(&node, &funding), (2, 0));
}

#[test]
fn a_tracker_trusts_our_attestation_alone_and_is_unharmed_by_others() {
    let (world, node, _, funding) = funded();
    world.chain.mine(1);
    let stranger = Attestor::new(&secret(66));
    let tip = || node.get_tracker().tip().0.block_hash();
    let before = tip();
    let refused = apply(&node, &world.block(world.chain.height()), &stranger);
    assert!(matches!(refused, Err(ApplyError::Invalid { .. })), "{refused:?}");
    let refused = revert(&node, &world.block(world.chain.height() - 1), &stranger);
    assert!(matches!(refused, Err(ApplyError::Invalid { .. })), "{refused:?}");
    assert_eq!((tip(), depths(&node, &funding)), (before, (1, 0)));
    world.catch_up(&node);
    world.step_back(&node);
    world.step_back(&node);
    assert_eq!(depths(&node, &funding), (0, 0));
}

#[test]
fn only_the_next_block_is_added_and_only_the_tip_removed() {
    let (world, node, _, _) = funded();
    world.chain.mine(2);
    let tip = node.get_tracker().tip().0.block_hash();
    let skipping = world.block(world.chain.height());
    let misplaced = ApplyError::Misplaced { hash: skipping.hash(), height: skipping.height(), tip };
    assert_eq!(apply(&node, &skipping, &world.attestor), Err(misplaced.clone()));
    assert_eq!(revert(&node, &skipping, &world.attestor), Err(misplaced));
    assert!(world.catch_up(&node).is_some());
}
