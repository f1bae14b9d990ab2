//! Every refusal that can be provoked over the link is a value, and the stream goes on (P11).

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::SecretKey;
use claviger::chain::{Attestor, ChainSink};
use claviger::config::{LimitsConfig, SignerConfig};
use claviger::journal::store::MemoryStore;
use claviger::journal::{Journal, Options};
use claviger::keys::cipher::RecordCipher;
use claviger::keys::import::Derivation;
use claviger::keys::memory::Secret;
use claviger::lightning::actor::House;
use claviger::lightning::driver::{Driver, MiniChain, invoice_to_pay, keysend};
use claviger::lightning::engine::{NodeSpec, Settings};
use claviger::lightning::nodes::Nodes;
use claviger::names::{NodeKind, NodeName};
use claviger::pipeline::{ChannelRef, Outcome};
use claviger::reasons::{Reason, Refusal};
use claviger_ldk::LinkError;
use claviger_ldk::link::{Link, LinkState};
use claviger_proto::MAX_MESSAGE_BYTES;
use vls_protocol::model::PubKey;
use vls_protocol::msgs::{self, SerBolt};

use crate::world::{World, connect};

/// Real nodes over a journal in memory.
fn nodes() -> Arc<Nodes> {
    let key = Secret::init(|key| key.fill(7));
    let store = Arc::new(MemoryStore::new());
    let journal = Arc::new(Journal::open(store, RecordCipher::new(key), Options::default()).unwrap());
    let attestor = Arc::new(Attestor::new(&SecretKey::from_slice(&[9; 32]).unwrap()));
    let settings = Settings {
        limits: LimitsConfig::default(),
        funding_depth: 1,
        oracle: attestor.public_key(),
        desk: Arc::default(),
    };
    let house = House { journal, chain: Arc::new(MiniChain::default()), attestor, settings };
    Arc::new(Nodes::start(house, &SignerConfig::default()).unwrap())
}

fn ask(link: &Link, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, String> {
    let channel = channel.map(|ChannelRef { peer_id, dbid }| claviger_ldk::ChannelRef { peer_id, dbid });
    match link.call(channel, message) {
        Ok(reply) => Ok(reply),
        Err(LinkError::Refused(refusal)) => Err(refusal.reasons[0].id.clone()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn hostile_requests_of_every_kind_are_refused_and_never_break_the_stream() {
    let mut world = World::new();
    let nodes = nodes();
    world.stop(Reason::ShuttingDown);
    world.start_before(nodes.clone());
    let name = NodeName::new("alice").unwrap();
    let bundle = world.enrol("alice");
    nodes
        .add(NodeSpec {
            name: name.clone(),
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::init(|seed| seed.fill(3)),
            derivation: Derivation::Native,
            chain_code: None,
            operations_key: None,
        })
        .unwrap();
    let link = connect(&bundle);
    let good = || assert!(ask(&link, None, msgs::NodeInfo {}.as_vec()).is_ok());
    good();

    let mut chain = MiniChain::default();
    let mut asking = |channel, message| match ask(&link, channel, message) {
        Ok(reply) => Outcome::Reply(reply),
        Err(id) => Outcome::Refused { request: String::new(), refusal: Refusal::new(by_id(&id), "") },
    };
    let mut driver = Driver::open(&mut asking, 1).unwrap();
    let early = driver.clone().advance(&mut asking, 0).unwrap_err(); // the funding is not confirmed
    assert!(early.to_string().contains("chain-pending"), "{early}");
    nodes.connect(&name, chain.mine(vec![driver.funding().clone()])).unwrap();
    driver.advance(&mut asking, 1).unwrap();

    let ours = Some(driver.channel());
    let unknown = Some(ChannelRef { peer_id: [2; 33], dbid: 77 });
    let stub = ChannelRef { peer_id: driver.channel().peer_id, dbid: 2 };
    ask(&link, None, msgs::NewChannel { peer_id: PubKey(stub.peer_id), dbid: 2 }.as_vec()).unwrap();
    let point = |commitment_number| msgs::GetPerCommitmentPoint2 { commitment_number }.as_vec();
    let revoke = |commitment_number| msgs::RevokeCommitmentTx { commitment_number }.as_vec();
    let cases = [
        ("malformed", None, vec![]),
        ("malformed", None, vec![0]),
        ("malformed", None, 1012u16.to_be_bytes().into_iter().chain([0; 1_000]).collect()),
        ("malformed", None, [&1011u16.to_be_bytes()[..], &[0xff; 100_000]].concat()),
        ("malformed", None, msgs::Ecdh { point: PubKey([5; 33]) }.as_vec()),
        ("message-scope", None, point(0)),
        ("message-unknown", None, vec![0xff; MAX_MESSAGE_BYTES]),
        ("message-not-allowed", None, 2005u16.to_be_bytes().to_vec()),
        ("message-not-allowed", None, msgs::CheckPubKey { index: 1, pubkey: PubKey([2; 33]) }.as_vec()),
        ("channel-unknown", unknown, point(0)),
        ("channel-not-ready", Some(stub), revoke(0)),
        ("limit", None, keysend(1, u64::MAX / 1_000_000)),
        ("limit", None, invoice_to_pay(1, 1_000_000_000_000)),
    ];
    let mut provoked = BTreeSet::new();
    for (reason, channel, message) in cases {
        assert_eq!(ask(&link, channel, message).unwrap_err(), reason);
        provoked.insert(reason);
        good();
    }
    assert!(ask(&link, ours, revoke(7)).is_err(), "never validated");
    good();

    driver.advance(&mut asking, 1).unwrap();
    assert_eq!(link.state(), LinkState::Up);
    assert_eq!(world.server.as_ref().unwrap().connected().len(), 1, "the stream it began with");
    assert_eq!(provoked.len(), 7);

    nodes.shutdown();
    assert_eq!(ask(&link, None, msgs::NodeInfo {}.as_vec()).unwrap_err(), "sealed");
}

fn by_id(id: &str) -> Reason {
    Reason::ALL.iter().copied().find(|reason| reason.id() == id).unwrap()
}
