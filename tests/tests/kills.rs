//! Kill −9 at random points under load: no acknowledged state is lost, nothing is signed twice differently (P1, P5). The same
//! while the data key is rotated, which without kills nobody notices (P8).
//!
//! Nodes open and drive channels over the real link while the daemon is killed and started again, now and then once more
//! before or while it is unsealed. Every acknowledged answer is kept and held against what the signer says after the next
//! start.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and says what it did

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::Amount;
use claviger::lightning::driver::{Driver, invoice_to_sign};
use claviger::lightning::guard;
use claviger::names::NodeKind;
use claviger::pipeline::{ChannelRef, Outcome};
use claviger::reasons::{Reason, Refusal};
use claviger_demo::chain::Chain;
use claviger_demo::signer::{Program, SignerProcess};
use claviger_demo::world::{World, wait};
use claviger_ldk::LinkError;
use claviger_ldk::link::{Bundle, Link, LinkOptions};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use vls_protocol::msgs::{DeBolt, SerBolt, SignLocalCommitmentTx2, SignRemoteCommitmentTx2};

const NODES: u64 = 3;
/// Channels a node drives at a time: now and then it opens one and leaves its oldest.
const CHANNELS: usize = 2;
const ROUNDS_PER_CHANNEL: usize = 8;
/// Longer than any start of the daemon.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the nodes and the killer tell each other.
#[derive(Default)]
struct Shared {
    /// How often the daemon was started again.
    starts: AtomicU32,
    /// Acknowledged requests of all nodes.
    answers: AtomicU64,
    /// Those of them that are signatures.
    signatures: AtomicU64,
    /// Requests that were asked again, for whatever but the next block: a new channel waits for one.
    retries: AtomicU64,
    stop: AtomicBool,
    failed: AtomicBool,
    /// Held while a channel is funded: the faucet may spend a coin twice until the first spend is confirmed.
    funding: Mutex<()>,
}

impl Shared {
    fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}

/// Says so when the thread it lives on panics.
struct Fails<'a>(&'a Shared);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// A node as the signer meets it: a link, and a memory of every answer.
struct Caller<'a> {
    link: Link,
    shared: &'a Shared,
    /// The start of the daemon after which everything was asked again.
    seen_start: u32,
    /// The last two acknowledged requests of each channel and of the node itself, with their replies.
    last: BTreeMap<Option<(u64, [u8; 33])>, Vec<Answered>>,
    /// What was signed for each channel and commitment number of the peer.
    signed: BTreeMap<(u64, u64), Answered>,
    /// Numbers of channels opened so far.
    opened: u64,
    tally: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answered {
    channel: Option<ChannelRef>,
    message: Vec<u8>,
    reply: Vec<u8>,
}

#[derive(Debug, Default)]
struct Tally {
    /// Digests of acknowledged requests that leave a decision.
    decided: HashSet<String>,
    acknowledged: u64,
    asked_again: u64,
    attacks_refused: u64,
    lost: Vec<String>,
    double: Vec<String>,
}

impl<'a> Caller<'a> {
    fn new(link: Link, shared: &'a Shared) -> Self {
        let seen_start = shared.starts.load(Ordering::SeqCst);
        let (last, signed) = (BTreeMap::new(), BTreeMap::new());
        Self { link, shared, seen_start, last, signed, opened: 0, tally: Tally::default() }
    }

    /// Opens a channel, funded and confirmed, whatever happens to the signer meanwhile.
    fn open(&mut self, chain: &Chain) -> Driver {
        let funding = self.shared.funding.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened += 1;
        let dbid = self.opened;
        let fund = |script: &bitcoin::Script, amount: Amount| chain.faucet_payment(&script.to_owned(), amount);
        let driver = Driver::open_funded_by(&mut |channel, message| self.ask(channel, message), dbid, fund);
        let driver = driver.unwrap_or_else(|error| panic!("channel {dbid}: {error}"));
        chain.broadcast(driver.funding()).expect("the faucet's payment is good");
        chain.mine(1);
        drop(funding);
        driver
    }

    /// Holds what is known of a channel against the signer once more, closes it by force, and drives it no further.
    fn leave(&mut self, driver: Driver) {
        self.ask_again();
        let ChannelRef { peer_id, dbid } = driver.channel();
        let close = SignLocalCommitmentTx2 { commitment_number: driver.number() }.as_vec();
        only_the_first_is_signed(self, driver);
        let closed = || match self.send(Some(ChannelRef { peer_id, dbid }), &close) {
            Ok(reply) => reply,
            Err(error) => panic!("an honest close was refused: {error}"),
        };
        if closed() != closed() {
            self.tally.double.push(format!("channel {dbid}: its close"));
        }
        self.last.remove(&Some((dbid, peer_id)));
        self.signed.retain(|(other, _), _| *other != dbid);
    }

