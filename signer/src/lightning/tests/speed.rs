//! How fast nodes advance over a slow disk: `cargo test -p claviger --release -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::journal::FlushMode;
use crate::journal::store::DelayStore;
use crate::lightning::driver::Script;

const NODES: usize = 64;
const ADVANCES: usize = 20;

fn script(htlcs: usize) -> Script {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut chain = MiniChain::default();
    let (nodes, mut asking) = (signer.nodes(), signer.asking(&alice));
    let confirm = |funding: &bitcoin::Transaction| {
        nodes.connect(&alice, chain.mine(vec![funding.clone()])).expect("fits");
    };
    Script::record(&mut asking, 1, confirm, ADVANCES, htlcs).expect("plays")
}

/// Advances per second of all nodes together. Each node has one request in flight, as a channel has.
fn play(script: &Script, delay: Duration, flush: FlushMode) -> f64 {
    let store = DelayStore::new(Arc::new(MemoryStore::new()), delay);
    let mut signer = Signer::start();
    signer.store = Arc::new(store);
    signer.options = Options { flush, ..quick() };
    signer.restart();
    let signer = Arc::new(signer);
    let block = MiniChain::default().mine(vec![script.funding.clone()]);
    let names: Vec<NodeName> = (0..NODES).map(|n| NodeName::new(&format!("node-{n}")).expect("a name")).collect();
    let each = |work: fn(&Signer, &NodeName, &Script, &Arc<ChainBlock>)| {
        std::thread::scope(|scope| {
            for name in &names {
                let (signer, block) = (&signer, &block);
                scope.spawn(move || work(signer, name, script, block));
            }
        });
    };
    each(|signer, name, script, block| {
        let alice = NodeName::new("alice").expect("a name");
        signer.nodes().add(NodeSpec { name: name.clone(), ..spec(&alice, NodeKind::Ldk) }).expect("not running");
        for (channel, message) in &script.opening {
            replied(signer.ask(name, *channel, message.clone()));
        }
        signer.nodes().connect(name, block.clone()).expect("fits");
    });
    let started = Instant::now();
    each(|signer, name, script, _| {
        for (channel, message) in script.advances.iter().flatten() {
            replied(signer.ask(name, *channel, message.clone()));
        }
    });
    (NODES * ADVANCES) as f64 / started.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn group_commit_hides_a_slow_disk() {
    for htlcs in [0, 10] {
        let script = script(htlcs);
        let slow = Duration::from_millis(4);
        let memory = play(&script, Duration::ZERO, FlushMode::Group);
        let group = play(&script, slow, FlushMode::Group);
        let each = play(&script, slow, FlushMode::Each);
        println!(
            "{NODES} nodes, {htlcs} HTLCs: memory {memory:.0}/s, 4 ms group {group:.0}/s ({:.2}), each {each:.0}/s ({:.1}x)",
            group / memory,
            group / each
        );
    }
}
