//! Blocks and new channels cost what they change, not what the node has; a block that is taken away leaves nothing.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, Txid};
use lightning::ln::chan_utils::ChannelTransactionParameters;
use lightning_signer::channel::ChannelId;
use lightning_signer::monitor::{ChainMonitor, ChainMonitorBase};
use lightning_signer::persist::Persist;
use lightning_signer::util::status::Status;
use lightning_signer::{CommitmentPointProvider, SendSync};

use super::kinds;
use super::world::{Side, open, pay, spend};

const LISTENERS: u32 = 2_000;

/// Never asked: nothing closes here.
#[derive(Clone)]
struct NoCommitments;

impl SendSync for NoCommitments {}

impl CommitmentPointProvider for NoCommitments {
    fn get_holder_commitment_point(&self, _: u64) -> PublicKey {
        unreachable!()
    }

    fn get_counterparty_commitment_point(&self, _: u64) -> Option<PublicKey> {
        unreachable!()
    }

    fn get_transaction_parameters(&self) -> ChannelTransactionParameters {
        unreachable!()
    }

    fn get_spendable_htlc_indices(&self, _: &Transaction, _: u64) -> Result<Vec<u32>, Status> {
        unreachable!()
    }

    fn clone_box(&self) -> Box<dyn CommitmentPointProvider> {
        Box::new(self.clone())
    }
}

fn funding(n: u32) -> Transaction {
    spend(OutPoint { txid: Txid::all_zeros(), vout: n }, u64::from(n))
}

fn outpoint(n: u32) -> OutPoint {
    OutPoint { txid: funding(n).compute_txid(), vout: 0 }
}

fn monitor(n: u32, height: u32) -> ChainMonitor {
    let monitor = ChainMonitorBase::new(outpoint(n), height, &ChannelId::new(&[0; 41]));
    monitor.add_funding_outpoint(&outpoint(n));
    monitor.as_monitor(Box::new(NoCommitments))
}

/// A node whose tracker has 2,000 listeners and all the headers that it remembers.
fn crowded() -> Side {
    let mut side = Side::new(1);
    for _ in 0..101 {
        side.mine(vec![]);
    }
    for n in 0..LISTENERS {
        add_listener(&mut side, n);
        assert_eq!(side.written, [format!("listener/{}", outpoint(n))]);
    }
    side
}

fn add_listener(side: &mut Side, n: u32) {
    {
        let mut tracker = side.node.get_tracker();
        let height = tracker.height();
        tracker.add_listener(monitor(n, height), [outpoint(n).txid].into());
        side.persister.update_tracker(&side.node.get_id(), &tracker).unwrap();
    }
    side.flush();
}

#[test]
fn a_block_writes_the_tip_one_header_and_the_listeners_it_concerns() {
    let mut side = crowded();
    side.mine(vec![]);
    assert_eq!(kinds(&side), ["header", "header", "tracker"], "one header comes, one goes");
    side.mine(vec![funding(7)]);
    assert_eq!(kinds(&side), ["header", "header", "listener", "tracker"]);
    side.hints = false;
    side.mine(vec![]);
    assert_eq!(kinds(&side), ["header", "header", "tracker"], "the hint saves time, not entries");
    assert_eq!(side.store, side.full());
}

#[test]
fn a_hint_for_a_block_that_does_not_come_loses_nothing() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    a.checked = true;
    a.persister.expect_block(&[]);
    let link = open(&mut a, &mut b, 1);
    a.persister.expect_block(&[]);
    a.node.unchecked_sign_onchain_tx(&link.funding, &[], &[], vec![]).unwrap();
    a.flush();
    a.mine_streamed(vec![link.funding.clone()]);
}

/// The outputs of `tx`, each spent by a transaction of its own.
fn sweeps(tx: &Transaction) -> Vec<Transaction> {
    let txid = tx.compute_txid();
    (0..tx.output.len() as u32).map(|vout| spend(OutPoint { txid, vout }, u64::from(vout))).collect()
}

#[test]
fn a_block_with_a_close_and_what_spends_it_can_be_taken_away() {
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    (a.checked, b.checked) = (true, true);
    let mut link = open(&mut a, &mut b, 1);
    a.mine(vec![link.funding.clone()]);
    pay(&mut a, &mut b, &mut link, 1);
    pay(&mut a, &mut b, &mut link, 2);
    let before = a.state();
    let close = a.unilateral_close(&link);
    let first = sweeps(&close);
    let second = first.iter().flat_map(sweeps).collect();
    let blocks = [
        vec![vec![close.clone()], first.clone(), second],
        vec![[vec![close.clone()], first.clone()].concat()],
        vec![[vec![close], first.clone(), first.iter().flat_map(sweeps).collect()].concat()],
    ];
    for blocks in blocks {
        let blocks: Vec<Vec<Transaction>> = blocks;
        let depth = blocks.len();
        blocks.into_iter().for_each(|txs| a.mine(txs));
        (0..depth).for_each(|_| a.unmine());
        assert_eq!(a.state(), before, "{depth} blocks came and went");
    }
}
