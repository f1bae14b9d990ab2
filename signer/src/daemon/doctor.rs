//! `claviger doctor`, the daemon's part: the house first, then each channel.

use std::time::Instant;

use claviger_proto::v1::{CheckInfo, DoctorReply, DoctorRequest};

use super::nodes::now_s;
use super::{Daemon, Unsealed, lock};
use crate::admin::api::AdminFailure;
use crate::config::LimitsConfig;
use crate::datadir::DataDir;
use crate::journal::Health;
use crate::keys::memory::{Protection, heap_status, protection};
use crate::lightning::status::Phase;
use crate::turns::{self, Standing};

/// From how far ahead the end of a certificate is told.
const EXPIRY_WARNING_S: u64 = 30 * 24 * 3_600;
/// Consensus lets a block be two hours ahead of its miners' clocks (BIP 113 has the lower bound).
const BLOCK_AHEAD_S: u64 = 2 * 3_600;

impl Daemon {
    pub(super) fn examine(&self, request: &DoctorRequest) -> Result<DoctorReply, AdminFailure> {
        let mut checks = vec![self.check_directory(), self.check_slots(), self.check_hardening(), check_memory()];
        checks.push(self.check_limits());
        checks.push(check_turns());
        let Some(unsealed) = lock(&self.state).clone() else {
            checks.push(fail("sealed", "the signer is sealed: no node is answered", "Run `claviger unseal`."));
            return Ok(DoctorReply { checks, ..DoctorReply::default() });
        };
        checks.push(ok("sealed", "the signer is unsealed"));
        let chosen = match request.node.as_str() {
            "" => None,
            name => Some(unsealed.find(name)?.name),
        };
        let repaired = if request.repair { unsealed.repair() } else { Vec::new() };
        checks.extend(unsealed.check_chain());
        checks.push(unsealed.check_journal());
        checks.push(unsealed.check_certificates());
        if !request.lnd.is_empty() {
            checks.extend(unsealed.check_pairing(&request.lnd));
        }
        let mut channels = Vec::new();
        for status in unsealed.nodes.status() {
            if chosen.as_ref().is_some_and(|chosen| *chosen != status.name) {
                continue;
            }
            checks.push(check_node(&status));
            checks.extend(self.check_account(&unsealed, &status));
            // A node that is not there has told already why.
            if let Ok(found) = unsealed.compare(&status.name) {
                channels.extend(found);
            }
        }
        Ok(DoctorReply { checks, channels, repaired })
    }

    fn check_directory(&self) -> CheckInfo {
        let path = self.dir.path();
        match DataDir::open(path) {
            Ok(_) => ok("data-dir", format!("{} is closed to other users", path.display())),
            Err(error) => fail("data-dir", error.to_string(), error.hint()),
        }
    }

    fn check_slots(&self) -> CheckInfo {
        let fix = "`claviger slots add` a second one and keep what opens it away from this host.";
        match claviger_hsm::Envelope::read(&self.dir.keyslots()).map(|envelope| envelope.slots().count()) {
            Ok(slots @ 2..) => ok("key-slots", format!("{slots} key slots; one belongs away from this host")),
            Ok(slots) => warn("key-slots", format!("{slots} key slot: if it is lost, all keys are"), fix),
            Err(error) => fail("key-slots", error.to_string(), error.hint()),
        }
    }

    fn check_limits(&self) -> CheckInfo {
        let fix = "Set [limits] in claviger.toml to what your nodes need and restart.";
        match self.config.limits == LimitsConfig::default() {
            true => warn("limits", "all [limits] are the defaults; nobody has chosen them", fix),
            false => ok("limits", "[limits] were chosen"),
        }
    }
}

impl Unsealed {
    /// Puts right what can do no harm: looks at the chain at once and builds nodes that are not there. What was lost on
    /// the way between node and signer needs nothing: the node repeats it and is answered as it would have been (P5).
    fn repair(&self) -> Vec<String> {
        let mut repaired = vec!["looked at the chain".to_owned()];
        self.wake_follower();
        let down = self.nodes.status().into_iter().filter(|status| status.phase == Phase::Down);
        repaired.extend(down.map(|status| format!("asked for node {} to be built from the journal", status.name)));
        self.nodes.wake();
        repaired
    }

    fn check_chain(&self) -> [CheckInfo; 2] {
        let status = self.view.status(Instant::now());
        let lag = status.nodes.values().map(|node| node.lag).max().unwrap_or(0);
        let height = status.tip.map_or(0, |tip| tip.height);
        let error = status.last_error.as_deref().unwrap_or("no answer yet");
        let fix = "Look at [chain] in claviger.toml and at the chain backend.";
        let chain = match (status.stale, lag) {
            (true, _) => fail("chain", format!("the view of the chain is stale: {error}"), fix),
            (false, 0) => ok("chain", format!("at height {height}, no node is behind")),
            (false, lag) => {
                let fix = "Wait; nodes catch up by themselves. `claviger status` says what holds them up.";
                warn("chain", format!("at height {height}, a node is {lag} blocks behind"), fix)
            }
        };
        let now = now_s();
        let fix = "Set this host's clock, and keep it with NTP.";
        let clock = match status.tip_time.map(u64::from) {
            Some(block) if block > now + BLOCK_AHEAD_S => {
                fail("clock", format!("this host's clock is {} s behind the last block", block - now), fix)
            }
            Some(_) => ok("clock", "not behind the chain"),
            None => warn("clock", "no block to compare it with", "See to the chain first."),
        };
        [chain, clock]
    }

