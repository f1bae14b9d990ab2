//! Two vls nodes that play a channel against each other, each on its own persister and its own regtest chain.

mod blocks;
mod channels;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::genesis_block;
use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning_invoice::{Currency, InvoiceBuilder};
use lightning_signer::channel::{Channel, ChannelId, ChannelSlot};
use lightning_signer::node::{Node, NodeConfig, NodeServices};
use lightning_signer::persist::{DummyPersister, Persist};
use lightning_signer::policy::simple_validator::{OptionizedSimplePolicy, SimpleValidatorFactory, make_simple_policy};
use lightning_signer::signer::ClockStartingTimeFactory;
use lightning_signer::signer::derive::KeyDerivationStyle;
use lightning_signer::util::clock::{Clock, ManualClock};
use lightning_signer::util::status::Status;

pub(super) use self::blocks::spend;
pub(super) use self::channels::{HTLC_SAT, Link, open, pay, settle, stub};
use super::super::record::{ChannelRecord, encode};
use super::super::table::Changes;
use super::super::tables::Tables;
use super::super::{ChainStart, NodePersister, genesis};
use crate::chain::ChainBlock;
use crate::journal::Put;

pub(super) type Store = BTreeMap<String, Vec<u8>>;

pub(super) const NETWORK: Network = Network::Regtest;
pub(super) const START_HEIGHT: u32 = 100;

/// A restorable node: what the actor holds, and the journal's entries.
pub(super) struct Side {
    seed: [u8; 32],
    pub(super) clock: Arc<ManualClock>,
    pub(super) persister: Arc<NodePersister>,
    pub(super) node: Arc<Node>,
    /// The journal.
    pub(super) store: Store,
    /// The keys written by the last message.
    pub(super) written: Vec<String>,
    /// Compare with a full rewrite after each message.
    pub(super) checked: bool,
    /// Restart after each message.
    pub(super) restless: bool,
    /// Give the persister the hints that the actor gives.
    pub(super) hints: bool,
    blocks: Vec<ChainBlock>,
}

impl Side {
    pub(super) fn new(seed: u8) -> Self {
        let (seed, clock) = ([seed; 32], Arc::new(ManualClock::new(Duration::from_secs(1_700_000_000))));
        let store = fresh(&seed);
        let (persister, node) = restore(&seed, &store, clock.clone());
        Self {
            seed,
            clock,
            persister,
            node,
            store,
            written: Vec::new(),
            checked: false,
            restless: false,
            hints: true,
            blocks: Vec::new(),
        }
    }

    /// Ends a message: what changed goes to the journal.
    pub(super) fn flush(&mut self) {
        let puts = self.persister.take_changes(&self.node.get_state()).unwrap();
        self.written = puts.iter().map(|put| put.key.clone()).collect();
        for Put { key, value } in puts {
            match value {
                Some(value) => self.store.insert(key, value),
                None => Some(self.store.remove(&key).expect("only what exists is deleted")),
            };
        }
        if self.checked {
            assert_eq!(self.store, self.full(), "written: {:?}", self.written);
        }
        if self.restless {
            self.restart();
        }
    }

    /// The process dies and starts again from the journal.
    pub(super) fn restart(&mut self) {
        (self.persister, self.node) = restore(&self.seed, &self.store, self.clock.clone());
    }

    pub(super) fn channel<T>(&mut self, id: &ChannelId, f: impl FnOnce(&mut Channel) -> Result<T, Status>) -> T {
        let result = self.node.with_channel(id, f).unwrap();
        self.flush();
        result
    }

    pub(super) fn touch(&self, hash: PaymentHash) {
        if self.hints {
            self.persister.touch(&[hash]);
        }
    }

