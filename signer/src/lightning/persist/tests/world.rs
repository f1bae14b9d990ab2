//! Two vls nodes that play a channel against each other, each on its own persister and its own regtest chain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{
    Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, consensus,
    transaction,
};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning_invoice::{Currency, InvoiceBuilder};
use lightning_signer::chain::tracker::ListenSlot;
use lightning_signer::channel::{Channel, ChannelBase, ChannelId, ChannelSetup, ChannelSlot, CommitmentType};
use lightning_signer::node::{Node, NodeConfig, NodeServices};
use lightning_signer::persist::{DummyPersister, Persist};
use lightning_signer::policy::simple_validator::{OptionizedSimplePolicy, SimpleValidatorFactory, make_simple_policy};
use lightning_signer::signer::ClockStartingTimeFactory;
use lightning_signer::signer::derive::KeyDerivationStyle;
use lightning_signer::tx::tx::HTLCInfo2;
use lightning_signer::util::clock::{Clock, ManualClock};
use lightning_signer::util::status::Status;
use txoo::Attestation;
use txoo::filter::BlockSpendFilter;
use txoo::proof::{ProofType, TxoProof};
use txoo::util::sign_attestation;

use super::super::record::{ChannelRecord, encode};
use super::super::table::Changes;
use super::super::tables::Tables;
use super::super::{ChainStart, NodePersister, genesis};
use crate::journal::Put;

pub(super) type Store = BTreeMap<String, Vec<u8>>;

pub(super) const NETWORK: Network = Network::Regtest;
pub(super) const START_HEIGHT: u32 = 100;
const FEERATE_PER_KW: u32 = 1_000;
const FEE_SAT: u64 = 3_000;
const ORACLE: [u8; 32] = [2; 32];

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
    blocks: Vec<Block>,
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

    /// The transaction in this side's chain that spends `outpoint`.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Transaction> {
        let mut txs = self.blocks.iter().flat_map(|block| &block.txdata);
        txs.find(|tx| tx.input.iter().any(|input| input.previous_output == *outpoint)).cloned()
    }

    /// This side's current commitment transaction.
    pub(super) fn unilateral_close(&self, link: &Link) -> Transaction {
        let spent = vec![true; link.htlcs.len()];
        self.node.with_channel(&link.a, |c| c.sign_holder_commitment_tx_for_recovery_dry_run(&spent, None)).unwrap().0
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

    /// Adds a block with `txs` to this side's chain, with the proof that the signer's own chain view would make.
    pub(super) fn mine(&mut self, txs: Vec<Transaction>) {
        let (tip, height) = {
            let tracker = self.node.get_tracker();
            (tracker.tip().clone(), tracker.height())
        };
        let block = block(&tip.0, height + 1, txs);
        let (txids, outpoints) = self.node.get_tracker().get_all_forward_watches();
        let proof = prove(&block, height + 1, &tip.1, &outpoints, &txids);
        self.expect_block(&block);
        {
            let mut tracker = self.node.get_tracker();
            tracker.add_block(block.header, proof).unwrap();
            self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        }
        self.blocks.push(block);
        self.flush();
    }

    /// Adds a block by streaming all of it, as happens when its filter matches a watched outpoint by chance.
    pub(super) fn mine_streamed(&mut self, txs: Vec<Transaction>) {
        let mut tracker = self.node.get_tracker();
        let (tip, height) = (tracker.tip().clone(), tracker.height());
        let block = block(&tip.0, height + 1, txs);
        let proof = TxoProof { proof: ProofType::ExternalBlock(), ..prove(&block, height + 1, &tip.1, &[], &[]) };
        tracker.block_chunk(block.block_hash(), 0, &consensus::serialize(&block)).unwrap();
        tracker.add_block(block.header, proof).unwrap();
        self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        drop(tracker);
        self.blocks.push(block);
        self.flush();
    }

    /// A reorganisation takes the newest block away.
    pub(super) fn unmine(&mut self) {
        let Some(block) = self.blocks.pop() else { return };
        let (before, height) = {
            let tracker = self.node.get_tracker();
            (tracker.headers()[0].clone(), tracker.height())
        };
        self.expect_block(&block);
        let (txids, outpoints) = self.node.get_tracker().get_all_reverse_watches();
        let proof = prove(&block, height, &before.1, &outpoints, &txids);
        {
            let mut tracker = self.node.get_tracker();
            tracker.remove_block(proof, before).unwrap();
            self.persister.update_tracker(&self.node.get_id(), &tracker).unwrap();
        }
        self.flush();
    }

    fn expect_block(&self, block: &Block) {
        if self.hints {
            let tracker = self.node.get_tracker();
            let concerned = tracker.listeners.iter().filter(|(_, (_, slot))| concerns(block, slot));
            let concerned: Vec<OutPoint> = concerned.map(|(outpoint, _)| *outpoint).collect();
            self.persister.expect_block(&concerned);
        }
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
        trusted_oracle_pubkeys: vec![oracle().public_key()],
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

fn concerns(block: &Block, slot: &ListenSlot) -> bool {
    let known = |outpoint: &OutPoint| slot.watches.contains(outpoint) || slot.seen.contains(outpoint);
    let spends = |tx: &Transaction| tx.input.iter().any(|input| known(&input.previous_output));
    block.txdata.iter().any(|tx| slot.txid_watches.contains(&tx.compute_txid()) || spends(tx))
}

fn oracle() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &ORACLE).unwrap()
}

