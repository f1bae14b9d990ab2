//! The calls about grants: what is asked, approved and taken back. Each change is durable before it is answered (P1).

use std::collections::BTreeMap;

use claviger_policy::decide::Policy;
use claviger_policy::facts::FactId;
use claviger_policy::grant::{Effect, Grant, GrantError, GrantId, Grants, Intent, Requester};
use claviger_proto::v1::{GrantInfo, GrantListRequest};

use super::Unsealed;
use super::nodes::parse_name;
use super::policy::now_ms;
use crate::admin::api::{AdminFailure, FailureKind};
use crate::facts::Fact;
use crate::journal::Commit;

impl Unsealed {
    /// Grants, by node and id, with how they stand now.
    pub(super) fn grants(&self, request: &GrantListRequest) -> Result<Vec<GrantInfo>, AdminFailure> {
        let id = match request.grant.as_str() {
            "" => None,
            text => Some(parse_id(text)?),
        };
        let wanted = |node: &str, grant: GrantId| {
            (request.node.is_empty() || request.node == node) && id.is_none_or(|id| id == grant)
        };
        let found = self.desk.look_at_grants(|grants, policy| {
            let all = grants.iter().flat_map(|(node, grants)| grants.iter().map(move |(id, grant)| (node, id, grant)));
            all.filter(|(node, id, _)| wanted(node, *id)).map(|(_, _, grant)| info(grant, policy)).collect::<Vec<_>>()
        });
        let found = found.ok_or_else(nothing_in_force)?;
        if found.is_empty() && id.is_some() {
            return Err(unknown(&request.grant));
        }
        Ok(found)
    }

    /// A person asks for a grant.
    pub(super) fn ask_grant(&self, text: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        let intent =
            Intent::parse(text).map_err(|error| AdminFailure::new(FailureKind::Invalid, &error, error.hint()))?;
        let (node, id) = (intent.node.clone(), intent.id);
        self.change_grants("GrantAsk", by, &node, id, |grants, policy| {
            grants.ask(&policy.approvals, intent, signature, now_ms())
        })
    }

    /// A person approves one.
    pub(super) fn approve_grant(&self, id: &str, signature: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        let (node, id) = self.find_grant(id)?;
        self.change_grants("GrantApprove", by, &node, id, |grants, policy| {
            grants.approve(&policy.approvals, id, signature, now_ms())
        })
    }

    /// `by`, the caller, takes one back.
    pub(super) fn revoke_grant(&self, id: &str, by: &str) -> Result<GrantInfo, AdminFailure> {
        let (node, id) = self.find_grant(id)?;
        self.change_grants("GrantRevoke", by, &node, id, |grants, _| grants.revoke(id, by, now_ms()))
    }

    fn find_grant(&self, id: &str) -> Result<(String, GrantId), AdminFailure> {
        let request = GrantListRequest { grant: id.to_owned(), ..GrantListRequest::default() };
        let mut found = self.grants(&request)?.into_iter();
        match found.next() {
            Some(grant) => Ok((grant.node, parse_id(&grant.grant)?)),
            None => Err(unknown(id)),
        }
    }

    /// What the log says of a grant: which one, and whose signatures it has by now.
    fn grant_facts(&self, node: &str, id: GrantId) -> Vec<Fact> {
        let signed = |grants: &BTreeMap<String, Grants>, _: &Policy| {
            let grant = grants.get(node)?.iter().find(|(known, _)| *known == id)?.1;
            let approved = grant.approvals.keys().cloned().collect::<Vec<_>>().join(", ");
            let approved = (!approved.is_empty()).then(|| Fact::text("approved_by", approved));
            let (Requester::Node(requester) | Requester::Person(requester)) = &grant.intent.requester;
            Some([Fact::text("requester", requester)].into_iter().chain(approved).collect::<Vec<_>>())
        };
        let signed = self.desk.look_at_grants(signed).flatten().unwrap_or_default();
        [Fact::text("grant", id.to_string())].into_iter().chain(signed).collect()
    }

    /// A line for each break-glass grant whose time is not over.
    pub(super) fn broken_glass(&self) -> Vec<String> {
        self.break_glass(|node, grant, standing| {
            let (id, Requester::Node(by) | Requester::Person(by)) = (grant.intent.id, &grant.intent.requester);
            format!("node {node}: break-glass grant {id}, asked by {by}, is {}", standing.id())
        })
    }

    fn change_grants(
        &self,
        action: &str,
        by: &str,
        node: &str,
        id: GrantId,
        change: impl FnOnce(&mut Grants, &Policy) -> Result<Effect, GrantError>,
    ) -> Result<GrantInfo, AdminFailure> {
        let _change = self.change()?;
        self.show_node(node)?; // says in its own words that there is none
        let name = parse_name(node)?;
        let puts = self.desk.with_grants(&name, change).ok_or_else(nothing_in_force)?.map_err(|error| {
            let kind =
                if matches!(error, GrantError::Unknown(_)) { FailureKind::NotFound } else { FailureKind::Invalid };
            AdminFailure::new(kind, &error, error.hint())
        })?;
        if !puts.is_empty() {
            // If this fails, the node is built again from the journal, and its grants with it.
            let decision = Some(self.line(action, by, self.grant_facts(node, id)));
            let commit = Commit { tenant: node.to_owned(), puts, decision };
            self.journal.commit(commit).map_err(|error| AdminFailure::new(FailureKind::Fault, &error, error.hint()))?;
        }
        let request = GrantListRequest { node: node.to_owned(), grant: id.to_string() };
        self.grants(&request)?.pop().ok_or_else(|| unknown(&request.grant))
    }
}

fn info(grant: &Grant, policy: &Policy) -> GrantInfo {
    let intent = &grant.intent;
    GrantInfo {
        grant: intent.id.to_string(),
        node: intent.node.clone(),
        standing: grant.standing(&policy.approvals, now_ms()).id().to_owned(),
        text: intent.text(),
        namespace: intent.kind.namespace().to_owned(),
        have: grant.approved_by(&policy.approvals),
        need: intent.of,
        approved_by: grant.approvals.keys().cloned().collect(),
        uses_left: grant.uses_left(),
        taken_msat: grant.taken_msat(),
        claimed: intent.claimed().map(FactId::id).map(str::to_owned).collect(),
        asked_ms: grant.asked_ms,
        revoked_by: grant.revoked.as_ref().map(|revoked| revoked.by.clone()).unwrap_or_default(),
    }
}

fn parse_id(text: &str) -> Result<GrantId, AdminFailure> {
    GrantId::parse(text).ok_or_else(|| {
        let what = format!("'{}' is not the id of a grant", text.escape_debug());
        AdminFailure::new(FailureKind::Invalid, what, "It has 32 digits of lower-case hex: `claviger grant list`.")
    })
}

fn unknown(id: &str) -> AdminFailure {
    let what = format!("there is no grant {id}");
    AdminFailure::new(FailureKind::NotFound, what, "See `claviger grant list`; what is over is forgotten.")
}

fn nothing_in_force() -> AdminFailure {
    AdminFailure::new(FailureKind::NotFound, "no policy is in force", "Apply one: `claviger policy apply DIR`.")
}
