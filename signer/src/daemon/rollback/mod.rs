//! State that was set back, a second signer on a copy of it, or a clock set back: what was noticed puts nodes in quarantine
//! before any of them runs (P7).
//!
//! The journal is anchored in a counter at the start, at the end, and between them every `rollback.every_s` seconds in which
//! anything was recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use claviger_hsm::counter::file::FileCounter;
use claviger_hsm::{Absent, Counter, CounterError, Reading};
use claviger_policy::grant::{GrantKind, Standing};

use super::Unsealed;
use super::checkpoints::Signer;
use super::operators::Lines;
use super::policy::now_ms;
use super::unsealed::{damaged, journal_failure, put, record};
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::record::NodeRecord;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::devices::{DeviceCounter, Devices};
use crate::journal::{Anchor, Commit, Decision, HOUSE, Journal, Setback};
use crate::keys::memory::spawn;
use crate::lightning::nodes::Nodes;
use crate::lightning::orders::{Given, Order, Orders};

/// Who gives the order, in the log and in `node show`.
const BY: &str = "quarantine";

/// Where the counter is.
struct Home {
    file: PathBuf,
    /// Empty: the file is used.
    tcti: String,
    devices: Option<Arc<Devices>>,
}

impl Home {
    fn of(dir: &DataDir, config: &Config, devices: Option<&Arc<Devices>>) -> Result<Self, AdminFailure> {
        let rollback = &config.rollback;
        if !rollback.counter_tpm.is_empty() && cfg!(not(feature = "tpm")) {
            let hint = "Use the packaged build, or empty rollback.counter_tpm in claviger.toml and restart.";
            return Err(AdminFailure::new(FailureKind::Device, "this build has no TPM for rollback.counter_tpm", hint));
        }
        let file = if rollback.counter_file.as_os_str().is_empty() {
            dir.path().join("counter")
        } else {
            rollback.counter_file.clone()
        };
        Ok(Self { file, tcti: rollback.counter_tpm.clone(), devices: devices.cloned() })
    }

    fn ask(&self, ask: impl FnOnce(&dyn Counter) -> Result<Reading, CounterError>) -> Result<Reading, CounterError> {
        if !self.tcti.is_empty() {
            let devices = self.devices.as_ref().ok_or(Absent::Gone)?;
            return ask(&DeviceCounter { devices, tcti: &self.tcti });
        }
        ask(&FileCounter::new(&self.file))
    }

    fn read(&self) -> Result<Option<Reading>, CounterError> {
        match self.ask(|counter| counter.read()) {
            Err(CounterError::Missing(_)) => Ok(None),
            read => read.map(Some),
        }
    }
}

/// A journal on its counter.
pub(super) struct Anchored {
    home: Home,
    journal: Arc<Journal>,
    /// Signs the end of the log at each count.
    signer: Signer,
    anchor: Anchor,
    /// Commits that the last count covers.
    covered: u64,
}

impl Anchored {
    /// Holds `journal` against its counter and the clock, and counts. What is noticed is durable when this returns: the nodes
    /// of `records` are in quarantine.
    pub(super) fn open(
        dir: &DataDir,
        config: &Config,
        devices: Option<&Arc<Devices>>,
        journal: &Arc<Journal>,
        signer: Signer,
        records: &[NodeRecord],
        lines: &Lines,
    ) -> Result<Self, AdminFailure> {
        let home = Home::of(dir, config, devices)?;
        let noted = journal.get(HOUSE, Anchor::KEY).map_err(journal_failure)?;
        let noted = noted.map(|bytes| Anchor::decode(&bytes)).transpose();
        let noted = noted.map_err(|error| damaged("the anchor", &error))?;
        let now = home.read().map_err(|error| counter_failure(&error))?;
        let last_ms = journal.tail(1).map_err(journal_failure)?.first().map_or(0, |line| line.decision.at_ms);
        let mut noticed_ms = noted.map_or(0, |anchor| anchor.noticed_ms);

        let state = Anchor::check(noted.as_ref(), now.as_ref());
        let clock = Anchor::check_clock(noted.as_ref(), last_ms, now_ms());
        if clock.is_err() {
            noticed_ms = last_ms;
        }
        if let Err(setback) = state.and(clock) {
            for node in records {
                quarantine(journal, node.name.as_str(), setback, last_ms, lines)?;
            }
        }
        // What was noticed is recorded: the counter as it is now is the journal's.
        let now = match now {
            Some(now) => now,
            None => home.ask(|counter| counter.create()).map_err(|error| counter_failure(&error))?,
        };
        let mut anchored =
            Self { home, journal: Arc::clone(journal), signer, anchor: Anchor::new(now, noticed_ms), covered: 0 };
        anchored.count(now)?;
        Ok(anchored)
    }

