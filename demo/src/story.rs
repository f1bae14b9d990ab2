//! The story that the demo tells, step by step, with what each step proves.

use std::time::{Duration, Instant};

use bitcoin::Amount;
use claviger_demo::books::Books;
use claviger_demo::node::{Keys, LdkNode, Payment, payment_hash};
use claviger_demo::signer::Program;
use claviger_demo::world::{World, connect, wait};
use lightning::types::payment::PaymentHash;
use serde::Serialize;

/// Payments each way.
const PAYMENTS: usize = 20;
const CHANNEL: Amount = Amount::from_sat(1_000_000);
/// LDK's delay before its own commitment's output may be swept.
const TO_SELF_DELAY: u32 = 144;

/// What happened, as `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct Tally {
    channels_opened: usize,
    payments_sent: usize,
    payments_received: usize,
    payments_forwarded: usize,
    signer_kills: u32,
    coop_closed: usize,
    force_closed: usize,
    justice_spends: usize,
    balances_reconcile: bool,
    journal: Journal,
    seconds: f64,
}

#[derive(Debug, Default, Serialize)]
struct Journal {
    records: u64,
    verified: bool,
}

/// Speaks while the story goes on.
struct Teller {
    json: bool,
    started: Instant,
}

#[allow(clippy::print_stdout, reason = "telling is printing")]
impl Teller {
    fn step(&self, text: &str) {
        if !self.json {
            println!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
        }
    }

    fn end(&self, tally: &Tally) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(tally)?);
        }
        Ok(())
    }
}

/// Tells the story; fails where reality differs from it.
pub(crate) fn tell(json: bool) -> anyhow::Result<()> {
    let teller = Teller { json, started: Instant::now() };
    let mut tally = Tally::default();

    teller.step("A chain of our own, and a signer: a process that holds keys, sealed until its passphrase is given.");
    let mut world = World::new(Program::this()?)?;
    let alice = world.remote_node("alice")?;
    let (bob, carol) = (world.local_node("bob", 2)?, world.local_node("carol", 3)?);
    let scripts = [alice.script(), bob.script(), carol.script()];
    teller.step(
        "Three Lightning nodes. Bob and Carol hold their keys. Alice has none: the signer decides what she signs.",
    );

    for (from, to) in [(&alice, &bob), (&bob, &alice), (&carol, &alice)] {
        open(&world, from, to, &[&alice, &bob, &carol])?;
        tally.channels_opened += 1;
    }
    teller.step("Three channels are open: Alice to Bob, Bob to Alice, Carol to Alice.");
    let carols = carol.channel_with(&alice.id()).ok_or_else(|| anyhow::anyhow!("Carol has no channel"))?;

    for round in 0..PAYMENTS as u64 {
        pay(&alice, &bob, 10_000_000 + round)?;
        pay(&bob, &alice, 3_000_000 + round)?;
    }
    tally.payments_sent += PAYMENTS;
    tally.payments_received += PAYMENTS;
    teller.step(&format!(
        "Alice paid Bob {PAYMENTS} times and was paid {PAYMENTS} times; the signer checked every step."
    ));

    let loot = carol.keep_commitment(&carols.channel_id).ok_or_else(|| anyhow::anyhow!("Carol kept nothing"))?;
    pay(&carol, &bob, 50_000_000)?;
    wait("Alice to notice what she forwarded", &[&alice], || alice.history().forwarded >= 1)?;
    tally.payments_forwarded = alice.history().forwarded;
    teller.step("Carol paid Bob through Alice: the signer saw that what goes out had come in.");

    let hashes = (0..5).map(|_| Ok(alice.pay(&bob.invoice(2_000_000, "mid")?)?)).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(20));
    world.signer.kill()?;
    teller.step("Five payments were on their way when the signer was killed (SIGKILL).");
    std::thread::sleep(Duration::from_millis(500));
    world.signer.start()?;
    for hash in &hashes {
        sent(&alice, hash)?;
    }
    tally.signer_kills = world.signer.kills;
    tally.payments_sent += hashes.len();
    teller.step("The signer was started again; it and Alice agreed by themselves, and all five arrived.");

    let store = alice.stop();
    let keys = connect(&world.signer.dir().join("alice.bundle"))?;
    let alice = world.restart("alice", Keys::Remote(keys), store)?;
    alice.connect(&bob);
    carol.connect(&alice);
    let usable = || alice.channels().iter().filter(|channel| channel.is_usable).count() == 3;
    wait("Alice to come back", &[&alice, &bob, &carol], usable)?;
    pay(&alice, &bob, 1_000_000)?;
    tally.payments_sent += 1;
    teller.step("Alice herself was stopped and started again; her channels came back.");

    let nodes = [&alice, &bob, &carol];
    let bobs = alice.channels_with(&bob.id());
    let (cooperative, forced) = (&bobs[0], &bobs[1]);
    wait("a close to begin", &nodes, || alice.close(cooperative).is_ok())?;
    closed(&alice, cooperative, &nodes)?;
    world.mine(3, &nodes)?;
    tally.coop_closed = 1;
    teller.step("Alice and Bob closed one channel together.");

    let before = alice.balance();
    alice.force_close(forced)?;
    closed(&alice, forced, &nodes)?;
    world.mine(TO_SELF_DELAY + 6, &nodes)?;
    wait("Alice's coins from the forced close", &[&alice], || {
        world.chain.mine(1);
        std::thread::sleep(Duration::from_millis(100));
        alice.balance() > before
    })?;
    tally.force_closed = 1;
    teller.step("She closed the other without him, waited out the delay, and swept her coins home.");

    drop(carol);
    for tx in &loot {
        world.chain.broadcast(tx)?;
    }
    let before = alice.balance();
    world.mine(1, &[&alice, &bob])?;
    wait("the punishment", &[&alice], || {
        world.chain.mine(1);
        std::thread::sleep(Duration::from_millis(100));
        alice.balance() > before + CHANNEL / 2
    })?;
    tally.justice_spends = 1;
    teller.step("Carol broadcast a state she had revoked. Alice had it all: the signer signs punishments.");

    world.mine(6, &[&alice, &bob])?;
    tally.balances_reconcile = Books::of(&world.chain, &scripts).reconcile();
    let verified = world.signer.cli(&["journal", "verify"])?;
    tally.journal =
        Journal { records: verified["records"].as_u64().unwrap_or_default(), verified: verified["verified"] == true };
    world.signer.stop()?;
    teller.step(&format!(
        "Every satoshi is accounted for: {}. The journal's {} records form one unbroken chain: {}.",
        tally.balances_reconcile, tally.journal.records, tally.journal.verified
    ));
    tally.seconds = teller.started.elapsed().as_secs_f64();
    anyhow::ensure!(tally.balances_reconcile, "coins are missing");
    teller.end(&tally)
}

