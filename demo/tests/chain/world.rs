//! What the chain tests share: a chain behind RPC, vls-core nodes that follow it, a channel on one of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::bip32::DerivationPath;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness, transaction};
use claviger::chain::{
    ApplyError, Attestor, Auth, BitcoindSource, ChainBlock, ChainSink, Effect, SinkError, TrackerPosition, Watches,
    apply_block, revert_block, starting_point,
};
use claviger::names::NodeName;
use claviger_demo::chain::{Chain, RpcServer};
use lightning::ln::chan_utils::ChannelPublicKeys;
use lightning_signer::chain::tracker::ListenSlot;
use lightning_signer::channel::{ChannelBase, ChannelId, ChannelSetup, CommitmentType};
use lightning_signer::monitor::ChainMonitor;
use lightning_signer::node::{Node, NodeConfig, NodeServices};
use lightning_signer::persist::DummyPersister;
use lightning_signer::policy::simple_validator::SimpleValidatorFactory;
use lightning_signer::signer::ClockStartingTimeFactory;
use lightning_signer::util::clock::StandardClock;
use tempfile::TempDir;

/// A chain, its RPC server and a source that asks it.
pub(crate) struct World {
    pub(crate) chain: Arc<Chain>,
    pub(crate) server: Option<RpcServer>,
    pub(crate) dir: TempDir,
    pub(crate) attestor: Attestor,
}

impl World {
    pub(crate) fn new() -> Self {
        let (chain, dir) = (Chain::new(), tempfile::tempdir().unwrap());
        let server = RpcServer::start(chain.clone(), loopback(0), &dir.path().join("cookie")).unwrap();
        let attestor = Attestor::new(&secret(9));
        Self { chain, server: Some(server), dir, attestor }
    }

    pub(crate) fn source(&self) -> BitcoindSource {
        self.source_on(Network::Regtest)
    }

    pub(crate) fn source_on(&self, network: Network) -> BitcoindSource {
        let server = self.server.as_ref().unwrap();
        let auth = Auth::Cookie(server.cookie_file().to_owned());
        BitcoindSource::new(&server.url(), auth, network).unwrap()
    }

    /// Stops the server; returns its address.
    pub(crate) fn stop_server(&mut self) -> SocketAddr {
        let addr = self.server.as_ref().unwrap().addr();
        self.server = None;
        addr
    }

    pub(crate) fn start_server(&mut self, addr: SocketAddr) {
        self.server = Some(RpcServer::start(self.chain.clone(), addr, &self.dir.path().join("cookie")).unwrap());
    }

    /// A new node whose tracker stands `depth` blocks below the tip.
    pub(crate) fn node(&self, seed: u8, depth: u32) -> Arc<Node> {
        let services = NodeServices {
            validator_factory: Arc::new(SimpleValidatorFactory::new()),
            starting_time_factory: ClockStartingTimeFactory::new(),
            persister: Arc::new(DummyPersister),
            clock: Arc::new(StandardClock()),
            trusted_oracle_pubkeys: vec![self.attestor.public_key()],
        };
        let config = NodeConfig { use_checkpoints: false, ..NodeConfig::new(Network::Regtest) };
        let node = Arc::new(Node::new(config, &[seed; 32], Vec::new(), services));
        let start = starting_point(&self.source(), depth).unwrap();
        let mut tracker = node.get_tracker();
        (tracker.height, tracker.tip) = (start.height, start.headers);
        drop(tracker);
        node
    }

    /// The best chain's block at `height`, as the follower hands it on.
    pub(crate) fn block(&self, height: u32) -> ChainBlock {
        ChainBlock::new(height, (*self.chain.block_at(height).unwrap()).clone())
    }

    /// Applies everything up to the tip; returns what the last block did.
    pub(crate) fn catch_up(&self, node: &Node) -> Option<Effect> {
        let height = node.get_tracker().height();
        (height + 1..=self.chain.height())
            .map(|height| apply(node, &self.block(height), &self.attestor).unwrap())
            .last()
    }

