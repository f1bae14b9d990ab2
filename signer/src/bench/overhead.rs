//! What guard, channel book and the rules around vls's add to a state advance: the engine beside vls-core's own handler, on
//! one thread, in turns.
//!
//! Both decode the bytes, check and sign, and keep what changed in memory; neither waits for a disk. Every message is
//! measured, from its bytes to the bytes of its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{Network, OutPoint};
use serde::Serialize;

use super::baseline::Baseline;
use super::percentile_us;
use super::rig::{BenchError, attestor, unlimited};
use crate::chain::{Attestor, ChainBlock, apply_block};
use crate::journal::Put;
use crate::keys::import::Derivation;
use crate::keys::memory::Secret;
use crate::lightning::actor::ChainFacts;
use crate::lightning::driver::{Driver, MiniChain};
use crate::lightning::engine::{Engine, NodeSpec, Settings, first_entries};
use crate::lightning::guard;
use crate::lightning::issued::Archive;
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{ChannelRef, Outcome, Request};
use crate::reasons::Refusal;

/// Advances of each, of which the median counts.
const SAMPLES: usize = 201;

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Overhead {
    /// HTLCs on both commitments; all change with each advance.
    pub htlcs: usize,
    /// Median of an advance by vls-core called directly.
    pub direct_us: f64,
    /// The same through the engine.
    pub ours_us: f64,
    /// The second by the first.
    pub ratio: f64,
}

pub(super) fn measure(progress: &dyn Fn(&str)) -> Result<Vec<Overhead>, BenchError> {
    let one = |htlcs| {
        progress(&format!("what an advance with {htlcs} HTLCs costs beside vls-core"));
        overhead(htlcs)
    };
    [0, 10].into_iter().map(one).collect()
}

fn overhead(htlcs: usize) -> Result<Overhead, BenchError> {
    let (baseline, mut ours) = (Baseline::new()?, Ours::new()?);
    let (mut beside, mut driver) = open(&baseline, &mut ours)?;
    let (mut direct, mut through) = (Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES));
    for _ in 0..SAMPLES {
        direct.push(advance(&mut beside, htlcs, |channel, message| baseline.ask(channel, message))?);
        through.push(advance(&mut driver, htlcs, |channel, message| ours.ask(channel, message))?);
    }
    let (direct_us, ours_us) = (percentile_us(&mut direct, 0.5), percentile_us(&mut through, 0.5));
    Ok(Overhead { htlcs, direct_us, ours_us, ratio: ours_us / direct_us })
}

/// The same channel on both sides, confirmed.
fn open(baseline: &Baseline, ours: &mut Ours) -> Result<(Driver, Driver), BenchError> {
    let beside = Driver::open(&mut |channel, message| baseline.ask(channel, message), 1)?;
    let driver = Driver::open(&mut |channel, message| ours.ask(channel, message), 1)?;
    let block = MiniChain::default().mine(vec![driver.funding().clone()]);
    let funding = OutPoint { txid: beside.funding().compute_txid(), vout: 0 };
    apply_block(baseline.node(), &block, &ours.attestor, &BTreeSet::from([funding])).map_err(BenchError::system)?;
    ours.confirm(&block)?;
    Ok((beside, driver))
}

/// One advance; how long the answers took.
fn advance(
    driver: &mut Driver,
    htlcs: usize,
    mut ask: impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome,
) -> Result<Duration, BenchError> {
    let mut spent = Duration::ZERO;
    let mut timed = |channel: Option<ChannelRef>, message| {
        let started = Instant::now();
        let outcome = ask(channel, message);
        spent += started.elapsed();
        outcome
    };
    driver.advance(&mut timed, htlcs)?;
    Ok(spent)
}

/// A node's engine and where its entries are kept.
struct Ours {
    engine: Engine,
    entries: BTreeMap<String, Vec<u8>>,
    attestor: Attestor,
}

/// The archive of a node that issues no invoices.
struct Nothing;

impl Archive for Nothing {
    fn get(&self, _key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(None)
    }
}

impl Ours {
    fn new() -> Result<Self, BenchError> {
        let attestor = attestor();
        let spec = NodeSpec {
            name: NodeName::new("beside").map_err(BenchError::system)?,
            kind: NodeKind::Ldk,
            network: Network::Regtest,
            seed: Secret::init(|seed| seed.fill(3)),
            derivation: Derivation::Native,
            chain_code: None,
            operations_key: None,
        };
        let settings =
            Settings { limits: unlimited(), funding_depth: 1, oracle: attestor.public_key(), desk: Arc::default() };
        let chain = Arc::new(MiniChain::default());
        let start = chain.start().ok_or_else(|| BenchError::System("a chain begins somewhere".to_owned()))?;
        let mut entries = BTreeMap::new();
        keep(&mut entries, first_entries(&spec, start).map_err(BenchError::system)?);
        let engine = Engine::restore(&spec, &settings, chain, Arc::default(), Arc::new(Nothing), entries.clone());
        Ok(Self { engine: engine.map_err(BenchError::system)?, entries, attestor })
    }

    fn ask(&mut self, channel: Option<ChannelRef>, message: Vec<u8>) -> Outcome {
        let refused = |refusal| Outcome::Refused { request: String::new(), refusal };
        let row = match guard::row(NodeKind::Ldk, &message) {
            Ok(row) => row,
            Err(refusal) => return refused(refusal),
        };
        let handled = self.engine.handle(row, &Request { request_id: 0, channel, message });
        keep(&mut self.entries, handled.puts);
        handled.reply.map_or_else(refused, Outcome::Reply)
    }

    fn confirm(&mut self, block: &ChainBlock) -> Result<(), BenchError> {
        let concerned = self.engine.concerned(block);
        let effect = apply_block(self.engine.node(), block, &self.attestor, &concerned).map_err(BenchError::system)?;
        self.engine.note_block(block, &effect);
        let puts = self.engine.block_changes(&effect).map_err(|refusal| BenchError::Refused(refusal.detail))?;
        keep(&mut self.entries, puts);
        Ok(())
    }
}

fn keep(entries: &mut BTreeMap<String, Vec<u8>>, puts: Vec<Put>) {
    for Put { key, value } in puts {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compared is the same work: an honest channel that goes on.
    #[test]
    fn the_same_advances_are_answered_on_both_sides() {
        let (baseline, mut ours) = (Baseline::new().expect("built"), Ours::new().expect("built"));
        let (mut beside, mut driver) = open(&baseline, &mut ours).expect("opens");
        for htlcs in [2, 0] {
            advance(&mut beside, htlcs, |channel, message| baseline.ask(channel, message)).expect("advances");
            advance(&mut driver, htlcs, |channel, message| ours.ask(channel, message)).expect("advances");
        }
        assert_eq!(beside.our_commitment(), driver.our_commitment());
    }
}
