//! The chain takes what bitcoind would take, and refuses the rest.

use bitcoin::absolute::LockTime;
use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{Sequence, TapSighashType, TxIn, Witness, transaction};

use super::*;

fn open_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

fn btc(whole: u64) -> Amount {
    Amount::from_int_btc(whole)
}

/// Spends anyone-can-spend coins to one output of `amount`.
fn spend(coins: &[OutPoint], amount: Amount) -> Transaction {
    let witness = Witness::from_slice(&[open_script().as_bytes()]);
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn { previous_output: *coin, witness: witness.clone(), ..TxIn::default() })
            .collect(),
        output: vec![TxOut { value: amount, script_pubkey: open_script().to_p2wsh() }],
    }
}

fn coin(chain: &Chain) -> OutPoint {
    chain.fund(&open_script().to_p2wsh(), btc(1))
}

#[test]
fn a_payment_is_confirmed_and_found() {
    let chain = Chain::new();
    let paid = coin(&chain);
    assert_ne!(paid, OutPoint::null());
    assert_eq!(chain.unspent(&paid).unwrap().value, btc(1));
    let tx = spend(&[paid], btc(1));
    let txid = chain.broadcast(&tx).unwrap();
    assert_eq!(chain.broadcast(&tx), Ok(txid), "the same question, the same answer");
    assert_eq!((chain.spender(&paid), chain.confirmed_at(&txid)), (Some(txid), None));
    chain.mine(1);
    assert_eq!(chain.confirmed_at(&txid), Some(chain.height()));
    assert_eq!(chain.broadcast(&tx), Err(Reject::AlreadyConfirmed));
    assert_eq!(chain.unspent(&paid), None);
    let block = chain.block_at(chain.height()).unwrap();
    assert!(block.check_merkle_root() && block.check_witness_commitment());
}

#[test]
fn scripts_are_verified() {
    let chain = Chain::new();
    let paid = coin(&chain);
    let mut tx = spend(&[paid], btc(1));
    tx.input[0].witness = Witness::from_slice(&[[0x51, 0x51]]);
    assert_eq!(chain.broadcast(&tx), Err(Reject::Script(0)));
}

#[test]
fn taproot_signatures_are_verified() {
    let chain = Chain::new();
    let secp = Secp256k1::new();
    let keys = Keypair::from_seckey_slice(&secp, &[7; 32]).unwrap();
    let script = ScriptBuf::new_p2tr(&secp, keys.x_only_public_key().0, None);
    let paid = chain.fund(&script, btc(1));
    let mut tx = spend(&[paid], btc(1));
    let sign = |keys: &Keypair, tx: &Transaction| {
        let prevouts = [TxOut { value: btc(1), script_pubkey: script.clone() }];
        let hash = SighashCache::new(tx)
            .taproot_key_spend_signature_hash(0, &Prevouts::All(&prevouts), TapSighashType::Default)
            .unwrap();
        let tweaked = keys.tap_tweak(&secp, None).to_keypair();
        Witness::from_slice(&[secp.sign_schnorr_no_aux_rand(&Message::from(hash), &tweaked).as_ref()])
    };
    tx.input[0].witness = sign(&Keypair::from_seckey_slice(&secp, &[8; 32]).unwrap(), &tx);
    assert_eq!(chain.broadcast(&tx), Err(Reject::Script(0)));
    tx.input[0].witness = sign(&keys, &tx);
    assert_eq!(chain.broadcast(&tx), Ok(tx.compute_txid()));
}

#[test]
fn value_is_not_created() {
    let chain = Chain::new();
    let paid = coin(&chain);
    assert_eq!(chain.broadcast(&spend(&[paid], btc(2))), Err(Reject::Inflation { inputs: btc(1), outputs: btc(2) }));
    assert_eq!(chain.broadcast(&spend(&[paid, paid], btc(2))), Err(Reject::Malformed));
}

#[test]
fn a_coinbase_matures() {
    let chain = Chain::new();
    chain.mine_to(1, &open_script().to_p2wsh());
    let reward = chain.block_at(chain.height()).unwrap().txdata[0].clone();
    let paid = OutPoint { txid: reward.compute_txid(), vout: 0 };
    let tx = spend(&[paid], reward.output[0].value);
    chain.mine(98);
    assert_eq!(chain.broadcast(&tx), Err(Reject::Immature(paid)));
    chain.mine(1);
    assert_eq!(chain.broadcast(&tx), Ok(tx.compute_txid()));
}

#[test]
fn locktimes_hold_until_their_block() {
    let chain = Chain::new();
    let paid = coin(&chain);
    let mut absolute = spend(&[paid], btc(1));
    absolute.lock_time = LockTime::from_height(chain.height() + 1).unwrap();
    absolute.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    assert_eq!(chain.broadcast(&absolute), Err(Reject::NotFinal(chain.height() + 1)));
    let mut relative = spend(&[paid], btc(1));
    relative.input[0].sequence = Sequence::from_height(3);
    assert_eq!(chain.broadcast(&relative), Err(Reject::NotMature(paid)));
    chain.mine(1);
    assert!(chain.broadcast(&absolute).is_ok());
    chain.reorg(1, &[absolute.compute_txid()]);
    assert!(chain.broadcast(&relative).is_ok());
}

#[test]
fn a_replacement_must_pay_more_and_takes_the_children_along() {
    let chain = Chain::new();
    let paid = coin(&chain);
    let parent = spend(&[paid], btc(1));
    let child = spend(&[OutPoint { txid: chain.broadcast(&parent).unwrap(), vout: 0 }], Amount::from_sat(99_990_000));
    chain.broadcast(&child).unwrap();
    let mut same_fee = parent.clone();
    same_fee.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return([]) });
    let rejected = Reject::Replacement { rival: parent.compute_txid(), needs_more_than: Amount::ZERO };
    assert_eq!(chain.broadcast(&same_fee), Err(rejected));
    let better = spend(&[paid], Amount::from_sat(99_000_000));
    chain.broadcast(&better).unwrap();
    assert_eq!(chain.mempool(), [better]);
    assert!(matches!(chain.broadcast(&child), Err(Reject::MissingInput(_))));
}

#[test]
fn a_reorg_brings_transactions_back_and_can_drop_one() {
    let chain = Chain::new();
    let (first, second) = (coin(&chain), coin(&chain));
    let kept = chain.broadcast(&spend(&[first], btc(1))).unwrap();
    let dropped = chain.broadcast(&spend(&[second], btc(1))).unwrap();
    chain.mine(3);
    let events = chain.subscribe();
    let old = chain.tip();
    chain.reorg(3, &[dropped]);
    assert_eq!(chain.height(), old.0 + 1);
    assert_eq!(chain.confirmed_at(&kept), Some(old.0 - 2));
    assert_eq!((chain.confirmed_at(&dropped), chain.spender(&second)), (None, None));
    assert!(chain.block(&old.1).is_some(), "a block left behind can still be fetched");
    let heights: Vec<_> = events
        .try_iter()
        .map(|event| match event {
            Event::Disconnected(_, height) => -i64::from(height),
            Event::Connected(_, height) => i64::from(height),
        })
        .collect();
    let tip = i64::from(old.0);
    assert_eq!(heights, [-tip, 1 - tip, 2 - tip, tip - 2, tip - 1, tip, tip + 1]);
}
