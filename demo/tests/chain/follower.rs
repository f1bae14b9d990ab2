//! The follower with real trackers: reorgs, nodes that cannot follow, backends that vanish or fall behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::{TestSink, World, depths, name, open_channel, open_coin, open_script, pays, spend, wait_until};
use claviger::chain::{ChainView, Follower, FollowerOptions};
use claviger::reasons::Reason;
use lightning_signer::node::Node;

struct Run {
    world: World,
    sink: Arc<TestSink>,
    view: Arc<ChainView>,
    follower: Option<Follower>,
}

impl Run {
    /// Follows for nodes that start so many blocks below the tip, until they are at the tip.
    fn start(nodes: &[(&str, u32)], stale_after: Duration) -> Self {
        let world = World::new();
        let nodes = nodes.iter().zip(1..).map(|((node, depth), seed)| (name(node), world.node(seed, *depth)));
        let sink = Arc::new(TestSink { nodes: Mutex::new(nodes.collect::<BTreeMap<_, _>>()) });
        let view = Arc::new(ChainView::new("test".to_owned(), stale_after));
        let options = FollowerOptions { poll_interval: Duration::from_millis(50), start_depth: 3 };
        let follower = Follower::start(Arc::new(world.source()), sink.clone(), view.clone(), options).unwrap();
        let run = Self { world, sink, view, follower: Some(follower) };
        run.wait_for_tip();
        run
    }

    fn node(&self, node: &str) -> Arc<Node> {
        self.sink.nodes.lock().unwrap()[&name(node)].clone()
    }

    fn is_at_tip(&self, node: &str) -> bool {
        let node = self.node(node);
        let tracker = node.get_tracker();
        (tracker.height(), tracker.tip().0.block_hash()) == self.world.chain.tip()
    }

    fn wait_for_tip(&self) {
        let names: Vec<_> = self.sink.nodes.lock().unwrap().keys().cloned().collect();
        wait_until("every node at the tip", || names.iter().all(|name| self.is_at_tip(name.as_str())));
    }

    fn problem(&self, node: &str) -> Option<String> {
        self.view.status(Instant::now()).nodes.get(&name(node))?.problem.clone()
    }

