//! A chain, a signer and nodes, and how to wait for them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{Amount, Network};
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use claviger_ldk::{ClavigerKeys, Options};
use tempfile::TempDir;

use crate::chain::{Chain, RpcServer};
use crate::node::{Keys, LdkNode, Settings, Store};
use crate::signer::{Program, SignerProcess};

/// How long anything may take before the world says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What each node starts with on the chain, in two coins.
pub const DEPOSIT: Amount = Amount::from_sat(6_000_000);

/// One world. Nodes are the caller's; everything else is in here.
pub struct World {
    /// The regtest chain.
    pub chain: Arc<Chain>,
    /// The signer that watches it.
    pub signer: SignerProcess,
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
        let dir = tempfile::tempdir()?;
        let chain = Chain::new();
        chain.mine(110);
        let cookie = dir.path().join("cookie");
        let rpc = RpcServer::start(chain.clone(), ([127, 0, 0, 1], 0).into(), &cookie)?;
        let signer = SignerProcess::init(program, &dir.path().join("signer"), &rpc.url(), &cookie)?;
        Ok(Self { chain, signer, _rpc: rpc, dir })
    }

    /// Enrols a node at the signer and connects to its keys there.
    pub fn remote_keys(&self, name: &str) -> anyhow::Result<Arc<ClavigerKeys>> {
        connect(&self.signer.add_node(name, "ldk")?)
    }

    /// A funded node with keys of its own.
    pub fn local_node(&self, name: &str, seed: u8) -> anyhow::Result<LdkNode> {
        self.node(name, Keys::Local([seed; 32]))
    }

    /// A funded node whose keys are at the signer.
    pub fn remote_node(&self, name: &str) -> anyhow::Result<LdkNode> {
        self.node(name, Keys::Remote(self.remote_keys(name)?))
    }

    /// Starts a node again from what it had stored.
    pub fn restart(&self, name: &str, keys: Keys, store: Arc<Store>) -> anyhow::Result<LdkNode> {
        Ok(LdkNode::start(&Settings::new(name), keys, self.chain.clone(), store)?)
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

    /// Where this world keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn node(&self, name: &str, keys: Keys) -> anyhow::Result<LdkNode> {
        let node = LdkNode::start(&Settings::new(name), keys, self.chain.clone(), Arc::new(Store::in_memory()))?;
        for _ in 0..2 {
            self.chain.fund(&node.script(), DEPOSIT / 2);
        }
        wait("a node to see its coins", &[&node], || node.balance() == DEPOSIT)?;
        Ok(node)
    }
}

/// Connects to the keys that `bundle` leads to.
pub fn connect(bundle: &Path) -> anyhow::Result<Arc<ClavigerKeys>> {
    let bundle = Bundle::load(bundle)?;
    let link = Link::connect(&bundle, LinkOptions::default(), PATIENCE)?;
    Ok(Arc::new(ClavigerKeys::connect(Arc::new(link), Options::new(Network::Regtest))?))
}

/// Waits for `done`; after [`PATIENCE`] fails with what was waited for and the ends of the nodes' logs.
pub fn wait(what: &str, nodes: &[&LdkNode], done: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            let logs: Vec<_> = nodes.iter().map(|node| node.log(25).join("\n")).collect();
            anyhow::bail!("waited in vain for {what}\n{}", logs.join("\n---\n"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
