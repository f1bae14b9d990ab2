//! A chain, a daemon, a node whose keys it holds and peers with their own; and what must be true when they are done.

use std::cell::RefCell;
use std::time::Duration;

use bitcoin::{Amount, OutPoint};
use claviger_demo::books::Books;
use claviger_demo::node::{Keys, LdkNode, Payment, payment_hash};
use claviger_demo::signer::Program;
use claviger_demo::world::{World, connect as connect_keys, wait as patient};
use claviger_tests::refused::Refused;
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;

pub(crate) const CHANNEL: Amount = Amount::from_sat(1_000_000);
/// Half a channel, and more.
const LARGEST_PAYMENT_MSAT: i64 = 600_000_000;
/// Two anchors, which nobody need spend.
const ANCHORS: Amount = Amount::from_sat(660);
/// The node whose keys the signer holds.
const SIGNED: &str = "alice";

pub(crate) struct Stage {
    pub(crate) world: World,
    /// The funding outputs of the channels made by [`channel`](Self::channel).
    channels: RefCell<Vec<OutPoint>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::paying(LARGEST_PAYMENT_MSAT)
    }

    /// The same whose operator lets the node pay so much at once.
    pub(crate) fn paying(max_payment_msat: i64) -> Self {
        let program = Program::binary(env!("CARGO_BIN_EXE_claviger-under-test"));
        let mut world = World::sealed(program).unwrap();
        let limit = |config: &mut toml::Table| {
            config["limits"]["max_payment_msat"] = max_payment_msat.into();
            config["limits"]["max_payment_msat_per_hour"] = (10 * max_payment_msat).into();
        };
        world.signer.configure(limit).unwrap();
        world.signer.start().unwrap();
        Self { world, channels: RefCell::default() }
    }

    /// The node whose keys the daemon holds, with coins.
    pub(crate) fn signed(&self) -> LdkNode {
        self.world.remote_node(SIGNED).unwrap()
    }

    /// A node with its own keys and coins.
    pub(crate) fn plain(&self, name: &str) -> LdkNode {
        self.world.local_node(name, name.len() as u8).unwrap()
    }

    /// Stops the signed node, lets `meanwhile` happen, and starts it again from what it had kept.
    pub(crate) fn restart(&mut self, signed: LdkNode, meanwhile: impl FnOnce(&mut World)) -> LdkNode {
        let store = signed.stop();
        meanwhile(&mut self.world);
        let keys = connect_keys(&self.world.signer.dir().join(format!("{SIGNED}.bundle"))).unwrap();
        let node = self.world.restart(SIGNED, Keys::Remote(keys), store).unwrap();
        wait("the chain", &[&node], || node.height() == self.world.chain.height());
        node
    }

    /// The same while the signer is killed and started again.
    pub(crate) fn restart_both(&mut self, signed: LdkNode) -> LdkNode {
        self.restart(signed, |world| {
            world.signer.kill().unwrap();
            world.signer.start().unwrap();
        })
    }

    /// SIGKILL, and a new start after `pause`.
    pub(crate) fn kill_signer(&mut self, pause: Duration) {
        self.world.signer.kill().unwrap();
        std::thread::sleep(pause);
        self.world.signer.start().unwrap();
    }

    pub(crate) fn mine(&self, blocks: u32, nodes: &[&LdkNode]) {
        self.world.mine(blocks, nodes).unwrap();
    }

    /// Mines until `done`.
    pub(crate) fn mine_until(&self, what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) {
        if let Err(error) = self.world.mine_until(what, nodes, done) {
            panic!("{error}\nrefused: {:#?}", self.refused());
        }
    }

    /// Mines until both have everything; the signed node then has `expected_sat` more than `before`, fees aside.
    pub(crate) fn settle(&self, signed: &LdkNode, plain: &LdkNode, before: Amount, expected_sat: i64) {
        let nodes = [signed, plain];
        let nothing_left = || nodes.iter().all(|node| node.channels().is_empty() && node.claimable().is_empty());
        self.mine_until("everything to be claimed", &nodes, nothing_left);
        self.mine(6, &nodes);
        self.mine_until("the sweeps", &nodes, || self.world.chain.mempool().is_empty());
        let gained = signed.balance().to_sat() as i64 - before.to_sat() as i64;
        let fees = expected_sat - 30_000..=expected_sat;
        assert!(fees.contains(&gained), "gained {gained}, expected {expected_sat} minus fees");
        self.end_settled(&nodes);
    }

    /// A usable channel that `opener` funds.
    pub(crate) fn channel(&self, opener: &LdkNode, other: &LdkNode) -> ChannelDetails {
        self.channel_of(opener, other, CHANNEL)
    }

    /// The same of this capacity.
    pub(crate) fn channel_of(&self, opener: &LdkNode, other: &LdkNode, capacity: Amount) -> ChannelDetails {
        let channel = self.world.channel(opener, other, capacity).unwrap();
        self.channels.borrow_mut().push(channel.funding_txo.unwrap().into_bitcoin_outpoint());
        channel
    }

    /// Waits until something waits for a block.
    pub(crate) fn broadcast(&self, what: &str, nodes: &[&LdkNode]) {
        wait(what, nodes, || !self.world.chain.mempool().is_empty());
    }

    /// The signer refused nothing for good, its journal verifies, and no satoshi is missing. Takes no ownership: the nodes,
    /// which wait for a signer that is away, must go before the stage does.
    pub(crate) fn end(&self) {
        self.end_but(|_| false);
    }

    /// The same of a signer that refused for this reason, and no other.
    pub(crate) fn end_refused(&self, reason: &str) {
        self.end_but(|line| line.contains(reason));
    }

    fn end_but(&self, is_expected: impl Fn(&str) -> bool) {
        self.books().check(self.world.deposited()).unwrap();
        let mut refused = self.refused();
        refused.retain(|line| !is_expected(line));
        assert!(refused.is_empty(), "{refused:#?}");
        let verified = self.world.signer.cli(&["journal", "verify"]).unwrap();
        assert_eq!(verified["verified"], true, "{verified}");
    }

    /// The same after every channel was closed: what is not in a wallet was paid to miners.
    pub(crate) fn end_settled(&self, nodes: &[&LdkNode]) {
        self.settled(nodes);
        self.end();
    }

    /// The same of a signer that refused for this reason, and no other.
    pub(crate) fn end_settled_refused(&self, nodes: &[&LdkNode], reason: &str) {
        self.settled(nodes);
        self.end_refused(reason);
    }

    fn settled(&self, nodes: &[&LdkNode]) {
        self.mine_until("every coin to be in a wallet", nodes, || self.books().astray.is_empty());
        let books = self.books();
        assert!(books.in_channels == Amount::ZERO && books.anchors <= ANCHORS, "{books:?}");
    }

    fn books(&self) -> Books {
        self.world.books(&self.channels.borrow())
    }

    /// What the signer refused for good.
    pub(crate) fn refused(&self) -> Vec<String> {
        Refused::of(&self.world.signer).unwrap().denied
    }
}

