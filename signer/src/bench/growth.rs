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
    let mut subject = Subject::new()?;
    for n in numbers {
        progress(&format!("{n} open invoices"));
        subject.grow_invoices(*n)?;
        subject.operations("invoices", *n, rows)?;
    }
    Ok(())
}

fn by_channels(numbers: &[usize], rows: &mut Vec<Growth>, progress: &dyn Fn(&str)) -> Result<(), BenchError> {
    let (mut subject, mut baseline) = (Subject::new()?, Baseline::new()?);
    for n in numbers {
        progress(&format!("{n} channels"));
        subject.grow_channels(*n)?;
        subject.operations("channels", *n, rows)?;
        baseline.grow_channels(*n)?;
        let setup = subject.setup_channel()?;
        rows.push(row("channels", *n, "setup_channel", setup, Some(baseline.setup_channel()?)));
        let block = subject.add_block()?;
        rows.push(row("channels", *n, "add_block", block, Some(baseline.add_block()?)));
    }
    Ok(())
}

fn row(
    what: &'static str,
    n: usize,
    op: &'static str,
    mut times: Vec<Duration>,
    baseline: Option<Vec<Duration>>,
) -> Growth {
    let baseline_p50_us = baseline.map(|mut times| percentile_us(&mut times, 0.5));
    Growth { what, n, op, p50_us: percentile_us(&mut times, 0.5), baseline_p50_us }
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

    fn operations(&mut self, what: &'static str, n: usize, rows: &mut Vec<Growth>) -> Result<(), BenchError> {
        let times = self.times(Self::advance)?;
        rows.push(row(what, n, "advance", times, None));
        let times = self.times(Self::pay)?;
        rows.push(row(what, n, "pay", times, None));
        let times = self.times(Self::sign_invoice)?;
        rows.push(row(what, n, "sign_invoice", times, None));
        Ok(())
    }

    fn times(
        &mut self,
        operation: impl Fn(&mut Self) -> Result<Duration, BenchError>,
    ) -> Result<Vec<Duration>, BenchError> {
        (0..SAMPLES).map(|_| operation(self)).collect()
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

    fn setup_channel(&mut self) -> Result<Vec<Duration>, BenchError> {
        let (rig, node) = (&self.rig, &self.node);
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            self.channels += 1;
            Driver::open(&mut timing(&mut times, |channel, message| rig.ask(node, channel, message)), self.channels)?;
        }
        Ok(times)
    }

    fn add_block(&mut self) -> Result<Vec<Duration>, BenchError> {
        (0..SAMPLES).map(|_| self.confirm_timed(Vec::new())).collect()
    }

    fn confirm(&mut self, transactions: Vec<Transaction>) -> Result<(), BenchError> {
        self.confirm_timed(transactions).map(drop)
    }

    fn confirm_timed(&mut self, transactions: Vec<Transaction>) -> Result<Duration, BenchError> {
        let block = self.chain.mine(transactions);
        // The filter is computed once for all nodes; it does not count.
        block.filter();
        let started = Instant::now();
        self.rig.nodes.connect(&self.node, block).map_err(|error| BenchError::System(error.to_string()))?;
        Ok(started.elapsed())
    }
}

/// Notes how long each SetupChannel takes among what is asked.
pub(super) fn timing<'a>(
    times: &'a mut Vec<Duration>,
    mut ask: impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a,
) -> impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a {
    move |channel, message| {
        let is_setup = message.first_chunk() == Some(&SETUP_CHANNEL.to_be_bytes());
        let started = Instant::now();
        let outcome = ask(channel, message);
        if is_setup {
            times.push(started.elapsed());
        }
        outcome
    }
}