    fn check_journal(&self) -> CheckInfo {
        let stats = self.journal.stats();
        match stats.health {
            Health::Good => {
                ok("journal", format!("{} decisions; `claviger journal verify` checks each", stats.last_seq))
            }
            Health::Faulted(error) => fail("journal", error.to_string(), error.hint()),
        }
    }

    fn check_certificates(&self) -> CheckInfo {
        let (now, soon) = (now_s(), now_s() + EXPIRY_WARNING_S);
        let ends = |name: &str, at: u64| (at < soon).then(|| (at <= now, name.to_owned()));
        let nodes = self.registry.list().into_iter().filter_map(|node| {
            let valid = node.certificates.iter().filter(|certificate| certificate.revoked_at.is_none());
            ends(&format!("node {}", node.name), valid.map(|certificate| certificate.not_after).max().unwrap_or(0))
        });
        // The signer's own is replaced by itself, half-way.
        let mut ending: Vec<_> = ends("the CA", self.ca.not_after()).into_iter().chain(nodes).collect();
        ending.sort_by_key(|(ended, _)| !ended);
        let names: Vec<_> = ending.iter().map(|(_, name)| name.as_str()).collect();
        let fix = "Write a new bundle: `claviger node renew`.";
        match ending.first() {
            None => ok("certificates", "all are valid for 30 days"),
            Some((true, _)) => fail("certificates", format!("ended, or soon: {}", names.join(", ")), fix),
            Some((false, _)) => warn("certificates", format!("valid for less than 30 days: {}", names.join(", ")), fix),
        }
    }
}

fn check_turns() -> CheckInfo {
    ok(
        "turns",
        match turns::standing() {
            Standing::First => "answers come first, also on a busy machine",
            Standing::Busy => "answers take their turns among all others: they have used much of the machine",
            Standing::Among => {
                "answers take their turns among all others on a busy machine (LimitRTPRIO=2 lets them come first)"
            }
        },
    )
}

pub(super) fn check_memory() -> CheckInfo {
    let (protection, heap) = (protection(), heap_status());
    let found = format!("secrets are in {protection}; the heap is {heap}");
    if protection != Protection::MemfdSecret {
        return warn(
            "memory",
            found,
            "Use Linux 6.5 or newer, or boot with secretmem.enable=1; see docs/operations.md.",
        );
    }
    match heap.on && heap.outside_blocks == 0 {
        true => ok("memory", found),
        false => {
            warn("memory", found, "Set LimitMEMLOCK=infinity, and signer.secret_heap to \"auto\" or \"required\".")
        }
    }
}

fn check_node(status: &crate::lightning::status::NodeStatus) -> CheckInfo {
    let name = &status.name;
    let orders = &status.orders;
    match (&status.phase, &status.last_fault) {
        (Phase::Up, _) if orders.quarantine.is_some() => fail(
            "node",
            format!("{name} is in quarantine"),
            "docs/rollback.md says what to look at; then `claviger restore`.",
        ),
        (Phase::Up, _) if orders.frozen.is_some() => {
            warn("node", format!("{name} is frozen"), "`claviger node thaw` when the matter is settled.")
        }
        (Phase::Up, _) if orders.frozen_channels > 0 || !orders.exemptions.is_empty() => {
            let (frozen, exempt) = (orders.frozen_channels, orders.exemptions.len());
            let fix = "`claviger channel list` shows which, `claviger channel thaw` when the matter is settled.";
            warn("node", format!("{name} is up; {frozen} channels are frozen, {exempt} exemptions hold"), fix)
        }
        (Phase::Up, None) => ok("node", format!("{name} is up, {} channels", status.channels)),
        (Phase::Up, Some(fault)) => {
            let what = format!("{name} is up after {} faults, the last: {fault}", status.faults);
            warn("node", what, "Look at the daemon's log and report it.")
        }
        (Phase::Down, fault) => {
            let why = fault.as_deref().unwrap_or("nobody asked yet, or no block is known");
            fail("node", format!("{name} is down: {why}"), "`claviger doctor --repair`, then look at the chain.")
        }
        (Phase::Stopped, _) => fail("node", format!("{name} is stopped"), "Seal and unseal the signer."),
    }
}

pub(super) fn ok(id: &str, detail: impl Into<String>) -> CheckInfo {
    check(id, "ok", detail, "")
}

pub(super) fn warn(id: &str, detail: impl Into<String>, fix: &str) -> CheckInfo {
    check(id, "warn", detail, fix)
}

pub(super) fn fail(id: &str, detail: impl Into<String>, fix: &str) -> CheckInfo {
    check(id, "fail", detail, fix)
}

fn check(id: &str, state: &str, detail: impl Into<String>, fix: &str) -> CheckInfo {
    CheckInfo { id: id.to_owned(), state: state.to_owned(), detail: detail.into(), fix: fix.to_owned() }
}
