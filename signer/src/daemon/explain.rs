//! `claviger explain`: one decision from the journal, or a refusal that decided nothing from memory.

use claviger_proto::v1::{DecisionRecord, Fact};

use super::Unsealed;
use super::unsealed::journal_failure;
use crate::admin::api::{AdminFailure, FailureKind};
use crate::journal::{LogLine, Verdict};
use crate::lightning::recent::Unrecorded;
use crate::names::NodeName;
use crate::reasons::Reason;

impl Unsealed {
    /// What is known of `request`. Memory is asked first: it is small, and the journal is long.
    pub(super) fn explain(&self, request: &str) -> Result<DecisionRecord, AdminFailure> {
        let node = asked_by(request).and_then(|(node, ..)| self.nodes.get(&node));
        if let Some(refused) = node.and_then(|node| node.unrecorded(request)) {
            return Ok(unrecorded(request, refused));
        }
        let line = self.journal.explain(request).map_err(journal_failure)?;
        let line = line.ok_or_else(|| self.unknown(request))?;
        let (policy, policy_json) = self.explain_policy(&line.decision)?;
        Ok(DecisionRecord { policy, policy_json, ..record(&line) })
    }

    /// Why nothing is known of `request`.
    fn unknown(&self, request: &str) -> AdminFailure {
        let what = format!("no decision has the id '{request}'");
        let failure = |why: &str| AdminFailure::new(FailureKind::NotFound, &what, why);
        let Some((name, run, number)) = asked_by(request) else {
            return failure("Take the id from a refusal, a log line or `claviger journal tail`.");
        };
        let Some(node) = self.nodes.get(&name) else {
            return failure("Its node does not run here. `claviger node list` shows those that do.");
        };
        let (this_run, given) = node.names_given();
        if run == this_run && number >= given {
            return failure("No request has had this id yet: look at it again.");
        }
        failure(
            "If it was a refusal, nothing was decided and the node has asked again: those are not in the journal, and \
             only the last of this run are kept. If it was an answer, the message only asked for public facts.",
        )
    }
}

/// The parts of an id: the node's name, the run's number, the request's.
fn asked_by(request: &str) -> Option<(NodeName, u32, u64)> {
    let (rest, number) = request.rsplit_once('-')?;
    let (name, run) = rest.rsplit_once('-')?;
    Some((NodeName::new(name).ok()?, u32::from_str_radix(run, 16).ok()?, number.parse().ok()?))
}

/// One decision of the journal.
pub(super) fn record(line: &LogLine) -> DecisionRecord {
    let decision = &line.decision;
    let (verdict, reason, detail) = match &decision.verdict {
        Verdict::Permit => ("permit", "", ""),
        Verdict::Deny { reason, detail } => ("deny", reason.as_str(), detail.as_str()),
        Verdict::Fault { detail } => ("fault", Reason::Fault.id(), detail.as_str()),
    };
    let known = Reason::by_id(reason);
    DecisionRecord {
        sequence: line.seq,
        node: line.tenant.clone(),
        request: decision.request.clone(),
        at_ms: decision.at_ms,
        action: decision.action.clone(),
        channel: decision.channel.clone().unwrap_or_default(),
        verdict: verdict.to_owned(),
        reason: reason.to_owned(),
        meaning: known.map(Reason::meaning).unwrap_or_default().to_owned(),
        detail: detail.to_owned(),
        facts: decision.facts.iter().map(Fact::from).collect(),
        hint: known.map(Reason::hint).unwrap_or_default().to_owned(),
        retry: known.is_some_and(Reason::retry),
        unrecorded: false,
        request_sha256: decision.request_sha256.clone(),
        reply_sha256: decision.reply_sha256.clone().unwrap_or_default(),
        chain_hash: line.hash.clone(),
        ..DecisionRecord::default()
    }
}

fn unrecorded(request: &str, refused: Unrecorded) -> DecisionRecord {
    let Unrecorded { at_ms, action, channel, refusal, .. } = refused;
    let node = asked_by(request).map(|(node, ..)| node.to_string());
    DecisionRecord {
        node: node.unwrap_or_default(),
        request: request.to_owned(),
        at_ms,
        action,
        channel: channel.unwrap_or_default(),
        verdict: "deny".to_owned(),
        reason: refusal.reason.id().to_owned(),
        meaning: refusal.reason.meaning().to_owned(),
        detail: refusal.detail,
        facts: refusal.facts.iter().map(Fact::from).collect(),
        hint: refusal.reason.hint().to_owned(),
        retry: refusal.reason.retry(),
        unrecorded: true,
        ..DecisionRecord::default()
    }
}
