//! A node that was taken over: it has a link, and sends what it likes.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bitcoin::Amount;
use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use claviger::reasons::Reason;
use claviger_demo::signer::Program;
use claviger_demo::world::{PATIENCE, World};
use claviger_ldk::link::{Bundle, Link, LinkOptions, LinkState};
use claviger_ldk::{ChannelRef, LinkError};
use vls_protocol::msgs::{DeBolt, NodeInfo, NodeInfoReply, SerBolt};

/// A chain and a signer, with one node.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) thief: Thief,
}

impl Scene {
    /// With a node of `kind`: `ldk` or `cln`.
    pub(crate) fn new(kind: &str) -> Self {
        Self::with(kind, |_| ())
    }

    /// The same under a configuration of one's own.
    pub(crate) fn with(kind: &str, configure: impl FnOnce(&mut toml::Table)) -> Self {
        let mut world = World::sealed(Program::binary(CLAVIGER)).unwrap();
        world.signer.configure(configure).unwrap();
        world.signer.start().unwrap();
        let thief = Thief::new(&world, "alice", kind);
        Self { world, thief }
    }

    /// Kills the daemon and starts it again.
    pub(crate) fn restart(&mut self) {
        self.world.signer.kill().unwrap();
        self.world.signer.start().unwrap();
    }

    /// Mines blocks that the signer sees.
    pub(crate) fn mine(&self, blocks: u32) {
        self.world.mine(blocks, &[]).unwrap();
    }

    /// A signed payment to `script` from nowhere in particular, in the chain's next block.
    pub(crate) fn fund(&self, script: &bitcoin::Script, amount: Amount) -> bitcoin::Transaction {
        let tx = self.world.chain.faucet_payment(&script.to_owned(), amount);
        self.world.chain.broadcast(&tx).unwrap();
        tx
    }
}

const PAUSE: Duration = Duration::from_millis(5);

pub(crate) const CLAVIGER: &str = env!("CARGO_BIN_EXE_claviger-under-test");

pub(crate) struct Thief {
    link: Link,
    /// How often it was refused.
    pub(crate) refusals: RefCell<usize>,
}

impl Thief {
    pub(crate) fn new(world: &World, name: &str, kind: &str) -> Self {
        let bundle = world.signer.add_node(name, kind).unwrap();
        let link = Link::connect(&Bundle::load(&bundle).unwrap(), LinkOptions::default(), PATIENCE).unwrap();
        Self { link, refusals: RefCell::default() }
    }

    /// What a message is answered with, or the reason and the facts of its refusal. Waits for what passes by itself.
    ///
    /// # Panics
    /// If the link breaks for good: a refusal never does that.
    pub(crate) fn send(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, (Reason, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.link.call(channel, message.clone()) {
                Err(error) if error.retry() && Instant::now() < deadline => std::thread::sleep(PAUSE),
                outcome => return self.told(outcome),
            }
        }
    }

    /// The same without waiting.
    pub(crate) fn once(&self, channel: Option<ChannelRef>, message: &dyn SerBolt) -> Result<Vec<u8>, (Reason, String)> {
        self.told(self.link.call(channel, message.as_vec()))
    }

    fn told(&self, outcome: Result<Vec<u8>, LinkError>) -> Result<Vec<u8>, (Reason, String)> {
        match outcome {
            Ok(reply) => Ok(reply),
            Err(LinkError::Refused(refusal)) => {
                assert_eq!(self.link.state(), LinkState::Up, "a refusal is an answer");
                *self.refusals.borrow_mut() += 1;
                let reason = Reason::ALL.iter().find(|reason| reason.id() == refusal.reasons[0].id);
                Err((*reason.unwrap(), refusal.reasons[0].detail.clone()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The same for a message that has its type.
    pub(crate) fn ask<R: DeBolt>(
        &self,
        channel: Option<ChannelRef>,
        message: &dyn SerBolt,
    ) -> Result<R, (Reason, String)> {
        self.send(channel, message.as_vec()).map(|reply| R::from_vec(reply).unwrap())
    }

    /// Asks what must be answered.
    pub(crate) fn answered<R: DeBolt>(&self, channel: Option<ChannelRef>, message: &dyn SerBolt) -> R {
        let name = message.name();
        self.ask(channel, message).unwrap_or_else(|refused| panic!("{name} was refused: {refused:?}"))
    }

    /// Asks what must be refused for `reason`.
    pub(crate) fn refused(&self, reason: Reason, channel: Option<ChannelRef>, message: &dyn SerBolt) {
        self.refused_bytes(reason, channel, message.as_vec());
    }

    /// The same for bytes.
    pub(crate) fn refused_bytes(&self, reason: Reason, channel: Option<ChannelRef>, message: Vec<u8>) {
        match self.send(channel, message) {
            Ok(_) => panic!("this was to be refused with {}", reason.id()),
            Err((found, detail)) => assert_eq!(found, reason, "{detail}"),
        }
    }

    /// The node's public key.
    pub(crate) fn node_id(&self) -> PublicKey {
        PublicKey::from_slice(&self.info().node_id.0).unwrap()
    }

    /// The wallet's key number `index`.
    pub(crate) fn wallet_key(&self, index: u32) -> PublicKey {
        let account = Xpub::decode(&self.info().bip32.0).unwrap();
        let child = ChildNumber::from_normal_idx(index).unwrap();
        account.derive_pub(&Secp256k1::new(), &[child]).unwrap().public_key
    }

    fn info(&self) -> NodeInfoReply {
        self.answered(None, &NodeInfo {})
    }
}
