//! The calls about the spending policy: what is in force, bundles that come into force and go, and what was decided.

use claviger_policy::budget::{Scope, Standing};
use claviger_policy::bundle::{Applied, ApplyError, Bundle, BundleHash, Files};
use claviger_policy::facts::{FactId, Unit};
use claviger_policy::time;
use claviger_policy::tooling::{Differing, Event, explain};
use claviger_proto::v1::{
    BudgetInfo, BundleFile, PolicyApplyRequest, PolicyFiles, PolicyInfo, PolicyRollbackRequest, PolicyShadowReply,
    PolicyShadowRequest, PolicyVersion, ShadowDifference, ShadowInfo,
};

use super::Unsealed;
use super::unsealed::journal_failure;
use crate::admin::api::{AdminFailure, FailureKind};
use crate::facts::Fact;
use crate::journal::{Decision, HOUSE, LogLine};
use crate::lightning::clock::NodeClock;
use crate::policy::{ApplyFailed, Shadowed};

/// So many windows of each budget are shown: those with the least left.
const MAX_WINDOWS: usize = 16;

impl Unsealed {
    /// What is, was and will be in force, and what is left of the budgets.
    pub(super) fn policy_info(&self) -> PolicyInfo {
        let in_force = self.desk.in_force();
        let version = |applied: Option<Applied>| {
            applied.map(|Applied { hash, version, from_ms }| PolicyVersion {
                version,
                sha256: hash.to_string(),
                from_ms,
            })
        };
        PolicyInfo {
            appliance: self.desk.appliance().to_owned(),
            network: self.network.to_string(),
            active: version(in_force.active),
            previous: version(in_force.previous),
            pending: version(in_force.pending),
            highest_version: in_force.highest_version,
            budgets: self.desk.standings(MAX_WINDOWS, now_ms()).iter().map(budget).collect(),
            shadow: self.desk.shadowed().as_ref().map(shadow),
        }
    }

    /// The files of the bundle with this hash, or of the one in force.
    pub(super) fn policy_files(&self, sha256: &str) -> Result<PolicyFiles, AdminFailure> {
        let hash = match sha256 {
            "" => self.desk.in_force().active.map(|active| active.hash),
            text => Some(BundleHash::parse(text).ok_or_else(|| no_bundle(text))?),
        };
        let Some(hash) = hash else { return Ok(PolicyFiles::default()) };
        let files = self.bundle_files(hash)?.ok_or_else(|| no_bundle(sha256))?;
        let file = |(name, content): (&str, &[u8])| BundleFile { name: name.to_owned(), content: content.to_vec() };
        Ok(PolicyFiles { files: files.iter().map(file).collect() })
    }

    /// Puts a bundle in force.
    pub(super) fn policy_apply(&self, request: PolicyApplyRequest, by: &str) -> Result<PolicyInfo, AdminFailure> {
        let _change = self.change()?;
        let files = files(request.files)?;
        let from_ms = Some(request.from_ms).filter(|from_ms| *from_ms > 0);
        let from = from_ms.map(|from_ms| Fact::text("from", time::print(from_ms / 1_000)));
        let facts = [Fact::text("bundle", files.hash().to_string())].into_iter().chain(from);
        let line = self.line("PolicyApply", by, facts);
        let record = |puts| self.record_as(line, puts).map_err(Failed::Record);
        self.desk.apply(files, self.network, from_ms, now_ms(), record).map_err(Failed::failure)?;
        Ok(self.policy_info())
    }

    /// Goes back to the bundle before.
    pub(super) fn policy_rollback(&self, request: PolicyRollbackRequest, by: &str) -> Result<PolicyInfo, AdminFailure> {
        let _change = self.change()?;
        let signatures = files(request.signatures)?;
        let entries = self.journal.load(HOUSE).map_err(journal_failure)?;
        let to = self.desk.in_force().previous.map(|to| Fact::text("bundle", to.hash.to_string()));
        let line = self.line("PolicyRollback", by, to);
        let record = |puts| self.record_as(line, puts).map_err(Failed::Record);
        self.desk.roll_back(&entries, &signatures, self.network, now_ms(), record).map_err(Failed::failure)?;
        Ok(self.policy_info())
    }

