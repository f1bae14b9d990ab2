//! The administrator's calls, answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use claviger_proto::v1::{
    AccountSecretsRequest, BackupPiece, BackupRequest, BadRecord, ChainStatus, ChannelInfo, DecisionRecord,
    DoctorReply, DoctorRequest, EnrolmentReply, ExportLine, GrantInfo, GrantListRequest, HardeningReply, JournalStatus,
    LndAdoptReply, LndAdoptRequest, MemoryStatus, MetricsReply, NodeAddRequest, NodeInfo, NodeRemoveRequest,
    NodeRevokeRequest, OrderReply, OrderRequest, PolicyApplyRequest, PolicyFiles, PolicyInfo, PolicyRollbackRequest,
    PolicyShadowReply, PolicyShadowRequest, RecoverChannelRequest, RecoveredChannel, RotationProgress, StatusReply,
    UnsealReply, VerifyProgress,
};

use super::explain::record;
use super::opening::Opened;
use super::policy::events;
use super::unsealed::journal_failure;
use super::{Daemon, Unsealed, lock};
use crate::admin::api::{AdminApi, AdminFailure, Brought, FailureKind, Sink};
use crate::journal::{EXPLAIN_REACH, Health, JournalError, LogLine, Progress};
use crate::keys::memory::{Secret, heap_status, protection};
use crate::reasons::Reason;

/// How often `journal tail --follow` looks for new decisions.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Decisions read at a time.
const PAGE: usize = 512;
/// `journal tail` begins with no more; all there are is what `journal export` gives.
const MAX_TAIL: usize = 10_000;
/// From how far ahead `status` warns that a certificate ends.
const EXPIRY_WARNING_S: u64 = 30 * 24 * 3_600;

