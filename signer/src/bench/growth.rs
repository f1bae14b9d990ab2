//! What operations cost as a node grows: they must not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Transaction;
use serde::Serialize;

use super::baseline::Baseline;
use super::rig::{BenchError, Rig};
use super::{Effort, percentile_us};
use crate::chain::ChainSink;
use crate::journal::Options;
use crate::journal::store::MemoryStore;
use crate::lightning::driver::{Driver, MiniChain, invoice_to_pay, invoice_to_sign};
use crate::names::NodeName;
use crate::pipeline::{ChannelRef, Outcome};

/// Samples of each operation at each size.
const SAMPLES: usize = 51;
const SETUP_CHANNEL: u16 = 31;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    /// What there is much of: `invoices` or `channels`.
    pub what: &'static str,
    /// How many.
    pub n: usize,
    /// The operation.
    pub op: &'static str,
    /// Its median.
    pub p50_us: f64,
    /// The same with vls-persist's own in-memory store and vls's own tracker, in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_p50_us: Option<f64>,
}

pub(super) fn measure(effort: Effort, progress: &dyn Fn(&str)) -> Result<Vec<Growth>, BenchError> {
    let mut rows = Vec::new();
    // Channels first: what a hundred thousand invoices leave of the heap is not theirs.
    by_channels(effort.channels, &mut rows, progress)?;
    by_invoices(effort.invoices, &mut rows, progress)?;
    Ok(rows)
}

fn by_invoices(numbers: &[usize], rows: &mut Vec<Growth>, progress: &dyn Fn(&str)) -> Result<(), BenchError> {
    let mut subjects = Vec::new();
    for n in numbers {
        progress(&format!("{n} open invoices"));
        let mut subject = Subject::new()?;
        subject.grow_invoices(*n)?;
        subjects.push((*n, subject));
    }
    operations("invoices", &mut subjects, rows)
}

fn by_channels(numbers: &[usize], rows: &mut Vec<Growth>, progress: &dyn Fn(&str)) -> Result<(), BenchError> {
    let (mut subjects, mut baselines) = (Vec::new(), Vec::new());
    for n in numbers {
        progress(&format!("{n} channels"));
        let (mut subject, mut baseline) = (Subject::new()?, Baseline::new()?);
        subject.grow_channels(*n)?;
        baseline.grow_channels(*n)?;
        subjects.push((*n, subject));
        baselines.push((*n, baseline));
    }
    operations("channels", &mut subjects, rows)?;
    compare("setup_channel", Subject::setup_channel, Baseline::setup_channel, &mut subjects, &mut baselines, rows)?;
    compare("add_block", Subject::add_block, Baseline::add_block, &mut subjects, &mut baselines, rows)
}

type Operation<S> = fn(&mut S) -> Result<Duration, BenchError>;

fn operations(what: &'static str, subjects: &mut [(usize, Subject)], rows: &mut Vec<Growth>) -> Result<(), BenchError> {
    let operations: [(_, Operation<Subject>); 3] =
        [("advance", Subject::advance), ("pay", Subject::pay), ("sign_invoice", Subject::sign_invoice)];
    for (op, operation) in operations {
        let medians_us = medians_us(contenders(subjects, operation).collect())?;
        let rows_of = subjects.iter().zip(medians_us);
        rows.extend(rows_of.map(|((n, _), p50_us)| Growth { what, n: *n, op, p50_us, baseline_p50_us: None }));
    }
    Ok(())
}

/// The same operation of ours and of the baseline, at each number of channels.
fn compare(
    op: &'static str,
    ours: Operation<Subject>,
    theirs: Operation<Baseline>,
    subjects: &mut [(usize, Subject)],
    baselines: &mut [(usize, Baseline)],
    rows: &mut Vec<Growth>,
) -> Result<(), BenchError> {
    let medians_us = medians_us(contenders(subjects, ours).chain(contenders(baselines, theirs)).collect())?;
    let (ours, theirs) = medians_us.split_at(subjects.len());
    for (((n, _), p50_us), baseline) in subjects.iter().zip(ours).zip(theirs) {
        rows.push(Growth { what: "channels", n: *n, op, p50_us: *p50_us, baseline_p50_us: Some(*baseline) });
    }
    Ok(())
}

type Contender<'a> = Box<dyn FnMut() -> Result<Duration, BenchError> + 'a>;

fn contenders<S>(subjects: &mut [(usize, S)], operation: Operation<S>) -> impl Iterator<Item = Contender<'_>> {
    subjects.iter_mut().map(move |(_, subject)| Box::new(move || operation(subject)) as Contender<'_>)
}

