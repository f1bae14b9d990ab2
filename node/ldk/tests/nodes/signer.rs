//! A signer in this process: real actors over a journal in memory, without link and follower. Its limits are wide, so
//! that whatever it refuses is a rule of Lightning.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bitcoin::Network;
use bitcoin::hash_types::FilterHeader;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::SecretKey;
use claviger::chain::{Attestor, ChainBlock, ChainSink};
use claviger::config::{LimitsConfig, SignerConfig};
use claviger::journal::store::MemoryStore;
use claviger::journal::{Journal, Options};
use claviger::keys::cipher::RecordCipher;
use claviger::keys::import::Derivation;
use claviger::keys::memory::Secret;
use claviger::lightning::actor::{ChainFacts, House};
use claviger::lightning::engine::{NodeSpec, Settings};
use claviger::lightning::nodes::Nodes;
use claviger::lightning::persist::ChainStart;
use claviger::names::{NodeKind, NodeName};
use claviger::pipeline::{self, Outcome, Request};
use claviger::reasons::Refusal;
use claviger_demo::chain::Chain;
use claviger_ldk::{ChannelRef, LinkError, RefusalReason, Transport};
use zeroize::Zeroizing;

pub struct Signer {
    nodes: Nodes,
    name: NodeName,
    chain: Arc<Chain>,
    height: Mutex<u32>,
    pub away: AtomicBool,
    /// Answers to withhold, after the request was carried out.
    pub lose_replies: AtomicU64,
    pub refusals: Mutex<Vec<String>>,
    /// Refusals of what may succeed later.
    pub deferrals: AtomicU64,
    pub requests: AtomicU64,
}

impl Signer {
    pub fn new(seed: [u8; 32], chain: Arc<Chain>) -> Arc<Self> {
        let key = Secret::new(Zeroizing::new([7; 32]));
        let journal = Journal::open(Arc::new(MemoryStore::new()), RecordCipher::new(key), Options::default()).unwrap();
        let attestor = Arc::new(Attestor::new(&SecretKey::from_slice(&[0x77; 32]).unwrap()));
        let limits = LimitsConfig {
            max_payment_msat: 1_000_000_000,
            max_payment_msat_per_hour: 100_000_000_000,
            max_onchain_fee_sat: 50_000,
            ..LimitsConfig::default()
        };
        let settings = Settings { limits, funding_depth: 1, oracle: attestor.public_key(), desk: Arc::default() };
        let start = chain.height();
        let facts = Arc::new(Start(chain.clone(), start));
        let house = House { journal: Arc::new(journal), chain: facts, attestor, settings };
        let nodes = Nodes::start(house, &SignerConfig { threads: 1, ..SignerConfig::default() }).unwrap();
        let name = NodeName::new("ldk").unwrap();
        let spec = NodeSpec {
            name: name.clone(),
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::new(Zeroizing::new(seed)),
            derivation: Derivation::Native,
            chain_code: None,
            operations_key: None,
        };
        nodes.add(spec).unwrap();
        let signer = Arc::new(Self {
            nodes,
            name,
            height: Mutex::new(start),
            chain,
            away: AtomicBool::new(false),
            lose_replies: AtomicU64::new(0),
            refusals: Mutex::default(),
            deferrals: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        signer.follow();
        signer
    }

    /// Shows the chain to the signer.
    pub fn follow(&self) {
        let mut height = self.height.lock().unwrap();
        while let Some(block) = self.chain.block_at(*height + 1) {
            *height += 1;
            let block = Arc::new(ChainBlock::new(*height, (*block).clone()));
            self.nodes.connect(&self.name, block).unwrap();
        }
    }
}

impl Transport for Signer {
    fn call(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LinkError::Down("switched off".into()));
        }
        let number = u16::from_be_bytes([message[0], message[1]]);
        let channel = channel.map(|c| pipeline::ChannelRef { peer_id: c.peer_id, dbid: c.dbid });
        let request_id = self.requests.fetch_add(1, Ordering::SeqCst);
        let (respond, outcome) = mpsc::channel();
        let respond = Box::new(move |outcome| respond.send(outcome).unwrap());
        self.nodes.submit(&self.name, Request { request_id, channel, message }, respond);
        let outcome = outcome.recv().unwrap();
        if self.lose_replies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(LinkError::Down("the reply was lost".into()));
        }
        match outcome {
            Outcome::Reply(reply) => Ok(reply),
            Outcome::Refused { request, refusal } => {
                println!("refused: {number} {}: {}", refusal.reason.id(), refusal.detail);
                let retry = refusal.reason.retry();
                if retry {
                    self.deferrals.fetch_add(1, Ordering::SeqCst);
                } else {
                    self.refusals.lock().unwrap().push(format!("{number}: {}", refusal.detail));
                }
                let Refusal { reason, detail, .. } = refusal;
                let hint = reason.hint().into();
                let reason = RefusalReason { id: reason.id().into(), detail, hint, facts: Vec::new() };
                Err(LinkError::Refused(claviger_ldk::Refusal { request, reasons: vec![reason], retry }))
            }
        }
    }
}

/// The chain, and its height when the signer started; always fresh.
struct Start(Arc<Chain>, u32);

impl ChainFacts for Start {
    fn require_fresh(&self, _: &NodeName) -> Result<(), Refusal> {
        Ok(())
    }

    fn start(&self) -> Option<ChainStart> {
        let height = self.1;
        let block = ChainBlock::new(height, (*self.0.block_at(height)?).clone());
        let filter_header = block.filter().filter_header(&FilterHeader::all_zeros());
        Some(ChainStart { height, header: block.block().header, filter_header })
    }
}
