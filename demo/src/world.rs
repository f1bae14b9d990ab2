//! A chain, a signer and nodes: what they do together, and how to wait for it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf};
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use claviger_ldk::{ClavigerKeys, Options};
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;
use tempfile::TempDir;

use crate::books::Books;
use crate::chain::{Chain, RpcServer};
use crate::interrupt;
use crate::node::{Keys, LdkNode, NodeError, Payment, Settings, Store, payment_hash};
use crate::signer::{Program, SignerProcess};

/// How long anything may take before the world says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);
/// More than any timeout of a channel here.
const BLOCKS_AT_MOST: u32 = 400;

/// What each node starts with on the chain, in two coins.
pub const DEPOSIT: Amount = Amount::from_sat(6_000_000);

/// One world. Nodes are the caller's; everything else is in here.
pub struct World {
    /// The regtest chain.
    pub chain: Arc<Chain>,
    /// The signer that watches it.
    pub signer: SignerProcess,
    /// All scripts of each node that was given coins, in the order of the nodes.
    wallets: RefCell<Vec<Vec<ScriptBuf>>>,
    _rpc: RpcServer,
    dir: TempDir,
}

impl World {
    /// A chain with some blocks and an unsealed signer beside it.
    pub fn new(program: Program) -> anyhow::Result<Self> {
        let mut world = Self::sealed(program)?;
        world.signer.start()?;
        Ok(world)
    }

    /// The same with a signer that was not started yet.
    pub fn sealed(program: Program) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("there is no place for temporary files: set TMPDIR to one")?;
        let chain = Chain::new();
        chain.mine(110);
        let cookie = dir.path().join("cookie");
        let rpc = RpcServer::start(chain.clone(), ([127, 0, 0, 1], 0).into(), &cookie)?;
        let signer = SignerProcess::init(program, &dir.path().join("signer"), &rpc.url(), &cookie)?;
        Ok(Self { chain, signer, wallets: RefCell::default(), _rpc: rpc, dir })
    }

    /// Enrols a node at the signer and connects to its keys there.
    pub fn remote_keys(&self, name: &str) -> anyhow::Result<Arc<ClavigerKeys>> {
        connect(&self.signer.add_node(name, "ldk")?)
    }

    /// A funded node with keys of its own.
    pub fn local_node(&self, name: &str, seed: u8) -> anyhow::Result<LdkNode> {
        self.node(&Settings::new(name), Keys::Local([seed; 32]))
    }

    /// A funded node whose keys are at the signer.
    pub fn remote_node(&self, name: &str) -> anyhow::Result<LdkNode> {
        self.node(&Settings::new(name), Keys::Remote(self.remote_keys(name)?))
    }

    /// A funded node.
    pub fn node(&self, settings: &Settings, keys: Keys) -> anyhow::Result<LdkNode> {
        let node = LdkNode::start(settings, keys, self.chain.clone(), Arc::new(Store::in_memory()))?;
        for _ in 0..2 {
            self.chain.fund(&node.script(), DEPOSIT / 2);
        }
        self.wallets.borrow_mut().push(node.scripts());
        wait("a node to see its coins", &[&node], || node.balance() == DEPOSIT)?;
        Ok(node)
    }

    /// Starts a node again from what it had stored.
    pub fn restart(&self, name: &str, keys: Keys, store: Arc<Store>) -> anyhow::Result<LdkNode> {
        self.restart_with(&Settings::new(name), keys, store)
    }

    /// The same for a node with settings of its own.
    pub fn restart_with(&self, settings: &Settings, keys: Keys, store: Arc<Store>) -> anyhow::Result<LdkNode> {
        Ok(LdkNode::start(settings, keys, self.chain.clone(), store)?)
    }

    /// Mines `blocks` and waits until the nodes and the signer have seen them.
    pub fn mine(&self, blocks: u32, nodes: &[&LdkNode]) -> anyhow::Result<()> {
        for _ in 0..blocks {
            self.chain.mine(1);
            let height = self.chain.height();
            wait("the nodes to see a block", nodes, || nodes.iter().all(|node| node.height() == height))?;
        }
        self.signer_in_step(nodes)
    }

    /// Mines until `done`; after each block the nodes have done all about it.
    pub fn mine_until(&self, what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) -> anyhow::Result<()> {
        for _ in 0..BLOCKS_AT_MOST {
            if done() {
                return Ok(());
            }
            self.mine(1, nodes)?;
        }
        wait(what, nodes, done)
    }

    /// A new channel that `opener` funds, usable on both sides.
    pub fn channel(&self, opener: &LdkNode, other: &LdkNode, value: Amount) -> anyhow::Result<ChannelDetails> {
        let nodes = [opener, other];
        // Two that call each other may hang up on each other.
        if !opener.is_connected(&other.id()) {
            opener.connect(other);
        }
        wait("a connection", &nodes, || opener.is_connected(&other.id()) && other.is_connected(&opener.id()))?;
        let before: Vec<_> = opener.channels().iter().map(|channel| channel.channel_id).collect();
        opener.open_channel(&other.id(), value, 0)?;
        let funded = || {
            let mut fundings = opener.channels().into_iter().filter(|channel| !before.contains(&channel.channel_id));
            fundings.any(|new| new.funding_txo.is_some_and(|txo| self.chain.transaction(&txo.txid).is_some()))
        };
        wait("a funding transaction", &nodes, funded)?;
        self.mine(6, &nodes)?;
        let opened = || {
            let mut channels = opener.channels_with(&other.id()).into_iter();
            let channel = channels.find(|channel| !before.contains(&channel.channel_id) && channel.is_usable)?;
            let both = |theirs: &ChannelDetails| theirs.channel_id == channel.channel_id && theirs.is_usable;
            other.channels().iter().any(both).then_some(channel)
        };
        wait("a usable channel", &nodes, || opened().is_some())?;
        opened().context("the channel did not stay usable")
    }

    /// What the faucet paid into the nodes' wallets.
    pub fn deposited(&self) -> Amount {
        DEPOSIT * self.wallets.borrow().len() as u64
    }

    /// Where these coins are now. `channels` are the funding outputs of the nodes' channels.
    pub fn books(&self, channels: &[OutPoint]) -> Books {
        Books::of(&self.chain, &self.wallets.borrow(), channels)
    }

    /// Waits until the signer's nodes are at the tip.
    pub fn signer_in_step(&self, nodes: &[&LdkNode]) -> anyhow::Result<()> {
        let height = self.chain.height();
        wait("the signer to see the tip", nodes, || {
            self.signer.pid().is_none()
                || self
                    .signer
                    .cli(&["status"])
                    .is_ok_and(|status| status["chain"]["height"] == height && status["chain"]["lag_blocks"] == 0)
        })
    }

    /// Stops everything and leaves the files where they are: data directory and logs.
    pub fn keep_files(self) -> PathBuf {
        self.dir.keep()
    }

    /// Where this world keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Connects to the keys that `bundle` leads to.
