//! The story that the demo tells, step by step, and what must be true at its end.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use bitcoin::Amount;
use claviger_demo::books::Books;
use claviger_demo::interrupt;
use claviger_demo::node::{Keys, LdkNode};
use claviger_demo::signer::Program;
use claviger_demo::world::{DEPOSIT, World, connect, pay, sent, wait};
use lightning::ln::channel_state::ChannelDetails;
use serde::Serialize;

/// Payments each way.
const PAYMENTS: usize = 20;
const CHANNEL: Amount = Amount::from_sat(1_000_000);
/// LDK's delay before its own commitment's output may be swept.
const TO_SELF_DELAY: u32 = 144;
/// A dozen transactions of 500 to 1,500 weight, at 1 sat for each unit: more would be a leak.
const FEES_AT_MOST: Amount = Amount::from_sat(20_000);

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

impl Teller {
    /// What happened, and a line for readers to whom that says nothing.
    fn step(&self, what: &str, why: &str) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.say(&format!("{seconds:6.1} s  {what}\n          {why}"))
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        if !self.json {
            writeln!(std::io::stdout(), "{text}")?;
        }
        Ok(())
    }

    fn end(&self, tally: &Tally) -> anyhow::Result<()> {
        if self.json {
            writeln!(std::io::stdout(), "{}", serde_json::to_string(tally)?)?;
        }
        Ok(())
    }
}

/// Tells the story; fails where reality differs from it.
pub(crate) fn tell(json: bool) -> anyhow::Result<()> {
    let teller = Teller { json, started: Instant::now() };
    teller.say(
        "A Lightning node that holds no keys, from its first channel to a punished cheat. All on this machine.\n",
    )?;
    let mut world = World::new(Program::this()?)?;
    let played = play(&mut world, &teller);
    if played.is_err() && !interrupt::asked() {
        let dir = world.keep_files();
        let next = "run it again with LDK_LOG=1 to see more, and report it with the signer's log in";
        return played.with_context(|| format!("the story broke off; {next} {}", dir.display()));
    }
    played
}

