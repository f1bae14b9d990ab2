//! The example, tried: against a signer behind its real link, with a peer that opens a channel, is paid and pays.

#![allow(clippy::unwrap_used)] // what fails may panic

use std::net::TcpListener;
use std::time::Instant;

use bitcoin::Block;
use claviger::admin::api::AdminApi;
use claviger::config::Config;
use claviger::daemon::Daemon;
use claviger::datadir::DataDir;
use claviger::harden::Hardening;
use claviger::keys::data_key;
use claviger::keys::passphrase::Passphrase;
use claviger::reasons::Reason;
use claviger_demo::chain::{Chain, RpcServer};
use claviger_demo::node::{Keys, LdkNode, Settings, Store};
use claviger_hsm::Argon2id;
use claviger_proto::v1::NodeAddRequest;
use lightning::chain::Listen;
use lightning::ln::channelmanager::Bolt11InvoiceParameters;
use lightning::ln::peer_handler::{self, IgnoringMessageHandler, MessageHandler};
use lightning::sign::EntropySource;
use lightning_net_tokio::SocketDescriptor;
use tokio::runtime::Runtime;

use super::*;

type Peers = peer_handler::PeerManager<
    SocketDescriptor,
    Arc<ChannelManager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    Arc<Host>,
    IgnoringMessageHandler,
    host::Keys,
    Arc<ChainMonitor>,
>;

/// An unsealed signer in this process, and the bundle of its one node.
fn signer(dir: &Path, rpc: &RpcServer, cookie: &Path, runtime: &Runtime) -> (Arc<Daemon>, std::path::PathBuf) {
    let data = DataDir::create(&dir.join("signer")).unwrap();
    let passphrase = Passphrase::copy_from(b"correct horse").unwrap();
    let cost = Argon2id { memory_kib: 8, passes: 1, lanes: 1 };
    data_key::create(&passphrase, cost).unwrap().0.write(&data.keyslots()).unwrap();
    let mut config = Config::new(Network::Regtest);
    config.link.listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.chain.url = rpc.url();
    config.chain.cookie_file = Some(cookie.to_owned());
    config.chain.poll_ms = 20;
    config.chain.start_depth = 0;
    let lock = data.lock().unwrap();
    let daemon = Arc::new(Daemon::new(data, lock, config, Hardening::none(), runtime.handle().clone()));
    daemon.open(&passphrase).unwrap();
    let request = NodeAddRequest {
        name: "alice".to_owned(),
        kind: "ldk".to_owned(),
        import: None,
        webhook_secret: vec![],
        api_token: vec![],
    };
    let bundle = dir.join("alice.claviger");
    claviger_proto::bundle::create(&daemon.node_add(request).unwrap().bundle, &bundle).unwrap();
    (daemon, bundle)
}

/// The example's node with what it leaves to its host: blocks and peers.
struct Hosted {
    node: Node,
    peers: Arc<Peers>,
    chain: Arc<Chain>,
    height: u32,
}

impl Hosted {
    fn new(node: Node, chain: Arc<Chain>) -> Self {
        let handler = MessageHandler {
            chan_handler: node.channels.clone(),
            route_handler: IgnoringMessageHandler {},
            onion_message_handler: IgnoringMessageHandler {},
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: node.chain_monitor.clone(),
        };
        let random = node.keys.get_secure_random_bytes();
        let peers = Arc::new(Peers::new(handler, 1, &random, Arc::new(Host), node.keys.clone()));
        Self { node, peers, chain, height: 0 }
    }

    fn step(&mut self) {
        while let Some(block) = self.chain.block_at(self.height + 1) {
            self.height += 1;
            let listeners: [&dyn Listen; 3] =
                [&*self.node.chain_monitor, &*self.node.channels, &**self.node.keys.wallet()];
            let block: &Block = &block;
            listeners.iter().for_each(|listener| listener.block_connected(block, self.height));
        }
        self.node.work();
        self.peers.process_events();
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.step();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn mine(&mut self, blocks: u32, bob: &LdkNode) {
        for _ in 0..blocks {
            self.chain.mine(1);
            let height = self.chain.height();
            self.until("a block", |alice| alice.height == height && bob.height() == height);
        }
    }
}

#[test]
fn it_is_paid_and_pays_over_a_channel_whose_keys_are_at_the_signer() {
    let dir = tempfile::tempdir().unwrap();
    std::env::set_current_dir(&dir).unwrap(); // where the example keeps its monitors
    // Two processes in one: calls to the signer block the node's threads, never the signer's.
    let [signers, nodes] = [(); 2].map(|()| Runtime::new().unwrap());
    let chain = Chain::new();
    chain.mine(110);
    let cookie = dir.path().join("cookie");
    let rpc = RpcServer::start(chain.clone(), ([127, 0, 0, 1], 0).into(), &cookie).unwrap();
    let (daemon, bundle) = signer(dir.path(), &rpc, &cookie, &signers);

    let mut alice = Hosted::new(Node::start(&bundle).unwrap(), chain.clone());
    let id = alice.node.channels.get_our_node_id();
    assert_eq!(daemon.node_show("alice").unwrap().node_id, id.to_string());

    let settings = Settings { announce: false, ..Settings::new("bob") };
    let bob = LdkNode::start(&settings, Keys::Local([2; 32]), chain.clone(), Arc::new(Store::in_memory())).unwrap();
    chain.fund(&bob.script(), Amount::from_sat(3_000_000));
    alice.until("coins", |_| bob.balance() == Amount::from_sat(3_000_000));
    let connection = lightning_net_tokio::connect_outbound(alice.peers.clone(), bob.id(), bob.addr());
    nodes.spawn(async { connection.await.unwrap().await });
    alice.until("a connection", |_| bob.is_connected(&id));

    bob.open_channel(&id, Amount::from_sat(1_000_000), 0).unwrap();
    alice.until("a funding transaction", |_| !chain.mempool().is_empty());
    alice.mine(6, &bob);
    alice.until("a channel", |alice| {
        alice.node.channels.list_usable_channels().len() == 1 && bob.channel_with(&id).is_some_and(|c| c.is_usable)
    });

    let parameters = Bolt11InvoiceParameters { amount_msats: Some(50_000_000), ..Default::default() };
    let invoice = alice.node.channels.create_bolt11_invoice(parameters).unwrap();
    let hash = bob.pay(&invoice).unwrap();
    alice.until("a payment to the example", |_| bob.history().payments.contains_key(&hash));
    alice.until("its balance", |alice| {
        alice.node.channels.list_usable_channels()[0].outbound_capacity_msat > 10_000_000
    });
    let invoice = bob.invoice(10_000_000, "back").unwrap();
    alice.node.pay(&invoice).unwrap();
    alice.until("a payment from the example", |_| bob.history().received.len() == 1);
    let refused = alice.node.pay(&bob.invoice(900_000_000, "too much").unwrap()).unwrap_err();
    // The policy that a new appliance begins with.
    assert!(refused.to_string().contains("preset-pay"), "{refused}");

    let channel = bob.channel_with(&id).unwrap();
    bob.close(&channel).unwrap();
    alice.until("a closing transaction", |_| !chain.mempool().is_empty());
    alice.mine(1, &bob);
    alice.until("the example's share", |alice| alice.node.keys.wallet().balance() == Amount::from_sat(40_000));
    daemon.close(Reason::ShuttingDown);
}