pub fn connect(bundle: &Path) -> anyhow::Result<Arc<ClavigerKeys>> {
    let bundle = Bundle::load(bundle)?;
    let link = Link::connect(&bundle, LinkOptions::default(), PATIENCE)?;
    Ok(Arc::new(ClavigerKeys::connect(Arc::new(link), Options::new(Network::Regtest))?))
}

/// Pays and waits until the payee has it. A route may become known only after gossip has spread.
pub fn pay(payer: &LdkNode, payee: &LdkNode, amount_msat: u64) -> anyhow::Result<()> {
    let invoice = payee.invoice(amount_msat, "a payment")?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = payer.pay(&invoice) {
        let passes = matches!(error, NodeError::Ldk(_)) && Instant::now() < deadline && !interrupt::asked();
        anyhow::ensure!(passes, "no way to pay: {error}\n{}", logs(&[payer]));
        std::thread::sleep(PAUSE);
    }
    let hash = payment_hash(&invoice);
    sent(payer, &hash)?;
    wait("a payment to be received", &[payer, payee], || payee.history().received.contains_key(&hash))
}

/// Waits until a payment that was begun has arrived.
pub fn sent(payer: &LdkNode, hash: &PaymentHash) -> anyhow::Result<()> {
    wait("a payment to end", &[payer], || payer.history().payments.contains_key(hash))?;
    match payer.history().payments.get(hash) {
        Some(Payment::Sent { .. }) => Ok(()),
        _ => anyhow::bail!("a payment failed\n{}", logs(&[payer])),
    }
}

/// Waits for `done`; after [`PATIENCE`] fails with what was waited for and the ends of the nodes' logs.
pub fn wait(what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        anyhow::ensure!(!interrupt::asked(), "interrupted");
        anyhow::ensure!(Instant::now() < deadline, "waited in vain for {what}\n{}", logs(nodes));
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn logs(nodes: &[&LdkNode]) -> String {
    let logs: Vec<_> = nodes.iter().map(|node| node.log(25).join("\n")).collect();
    logs.join("\n---\n")
}
