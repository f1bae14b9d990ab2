//! An honest channel over the real state machine, with hostile requests in between. Whatever is asked: what was revoked is
//! not signed, what was signed is not revealed, no panic leaves the containment, the state comes back from what was
//! recorded, memory is bounded, and a channel that nobody attacked is never refused anything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bitcoin::Network;
use bitcoin::secp256k1::SecretKey;
use claviger::chain::{Attestor, apply_block};
use claviger::config::LimitsConfig;
use claviger::journal::{COLD, Put};
use claviger::keys::import::Derivation;
use claviger::keys::memory::Secret;
use claviger::lightning::actor::ChainFacts;
use claviger::lightning::driver::{Driver, MiniChain};
use claviger::lightning::engine::{Engine, NodeSpec, Settings, first_entries};
use claviger::lightning::guard::{self, TABLE};
use claviger::lightning::issued::Archive;
use claviger::names::{NodeKind, NodeName};
use claviger::pipeline::{ChannelRef, Outcome, Request};
use claviger::reasons::{Reason, Refusal};
use vls_protocol::msgs::{self, DeBolt, SerBolt};

/// More than any sequence of this many bytes can leave in the journal.
const MAX_STATE_BYTES: usize = 4 << 20;

type Entries = BTreeMap<String, Vec<u8>>;
type Asked = (Option<ChannelRef>, Vec<u8>);

/// One node and what it has said so far.
struct Signer {
    engine: Option<Engine>,
    entries: Entries,
    cold: Arc<Cold>,
    asked: Vec<Asked>,
    /// Of our own commitments, by number.
    revealed: Vec<u64>,
    signed: Vec<u64>,
}

/// Entries that the state machine looks up one by one.
#[derive(Default)]
struct Cold(Mutex<Entries>);

impl Archive for Cold {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }
}

/// A channel that is open and moved on once, from which every run starts.
static OPENED: LazyLock<(Entries, Driver)> = LazyLock::new(|| {
    let facts = MiniChain::default();
    let start = facts.start().expect("a chain that can be followed");
    let puts = first_entries(&spec(), start).expect("a new node");
    let entries = puts.into_iter().filter_map(|put| Some((put.key, put.value?))).collect();
    let mut signer = Signer::restore(entries);
    let mut driver = Driver::open(&mut |channel, message| signer.ask(channel, message), 1).expect("opens");
    signer.confirm(&driver);
    driver.advance(&mut |channel, message| signer.ask(channel, message), 1).expect("advances");
    (signer.entries, driver)
});

thread_local! {
    /// What of a script is left.
    static SCRIPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The next byte of the script; zeros behind its end.
fn byte() -> usize {
    SCRIPT.with_borrow_mut(|script| usize::from(script.pop().unwrap_or(0)))
}

/// Follows `data` as a script of honest and hostile requests.
pub fn fuzz(data: &[u8]) {
    let (entries, driver) = &*OPENED;
    let (mut signer, mut driver) = (Signer::restore(entries.clone()), driver.clone());
    SCRIPT.with_borrow_mut(|script| *script = data.iter().rev().copied().collect());
    let mut attacked = false;
    while !SCRIPT.with_borrow(Vec::is_empty) {
        let choice = byte() % 8;
        attacked |= choice != 0 && choice != 7;
        match choice {
            0 => {
                let moved = driver.advance(&mut |channel, message| signer.ask(channel, message), byte() % 4);
                assert!(attacked || moved.is_ok(), "an honest channel was refused: {moved:?}");
            }
            1 => {
                let (which, at, bits) = (byte() % 5, byte(), byte() as u8);
                let mut count = 0;
                let mut hostile = |channel, mut message: Vec<u8>| {
                    if count == which {
                        spoil(&mut message, at, bits);
                    }
                    count += 1;
                    signer.ask(channel, message)
                };
                let _ = driver.advance(&mut hostile, 1);
            }
            2 | 3 => {
                let Some((channel, mut message)) = signer.earlier(byte()) else { continue };
                if choice == 3 {
                    spoil(&mut message, byte(), byte() as u8);
                }
                signer.ask(channel, message);
            }
            4 => {
                let commitment_number = near(driver.number());
                let sign = msgs::SignLocalCommitmentTx2 { commitment_number };
                signer.ask(Some(driver.channel()), sign.as_vec());
            }
            5 => {
                let commitment_number = near(driver.number());
                let revoke = msgs::RevokeCommitmentTx { commitment_number };
                signer.ask(Some(driver.channel()), revoke.as_vec());
            }
            6 => {
                let row = &TABLE[byte() % TABLE.len()];
                let body = (0..byte() % 80).map(|_| byte() as u8);
                let message = row.number.to_be_bytes().into_iter().chain(body).collect();
                signer.ask(Some(driver.channel()), message);
            }
            _ => signer = Signer { engine: None, ..signer },
        }
        let bytes: usize = signer.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes <= MAX_STATE_BYTES, "the state has {bytes} bytes");
    }
}

