//! Cedar over facts: order-free, any `forbid` wins, at least one `permit` is needed, and any error is a fault (P4).
//!
//! Rules are compiled once, checked strictly against the schema of the tables, and shared. An evaluation looks only at
//! rules that can concern the action and the node: the others' scopes could not match.

mod bounds;
mod compile;
mod fault;
mod looks;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Entities, EntityId, EntityTypeName, EntityUid, PolicySet, RestrictedExpression,
};
use serde::{Deserialize, Serialize};

pub use self::bounds::{MAX_DEPTH, MAX_OPERATORS, MAX_RULE_BYTES, MAX_RULES, MAX_TEXT};
pub use self::fault::{RuleError, RuleFault};
use self::looks::{Facts, Looks};
use self::slices::Slice;
use crate::actions::Action;
use crate::facts::FactId;
use crate::place::Place;
use crate::request::Request;
use crate::value::{MAX_MONEY_MSAT, Value};
use crate::verdict::{Closest, Compared, Fault, RuleId};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A file of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for errors.
    pub file: String,
    /// Its text, in Cedar.
    pub text: String,
}

/// Compiled rules. Without state: the same request and memberships give the same evaluation.
pub struct Rules {
    rules: Vec<Compiled>,
    by_id: HashMap<Arc<str>, usize>,
    /// By [`crate::actions::Action`].
    slices: Vec<Slice>,
    actions: Vec<EntityUid>,
    node: EntityTypeName,
    fleet: EntityUid,
    entities: Entities,
    authorizer: Authorizer,
}

struct Compiled {
    id: RuleId,
    file: Arc<str>,
    place: Place,
    forbid: bool,
    unless_approved: Option<String>,
    looks: Looks,
    policy: cedar_policy::Policy,
}

/// A rule, for tools that read it.
#[derive(Clone, Copy)]
pub struct Rule<'a>(&'a Compiled);

/// On which allow-lists the parties of a request are, as `decide` looks them up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memberships {
    /// Lists that hold every destination.
    pub destination_lists: Vec<String>,
    /// Destinations that no list holds.
    pub unknown_destinations: u64,
    /// Lists that hold the payee.
    pub payee_lists: Vec<String>,
    /// Lists that hold the peer.
    pub peer_lists: Vec<String>,
}

/// Which rules apply, sorted by id. Permitted if some permit and none forbids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// The `permit` rules that apply.
    pub permits: Vec<RuleId>,
    /// The `forbid` rules that apply.
    pub forbids: Vec<RuleId>,
}

impl Rules {
    /// Parses, checks and slices the rules of all files; or says all that is wrong with them.
    pub fn compile(sources: &[Source]) -> Result<Self, Vec<RuleError>> {
        compile::compile(sources)
    }

    /// Which rules apply to the request. An error in any rule, or a request that is not what the table says, is a fault.
    pub fn evaluate(&self, request: &Request, memberships: &Memberships) -> Result<Evaluation, Fault> {
        let fault = |message: String| Fault { rule: None, message };
        request.check().map_err(|error| fault(error.to_string()))?;
        let slice = &self.slices[request.action as usize];
        let sets = slice.sets(&request.node);
        let reads = sets.clone().fold(Facts::default(), |reads, set| reads.union(set.reads));
        let context = context(request, memberships, reads).map_err(|error| fault(error.to_string()))?;
        let node = EntityUid::from_type_name_and_id(self.node.clone(), EntityId::new(&request.node));
        let action = self.actions[request.action as usize].clone();
        let asked = cedar_policy::Request::new(node, action, self.fleet.clone(), context, None)
            .map_err(|error| fault(error.to_string()))?;

        let mut evaluation = Evaluation::default();
        for set in sets.clone() {
            self.authorize(&asked, &set.all, &mut evaluation)?;
        }
        if !evaluation.forbids.is_empty() {
            // Cedar tells only the forbids then; a grant may lift them, and then the permits decide.
            for set in sets {
                self.authorize(&asked, &set.permits, &mut evaluation)?;
            }
        }
        for ids in [&mut evaluation.permits, &mut evaluation.forbids] {
            ids.sort();
            ids.dedup();
        }
        Ok(evaluation)
    }

    /// Whether a rule that can concern `action` of `node` looks at `fact`.
    pub(crate) fn look_at(&self, fact: FactId, action: Action, node: &str) -> bool {
        self.slices[action as usize].sets(node).any(|set| set.reads.contains(fact))
    }

    /// All rules, in the order of their files.
    pub fn iter(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.iter().map(Rule)
    }