    /// Notes the reading that comes after `now`, then increments the counter.
    fn count(&mut self, now: Reading) -> Result<(), AdminFailure> {
        let signed = self.signer.signed_head();
        let covered = self.journal.stats().commits + 1;
        let next = Reading { value: now.value.saturating_add(1), ..now };
        let anchor = Anchor::new(next, self.anchor.noticed_ms);
        record(&self.journal, std::iter::once(put(Anchor::KEY, anchor.encode())).chain(signed).collect(), None)?;
        self.anchor = anchor;
        self.home.ask(|counter| counter.increment()).map_err(|error| counter_failure(&error))?;
        self.covered = covered;
        Ok(())
    }

    /// Counts, if anything was recorded since the last count. A counter that does not answer stops nobody who runs: what it
    /// missed is told at the next start.
    fn tick(&mut self, nodes: &Nodes) {
        if self.journal.stats().commits == self.covered {
            return;
        }
        let now = match self.home.read() {
            Ok(Some(now)) => now,
            Ok(None) => {
                return tracing::warn!("the journal's counter is gone; the next start puts nodes in quarantine");
            }
            Err(error) => return tracing::warn!(%error, hint = error.hint(), "the journal's counter does not answer"),
        };
        if let Err(setback) = Anchor::check(Some(&self.anchor), Some(&now)) {
            tracing::error!(%setback, "another signer may run on a copy of this state; all nodes go into quarantine");
            for node in nodes.status() {
                let ordered =
                    nodes.get(&node.name).map(|node| node.order(Order::Quarantine, BY.into(), setback.to_string()));
                if let Some(Err(error)) = ordered {
                    // Not counted: tried again at the next tick.
                    return tracing::error!(node = %node.name, %error, "the node does not take the order");
                }
            }
        }
        if let Err(error) = self.count(now) {
            tracing::warn!(%error, "the journal was not anchored");
        }
    }

    /// Counts every so often from a thread of its own, until it is dropped.
    pub(super) fn keep(mut self, every: Duration, nodes: Arc<Nodes>) -> std::io::Result<Keeper> {
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        let work = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                self.tick(&nodes);
            }
            self.tick(&nodes);
        };
        let thread = spawn("anchor", work)?;
        Ok(Keeper { stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread that counts. Dropped, it counts once more and ends.
pub(super) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it ends either way
        }
    }
}

impl Unsealed {
    /// Ending a quarantine takes a break-glass grant of at least two people, asked for after it began, where the policy in
    /// force has a group that gives such grants.
    pub(super) fn require_quorum(&self, node: &str) -> Result<(), AdminFailure> {
        let status = self.nodes.status();
        let status = status.iter().find(|status| status.name.as_str() == node);
        let since_ms = status.and_then(|status| status.orders.quarantine.as_ref()).map_or(0, |given| given.at_ms);
        let asked = self.desk.look_at_grants(|grants, policy| {
            let approvals = &policy.approvals;
            let wanted = approvals.groups().any(|(_, group)| group.kind == GrantKind::BreakGlass && group.of >= 2);
            let mut given = grants.get(node).into_iter().flat_map(|grants| grants.iter());
            let given = given.any(|(_, grant)| {
                grant.intent.kind == GrantKind::BreakGlass
                    && grant.intent.of >= 2
                    && grant.asked_ms >= since_ms
                    && grant.standing(approvals, now_ms()) == Standing::InForce
            });
            wanted && !given
        });
        if asked != Some(true) {
            return Ok(());
        }
        let what = "ending a quarantine takes a break-glass grant of two people or more, asked for after it began";
        Err(AdminFailure::new(FailureKind::Invalid, what, "`claviger grant create --help` shows how to ask for it."))
    }
}

/// Puts a node that does not run yet in quarantine.
fn quarantine(
    journal: &Journal,
    node: &str,
    setback: Setback,
    last_ms: u64,
    lines: &Lines,
) -> Result<(), AdminFailure> {
    tracing::error!(node, %setback, "the node goes into quarantine");
    let (order, given) =
        (Order::Quarantine, Given { at_ms: now_ms().max(last_ms), by: BY.to_owned(), why: setback.to_string() });
    let facts = order.facts(&given);
    let decision = Decision { facts, ..Decision::unasked(lines.next(), given.at_ms, order.action()) };
    let puts = Orders::default().carry_out(&order, given).map_err(|error| damaged("the quarantine", &error))?;
    let commit = Commit { tenant: node.to_owned(), puts, decision: Some(decision) };
    journal.commit(commit).map_err(|error| AdminFailure::new(FailureKind::Fault, &error, error.hint()))
}

fn counter_failure(error: &CounterError) -> AdminFailure {
    AdminFailure::new(FailureKind::Device, error, error.hint())
}

#[cfg(test)]
mod tests;