fn open(world: &World, from: &LdkNode, to: &LdkNode, nodes: &[&LdkNode]) -> anyhow::Result<()> {
    from.connect(to);
    wait("a connection", nodes, || from.is_connected(&to.id()))?;
    let before = from.history().ready.len();
    let broadcast = world.chain.mempool().len();
    from.open_channel(&to.id(), CHANNEL, 0)?;
    wait("a funding transaction", nodes, || world.chain.mempool().len() > broadcast)?;
    world.mine(6, nodes)?;
    wait("a channel", nodes, || from.history().ready.len() > before)
}

/// Pays and waits until the payee has it. A route may become known only after gossip has spread.
fn pay(from: &LdkNode, to: &LdkNode, amount_msat: u64) -> anyhow::Result<()> {
    let invoice = to.invoice(amount_msat, "demo")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = from.pay(&invoice) {
        anyhow::ensure!(Instant::now() < deadline, "no way to pay: {error}\n{}", from.log(20).join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
    sent(from, &payment_hash(&invoice))?;
    wait("a payment to be received", &[from, to], || to.history().received.contains_key(&payment_hash(&invoice)))
}

fn sent(from: &LdkNode, hash: &PaymentHash) -> anyhow::Result<()> {
    wait("a payment to end", &[from], || from.history().payments.contains_key(hash))?;
    match from.history().payments.get(hash) {
        Some(Payment::Sent { .. }) => Ok(()),
        _ => anyhow::bail!("a payment failed\n{}", from.log(30).join("\n")),
    }
}

fn closed(
    node: &LdkNode,
    channel: &lightning::ln::channel_state::ChannelDetails,
    nodes: &[&LdkNode],
) -> anyhow::Result<()> {
    wait("a channel to close", nodes, || node.history().closed.contains_key(&channel.channel_id))
}