    /// The rule with this id.
    pub fn rule(&self, id: &RuleId) -> Option<Rule<'_>> {
        self.by_id.get(&id.0).map(|at| Rule(&self.rules[*at]))
    }

    /// The `permit` rules for the request's action and node, and what they looked at; those with the fewest unmet
    /// comparisons first. At most `most`.
    pub(crate) fn closest(&self, request: &Request, most: usize) -> Vec<Closest> {
        let permits = self.slices[request.action as usize].sets(&request.node).flat_map(|set| &set.permit_rules);
        let mut closest = permits
            .map(|at| &self.rules[*at])
            .map(|rule| Closest { rule: rule.id.clone(), compared: rule.looks.compare(request) })
            .collect::<Vec<_>>();
        closest.sort_by_cached_key(|rule| {
            (rule.compared.iter().filter(|compared| compared.passes.is_some()).count(), rule.rule.clone())
        });
        closest.truncate(most);
        closest
    }

    fn authorize(
        &self,
        asked: &cedar_policy::Request,
        policies: &PolicySet,
        into: &mut Evaluation,
    ) -> Result<(), Fault> {
        let response = self.authorizer.is_authorized(asked, policies, &self.entities);
        let error = response.diagnostics().errors().map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => (error.policy_id(), error),
        });
        if let Some((id, error)) = error.min_by(|left, right| left.0.cmp(right.0)) {
            let rule: &str = id.as_ref();
            return Err(Fault { rule: Some(RuleId::from(rule)), message: error.to_string() });
        }
        let ids = match response.decision() {
            cedar_policy::Decision::Allow => &mut into.permits,
            cedar_policy::Decision::Deny => &mut into.forbids,
        };
        let known = response.diagnostics().reason().filter_map(|id| self.by_id.get::<str>(id.as_ref()));
        ids.extend(known.map(|at| self.rules[*at].id.clone()));
        Ok(())
    }
}

impl<'a> Rule<'a> {
    /// Its `@id`.
    pub fn id(self) -> &'a RuleId {
        &self.0.id
    }

    /// The file it is in.
    pub fn file(self) -> &'a str {
        &self.0.file
    }

    /// Where in the file.
    pub fn place(self) -> Place {
        self.0.place
    }

    /// Whether it forbids.
    pub fn forbids(self) -> bool {
        self.0.forbid
    }

    /// The approval group that may lift it.
    pub fn unless_approved(self) -> Option<&'a str> {
        self.0.unless_approved.as_deref()
    }

    /// The facts it looks at, with what would have passed.
    pub fn compare(self, request: &Request) -> Vec<Compared> {
        self.0.looks.compare(request)
    }

    /// The node that it is for; `None` for all.
    pub fn node(self) -> Option<String> {
        slices::node(&self.0.policy)
    }

    /// Its text, as it was written.
    pub fn cedar(self) -> String {
        self.0.policy.to_cedar().unwrap_or_default()
    }

    /// Cedar's JSON form; `None` if Cedar has none.
    pub fn json(self) -> Option<serde_json::Value> {
        self.0.policy.to_json().ok()
    }
}

/// The facts in `reads`, as Cedar sees them. What no rule reads is left out: no rule can tell.
fn context(
    request: &Request,
    memberships: &Memberships,
    reads: Facts,
) -> Result<Context, Box<cedar_policy::ContextCreationError>> {
    let read = |fact: &FactId| reads.contains(*fact);
    let carried = request.facts().iter().filter(|(fact, _)| read(fact)).map(|(fact, value)| (*fact, expression(value)));
    let derived = FactId::of(request.action).iter().copied().filter(|fact| fact.derived() && read(fact));
    let derived = derived.filter_map(|fact| derive(fact, request, memberships).map(|value| (fact, value)));
    let pairs = carried.chain(derived).map(|(fact, value)| (fact.id().to_owned(), value));
    Context::from_pairs(pairs).map_err(Box::new)
}

fn derive(fact: FactId, request: &Request, memberships: &Memberships) -> Option<RestrictedExpression> {
    let has = |base: FactId| request.get(base).is_some();
    match fact {
        FactId::HourUtc => Some(number(request.time_ms % DAY_MS / HOUR_MS)),
        // 1 January 1970 was a Thursday.
        FactId::WeekdayUtc => Some(number((request.time_ms / DAY_MS + 3) % 7 + 1)),
        FactId::DestinationLists => has(FactId::Destinations).then(|| texts(&memberships.destination_lists)),
        FactId::UnknownDestinations => has(FactId::Destinations).then(|| number(memberships.unknown_destinations)),
        FactId::PayeeLists => has(FactId::Payee).then(|| texts(&memberships.payee_lists)),
        FactId::PeerLists => has(FactId::Peer).then(|| texts(&memberships.peer_lists)),
        _ => None,
    }
}

fn expression(value: &Value) -> RestrictedExpression {
    match value {
        Value::Number(value) => number(*value),
        Value::Flag(flag) => RestrictedExpression::new_bool(*flag),
        Value::Text(text) => RestrictedExpression::new_string(text.clone()),
        Value::Texts(values) => texts(values),
    }
}

fn number(value: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(value.min(MAX_MONEY_MSAT)).unwrap_or(i64::MAX))
}

fn texts(values: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().cloned().map(RestrictedExpression::new_string))
}