    /// Judges a bundle beside the one in force, ends that, or neither; tells what came of it so far.
    pub(super) fn policy_shadow(
        &self,
        request: PolicyShadowRequest,
        by: &str,
    ) -> Result<PolicyShadowReply, AdminFailure> {
        let candidate = if request.files.is_empty() { None } else { Some(files(request.files)?) };
        if candidate.is_some() || request.stop {
            let _change = self.change()?;
            let bundle = candidate.as_ref().map(|files| Fact::text("bundle", files.hash().to_string()));
            let line = self.line("PolicyShadow", by, bundle);
            let record = |puts| self.record_as(line, puts).map_err(Failed::Record);
            self.desk.shadow(candidate, self.network, now_ms(), record).map_err(Failed::failure)?;
        }
        let shadowed = self.desk.shadowed();
        let differing = shadowed.iter().flat_map(|shadowed| &shadowed.differing).map(difference).collect();
        Ok(PolicyShadowReply { shadow: shadowed.as_ref().map(shadow), differing })
    }

    /// The files of a bundle that was in force once.
    pub(super) fn bundle_files(&self, hash: BundleHash) -> Result<Option<Files>, AdminFailure> {
        let key = Files::key(hash);
        let value = self.journal.get(HOUSE, &key).map_err(journal_failure)?;
        let read = |value: Vec<u8>| {
            Files::read(&key, &value).map_err(|error| AdminFailure::new(FailureKind::Damaged, &error, error.hint()))
        };
        value.map(read).transpose()
    }

    /// The number of the first decision from `from_ms` on; `last` is the last one's.
    pub(super) fn first_since(&self, from_ms: u64, last: u64) -> Result<u64, AdminFailure> {
        let (mut first, mut end) = (1, last + 1);
        while first < end {
            let middle = first + (end - first) / 2;
            let line = self.journal.decisions(middle, 1).map_err(journal_failure)?;
            match line.first() {
                Some(line) if line.decision.at_ms < from_ms => first = middle + 1,
                _ => end = middle,
            }
        }
        Ok(first)
    }

    /// The bundles that decided `lines`, without those in `known`, which they are added to.
    pub(super) fn bundles_of(
        &self,
        lines: &[LogLine],
        known: &mut Vec<BundleHash>,
    ) -> Result<Vec<Files>, AdminFailure> {
        let mut found = Vec::new();
        for record in lines.iter().flat_map(|line| &line.decision.policy) {
            if !known.contains(&record.bundle) {
                known.push(record.bundle);
                found.extend(self.bundle_files(record.bundle)?);
            }
        }
        Ok(found)
    }

    /// The policy's part of a decision, explained: as text, and as JSON.
    pub(super) fn explain_policy(&self, decision: &Decision) -> Result<(String, String), AdminFailure> {
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        for record in &decision.policy {
            let Some(files) = self.bundle_files(record.bundle)? else { continue };
            let bundle = Bundle::parse(files, self.network).map_err(|errors| {
                let first = errors.first().map(ToString::to_string).unwrap_or_default();
                AdminFailure::new(FailureKind::Damaged, first, "Explain it with the version that decided.")
            })?;
            let explanation = self
                .desk
                .look_at_grants(|grants, _| {
                    let grants = grants.get(&record.request.node);
                    explain(bundle.policy(), &record.request, &record.inputs, &record.verdict, grants)
                })
                .unwrap_or_else(|| explain(bundle.policy(), &record.request, &record.inputs, &record.verdict, None));
            texts.push(explanation.to_string());
            values.push(serde_json::to_value(&explanation).unwrap_or_default());
        }
        let json = if values.is_empty() { String::new() } else { serde_json::Value::from(values).to_string() };
        Ok((texts.join("\n"), json))
    }
}

/// What a decision adds to a history, in order: what had come to an end by then, then what it decided.
pub(super) fn events(line: &LogLine) -> impl Iterator<Item = Event> {
    let decided = line.decision.policy.iter().map(|record| Event::Decided(Box::new(record.clone())));
    line.decision.came_to.iter().cloned().chain(decided)
}

/// The system's clock. What nodes decide goes by their own, which never run backwards (P7).
pub(super) fn now_ms() -> u64 {
    NodeClock::default().now_ms()
}

fn files(sent: Vec<BundleFile>) -> Result<Files, AdminFailure> {
    let mut files = Files::default();
    for BundleFile { name, content } in sent {
        files.add(&name, content).map_err(|error| AdminFailure::new(FailureKind::Invalid, &error, error.hint()))?;
    }
    Ok(files)
}

/// Why a bundle did not come into force: refused, or not recorded.
pub(super) enum Failed {
    Apply(ApplyFailed),
    Record(AdminFailure),
}

impl Failed {
    pub(super) fn failure(self) -> AdminFailure {
        match self {
            Self::Apply(failed) => refused(&failed),
            Self::Record(failure) => failure,
        }
    }
}