fn prove(block: &Block, height: u32, before: &FilterHeader, outpoints: &[OutPoint], txids: &[Txid]) -> TxoProof {
    let attestation = Attestation {
        block_hash: block.block_hash(),
        block_height: height,
        filter_header: BlockSpendFilter::from_block(block).filter_header(before),
        time: 0,
    };
    let signed = sign_attestation(attestation, &oracle(), &Secp256k1::new());
    TxoProof::prove(vec![(oracle().public_key(), signed)], before, block, height, outpoints, txids)
}

fn block(tip: &Header, height: u32, txs: Vec<Transaction>) -> Block {
    let mut coinbase = spend(OutPoint::null(), 0);
    coinbase.input[0].script_sig = ScriptBuf::builder().push_int(i64::from(height)).push_int(0).into_script();
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: tip.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: tip.time + 600,
            bits: tip.bits,
            nonce: 0,
        },
        txdata: [vec![coinbase], txs].concat(),
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// A transaction that spends `outpoint`; `tag` makes it unique.
pub(super) fn spend(outpoint: OutPoint, tag: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(1_000_000 + tag), script_pubkey: ScriptBuf::new() }],
    }
}

pub(super) fn preimage(n: u64) -> PaymentPreimage {
    PaymentPreimage(sha256::Hash::hash(&n.to_be_bytes()).to_byte_array())
}

pub(super) fn hash(n: u64) -> PaymentHash {
    PaymentHash(sha256::Hash::hash(&preimage(n).0).to_byte_array())
}

/// A channel funded by `a`.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) a: ChannelId,
    pub(super) b: ChannelId,
    pub(super) funding: Transaction,
    pub(super) commitment: u64,
    pub(super) to_a_sat: u64,
    pub(super) to_b_sat: u64,
    /// Offered by `a`.
    pub(super) htlcs: Vec<HTLCInfo2>,
}

pub(super) const CAPACITY_SAT: u64 = 3_000_000;
pub(super) const HTLC_SAT: u64 = 50_000;

/// NewChannel on one side.
pub(super) fn stub(side: &mut Side, dbid: u64) -> ChannelId {
    let (id, _) = side.node.new_channel(dbid, &[3; 33], &side.node).unwrap();
    side.flush();
    id
}

/// NewChannel and SetupChannel on both sides, and the first commitment.
pub(super) fn open(a: &mut Side, b: &mut Side, dbid: u64) -> Link {
    let (id_a, id_b) = (stub(a, dbid), stub(b, dbid));
    let funding = spend(OutPoint { txid: Txid::from_byte_array([9; 32]), vout: dbid as u32 }, dbid);
    setup(a, &id_a, b, &id_b, &funding, true);
    setup(b, &id_b, a, &id_a, &funding, false);
    let mut link = Link {
        a: id_a,
        b: id_b,
        funding,
        commitment: 0,
        to_a_sat: CAPACITY_SAT - FEE_SAT,
        to_b_sat: 0,
        htlcs: Vec::new(),
    };
    commit(a, b, &mut link, 0);
    a.node.unchecked_sign_onchain_tx(&link.funding, &[], &[], vec![]).unwrap();
    a.flush();
    link
}