/// The median time of each contender. They take turns, so that a machine that becomes slower or faster in between does so
/// for all of them.
fn medians_us(mut contenders: Vec<Contender<'_>>) -> Result<Vec<f64>, BenchError> {
    let mut times = vec![Vec::with_capacity(SAMPLES); contenders.len()];
    for _ in 0..SAMPLES {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            times.push(contender()?);
        }
    }
    Ok(times.iter_mut().map(|times| percentile_us(times, 0.5)).collect())
}

/// A node that grows.
struct Subject {
    rig: Rig,
    node: NodeName,
    chain: MiniChain,
    driver: Driver,
    channels: u64,
    invoices: usize,
    /// Makes payment hashes differ.
    next: u64,
}

impl Subject {
    fn new() -> Result<Self, BenchError> {
        let rig = Rig::new(Arc::new(MemoryStore::new()), Options::default())?;
        let node = rig.add("growing")?;
        let driver = Driver::open(&mut |channel, message| rig.ask(&node, channel, message), 1)?;
        let mut subject = Self { rig, node, chain: MiniChain::default(), driver, channels: 1, invoices: 0, next: 0 };
        subject.confirm(vec![subject.driver.funding().clone()])?;
        Ok(subject)
    }

    /// Up to `n` invoices issued and `n` approved for payment.
    fn grow_invoices(&mut self, n: usize) -> Result<(), BenchError> {
        for _ in self.invoices..n {
            self.pay()?;
            self.sign_invoice()?;
        }
        self.invoices = self.invoices.max(n);
        Ok(())
    }

    /// Up to `n` channels.
    fn grow_channels(&mut self, n: usize) -> Result<(), BenchError> {
        let mut fundings = Vec::new();
        while self.channels < n as u64 {
            self.channels += 1;
            let (rig, node) = (&self.rig, &self.node);
            let driver = Driver::open(&mut |channel, message| rig.ask(node, channel, message), self.channels)?;
            fundings.push(driver.funding().clone());
        }
        self.confirm(fundings)
    }

    fn advance(&mut self) -> Result<Duration, BenchError> {
        let (rig, node) = (&self.rig, &self.node);
        // Only the signer's part counts: the driver plays the peer, which signs too.
        let mut spent = Duration::ZERO;
        let mut ask = |channel: Option<ChannelRef>, message| {
            let started = Instant::now();
            let outcome = rig.ask(node, channel, message);
            spent += started.elapsed();
            outcome
        };
        self.driver.advance(&mut ask, 0)?;
        Ok(spent)
    }

    fn pay(&mut self) -> Result<Duration, BenchError> {
        self.next += 1;
        self.timed(invoice_to_pay(self.next, 1_000))
    }

    fn sign_invoice(&mut self) -> Result<Duration, BenchError> {
        self.next += 1;
        self.timed(invoice_to_sign(self.next, 1_000))
    }

    fn timed(&self, message: Vec<u8>) -> Result<Duration, BenchError> {
        let started = Instant::now();
        self.rig.must(&self.node, None, message)?;
        Ok(started.elapsed())
    }

    fn setup_channel(&mut self) -> Result<Duration, BenchError> {
        let (rig, node) = (&self.rig, &self.node);
        self.channels += 1;
        timed_setup(self.channels, |channel, message| rig.ask(node, channel, message))
    }

    fn add_block(&mut self) -> Result<Duration, BenchError> {
        self.confirm_timed(Vec::new())
    }

    fn confirm(&mut self, transactions: Vec<Transaction>) -> Result<(), BenchError> {
        self.confirm_timed(transactions).map(drop)
    }

    fn confirm_timed(&mut self, transactions: Vec<Transaction>) -> Result<Duration, BenchError> {
        let block = self.chain.mine(transactions);
        // The filter is computed once for all nodes; it does not count.
        block.filter();
        let started = Instant::now();
        self.rig.nodes.connect(&self.node, block).map_err(BenchError::system)?;
        Ok(started.elapsed())
    }
}

/// Opens channel `dbid`; how long its SetupChannel took.
pub(super) fn timed_setup(
    dbid: u64,
    mut ask: impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome,
) -> Result<Duration, BenchError> {
    let mut time = Duration::ZERO;
    let mut timing = |channel, message: Vec<u8>| {
        let is_setup = message.first_chunk() == Some(&SETUP_CHANNEL.to_be_bytes());
        let started = Instant::now();
        let outcome = ask(channel, message);
        if is_setup {
            time = started.elapsed();
        }
        outcome
    };
    Driver::open(&mut timing, dbid)?;
    Ok(time)
}