impl From<ApplyFailed> for Failed {
    fn from(failed: ApplyFailed) -> Self {
        Self::Apply(failed)
    }
}

fn refused(failed: &ApplyFailed) -> AdminFailure {
    let hint = match failed {
        ApplyFailed::Invalid(_) => "Run `claviger policy check` on it.".to_owned(),
        ApplyFailed::Tests(_) => "Run `claviger policy test` on it.".to_owned(),
        ApplyFailed::Unreadable(_) => "Run `claviger journal verify`, and restore a backup.".to_owned(),
        ApplyFailed::NothingBeside => "Apply one first: `claviger policy apply DIR`.".to_owned(),
        ApplyFailed::Refused(error) => error.hint(),
    };
    let kind = match failed {
        ApplyFailed::Refused(ApplyError::InForce(_)) => FailureKind::Exists,
        ApplyFailed::Unreadable(_) => FailureKind::Damaged,
        _ => FailureKind::Invalid,
    };
    AdminFailure::new(kind, failed, hint)
}

fn no_bundle(sha256: &str) -> AdminFailure {
    let what = format!("no bundle with the hash '{sha256}' was ever in force");
    AdminFailure::new(FailureKind::NotFound, what, "`claviger policy status` names those in force and before.")
}

fn shadow(shadowed: &Shadowed) -> ShadowInfo {
    let (bundle, report) = (&shadowed.bundle, &shadowed.report);
    let version =
        PolicyVersion { version: bundle.version(), sha256: bundle.hash().to_string(), from_ms: shadowed.since_ms };
    ShadowInfo {
        version: Some(version),
        decisions: report.decisions,
        newly_refused: report.newly_refused,
        newly_permitted: report.newly_permitted,
        refused_otherwise: report.refused_otherwise,
    }
}

fn difference(differing: &Differing) -> ShadowDifference {
    let Differing { id, at_ms, node, action, then, now, because } = differing;
    ShadowDifference {
        key: id.clone(),
        at_ms: *at_ms,
        node: node.clone(),
        action: action.id().to_owned(),
        in_force: then.id().to_owned(),
        shadow: now.id().to_owned(),
        because: because.clone(),
    }
}