    fn last_error(&self) -> Option<String> {
        self.view.status(Instant::now()).last_error
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn every_node_follows_through_reorgs_of_one_to_six_blocks() {
    let run = Run::start(&[("alice", 6), ("bob", 0)], NEVER);
    run.world.chain.mine(10);
    run.wait_for_tip();
    for depth in 1..=6 {
        run.world.chain.reorg(depth, &[]);
        run.wait_for_tip();
    }
    let (height, hash) = run.world.chain.tip();
    wait_until("the view names both nodes at the tip", || {
        let status = run.view.status(Instant::now());
        let at_tip = |node: &claviger::chain::NodeStatus| (node.height, node.hash, node.lag) == (height, hash, 0);
        status.tip.is_some_and(|tip| tip.hash == hash) && status.nodes.len() == 2 && status.nodes.values().all(at_tip)
    });
    assert_eq!(run.view.require_fresh(&name("alice"), Instant::now()), Ok(()));
}

#[test]
fn a_channel_sees_its_funding_and_its_close_come_and_go() {
    let run = Run::start(&[("alice", 6)], NEVER);
    let (chain, node) = (&run.world.chain, run.node("alice"));
    let coin = open_coin(chain, 1_000_000);
    run.wait_for_tip();
    let funding_tx = spend(&[coin], vec![pays(1_000_000, open_script().to_p2wsh())]);
    let funding = bitcoin::OutPoint { txid: funding_tx.compute_txid(), vout: 0 };
    open_channel(&node, funding);
    chain.broadcast(&funding_tx).unwrap();
    chain.mine(3);
    run.wait_for_tip();
    assert_eq!(depths(&node, &funding), (3, 0));
    let close = spend(&[funding], vec![pays(999_000, open_script().to_p2wsh())]);
    chain.broadcast(&close).unwrap();
    chain.mine(2);
    run.wait_for_tip();
    assert_eq!(depths(&node, &funding), (5, 2));
    chain.reorg(2, &[close.compute_txid()]);
    run.wait_for_tip();
    assert_eq!(depths(&node, &funding), (6, 0), "the close is gone");
    chain.reorg(6, &[funding_tx.compute_txid()]);
    run.wait_for_tip();
    assert_eq!(depths(&node, &funding), (0, 0), "the funding is gone");
    chain.broadcast(&funding_tx).unwrap();
    chain.broadcast(&close).unwrap();
    chain.mine(1);
    run.wait_for_tip();
    assert_eq!(depths(&node, &funding), (1, 1), "both in one block");
}

#[test]
fn a_reorg_below_a_nodes_memory_stops_that_node_alone() {
    let run = Run::start(&[("old", 10), ("young", 0)], NEVER);
    run.world.chain.reorg(3, &[]);
    wait_until("the older node follows", || run.is_at_tip("old"));
    wait_until("the younger node's problem is named", || {
        run.problem("young").is_some_and(|problem| problem.contains("reorganised below"))
    });
    let refusal = run.view.require_fresh(&name("young"), Instant::now() + NEVER).unwrap_err();
    assert_eq!(refusal.reason, Reason::ChainStale);
    run.world.chain.mine(1);
    wait_until("the older node still follows", || run.is_at_tip("old"));
}

#[test]
fn a_view_goes_stale_without_its_backend_and_recovers_with_it() {
    let mut run = Run::start(&[("alice", 6)], Duration::from_secs(1));
    let alice = name("alice");
    let addr = run.world.stop_server();
    wait_until("the view is stale", || run.view.is_stale(Instant::now()));
    let refusal = run.view.require_fresh(&alice, Instant::now()).unwrap_err();
    assert_eq!((refusal.reason, refusal.reason.retry()), (Reason::ChainStale, true));
    wait_until("the cause is named", || run.last_error().is_some());
    run.world.chain.mine(2);
    run.world.start_server(addr);
    run.wait_for_tip();
    wait_until("the view is fresh", || run.view.require_fresh(&alice, Instant::now()).is_ok());
}

#[test]
fn a_backend_that_fell_behind_is_not_taken_for_a_reorg() {
    let run = Run::start(&[("alice", 6)], NEVER);
    let node = run.node("alice");
    run.world.chain.mine(3);
    run.wait_for_tip();
    let before = node.get_tracker().tip().0.block_hash();
    run.world.chain.invalidate(2, &[]);
    wait_until("the cause is named", || run.problem("alice").is_some_and(|problem| problem.contains("is behind")));
    assert_eq!(node.get_tracker().tip().0.block_hash(), before, "the tracker waits");
    run.world.chain.mine(3);
    run.wait_for_tip();
    wait_until("all is well again", || run.problem("alice").is_none());
}

#[test]
fn a_node_added_later_is_followed_and_a_removed_one_is_forgotten() {
    let mut run = Run::start(&[("alice", 6)], NEVER);
    let carol = run.world.node(7, 6);
    run.sink.nodes.lock().unwrap().insert(name("carol"), carol);
    run.follower.as_ref().unwrap().wake();
    run.wait_for_tip();
    run.sink.nodes.lock().unwrap().remove(&name("alice"));
    wait_until("only carol is left", || run.view.status(Instant::now()).nodes.into_keys().eq([name("carol")]));
    // Dropping it ends the thread.
    run.follower = None;
    run.world.chain.mine(1);
    assert!(!run.is_at_tip("carol"));
}

#[test]
fn a_new_node_learns_from_the_view_where_to_start_and_nobody_waits_for_the_backend() {
    let mut run = Run::start(&[("alice", 0)], NEVER);
    assert!(run.view.start().is_none(), "nobody had asked");
    wait_until("a start", || run.view.start().is_some_and(|start| start.height == run.world.chain.height() - 3));
    run.world.chain.mine(5);
    run.wait_for_tip();
    wait_until("a later start", || run.view.start().is_some_and(|start| start.height == run.world.chain.height() - 3));
    run.world.stop_server();
    wait_until("the view knows that the backend is away", || run.last_error().is_some());
    assert!(run.view.start().is_some(), "what is known is told");
}