    pub(super) fn keysend(&mut self, hash: PaymentHash, amount_msat: u64) {
        self.touch(hash);
        let payee = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[7; 32]).unwrap());
        assert!(self.node.add_keysend(payee, hash, amount_msat).unwrap());
        self.flush();
    }

    /// SignInvoice. Tells whether vls signed.
    pub(super) fn sign_invoice(&mut self, n: u64, amount_msat: u64) -> bool {
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description("a coffee".to_owned())
            .payment_hash(sha256::Hash::from_byte_array(hash(n).0))
            .payment_secret(PaymentSecret([1; 32]))
            .duration_since_epoch(self.clock.now())
            .min_final_cltv_expiry_delta(18)
            .amount_milli_satoshis(amount_msat)
            .build_raw()
            .unwrap();
        self.touch(hash(n));
        let signed = self.node.sign_bolt11_invoice(invoice).is_ok();
        self.flush();
        signed
    }

    /// Lets time pass, then GetHeartbeat, which prunes.
    pub(super) fn heartbeat(&mut self, later: Duration) {
        self.clock.set(self.clock.now() + later);
        self.node.get_heartbeat();
        self.flush();
    }

    /// All entries, written from nothing: what the journal must hold.
    pub(super) fn full(&self) -> Store {
        let (mut tables, mut changes) = (Tables::new(), Changes::default());
        tables.put_tracker(&self.node.get_tracker(), &mut changes).unwrap();
        for (id, slot) in self.node.get_channels().iter() {
            match &*slot.lock().unwrap() {
                ChannelSlot::Stub(stub) => tables.put_stub(stub, &mut changes).unwrap(),
                ChannelSlot::Ready(channel) if *id == channel.id0 => {
                    tables.channels.put(id.clone(), encode(&ChannelRecord::ready(channel)).unwrap(), &mut changes)
                }
                ChannelSlot::Ready(_) => {}
            }
        }
        let identity = self.persister.lock().identity.clone();
        let allowlist: Vec<String> = self.node.allowlist().unwrap();
        tables.put_allowlist(&allowlist, &mut changes).unwrap();
        tables.put_state(&identity, &self.node.get_state(), &mut changes).unwrap();
        changes.take().into_iter().map(|put| (put.key, put.value.unwrap())).collect()
    }

    /// All of vls's state that decides anything, in words.
    pub(super) fn state(&self) -> Vec<String> {
        let mut lines = Vec::new();
        {
            let tracker = self.node.get_tracker();
            lines.push(format!("{} {:?}", tracker.height(), tracker.tip().0));
            lines.extend(tracker.headers().iter().map(|headers| format!("{:?} {}", headers.0, headers.1)));
            for (outpoint, (monitor, slot)) in &tracker.listeners {
                let mut state = serde_json::to_value(&*monitor.get_state()).unwrap();
                state["saw_block"] = serde_json::Value::Null;
                lines.push(format!("{outpoint} {state} {slot:?}"));
            }
        }
        for (id, slot) in self.node.get_channels().iter() {
            lines.push(match &*slot.lock().unwrap() {
                ChannelSlot::Stub(stub) => format!("{id} {}", stub.blockheight),
                ChannelSlot::Ready(c) => format!("{id} {:?} {:?} {:?}", c.id, c.setup, c.enforcement_state),
            });
        }
        let state = self.node.get_state();
        let mut entries: Vec<String> = Vec::new();
        entries.extend(state.invoices.iter().map(|entry| format!("invoice {entry:?}")));
        entries.extend(state.issued_invoices.iter().map(|entry| format!("issued {entry:?}")));
        entries.extend(state.payments.iter().map(|entry| format!("payment {entry:?}")));
        entries.sort();
        lines.extend(entries);
        lines.push(format!("{:?} {:?}", state.velocity_control, state.fee_velocity_control));
        lines.push(format!("{} {}", state.excess_amount, state.dbid_high_water_mark));
        lines
    }
}

fn services(persister: Arc<dyn Persist>, clock: Arc<ManualClock>) -> NodeServices {
    let policy =
        OptionizedSimplePolicy { max_channels: Some(10_000), max_invoices: Some(1_000_000), ..Default::default() };
    NodeServices {
        validator_factory: Arc::new(SimpleValidatorFactory::new_with_policy(make_simple_policy(NETWORK, policy))),
        starting_time_factory: ClockStartingTimeFactory::new(),
        persister,
        clock,
        trusted_oracle_pubkeys: vec![blocks::attestor().public_key()],
    }
}

/// The entries of a node that has not run.
fn fresh(seed: &[u8; 32]) -> Store {
    let config = NodeConfig { use_checkpoints: false, ..NodeConfig::new(NETWORK) };
    let clock = Arc::new(ManualClock::new(Duration::ZERO));
    let (_, node_id) = Node::make_keys_manager(&config, seed, &services(Arc::new(DummyPersister), clock));
    let start = ChainStart {
        height: START_HEIGHT,
        header: genesis_block(NETWORK).header,
        filter_header: FilterHeader::all_zeros(),
    };
    let puts = genesis(NETWORK, KeyDerivationStyle::Native, node_id, start).unwrap();
    puts.into_iter().map(|put| (put.key, put.value.unwrap())).collect()
}

fn restore(seed: &[u8; 32], store: &Store, clock: Arc<ManualClock>) -> (Arc<NodePersister>, Arc<Node>) {
    let persister = Arc::new(NodePersister::load(store.clone()).unwrap());
    let (node_id, entry) = persister.get_nodes().unwrap().pop().unwrap();
    let node = Node::restore_node(&node_id, entry, seed, services(persister.clone(), clock)).unwrap();
    persister.after_restore(&node);
    (persister, node)
}

pub(super) fn preimage(n: u64) -> PaymentPreimage {
    PaymentPreimage(sha256::Hash::hash(&n.to_be_bytes()).to_byte_array())
}

pub(super) fn hash(n: u64) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage(n).0).to_byte_array())
}