fn setup(side: &mut Side, id: &ChannelId, other: &Side, other_id: &ChannelId, funding: &Transaction, outbound: bool) {
    let counterparty_points = other.node.get_channel(other_id).unwrap().lock().unwrap().get_channel_basepoints();
    let setup = ChannelSetup {
        is_outbound: outbound,
        channel_value_sat: CAPACITY_SAT,
        push_value_msat: 0,
        funding_outpoint: OutPoint { txid: funding.compute_txid(), vout: 0 },
        holder_selected_contest_delay: 6,
        holder_shutdown_script: None,
        counterparty_points,
        counterparty_selected_contest_delay: 6,
        counterparty_shutdown_script: None,
        commitment_type: CommitmentType::StaticRemoteKey,
    };
    side.node.setup_channel(id.clone(), None, setup, &vec![].into()).unwrap();
    side.flush();
}

/// `a` offers one more HTLC (approved) and both sides advance.
pub(super) fn pay(a: &mut Side, b: &mut Side, link: &mut Link, n: u64) {
    a.keysend(hash(n), HTLC_SAT * 1000);
    link.to_a_sat -= HTLC_SAT;
    link.htlcs.push(HTLCInfo2 { value_sat: HTLC_SAT, payment_hash: hash(n), cltv_expiry: 500 });
    link.commitment += 1;
    commit(a, b, link, link.commitment);
}

/// `b` claims the oldest HTLC and both sides advance.
pub(super) fn settle(a: &mut Side, b: &mut Side, link: &mut Link) {
    if link.htlcs.is_empty() {
        return;
    }
    link.to_b_sat += link.htlcs.remove(0).value_sat;
    link.commitment += 1;
    commit(a, b, link, link.commitment);
}

/// Both sides sign, validate, revoke and check the revocation for commitment `n`.
fn commit(a: &mut Side, b: &mut Side, link: &mut Link, n: u64) {
    let (htlcs, none) = (link.htlcs.clone(), Vec::new());
    half((a, &link.a, link.to_a_sat), (b, &link.b, link.to_b_sat), n, none.clone(), htlcs.clone());
    half((b, &link.b, link.to_b_sat), (a, &link.a, link.to_a_sat), n, htlcs, none);
}

/// `signer` signs the holder's commitment `n`; HTLCs from the holder's view.
fn half(
    signer: (&mut Side, &ChannelId, u64),
    holder: (&mut Side, &ChannelId, u64),
    n: u64,
    offered: Vec<HTLCInfo2>,
    received: Vec<HTLCInfo2>,
) {
    let (signer, signer_id, to_signer_sat) = signer;
    let (holder, holder_id, to_holder_sat) = holder;
    let point = holder.channel(holder_id, |c| c.get_per_commitment_point(n));
    let (signature, htlc_signatures) = signer.channel(signer_id, |c| {
        let (offered, received) = (offered.clone(), received.clone());
        c.sign_counterparty_commitment_tx_phase2(
            &point,
            n,
            FEERATE_PER_KW,
            to_signer_sat,
            to_holder_sat,
            offered,
            received,
        )
    });
    holder.channel(holder_id, |c| {
        c.validate_holder_commitment_tx_phase2(
            n,
            FEERATE_PER_KW,
            to_holder_sat,
            to_signer_sat,
            offered,
            received,
            &signature,
            &htlc_signatures,
        )
    });
    if n == 0 {
        holder.channel(holder_id, |c| c.activate_initial_commitment());
    } else {
        let (_, secret) = holder.channel(holder_id, |c| c.revoke_previous_holder_commitment(n));
        signer.channel(signer_id, |c| c.validate_counterparty_revocation(n - 1, &secret.unwrap()));
    }
}