    /// Asks until there is an answer, and keeps it.
    fn ask(&mut self, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        let reply = self.send(channel, &message);
        let reply = reply.unwrap_or_else(|refused| panic!("an honest request was refused: {refused}"));
        if guard::row(NodeKind::Ldk, &message).is_ok_and(|row| row.name.starts_with("Sign")) {
            self.shared.signatures.fetch_add(1, Ordering::SeqCst);
        }
        self.note(Answered { channel, message, reply: reply.clone() });
        self.shared.answers.fetch_add(1, Ordering::SeqCst);
        let started = self.shared.starts.load(Ordering::SeqCst);
        if started != self.seen_start {
            self.seen_start = started;
            self.ask_again();
        }
        Outcome::Reply(reply)
    }

    /// `Err` is a refusal that repeating does not change.
    fn send(&self, channel: Option<ChannelRef>, message: &[u8]) -> Result<Vec<u8>, LinkError> {
        let channel = channel.map(|c| claviger_ldk::ChannelRef { peer_id: c.peer_id, dbid: c.dbid });
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.link.call(channel, message.to_vec()) {
                Err(error) if error.retry() && Instant::now() < deadline => {
                    self.shared.retries.fetch_add(u64::from(!waits_for_a_block(&error)), Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                }
                outcome => return outcome,
            }
        }
    }

    fn note(&mut self, answered: Answered) {
        self.tally.acknowledged += 1;
        if guard::row(NodeKind::Ldk, &answered.message).is_ok_and(guard::Row::is_recorded) {
            self.tally.decided.insert(digest(&answered.message));
        }
        if let (Some(channel), Ok(asked)) = (answered.channel, commitment(&answered.message)) {
            let first = self.signed.entry((channel.dbid, asked.commitment_number)).or_insert_with(|| answered.clone());
            if *first != answered {
                self.tally.double.push(format!("channel {} commitment {}", channel.dbid, asked.commitment_number));
            }
        }
        let last = self.last.entry(answered.channel.map(|c| (c.dbid, c.peer_id))).or_default();
        last.push(answered);
        if last.len() > 2 {
            last.remove(0);
        }
    }