    /// Removes the tracker's tip, which must be on the best chain.
    pub(crate) fn step_back(&self, node: &Node) -> Effect {
        let height = node.get_tracker().height();
        revert(node, &self.block(height), &self.attestor).unwrap()
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

pub(crate) fn point(byte: u8) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::new(), &secret(byte))
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// Waits until `done`; fails after a time that no healthy run needs.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Anyone can spend.
pub(crate) fn open_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// Spends anyone-can-spend coins to `output`.
pub(crate) fn spend(coins: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let witness = Witness::from_slice(&[open_script().as_bytes()]);
    let input = |coin: &OutPoint| TxIn { previous_output: *coin, witness: witness.clone(), ..TxIn::default() };
    let input = coins.iter().map(input).collect();
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// One output of `sat` to `script`.
pub(crate) fn pays(sat: u64, script: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: script }
}

/// A confirmed coin that anyone can spend.
pub(crate) fn open_coin(chain: &Chain, sat: u64) -> OutPoint {
    chain.fund(&open_script().to_p2wsh(), Amount::from_sat(sat))
}

/// Sets up an anchors channel of `node` on `funding`; returns its id.
pub(crate) fn open_channel(node: &Arc<Node>, funding: OutPoint) -> ChannelId {
    let peer = [2; 33];
    let (id, _) = node.new_channel(1, &peer, node).unwrap();
    let setup = ChannelSetup {
        is_outbound: true,
        channel_value_sat: 1_000_000,
        push_value_msat: 0,
        funding_outpoint: funding,
        holder_selected_contest_delay: 144,
        holder_shutdown_script: None,
        counterparty_points: ChannelPublicKeys {
            funding_pubkey: point(21),
            revocation_basepoint: point(22).into(),
            payment_point: point(23),
            delayed_payment_basepoint: point(24).into(),
            htlc_basepoint: point(25).into(),
        },
        counterparty_selected_contest_delay: 144,
        counterparty_shutdown_script: None,
        commitment_type: CommitmentType::AnchorsZeroFeeHtlc,
    };
    node.setup_channel(id.clone(), None, setup, &DerivationPath::master()).unwrap();
    id
}

/// The channel's own payment point.
pub(crate) fn payment_point(node: &Node, id: &ChannelId) -> PublicKey {
    node.with_channel(id, |channel| Ok(channel.get_channel_basepoints().payment_point)).unwrap()
}

/// The monitor and watches of the channel funded by `funding`.
pub(crate) fn followed(node: &Node, funding: &OutPoint) -> (ChainMonitor, ListenSlot) {
    node.get_tracker().listeners.get(funding).cloned().unwrap()
}

/// Depths of funding and closing transactions, as vls-core's rules see them.
pub(crate) fn depths(node: &Node, funding: &OutPoint) -> (u32, u32) {
    let (monitor, _) = followed(node, funding);
    (monitor.funding_depth(), monitor.closing_depth())
}

/// Adds `block`, with the watches that the tracker has now.
pub(crate) fn apply(node: &Node, block: &ChainBlock, attestor: &Attestor) -> Result<Effect, ApplyError> {
    let watches = Watches::of(&node.get_tracker());
    apply_block(node, block, attestor, &watches.concerned(block))
}

/// Removes `block` in the same way.
pub(crate) fn revert(node: &Node, block: &ChainBlock, attestor: &Attestor) -> Result<Effect, ApplyError> {
    let watches = Watches::of(&node.get_tracker());
    revert_block(node, block, attestor, &watches.concerned(block))
}

/// Nodes without actors: applies blocks in the follower's thread.
pub(crate) struct TestSink {
    pub(crate) nodes: Mutex<BTreeMap<NodeName, Arc<Node>>>,
}

impl TestSink {
    fn step(
        &self,
        name: &NodeName,
        step: impl FnOnce(&Node, &Attestor) -> Result<Effect, ApplyError>,
    ) -> Result<TrackerPosition, SinkError> {
        let node = self.nodes.lock().unwrap().get(name).cloned().ok_or(SinkError::Gone)?;
        let attestor = Attestor::new(&secret(9));
        let effect = step(&node, &attestor)?;
        Ok(TrackerPosition { node: name.clone(), height: effect.height, hash: effect.hash })
    }
}

impl ChainSink for TestSink {
    fn trackers(&self) -> Vec<TrackerPosition> {
        let nodes = self.nodes.lock().unwrap();
        let position = |(name, node): (&NodeName, &Arc<Node>)| {
            let tracker = node.get_tracker();
            TrackerPosition { node: name.clone(), height: tracker.height(), hash: tracker.tip().0.block_hash() }
        };
        nodes.iter().map(position).collect()
    }

    fn connect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
        self.step(node, |node, attestor| apply(node, &block, attestor))
    }

    fn disconnect(&self, node: &NodeName, block: Arc<ChainBlock>) -> Result<TrackerPosition, SinkError> {
        self.step(node, |node, attestor| revert(node, &block, attestor))
    }
}