fn budget(standing: &Standing) -> BudgetInfo {
    let scope = |(scope, value): &(Scope, String)| format!("{} {value}", scope.id());
    BudgetInfo {
        budget: standing.budget.clone(),
        scope: standing.scope.iter().map(scope).collect::<Vec<_>>().join(", "),
        unit: standing.fact.and_then(FactId::unit).map_or("", Unit::text).to_owned(),
        limit: standing.limit,
        spent: standing.spent,
        reserved: standing.reserved,
        left: standing.left,
        refills_at_ms: standing.refills_at_ms,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use claviger_policy::actions::Action;
    use claviger_policy::request::Request;
    use claviger_policy::tooling::{History, Record, replay};
    use claviger_proto::v1::ExportLine;

    use super::super::tests::World;
    use super::*;
    use crate::admin::api::{AdminApi, Sink};
    use crate::journal::Commit;
    use crate::policy::{Ask, Ends};

    const HOUR_MS: u64 = 3_600_000;
    /// 2026-12-01T00:00:00Z.
    const FROM_MS: u64 = 1_796_083_200_000;

    struct Lines(Vec<String>);

    impl Sink<ExportLine> for Lines {
        fn put(&mut self, line: ExportLine) -> bool {
            self.0.push(line.json);
            true
        }

        fn offer(&mut self, line: ExportLine) -> bool {
            self.put(line)
        }

        fn is_read(&self) -> bool {
            true
        }
    }

    fn apply(world: &World, version: u64, max_payment_msat: u64) {
        let policy = format!(
            "version = {version}\npreset = \"routing-node\"\n[numbers]\nmax_payment_msat = {max_payment_msat}\n"
        );
        let files = vec![BundleFile { name: "policy.toml".to_owned(), content: policy.into_bytes() }];
        world.daemon.policy_apply(PolicyApplyRequest { files, from_ms: 0 }, "uid 0").unwrap();
    }

    /// A payment an hour, each as the desk decides it.
    fn pay(world: &World, hours: std::ops::Range<u64>) {
        let unsealed = world.unsealed();
        for hour in hours {
            let at_ms = FROM_MS + hour * HOUR_MS;
            let request = Request::new("alice", Action::PayInvoice, at_ms)
                .with(FactId::AmountMsat, hour % 10 * 1_000_000)
                .with(FactId::Payee, "03cd")
                .with(FactId::PaymentHash, format!("{hour:064x}"));
            let ask = Ask { request, key: format!("payment:{hour}"), ends: Ends::AtOnce };
            let decided = unsealed.desk.decide(ask, at_ms).unwrap();
            let name = format!("alice-00000001-{hour}");
            let policy = vec![Record { id: name.clone(), ..decided.record.clone() }];
            let decision = Decision { policy, ..Decision::unasked(name, at_ms, "PreapproveInvoice") };
            unsealed.desk.close(&decided, true, at_ms);
            let commit = Commit { tenant: "alice".to_owned(), puts: decided.puts, decision: Some(decision) };
            unsealed.journal.commit(commit).unwrap();
        }
    }

    #[test]
    fn a_history_tells_its_bundles_first_and_every_verdict_comes_out_again() {
        let world = World::new();
        apply(&world, 1, 5_000_000);
        pay(&world, 0..700);
        apply(&world, 2, 6_000_000);
        pay(&world, 700..1_400);
        for (from_hour, bundles) in [(0, 2), (699, 2), (700, 1), (1_399, 1), (1_400, 0)] {
            let mut lines = Lines(Vec::new());
            world.daemon.policy_history(FROM_MS + from_hour * HOUR_MS, &mut lines).unwrap();
            let mut history = History::read(lines.0.into_iter().map(Ok::<_, String>)).unwrap();
            let known: Vec<_> = history.bundles().values().cloned().collect();
            assert_eq!(known.len(), bundles, "from hour {from_hour}");
            let known: Vec<_> =
                known.into_iter().map(|files| Bundle::parse(files, bitcoin::Network::Regtest).unwrap()).collect();
            let found = replay(history.events(), |hash| known.iter().find(|known| known.hash() == hash), |_| true);
            assert_eq!(history.finish(), Ok(()));
            assert!(found.reproduces() && found.decisions == 1_400 - from_hour, "{found}");
        }
    }

    #[test]
    fn what_operators_change_is_in_the_log_with_who_did_it() {
        let world = World::new();
        apply(&world, 1, 5_000_000);
        apply(&world, 2, 6_000_000);
        world.daemon.policy_rollback(PolicyRollbackRequest::default(), "uid 7").unwrap();
        let lines = world.unsealed().journal.decisions(1, 10).unwrap();
        let said: Vec<_> = lines.iter().map(|line| (line.tenant.as_str(), line.decision.action.as_str())).collect();
        assert_eq!(said, [(HOUSE, "PolicyApply"), (HOUSE, "PolicyApply"), (HOUSE, "PolicyRollback")]);
        let line = world.daemon.explain(&lines[2].decision.request).unwrap();
        let facts: Vec<_> = line.facts.iter().map(|fact| (fact.name.as_str(), fact.value.as_str())).collect();
        let active = world.daemon.policy_status().unwrap().active.unwrap();
        assert_eq!(facts, [("ordered_by", "uid 7"), ("bundle", &active.sha256)]);
    }

    #[test]
    fn a_decision_is_explained_with_the_bundle_that_made_it() {
        let world = World::new();
        apply(&world, 1, 5_000_000);
        pay(&world, 0..8);
        apply(&world, 2, 9_000_000);
        let refused = world.daemon.explain("alice-00000001-7").unwrap();
        for line in ["verdict     deny ", "fact        amount_msat = 7000000 msat", "amount_msat at most 5000000 msat"]
        {
            assert!(refused.policy.contains(line), "{}", refused.policy);
        }
        let json: serde_json::Value = serde_json::from_str(&refused.policy_json).unwrap();
        assert_eq!(json[0]["verdict"], "deny");
        let permitted = world.daemon.explain("alice-00000001-5").unwrap();
        assert!(permitted.policy.contains("verdict     permit"), "{}", permitted.policy);
    }

    #[test]
    fn what_is_left_of_a_budget_is_shown_with_when_it_refills() {
        let world = World::new();
        apply(&world, 1, 5_000_000);
        pay(&world, 0..6);
        let info = world.daemon.policy_status().unwrap();
        assert_eq!(info.active.map(|active| active.version), Some(1));
        let daily = info.budgets.iter().find(|budget| budget.budget == "preset-daily-payments").unwrap();
        assert_eq!((daily.scope.as_str(), daily.unit.as_str()), ("node alice", "msat"));
        assert_eq!((daily.spent, daily.left), (15_000_000, daily.limit - 15_000_000));
        assert!(daily.refills_at_ms.is_some());
    }
}
