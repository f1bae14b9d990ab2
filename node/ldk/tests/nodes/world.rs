//! A chain, a signer and nodes, and how to wait for them.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Network, Txid};
use claviger_demo::chain::Chain;
use claviger_demo::node::{Keys, LdkNode, Payment, Settings, Store, payment_hash};
use claviger_demo::world::wait as patient;
use claviger_ldk::{ClavigerKeys, Options, Transport};
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;

use crate::signer::Signer;

pub const CHANNEL: Amount = Amount::from_sat(1_000_000);

pub struct World {
    pub chain: Arc<Chain>,
    pub signer: Arc<Signer>,
    anchors: bool,
}

impl World {
    pub fn new() -> Self {
        let chain = Chain::new();
        let signer = Signer::new([0xa5; 32], chain.clone());
        Self { chain, signer, anchors: true }
    }

    /// Where channels have no anchors, and HTLC transactions their fee inside.
    pub fn without_anchors() -> Self {
        Self { anchors: false, ..Self::new() }
    }

    fn settings(&self, name: &str) -> Settings {
        Settings { anchors: self.anchors, ..Settings::new(name) }
    }

    /// The keys of the signed node.
    pub fn keys(&self) -> ClavigerKeys {
        let mut options = Options::new(Network::Regtest);
        options.patience = Duration::from_secs(120);
        ClavigerKeys::connect(self.signer.clone() as Arc<dyn Transport>, options).unwrap()
    }

    /// A node with its own keys and coins.
    pub fn plain(&self, name: &str) -> LdkNode {
        let mut seed = [0; 32];
        seed[..name.len()].copy_from_slice(name.as_bytes());
        let keys = Keys::Local(seed);
        let node =
            LdkNode::start(&self.settings(name), keys, self.chain.clone(), Arc::new(Store::in_memory())).unwrap();
        self.pay_in(&node);
        node
    }

    /// A node with coins, whose keys are in the signer.
    pub fn signed(&self) -> LdkNode {
        let node = self.signed_with(Arc::new(Store::in_memory()));
        self.pay_in(&node);
        node
    }

    pub fn signed_with(&self, store: Arc<Store>) -> LdkNode {
        LdkNode::start(&self.settings("signed"), Keys::Remote(Arc::new(self.keys())), self.chain.clone(), store)
            .unwrap()
    }

    fn pay_in(&self, node: &LdkNode) {
        for _ in 0..4 {
            self.chain.fund(&node.script(), Amount::from_sat(1_500_000));
        }
        self.signer.follow();
        wait("coins", &[node], || node.balance() == Amount::from_sat(6_000_000));
    }

    /// One block after the other, each seen by all.
    pub fn mine(&self, blocks: u32, nodes: &[&LdkNode]) {
        for _ in 0..blocks {
            self.mine_past_signer(1, nodes);
            self.signer.follow();
        }
    }

    /// The same without showing them to the signer.
    pub fn mine_past_signer(&self, blocks: u32, nodes: &[&LdkNode]) {
        for _ in 0..blocks {
            self.chain.mine(1);
            let height = self.chain.height();
            wait("the block to be seen", nodes, || nodes.iter().all(|node| node.height() == height));
        }
    }

    /// Mines until `done`.
    pub fn mine_until(&self, what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) {
        for _ in 0..400 {
            if done() {
                return;
            }
            self.mine(1, nodes);
        }
        wait(what, nodes, done);
    }

    /// A usable channel that `opener` funds.
    pub fn channel(&self, opener: &LdkNode, other: &LdkNode, push_msat: u64) -> ChannelDetails {
        let nodes = [opener, other];
        connect(opener, other);
        opener.open_channel(&other.id(), CHANNEL, push_msat).unwrap();
        wait("the funding transaction", &nodes, || !self.chain.mempool().is_empty());
        self.mine(6, &nodes);
        wait("a usable channel", &nodes, || usable(opener, other) && usable(other, opener));
        opener.channel_with(&other.id()).unwrap()
    }

    /// Broadcast transactions that wait for a block.
    pub fn waiting(&self) -> Vec<Txid> {
        self.chain.mempool().iter().map(|tx| tx.compute_txid()).collect()
    }
}

pub fn connect(a: &LdkNode, b: &LdkNode) {
    a.connect(b);
    wait("a connection", &[a, b], || a.is_connected(&b.id()) && b.is_connected(&a.id()));
}

pub fn disconnect(a: &LdkNode, b: &LdkNode) {
    a.disconnect(&b.id());
    b.disconnect(&a.id());
    wait("the connection to end", &[a, b], || !a.is_connected(&b.id()) && !b.is_connected(&a.id()));
}

pub fn usable(node: &LdkNode, peer: &LdkNode) -> bool {
    node.channels().iter().any(|channel| channel.counterparty.node_id == peer.id() && channel.is_usable)
}

/// Pays and waits until both sides know.
pub fn pay(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) {
    let hash = send(payer, payee, amount_msat);
    wait_paid(payer, payee, hash);
}

/// Pays; what an earlier payment brought may take a moment to be spendable.
fn send(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) -> PaymentHash {
    let invoice = payee.invoice(amount_msat, "a test").unwrap();
    wait("a route", &[payer, payee], || payer.pay(&invoice).is_ok());
    payment_hash(&invoice)
}

pub fn wait_paid(payer: &LdkNode, payee: &LdkNode, hash: PaymentHash) {
    wait("a payment", &[payer, payee], || {
        assert_ne!(payer.history().payments.get(&hash), Some(&Payment::Failed), "{:#?}", payer.log(60));
        payer.history().payments.contains_key(&hash) && payee.history().received.contains_key(&hash)
    });
}

/// Sends a payment that the payee keeps waiting.
pub fn pay_held(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) -> PaymentHash {
    payee.hold_payments(true);
    let hash = send(payer, payee, amount_msat);
    wait("a held payment", &[payer, payee], || payee.held().contains(&hash));
    hash
}

pub fn wait(what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) {
    patient(what, nodes, done).unwrap_or_else(|error| panic!("{error}"));
}