    /// After a start: what was acknowledged is answered with the same bytes, and no second signature can be had.
    fn ask_again(&mut self) {
        for known in self.last.values().flatten().cloned().collect::<Vec<_>>() {
            let name = guard::row(NodeKind::Ldk, &known.message).map_or("?", |row| row.name);
            match self.send(known.channel, &known.message) {
                Ok(reply) if reply == known.reply => self.tally.asked_again += 1,
                Ok(_) => self.tally.double.push(format!("{name} is answered differently")),
                Err(error) => self.tally.lost.push(format!("{name}: {error}")),
            }
        }
        let newest: BTreeMap<u64, Answered> =
            self.signed.iter().map(|((dbid, _), answered)| (*dbid, answered.clone())).collect();
        for (dbid, answered) in newest {
            let other = other_commitment(&answered.message).expect("only such are kept");
            match self.send(answered.channel, &other) {
                Ok(_) => self.tally.double.push(format!("channel {dbid}: two commitments of one number")),
                Err(LinkError::Refused(refusal)) if refusal.reasons[0].id == Reason::Validation.id() => {
                    self.tally.attacks_refused += 1;
                }
                Err(error) => self.tally.lost.push(error.to_string()),
            }
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the numbers are the result")]
fn killed_at_random_moments_the_signer_loses_nothing_and_signs_nothing_twice() -> anyhow::Result<()> {
    let kills: u32 = std::env::var("CLAVIGER_TEST_KILLS").ok().map_or(Ok(300), |n| n.parse())?;
    let mut world = World::new(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test")))?;
    let mut random = Rng::with_seed(0x5eed);
    let tallies = under_load(&mut world, |world, shared| {
        (0..kills).try_for_each(|n| {
            // After some answers, in the middle of the next; sometimes while the nodes are not yet back.
            let answers = shared.answers.load(Ordering::SeqCst) + random.u64(..24).saturating_sub(4);
            wait("traffic", &[], || shared.answers.load(Ordering::SeqCst) >= answers || shared.failed())?;
            std::thread::sleep(Duration::from_micros(random.u64(..6_000)));
            world.signer.kill()?;
            if n % 10 == 9 {
                world.chain.mine(1);
            }
            match n % 8 {
                3 => {
                    world.signer.start_sealed()?;
                    world.signer.kill()?;
                }
                7 => {
                    world.signer.start_sealed()?;
                    kill_while(&mut world.signer, &["unseal"], Duration::from_micros(random.u64(..30_000)))?;
                }
                _ => {}
            }
            world.signer.start()?;
            shared.starts.fetch_add(1, Ordering::SeqCst);
            if n % 50 == 49 {
                verified(world)?;
            }
            anyhow::ensure!(!shared.failed(), "a node gave up after {} kills", n + 1);
            Ok(())
        })
    })?;
    let asked = judged(&world, tallies)?;
    assert!(asked.0 > 5 * u64::from(kills) && asked.1 > u64::from(kills), "hardly any load");
    Ok(())
}

/// A security team replaces the data key over and over while nodes sign: no request fails, none has to be asked again.
#[test]
#[allow(clippy::print_stdout, reason = "the numbers are the result")]
fn ten_thousand_signatures_are_given_while_the_data_key_is_rotated_and_none_fails() -> anyhow::Result<()> {
    const SIGNATURES: u64 = 10_000;
    let mut world = World::new(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test")))?;
    let mut retries = 0;
    let tallies = under_load(&mut world, |world, shared| {
        let mut rotations = 0;
        while shared.signatures.load(Ordering::SeqCst) < SIGNATURES {
            let rotated = world.signer.cli_with_passphrase(&["rotate", "--data-key"])?;
            anyhow::ensure!(rotated["finished"] == true && !shared.failed(), "{rotated}");
            rotations += 1;
        }
        retries = shared.retries.load(Ordering::SeqCst);
        println!("{rotations} rotations during {SIGNATURES} signatures, {retries} requests asked again");
        Ok(())
    })?;
    judged(&world, tallies)?;
    assert_eq!(retries, 0);
    Ok(())
}

#[test]
fn killed_at_random_moments_of_a_rotation_the_signer_recovers_and_ends_it() -> anyhow::Result<()> {
    const KILLS: u32 = 50;
    let mut world = World::new(Program::binary(env!("CARGO_BIN_EXE_claviger-under-test")))?;
    let mut random = Rng::with_seed(0x70a7e);
    let keyslots = |world: &World| std::fs::read_to_string(world.signer.dir().join("keyslots"));
    let mut between = 0;
    let tallies = under_load(&mut world, |world, shared| {
        for n in 0..KILLS {
            kill_while(&mut world.signer, &["rotate", "--data-key"], Duration::from_micros(random.u64(..400_000)))?;
            between += u32::from(keyslots(world)?.contains("previous"));
            if n % 5 == 4 {
                // Both keys are at hand once more, and it dies once more.
                world.signer.start()?;
                std::thread::sleep(Duration::from_micros(random.u64(..100_000)));
                world.signer.kill()?;
            }
            world.signer.start()?;
            shared.starts.fetch_add(1, Ordering::SeqCst);
            anyhow::ensure!(!shared.failed(), "a node gave up after {} kills", n + 1);
        }
        wait("the end of the rotation", &[], || keyslots(world).is_ok_and(|text| !text.contains("previous")))
    })?;
    assert!(between > KILLS / 5, "{between} kills met a rotation under way");
    judged(&world, tallies)?;
    // Whatever was left undone, one more rotation seals everything.
    assert_eq!(world.signer.cli_with_passphrase(&["rotate", "--data-key"])?["finished"], true);
    verified(&world)
}

/// Runs `operate` while all nodes drive their channels.
fn under_load(
    world: &mut World,
    operate: impl FnOnce(&mut World, &Shared) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Tally>> {
    let shared = Shared::default();
    let chain = Arc::clone(&world.chain);
    let mut nodes = (0..NODES).map(|n| node(world, n, &shared)).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = nodes.drain(..).map(|caller| scope.spawn(|| load(caller, &chain))).collect();
        let operated = operate(world, &shared);
        shared.stop.store(true, Ordering::SeqCst);
        let tallies = workers.into_iter().map(|worker| worker.join().map_err(|panic| anyhow::anyhow!(words(&*panic))));
        let tallies = tallies.collect::<anyhow::Result<Vec<_>>>()?;
        operated.map(|()| tallies)
    })
}

/// Nothing was lost and nothing signed twice: how much was acknowledged, and asked again after a kill.
#[allow(clippy::print_stdout, reason = "the numbers are the result")]
fn judged(world: &World, mut tallies: Vec<Tally>) -> anyhow::Result<(u64, u64)> {
    verified(world)?;
    let exported = world.signer.cli_lines(&["journal", "export"])?;
    let recorded: HashSet<&str> = exported
        .iter()
        .filter(|line| line["verdict"].to_string().contains("permit"))
        .filter_map(|line| line["request_sha256"].as_str())
        .collect();
    for tally in &mut tallies {
        let missing = tally.decided.iter().filter(|digest| !recorded.contains(digest.as_str()));
        tally.lost.extend(missing.map(|digest| format!("no decision for request {digest}")));
    }
    let sum = |what: fn(&Tally) -> u64| tallies.iter().map(what).sum::<u64>();
    let acknowledged = sum(|tally| tally.acknowledged);
    let (asked_again, refused) = (sum(|tally| tally.asked_again), sum(|tally| tally.attacks_refused));
    println!(
        "{acknowledged} requests acknowledged, {asked_again} asked again after a kill, {refused} second signatures refused, {} decisions",
        exported.len()
    );
    let lost: Vec<_> = tallies.iter().flat_map(|tally| &tally.lost).collect();
    let double: Vec<_> = tallies.iter().flat_map(|tally| &tally.double).collect();
    println!("kills {}, lost {}, double {}", world.signer.kills, lost.len(), double.len());
    assert_eq!((lost, double), (Vec::<&String>::new(), Vec::<&String>::new()));
    Ok((acknowledged, asked_again))
}

/// Kills the daemon `after` it was told to do `command`.
fn kill_while(signer: &mut SignerProcess, command: &[&str], after: Duration) -> anyhow::Result<()> {
    let pid = signer.pid().and_then(|pid| Pid::from_raw(pid as i32)).expect("it runs");
    std::thread::scope(|scope| {
        let working = scope.spawn(|| signer.cli_with_passphrase(command));
        std::thread::sleep(after);
        kill_process(pid, Signal::KILL)?;
        let _ = working.join(); // it may have been quicker
        anyhow::Ok(())
    })?;
    signer.kill()
}

/// A connected node.
fn node<'a>(world: &World, n: u64, shared: &'a Shared) -> anyhow::Result<Caller<'a>> {
    let bundle = world.signer.add_node(&format!("node-{n}"), "ldk")?;
    let options = LinkOptions {
        reply_timeout: PATIENCE,
        down_patience: PATIENCE,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..LinkOptions::default()
    };
    let link = Link::connect(&Bundle::load(&bundle)?, options, PATIENCE)?;
    Ok(Caller::new(link, shared))
}

/// Opens channels and moves them on, with none to two HTLCs, and signs invoices, until told to stop.
fn load(mut caller: Caller<'_>, chain: &Chain) -> Tally {
    let _fails = Fails(caller.shared);
    let mut drivers = VecDeque::new();
    for round in 0.. {
        if caller.shared.stop.load(Ordering::SeqCst) {
            break;
        }
        if drivers.len() < CHANNELS || round % ROUNDS_PER_CHANNEL == 0 {
            drivers.push_back(caller.open(chain));
        }
        if drivers.len() > CHANNELS
            && let Some(oldest) = drivers.pop_front()
        {
            caller.leave(oldest);
        }
        for driver in &mut drivers {
            let advanced = driver.advance(&mut |channel, message| caller.ask(channel, message), round % 3);
            advanced.unwrap_or_else(|error| panic!("channel {:?}: {error}", driver.channel().dbid));
        }
        caller.ask(None, invoice_to_sign(round as u64, 1_000));
    }
    for driver in drivers {
        caller.leave(driver);
    }
    caller.tally
}

/// The commitment that [`Caller::ask_again`] tries to get beside another is one that the signer signs when it comes first:
/// then it is the other that is refused.
fn only_the_first_is_signed(caller: &mut Caller<'_>, mut driver: Driver) {
    let mut asked = false;
    let mut ask = |channel, message: Vec<u8>| {
        let other = other_commitment(&message).expect("an advance begins with the peer's commitment");
        caller.send(channel, &other).unwrap_or_else(|error| panic!("an honest commitment was refused: {error}"));
        match caller.send(channel, &message) {
            Err(LinkError::Refused(_)) => caller.tally.attacks_refused += 1,
            outcome => caller.tally.double.push(format!("two commitments: {outcome:?}")),
        }
        asked = true;
        let request = String::new();
        Outcome::Refused { request, refusal: Refusal::new(Reason::Validation, "another commitment was signed") }
    };
    driver.advance(&mut ask, 0).expect_err("the driver's commitment came second");
    assert!(asked);
}

fn verified(world: &World) -> anyhow::Result<()> {
    let result = world.signer.cli(&["journal", "verify"])?;
    anyhow::ensure!(result["verified"] == true, "the journal does not verify: {result}");
    Ok(())
}

fn waits_for_a_block(error: &LinkError) -> bool {
    matches!(error, LinkError::Refused(refusal) if refusal.reasons[0].id == Reason::ChainPending.id())
}

fn commitment(message: &[u8]) -> Result<SignRemoteCommitmentTx2, vls_protocol::Error> {
    SignRemoteCommitmentTx2::from_vec(message.to_vec())
}

/// Another commitment of the same number, as valid as the first: its fee is higher by 1 sat.
fn other_commitment(message: &[u8]) -> Result<Vec<u8>, vls_protocol::Error> {
    let mut other = commitment(message)?;
    other.to_remote_value_sat -= 1;
    Ok(other.as_vec())
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
