//! A channel is used once the chain funds it: deep enough, with the amount and the keys it was set up with.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Transaction, Txid};
use vls_protocol::msgs;

use super::onchain::{stranger, taproot, wallet_key};
use super::sweeps::close;
use super::*;
use crate::lightning::driver::{DriverError, call};
use crate::reasons::Reason;

fn reason(advanced: Result<(), DriverError>) -> Option<Reason> {
    match advanced {
        Ok(()) => None,
        Err(DriverError::Refused { refusal, .. }) => Some(refusal.reason),
        Err(other) => panic!("{other}"),
    }
}

fn is_buried(signer: &Signer, node: &NodeName, driver: &Driver, funding_txid: Txid) -> bool {
    let message = msgs::CheckOutpoint { funding_txid, funding_txout: 0 };
    let mut asking = signer.asking(node);
    call::<msgs::CheckOutpointReply>(&mut asking, Some(driver.channel()), &message).expect("answered").is_buried
}

#[test]
fn a_channel_that_the_chain_closed_takes_no_commitment_until_the_chain_takes_the_close_back() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 1);
    signer.confirm(&[&alice], vec![close(&driver, &[10_000])]);
    let block = signer.blocks.last().expect("mined").clone();

    let late = driver.clone().advance(&mut signer.asking(&alice), 0);
    assert_eq!(reason(late), Some(Reason::FundingSpent));
    assert!(!Reason::FundingSpent.retry(), "a node that waits with the channel locked would never see the block");

    signer.nodes().disconnect(&alice, block).expect("the tip");
    driver.advance(&mut signer.asking(&alice), 0).expect("open again");
}

#[test]
fn an_honest_channel_is_used_from_its_funding_depth_on_and_waits_until_then() {
    let mut signer = Signer::start();
    signer.funding_depth = 3;
    signer.restart();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = Driver::open(&mut signer.asking(&alice), 1).expect("the first commitments need no depth");
    for depth in 0..3 {
        let early = driver.clone().advance(&mut signer.asking(&alice), 1);
        assert_eq!(reason(early), Some(Reason::ChainPending), "at depth {depth}");
        assert!(Reason::ChainPending.retry());
        let txs = if depth == 0 { vec![driver.funding().clone()] } else { Vec::new() };
        signer.confirm(&[&alice], txs);
    }
    for htlcs in [1, 0] {
        driver.advance(&mut signer.asking(&alice), htlcs).expect("buried");
    }
}

#[test]
fn the_burial_of_a_funding_output_is_what_our_own_chain_says() {
    let mut signer = Signer::start();
    signer.funding_depth = 2;
    signer.restart();
    let alice = signer.add("alice", NodeKind::Ldk);
    let driver = Driver::open(&mut signer.asking(&alice), 1).expect("opens");
    // Core Lightning asks this; LDK knows no such question.
    signer.restart();
    signer.add("alice", NodeKind::Cln);
    let funding = driver.funding().compute_txid();
    for (depth, expected) in [(0, false), (1, false), (2, true)] {
        assert_eq!(is_buried(&signer, &alice, &driver, funding), expected, "at depth {depth}");
        assert!(!is_buried(&signer, &alice, &driver, Txid::from_byte_array([7; 32])), "another transaction");
        signer.confirm(&[&alice], if depth == 0 { vec![driver.funding().clone()] } else { Vec::new() });
    }
}

/// A colluding peer's channel with nothing in it would lend value to every rule that sums channels up.
#[test]
fn a_hostile_channel_whose_funding_holds_less_or_pays_elsewhere_is_never_used() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let changes: [fn(&mut Transaction); 3] = [
        |tx| tx.output[0].value = Amount::from_sat(1_000),
        |tx| tx.output[0].script_pubkey = stranger(),
        |tx| tx.output[0].value = Amount::from_sat(10_000_000), // as it should be
    ];
    for (dbid, change) in (1..).zip(changes) {
        let fund = |script: &bitcoin::Script, amount: Amount| {
            let mut tx = Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::from_consensus(dbid as u32),
                input: vec![bitcoin::TxIn::default()],
                output: vec![bitcoin::TxOut { value: amount, script_pubkey: script.to_owned() }],
            };
            change(&mut tx);
            tx
        };
        let mut driver = Driver::open_funded_by(&mut signer.asking(&alice), dbid, fund).expect("opens");
        signer.confirm(&[&alice], vec![driver.funding().clone()]);
        let expected = (dbid < 3).then_some(Reason::FundingMismatch);
        assert_eq!(reason(driver.advance(&mut signer.asking(&alice), 0)), expected, "{dbid}");
    }
}

#[test]
fn an_honest_upfront_shutdown_script_may_be_of_the_own_wallet_and_a_hostile_one_is_refused() {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let script = taproot(wallet_key(&signer, &alice, 5));
    let open = |dbid, script: &bitcoin::ScriptBuf, index| {
        let change = |setup: &mut msgs::SetupChannel| {
            setup.local_shutdown_script = script.to_bytes().into();
            setup.local_shutdown_wallet_index = index;
        };
        let fund = |script: &bitcoin::Script, value| Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![],
            output: vec![bitcoin::TxOut { value, script_pubkey: script.to_owned() }],
        };
        Driver::open_with(&mut signer.asking(&alice), dbid, 0, change, fund).map(drop)
    };
    assert_eq!(reason(open(1, &stranger(), Some(5))), Some(Reason::Validation));
    assert_eq!(reason(open(2, &script, Some(6))), Some(Reason::Validation), "not at this index");
    assert_eq!(reason(open(3, &script, None)), Some(Reason::Validation), "nor without one, although one came before");
    assert_eq!(reason(open(4, &script, Some(5))), None);
}