impl AdminApi for Daemon {
    fn status(&self) -> StatusReply {
        let unsealed = lock(&self.state).clone();
        let mut status = StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.config.network.to_string(),
            sealed: unsealed.is_none(),
            uptime_s: self.started.elapsed().as_secs(),
            pid: std::process::id(),
            data_dir: self.dir.path().display().to_string(),
            memory: Some(self.memory()),
            shares: self.shares_entered(),
            ..StatusReply::default()
        };
        if let Some(unsealed) = unsealed {
            unsealed.describe(&mut status);
        }
        if claviger_hsm::Envelope::read(&self.dir.keyslots()).is_ok_and(|envelope| envelope.slots().count() < 2) {
            status.warnings.push("there is only one key slot: if what opens it is lost, all keys are".to_owned());
        }
        status
    }

    fn metrics(&self) -> MetricsReply {
        let (status, unsealed) = (self.status(), lock(&self.state).clone());
        MetricsReply { metrics: super::metrics::metrics(&status, unsealed.as_deref()) }
    }

    fn unseal(&self, brought: Brought) -> Result<UnsealReply, AdminFailure> {
        Ok(match self.open_by(brought)? {
            Opened::Nodes(nodes) => UnsealReply { nodes: nodes as u32, shares: None },
            Opened::Shares(progress) => UnsealReply { nodes: 0, shares: Some(progress) },
        })
    }

    fn seal(&self) -> Result<(), AdminFailure> {
        self.close(Reason::Sealed);
        Ok(())
    }

    fn shutdown(&self) {
        self.ending.notify_one();
    }

    fn node_add(&self, request: NodeAddRequest) -> Result<EnrolmentReply, AdminFailure> {
        self.unsealed()?.add_node(request)
    }

    fn node_list(&self) -> Result<Vec<NodeInfo>, AdminFailure> {
        Ok(self.unsealed()?.node_infos())
    }

    fn node_show(&self, name: &str) -> Result<NodeInfo, AdminFailure> {
        self.unsealed()?.show_node(name)
    }

    fn node_renew(&self, name: &str) -> Result<EnrolmentReply, AdminFailure> {
        self.unsealed()?.renew_node(name)
    }

    fn node_revoke(&self, request: &NodeRevokeRequest) -> Result<NodeInfo, AdminFailure> {
        self.unsealed()?.revoke_node(request)
    }

    fn node_remove(&self, request: &NodeRemoveRequest) -> Result<(), AdminFailure> {
        self.unsealed()?.remove_node(request)
    }

    fn journal_tail(
        &self,
        lines: u32,
        follow: bool,
        node: &str,
        sink: &mut dyn Sink<DecisionRecord>,
    ) -> Result<(), AdminFailure> {
        let lines = MAX_TAIL.min(lines as usize);
        let last = self.unsealed()?.journal.stats().last_seq;
        let reach = if node.is_empty() { lines as u64 } else { EXPLAIN_REACH };
        let mut next = last.saturating_sub(reach) + 1;
        let mut latest = VecDeque::new();
        while next <= last {
            let page = self.page(&mut next)?;
            if page.is_empty() {
                break; // rows are missing: `journal verify` says which
            }
            latest.extend(page.into_iter().filter(|line| concerns(line, node)));
            latest.drain(..latest.len().saturating_sub(lines));
        }
        let mut read = latest.iter().all(|line| sink.put(record(line)));
        while follow && read && sink.is_read() {
            let page = self.page(&mut next)?;
            if page.is_empty() {
                std::thread::sleep(FOLLOW_EVERY);
            }
            read = page.iter().filter(|line| concerns(line, node)).all(|line| sink.put(record(line)));
        }
        Ok(())
    }

    fn journal_verify(&self, sink: &mut dyn Sink<VerifyProgress>) -> Result<(), AdminFailure> {
        let unsealed = self.unsealed()?;
        // The check holds on to the signer: it ends when the signer closes, and waits for no reader.
        let mut progress = |progress: Progress| {
            sink.offer(VerifyProgress { checked: progress.done, total: progress.total, ..VerifyProgress::default() })
                && lock(&self.state).is_some()
        };
        let result = unsealed.journal.verify(&mut progress);
        drop(unsealed);
        sink.put(match result {
            Ok(verified) => VerifyProgress {
                checked: verified.records,
                total: verified.records,
                done: true,
                bad: None,
                head_hash: verified.head,
                signed: verified.signed.map(Into::into),
            },
            Err(JournalError::Damaged(damage)) => VerifyProgress {
                done: true,
                bad: Some(BadRecord { record: damage.key.clone(), detail: damage.what.to_string() }),
                ..VerifyProgress::default()
            },
            Err(error) => return Err(journal_failure(error)),
        });
        Ok(())
    }

    fn journal_export(&self, from: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure> {
        let last = self.unsealed()?.journal.stats().last_seq;
        let mut next = from;
        while next <= last {
            let page = self.page(&mut next)?;
            if page.is_empty() {
                break; // rows are missing: `journal verify` says which
            }
            for line in page.iter().filter(|line| line.seq <= last) {
                let json = serde_json::to_string(line);
                let json = json.map_err(|error| AdminFailure::new(FailureKind::Fault, &error, "Report this."))?;
                if !sink.put(ExportLine { json }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn rotate_data_key(
        &self,
        key: Secret<32>,
        by: &str,
        sink: &mut dyn Sink<RotationProgress>,
    ) -> Result<(), AdminFailure> {
        self.rotate(key, by, sink)
    }

    fn backup(&self, request: &BackupRequest, sink: &mut dyn Sink<BackupPiece>) -> Result<(), AdminFailure> {
        self.send_backup(request, sink)
    }

    fn explain(&self, request: &str) -> Result<DecisionRecord, AdminFailure> {
        self.unsealed()?.explain(request)
    }

    fn policy_status(&self) -> Result<PolicyInfo, AdminFailure> {
        Ok(self.unsealed()?.policy_info())
    }

    fn policy_bundle(&self, sha256: &str) -> Result<PolicyFiles, AdminFailure> {
        self.unsealed()?.policy_files(sha256)
    }

    fn policy_apply(&self, request: PolicyApplyRequest, by: &str) -> Result<PolicyInfo, AdminFailure> {
        self.unsealed()?.policy_apply(request, by)
    }

    fn policy_rollback(&self, request: PolicyRollbackRequest, by: &str) -> Result<PolicyInfo, AdminFailure> {
        self.unsealed()?.policy_rollback(request, by)
    }

    fn policy_shadow(&self, request: PolicyShadowRequest, by: &str) -> Result<PolicyShadowReply, AdminFailure> {
        self.unsealed()?.policy_shadow(request, by)
    }

    fn policy_history(&self, from_ms: u64, sink: &mut dyn Sink<ExportLine>) -> Result<(), AdminFailure> {
        let last = self.unsealed()?.journal.stats().last_seq;
        let first = self.unsealed()?.first_since(from_ms, last)?;
        // Bundles stand first: whoever reads decides as he reads.
        let (mut next, mut known) = (first, Vec::new());
        while next <= last {
            let page = self.page(&mut next)?;
            if page.is_empty() {
                break; // rows are missing: `journal verify` says which
            }
            let bundles = self.unsealed()?.bundles_of(&page, &mut known)?;
            if !bundles.iter().all(|files| sink.put(ExportLine { json: files.to_line() })) {
                return Ok(());
            }
        }
        next = first;
        while next <= last {
            let page = self.page(&mut next)?;
            let of_now = page.iter().filter(|line| line.seq <= last && line.decision.at_ms >= from_ms);
            let mut lines = of_now.flat_map(events).map(|event| ExportLine { json: event.to_line() });
            if page.is_empty() || !lines.all(|line| sink.put(line)) {
                break;
            }
        }
        Ok(())
    }

    fn grant_list(&self, request: &GrantListRequest) -> Result<Vec<GrantInfo>, AdminFailure> {
        self.unsealed()?.grants(request)
    }

    fn grant_ask(&self, text: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        self.unsealed()?.ask_grant(text, signature, by)
    }

    fn grant_approve(&self, grant: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        self.unsealed()?.approve_grant(grant, signature, by)
    }

    fn grant_revoke(&self, grant: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        self.unsealed()?.revoke_grant(grant, by)
    }

    fn channel_list(&self, node: &str) -> Result<Vec<ChannelInfo>, AdminFailure> {
        self.unsealed()?.channels(node)
    }

    fn channel_show(&self, node: &str, channel: &str) -> Result<ChannelInfo, AdminFailure> {
        self.unsealed()?.channel(node, channel)
    }

    fn order(&self, request: &OrderRequest, by: String) -> Result<OrderReply, AdminFailure> {
        self.unsealed()?.order(request, by)
    }

    fn lnd_adopt(&self, request: LndAdoptRequest, by: String) -> Result<LndAdoptReply, AdminFailure> {
        self.unsealed()?.adopt(request, by)
    }

    fn doctor(&self, request: &DoctorRequest) -> Result<DoctorReply, AdminFailure> {
        self.examine(request)
    }

    fn hardening(&self) -> HardeningReply {
        self.examine_hardening()
    }

    fn account_secrets(&self, request: AccountSecretsRequest) -> Result<NodeInfo, AdminFailure> {
        self.unsealed()?.account_secrets(request)
    }

    fn recover_channel(&self, request: RecoverChannelRequest) -> Result<RecoveredChannel, AdminFailure> {
        self.unsealed()?.recover_channel(&request)
    }
}

impl Daemon {
    /// Decisions from number `next` on, which moves behind them. Nothing is held between two pages, so that `seal` does
    /// not wait for a reader.
    fn page(&self, next: &mut u64) -> Result<Vec<LogLine>, AdminFailure> {
        let page = self.unsealed()?.journal.decisions(*next, PAGE).map_err(journal_failure)?;
        *next = page.last().map_or(*next, |line| line.seq + 1);
        Ok(page)
    }

    fn memory(&self) -> MemoryStatus {
        let mut notes = Vec::new();
        if let Some(bytes) = self.hardening.lockable_bytes {
            notes.push(format!("at most {bytes} bytes can be locked"));
        }
        MemoryStatus {
            secrets: protection().to_string(),
            heap: heap_status().to_string(),
            core_dumps_off: !self.hardening.dumpable,
            not_dumpable: !self.hardening.dumpable,
            no_new_privileges: self.hardening.no_new_privileges,
            notes,
        }
    }
}

impl Unsealed {
    fn describe(&self, status: &mut StatusReply) {
        status.link_address = self.with_link(|link| link.address().to_string()).unwrap_or_default();
        status.ca_not_after = self.ca.not_after();
        status.server_not_after = self.identity.not_after();
        status.nodes = self.node_infos();
        status.policy = Some(self.policy_info());
        status.rotation = self.rotation_progress();
        let chain = self.view.status(Instant::now());
        status.chain = Some(ChainStatus {
            state: if chain.stale { "stale" } else { "ok" }.to_owned(),
            height: chain.tip.map_or(0, |tip| tip.height),
            tip_hash: chain.tip.map(|tip| tip.hash.to_string()).unwrap_or_default(),
            lag_blocks: chain.nodes.values().map(|node| node.lag).max().unwrap_or(0),
            last_answer_s: chain.last_success.map_or(0, |since| since.as_secs()),
            detail: chain.last_error.clone().unwrap_or_default(),
        });
        let stats = self.journal.stats();
        let head = self.journal.tail(1).ok().and_then(|lines| Some(lines.first()?.hash.clone()));
        let detail = match &stats.health {
            Health::Good => String::new(),
            Health::Faulted(error) => format!("{error}. {}", error.hint()),
        };
        status.journal = Some(JournalStatus {
            state: if detail.is_empty() { "ok" } else { "failing" }.to_owned(),
            store: "logged".to_owned(),
            decisions: stats.last_seq,
            head_hash: head.unwrap_or_default(),
            detail: detail.clone(),
        });
        if chain.stale {
            status.warnings.push("the view of the chain is stale: nothing that depends on it is signed".to_owned());
        }
        if !detail.is_empty() {
            status.warnings.push(format!("the journal cannot be written, nothing is signed: {detail}"));
        }
        status.warnings.extend(self.broken_glass());
        let soon = super::nodes::now_s() + EXPIRY_WARNING_S;
        for node in &status.nodes {
            if let Some(frozen) = &node.frozen {
                status.warnings.push(format!("node {} is frozen by {}: {}", node.name, frozen.by, frozen.why));
            }
            if node.frozen_channels > 0 {
                status.warnings.push(format!("node {}: {} channels are frozen", node.name, node.frozen_channels));
            }
            for exemption in &node.exemptions {
                let (channel, reason) = (&exemption.channel, &exemption.reason);
                status.warnings.push(format!("node {}: channel {channel} is exempt from '{reason}'", node.name));
            }
            if node.certificates.iter().filter(|certificate| !certificate.revoked).all(|c| c.not_after < soon) {
                status
                    .warnings
                    .push(format!("node {} has no certificate valid for 30 days: claviger node renew {0}", node.name));
            }
        }
    }
}

/// Whether a decision is about `node`, or no node is named.
fn concerns(line: &LogLine, node: &str) -> bool {
    node.is_empty() || line.tenant == node
}
