//! The node's background: its clock, its chain and its connections.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::constants::genesis_block;
use lightning::chain::BestBlock;
use lightning::events::EventsProvider;
use lightning::util::ser::Writeable;
use tokio::runtime::Runtime;

use super::kit::catch_up;
use super::{Inner, lock};

/// How long the loop sleeps when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(10);
const RECONNECT: Duration = Duration::from_millis(200);
/// Pings, and claims that wait on the chain.
const TICK: Duration = Duration::from_secs(10);
/// What LDK counts in minutes, such as how long a peer may take to agree to a close.
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn spawn(
    inner: Arc<Inner>,
    listener: TcpListener,
    best: BestBlock,
) -> io::Result<(JoinHandle<()>, Runtime)> {
    // Messages are handled on these threads, and a signer that is away blocks them: more than one is needed.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    listener.set_nonblocking(true)?;
    let accepting = {
        let _guard = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let peers = inner.peers.clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = accepting.accept().await {
            if let Ok(stream) = stream.into_std() {
                let connection = lightning_net_tokio::setup_inbound(peers.clone(), stream);
                tokio::spawn(connection);
            }
        }
    });
    let handle = runtime.handle().clone();
    let thread = std::thread::spawn(move || run(&inner, best, &handle));
    Ok((thread, runtime))
}

fn run(node: &Arc<Inner>, mut best: BestBlock, runtime: &tokio::runtime::Handle) {
    // The wallet keeps nothing: it reads the chain from the start.
    let genesis = genesis_block(Network::Regtest).block_hash();
    let mut wallet_best = BestBlock::new(node.chain.block_at(0).map_or(genesis, |b| b.block_hash()), 0);
    let (mut reconnect, mut tick, mut minute) = (Instant::now(), Instant::now(), Instant::now());
    while !node.stopped.load(Ordering::SeqCst) {
        wallet_best = catch_up(&*node.wallet, wallet_best, &*node.chain);
        let before = best.block_hash;
        // Together, so that no block can arrive at one and not yet at the other.
        best = catch_up(&(&*node.chain_monitor, &*node.channels), best, &*node.chain);
        if best.block_hash != before {
            node.sweep();
        }
        node.work();
        node.settled.store(best.height, Ordering::SeqCst);
        if reconnect.elapsed() >= RECONNECT {
            reconnect = Instant::now();
            node.reconnect(runtime);
        }
        if tick.elapsed() >= TICK {
            tick = Instant::now();
            node.peers.timer_tick_occurred();
            node.chain_monitor.rebroadcast_pending_claims();
        }
        if minute.elapsed() >= MINUTE {
            minute = Instant::now();
            node.channels.timer_tick_occurred();
        }
        node.channels.get_event_or_persistence_needed_future().wait_timeout(PAUSE);
    }
}

impl Inner {
    /// Everything that LDK has ready.
    fn work(self: &Arc<Self>) {
        self.channels.process_pending_htlc_forwards();
        let handle = |event| self.handle(event);
        self.channels.process_pending_events(&handle);
        self.chain_monitor.process_pending_events(&handle);
        self.onion.process_pending_events(&handle);
        self.peers.process_events();
        if self.channels.get_and_clear_needs_persistence() {
            self.keep();
        }
    }

    /// Writes down what only the channel manager knows.
    pub(super) fn keep(&self) {
        self.store.put("manager", self.channels.encode());
    }

    fn reconnect(&self, runtime: &tokio::runtime::Handle) {
        for (id, addr) in lock(&self.known_peers).clone() {
            if self.peers.peer_by_node_id(&id).is_none() {
                let peers = self.peers.clone();
                runtime.spawn(async move {
                    if let Some(connection) = lightning_net_tokio::connect_outbound(peers, id, addr).await {
                        connection.await;
                    }
                });
            }
        }
    }
}