impl Signer {
    fn restore(entries: Entries) -> Self {
        Self {
            engine: None,
            entries,
            cold: Arc::default(),
            asked: Vec::new(),
            revealed: Vec::new(),
            signed: Vec::new(),
        }
    }

    /// The state machine, built from what was recorded if it is not there: as the node's actor does.
    fn engine(&mut self) -> &mut Engine {
        self.engine.get_or_insert_with(|| {
            let settings =
                Settings { limits: LimitsConfig::default(), funding_depth: 1, oracle: attestor().public_key() };
            let facts = Arc::new(MiniChain::default());
            let cold = self.cold.clone();
            let restored = Engine::restore(&spec(), &settings, facts, Arc::default(), cold, self.entries.clone());
            restored.expect("what was recorded can be restored")
        })
    }

    fn ask(&mut self, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        self.asked.push((channel, message.clone()));
        let reply = self.reply(&Request { request_id: 0, channel, message: message.clone() });
        if let Ok(reply) = &reply {
            self.judge(&message, reply);
        }
        match reply {
            Ok(reply) => Outcome::Reply(reply),
            Err(refusal) => Outcome::Refused { request: String::new(), refusal },
        }
    }

    fn reply(&mut self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let row = guard::row(NodeKind::Ldk, &request.message)?;
        let engine = self.engine();
        let Ok(handled) = catch_unwind(AssertUnwindSafe(|| engine.handle(row, request))) else {
            let broken = self.engine.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            return Err(Refusal::new(Reason::Fault, "a panic, contained"));
        };
        if handled.distrust {
            self.engine = None;
        } else {
            self.record(handled.puts);
        }
        handled.reply
    }

    fn record(&mut self, puts: Vec<Put>) {
        let mut cold = self.cold.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Put { key, value } in puts {
            let entries = if key.starts_with(COLD) { &mut *cold } else { &mut self.entries };
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => drop(entries.remove(&key)),
            }
        }
    }

    /// Notes what an answer gave away, and whether that contradicts an earlier one.
    fn judge(&mut self, message: &[u8], reply: &[u8]) {
        let message = message.to_vec();
        if let Ok(sign) = msgs::SignLocalCommitmentTx2::from_vec(message.clone()) {
            let number = sign.commitment_number;
            assert!(!self.revealed.contains(&number), "commitment {number} was revoked and is signed");
            self.signed.push(number);
        } else if let Ok(revoke) = msgs::RevokeCommitmentTx::from_vec(message)
            && msgs::RevokeCommitmentTxReply::from_vec(reply.to_vec()).is_ok()
        {
            let number = revoke.commitment_number;
            assert!(!self.signed.contains(&number), "commitment {number} was signed and is revoked");
            self.revealed.push(number);
        }
    }

    fn earlier(&self, which: usize) -> Option<Asked> {
        self.asked.get(which % self.asked.len().max(1)).cloned()
    }

    fn confirm(&mut self, driver: &Driver) {
        let block = MiniChain::default().mine(vec![driver.funding().clone()]);
        let engine = self.engine();
        let effect =
            apply_block(engine.node(), &block, &attestor(), &engine.concerned(&block)).expect("the block fits");
        engine.note_block(&block, &effect);
        let puts = engine.block_changes(&effect).expect("the state can be encoded");
        self.record(puts);
    }
}

fn attestor() -> Attestor {
    Attestor::new(&SecretKey::from_slice(&[9; 32]).expect("a scalar"))
}

fn spec() -> NodeSpec {
    NodeSpec {
        name: NodeName::new("fuzzed").expect("a name"),
        kind: NodeKind::Ldk,
        network: Network::Regtest,
        seed: Secret::init(|seed| seed.fill(3)),
        derivation: Derivation::Native,
    }
}

/// A commitment number at most two away from the one in force.
fn near(number: u64) -> u64 {
    (number + byte() as u64 % 5).saturating_sub(2)
}

/// Changes one byte of a message's body.
fn spoil(message: &mut [u8], at: usize, bits: u8) {
    let length = message.len().saturating_sub(2).max(1);
    if let Some(byte) = message.get_mut(2 + at % length) {
        *byte ^= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_sees_what_it_should() {
        let (entries, driver) = &*OPENED;
        let (mut signer, mut driver) = (Signer::restore(entries.clone()), driver.clone());
        driver.advance(&mut |channel, message| signer.ask(channel, message), 2).expect("advances");
        assert_eq!(signer.revealed, [driver.number() - 1]);
        let sign = msgs::SignLocalCommitmentTx2 { commitment_number: driver.number() };
        assert!(matches!(signer.ask(Some(driver.channel()), sign.as_vec()), Outcome::Reply(_)));
        assert_eq!(signer.signed, [driver.number()]);
    }
}