pub(crate) fn connect(a: &LdkNode, b: &LdkNode) {
    a.connect(b);
    wait("a connection", &[a, b], || a.is_connected(&b.id()) && b.is_connected(&a.id()));
}

/// Closes together, as soon as the node is ready to.
pub(crate) fn close(node: &LdkNode, other: &LdkNode) {
    let channel = node.channel_with(&other.id()).unwrap();
    wait("the close to begin", &[node, other], || node.close(&channel).is_ok());
}

/// Closes without a word, so that the other does not broadcast its own commitment.
pub(crate) fn force_close(stage: &Stage, closer: &LdkNode, other: &LdkNode) {
    disconnect(closer, other);
    closer.force_close(&closer.channel_with(&other.id()).unwrap()).unwrap();
    stage.broadcast("the commitment", &[closer, other]);
}

/// Ends a connection for good.
pub(crate) fn disconnect(a: &LdkNode, b: &LdkNode) {
    a.disconnect(&b.id());
    b.disconnect(&a.id());
    wait("the connection to end", &[a, b], || !a.is_connected(&b.id()) && !b.is_connected(&a.id()));
}

pub(crate) fn usable(node: &LdkNode, peer: &LdkNode) -> bool {
    node.channels().iter().any(|channel| channel.counterparty.node_id == peer.id() && channel.is_usable)
}

/// Pays and waits until both sides know.
pub(crate) fn pay(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) {
    let hash = send(payer, payee, amount_msat);
    paid(payer, payee, hash);
}

/// Pays; what an earlier payment brought may take a moment to be spendable.
pub(crate) fn send(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) -> PaymentHash {
    let invoice = payee.invoice(amount_msat, "a test").unwrap();
    wait("a route", &[payer, payee], || payer.pay(&invoice).is_ok());
    payment_hash(&invoice)
}

pub(crate) fn paid(payer: &LdkNode, payee: &LdkNode, hash: PaymentHash) {
    wait("a payment", &[payer, payee], || {
        assert_ne!(payer.history().payments.get(&hash), Some(&Payment::Failed), "{:#?}", payer.log(60));
        payer.history().payments.contains_key(&hash) && payee.history().received.contains_key(&hash)
    });
}

/// Has the node that funded the channel agree with its peer on a new feerate.
pub(crate) fn raise_feerate(funder: &LdkNode, peer: &LdkNode, sat_per_1000_weight: u32) {
    funder.set_feerate(sat_per_1000_weight);
    wait("the new feerate", &[funder, peer], || {
        let channel = funder.channel_with(&peer.id()).unwrap();
        channel.feerate_sat_per_1000_weight == Some(sat_per_1000_weight)
    });
}

/// Sends a payment that the payee keeps waiting.
pub(crate) fn pay_held(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) -> PaymentHash {
    payee.hold_payments(true);
    let hash = send(payer, payee, amount_msat);
    wait("a held payment", &[payer, payee], || payee.held().contains(&hash));
    hash
}

/// Waits for `done`, or fails with the ends of the nodes' logs.
pub(crate) fn wait(what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) {
    patient(what, nodes, done).unwrap_or_else(|error| panic!("{error}"));
}