fn play(world: &mut World, teller: &Teller) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    teller.step(
        "There are a Bitcoin chain and a signer.",
        "The chain is our own. The signer is a process that holds keys, sealed until its passphrase is given.",
    )?;

    let alice = world.remote_node("alice")?;
    let (bob, carol) = (world.local_node("bob", 2)?, world.local_node("carol", 3)?);
    teller.step(
        &format!("Alice, Bob and Carol run Lightning nodes, with {} satoshi each.", grouped(DEPOSIT)),
        "Bob and Carol hold their keys. Alice has none: for every signature she asks the signer, which may refuse.",
    )?;

    let first = world.channel(&alice, &bob, CHANNEL)?;
    let second = world.channel(&bob, &alice, CHANNEL)?.channel_id;
    let carols = world.channel(&carol, &alice, CHANNEL)?;
    tally.channels_opened = 3;
    teller.step(
        "Three channels are open: Alice to Bob, Bob to Alice, Carol to Alice.",
        "A channel locks coins of two parties on the chain. They pay by signing, off the chain, how to divide them.",
    )?;

    for round in 0..PAYMENTS as u64 {
        pay(&alice, &bob, 10_000_000 + round)?;
        pay(&bob, &alice, 3_000_000 + round)?;
    }
    tally.payments_sent += PAYMENTS;
    tally.payments_received += PAYMENTS;
    teller.step(
        &format!("Alice paid Bob {PAYMENTS} times, and Bob paid Alice {PAYMENTS} times."),
        "The signer checked each new division before it signed, and each old one was revoked.",
    )?;

    let old = carol.keep_commitment(&carols.channel_id).context("Carol kept nothing")?;
    pay(&carol, &bob, 50_000_000)?;
    wait("Alice to notice what she forwarded", &[&alice], || alice.history().forwarded >= 1)?;
    tally.payments_forwarded = alice.history().forwarded;
    teller.step(
        "Carol paid Bob through Alice.",
        "The signer let it pass without counting it as Alice's: what goes out to Bob had come in from Carol.",
    )?;

    let hashes = (0..5).map(|_| Ok(alice.pay(&bob.invoice(2_000_000, "mid")?)?)).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(20));
    world.signer.kill()?;
    teller.step(
        "The signer was killed (SIGKILL) while five payments were on their way.",
        "Nothing can be lost: whatever it has signed was on its disk before.",
    )?;
    std::thread::sleep(Duration::from_millis(500));
    world.signer.start()?;
    for hash in &hashes {
        sent(&alice, hash)?;
    }
    tally.signer_kills = world.signer.kills;
    tally.payments_sent += hashes.len();
    teller
        .step("It was started again, and all five arrived.", "Alice and it agreed by themselves on where they were.")?;

    let store = alice.stop();
    let keys = connect(&world.signer.dir().join("alice.bundle"))?;
    let alice = world.restart("alice", Keys::Remote(keys), store)?;
    alice.connect(&bob);
    carol.connect(&alice);
    let nodes = [&alice, &bob, &carol];
    let usable = || alice.channels().iter().filter(|channel| channel.is_usable).count() == 3;
    wait("Alice to come back", &nodes, usable)?;
    pay(&alice, &bob, 1_000_000)?;
    tally.payments_sent += 1;
    teller
        .step("Alice's node was stopped and started again.", "Her channels came back, and she paid Bob once more.")?;

    wait("a close to begin", &nodes, || alice.close(&first).is_ok())?;
    closed(&alice, &first, &nodes)?;
    world.mine(3, &nodes)?;
    tally.coop_closed = 1;
    teller.step(
        "Alice and Bob closed the first channel together.",
        "Both signed its last division, which is now on the chain.",
    )?;

    let before = alice.balance();
    let second = alice.channels().into_iter().find(|channel| channel.channel_id == second);
    let second = second.context("Alice forgot a channel")?;
    alice.force_close(&second)?;
    closed(&alice, &second, &nodes)?;
    world.mine(TO_SELF_DELAY + 6, &nodes)?;
    world.mine_until("Alice's coins from the forced close", &nodes, || alice.balance() > before)?;
    tally.force_closed = 1;
    teller.step(
        "Alice closed the second one without Bob.",
        &format!(
            "Her share came home after {TO_SELF_DELAY} blocks, in which Bob could have objected to an old division."
        ),
    )?;

    carol.stop();
    let nodes = [&alice, &bob];
    for tx in &old {
        world.chain.broadcast(tx)?;
    }
    let before = alice.balance();
    world.mine_until("the punishment", &nodes, || alice.balance() > before + CHANNEL / 2)?;
    tally.justice_spends = 1;
    teller.step(
        "Carol cheated: she put an old division on the chain, from before her payment, and lost the whole channel.",
        "She had revoked it. That lets Alice take everything, and the signer signs such punishments.",
    )?;

    world.mine(6, &nodes)?;
    world.mine_until("every coin to come home", &nodes, || world.books(&[]).astray.is_empty())?;
    let books = world.books(&[]);
    let balance = balance(world, &books, &bob);
    tally.balances_reconcile = balance.is_ok();
    let found = if tally.balances_reconcile { "Nothing is lost, and each has its own" } else { "COINS ARE MISSING" };
    teller
        .step(&format!("All channels are closed, and all coins are counted on the chain. {found}:"), &table(&books))?;

    let verified = world.signer.cli(&["journal", "verify"])?;
    tally.journal =
        Journal { records: verified["records"].as_u64().unwrap_or_default(), verified: verified["verified"] == true };
    world.signer.stop()?;
    teller.step(
        &format!("The signer's journal was verified: {} records, one unbroken chain.", tally.journal.records),
        "It holds every decision of this story.",
    )?;
    tally.seconds = teller.started.elapsed().as_secs_f64();
    teller.end(&tally)?;
    anyhow::ensure!(tally.journal.verified, "the journal does not verify");
    balance
}

/// Whether nothing is lost and each has its own: what it brought, what payments brought it, and for Alice what Carol
/// forfeited; less a part of the costs.
fn balance(world: &World, books: &Books, bob: &LdkNode) -> anyhow::Result<()> {
    books.check(world.deposited())?;
    anyhow::ensure!(books.fees <= FEES_AT_MOST, "{} went to miners", books.fees);
    let msat = |amount: Amount| amount.to_sat() as i64 * 1000;
    // What Bob was paid, Alice paid: also what came from Carol, which went through Alice out of Carol's channel.
    let to_bob = bob.history().net_msat();
    books.check_shares(&[msat(DEPOSIT + CHANNEL) - to_bob, msat(DEPOSIT) + to_bob, msat(DEPOSIT - CHANNEL)])?;
    Ok(())
}

fn table(books: &Books) -> String {
    let rows = [
        ("Alice", books.held[0]),
        ("Bob", books.held[1]),
        ("Carol", books.held[2]),
        ("fees to miners", books.fees),
        ("anchors, outputs too small to collect", books.anchors),
    ];
    let mut lines: Vec<_> = rows.map(|(who, amount)| format!("{:>12} sat  {who}", grouped(amount))).into();
    lines.push(format!("{:>12} sat  paid in at the beginning", grouped(books.deposited)));
    lines.join("\n          ")
}

/// 1234567 as 1,234,567.
fn grouped(amount: Amount) -> String {
    let digits = amount.to_sat().to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn closed(node: &LdkNode, channel: &ChannelDetails, nodes: &[&LdkNode]) -> anyhow::Result<()> {
    wait("a channel to close", nodes, || node.history().closed.contains_key(&channel.channel_id))
}
