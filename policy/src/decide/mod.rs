//! The one decision: rules, budgets and grants together. First everything is looked up, then judged from that alone, so
//! that a recorded decision can be made again (replay), or by other rules (simulation).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, ScriptBuf};
use serde::{Deserialize, Serialize};

use crate::actions::Action;
use crate::budget::{Budget, Budgets, ReservationKey, Room, Scope, Standing};
use crate::engine::{Evaluation, Memberships, Rules};
use crate::facts::FactId;
use crate::grant::{Approvals, GrantId, Grants};
use crate::limits::Limits;
use crate::lists::Lists;
use crate::request::Request;
use crate::value::Value;
use crate::verdict::{BudgetDenial, BudgetRoom, Denial, Fault, Permit, RuleId, Verdict};

/// How many rules are named that would have permitted.
const MAX_CLOSEST: usize = 3;

/// A policy in force. Shared, and replaced as a whole.
pub struct Policy {
    /// What is permitted and forbidden.
    pub rules: Rules,
    /// How much within which time.
    pub budgets: Vec<Budget>,
    /// Who is known.
    pub lists: Lists,
    /// Who may lift what.
    pub approvals: Approvals,
    /// Numbers of the channel rules beneath.
    pub limits: Limits,
    /// SHA-256 of the bundle: the journal names it with every verdict.
    pub hash: [u8; 32],
}

impl Policy {
    /// Whether a rule or a budget looks at `fact` when `node` asks for `action`.
    pub fn looks_at(&self, fact: FactId, action: Action, node: &str) -> bool {
        let counts = |budget: &Budget| budget.fact == Some(fact) && budget.actions.contains(&action);
        self.rules.look_at(fact, action, node) || self.budgets.iter().any(counts)
    }
}

/// What was spent and approved before.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Of all nodes.
    pub budgets: &'a Budgets,
    /// Of the request's node.
    pub grants: &'a Grants,
}

/// Everything that a verdict depends on beside the policy and the request. The journal keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// On which lists the parties are.
    #[serde(default)]
    pub memberships: Memberships,
    /// What the budgets that apply say, in the policy's order.
    #[serde(default)]
    pub standings: Vec<Standing>,
    /// The approval groups whose grants cover the request, each with the grant.
    #[serde(default)]
    pub approved: BTreeMap<String, GrantId>,
}

/// What lists and rules say to a request: the part of a decision that takes time, and that no spending changes.
#[derive(Clone, Debug)]
pub struct Looked {
    memberships: Memberships,
    evaluation: Result<Evaluation, Fault>,
}

/// Asks lists and rules.
pub fn look(policy: &Policy, request: &Request, now_ms: u64) -> Looked {
    let memberships = memberships(&policy.lists, request, now_ms);
    let evaluation = policy.rules.evaluate(request, &memberships);
    Looked { memberships, evaluation }
}

/// Decides: [`look`], then [`decide_looked`].
pub fn decide(
    policy: &Policy,
    state: State<'_>,
    request: &Request,
    key: Option<&ReservationKey>,
    now_ms: u64,
) -> (Inputs, Verdict) {
    decide_looked(policy, look(policy, request, now_ms), state, request, key, now_ms)
}

/// Decides what was [`look`]ed at under the same policy, by what was spent and approved. `key` is what the request is known
/// by if it comes again (P5).
pub fn decide_looked(
    policy: &Policy,
    looked: Looked,
    state: State<'_>,
    request: &Request,
    key: Option<&ReservationKey>,
    now_ms: u64,
) -> (Inputs, Verdict) {
    let inputs = beside(policy, looked.memberships, state, request, key, now_ms);
    let verdict = conclude(policy, request, &inputs, looked.evaluation);
    (inputs, verdict)
}

/// Looks up what the verdict depends on. Without a `key` nothing is reserved or approved for the request yet.
pub fn inputs(
    policy: &Policy,
    state: State<'_>,
    request: &Request,
    key: Option<&ReservationKey>,
    now_ms: u64,
) -> Inputs {
    beside(policy, memberships(&policy.lists, request, now_ms), state, request, key, now_ms)
}

/// The inputs with these `memberships`.
fn beside(
    policy: &Policy,
    memberships: Memberships,
    state: State<'_>,
    request: &Request,
    key: Option<&ReservationKey>,
    now_ms: u64,
) -> Inputs {
    let groups = policy.approvals.groups().map(|(name, _)| name);
    let grant = |group: &str, key| state.grants.find(&policy.approvals, request, group, key, now_ms);
    let approved = groups.filter_map(|group| Some((group.to_owned(), grant(group, key?)?))).collect();
    Inputs { memberships, standings: state.budgets.check(&policy.budgets, request, key, now_ms), approved }
}

/// The verdict on `request`, from `inputs` alone.
pub fn judge(policy: &Policy, request: &Request, inputs: &Inputs) -> Verdict {
    conclude(policy, request, inputs, policy.rules.evaluate(request, &inputs.memberships))
}

fn conclude(policy: &Policy, request: &Request, inputs: &Inputs, evaluation: Result<Evaluation, Fault>) -> Verdict {
    let evaluation = match evaluation {
        Ok(evaluation) => evaluation,
        Err(fault) => return Verdict::Fault(fault),
    };
    let forbidden = evaluation.forbids.iter().map(|rule| forbidden(policy, request, rule));
    let unpermitted = evaluation.permits.is_empty();
    let unpermitted =
        unpermitted.then(|| Denial::NothingPermits { closest: policy.rules.closest(request, MAX_CLOSEST) });
    let exceeded = inputs.standings.iter().filter(|standing| standing.refuses());
    let exceeded = exceeded.map(|standing| Denial::Budget(exceeding(policy, standing)));

    let mut lifted = BTreeSet::new();
    let mut denials = Vec::new();
    for denial in forbidden.chain(unpermitted).chain(exceeded) {
        match denial.group().filter(|group| inputs.approved.contains_key(*group)) {
            Some(group) => drop(lifted.insert(group.to_owned())),
            None => denials.push(denial),
        }
    }
    if denials.is_empty() {
        return Verdict::Permit(Permit {
            determining: evaluation.permits,
            budgets: inputs.standings.iter().map(|standing| standing.budget.clone()).collect(),
            groups: lifted.into_iter().collect(),
        });
    }
    match denials.iter().map(Denial::group).collect::<Option<BTreeSet<_>>>() {
        // All of them are asked for: a ticket that leaves one out would not let the retry pass.
        Some(missing) => {
            let groups = missing.into_iter().map(str::to_owned).collect();
            Verdict::NeedsApproval { groups, denials }
        }
        None => Verdict::Deny(denials),
    }
}

fn forbidden(policy: &Policy, request: &Request, rule: &RuleId) -> Denial {
    let known = policy.rules.rule(rule);
    Denial::Forbidden {
        rule: rule.clone(),
        unless_approved: known.and_then(|known| known.unless_approved()).map(str::to_owned),
        compared: known.map_or_else(Vec::new, |known| known.compare(request)),
    }
}

/// What cannot be counted no approval lifts.
fn exceeding(policy: &Policy, standing: &Standing) -> BudgetDenial {
    let budget = policy.budgets.iter().find(|budget| budget.name == standing.budget);
    let group = budget.filter(|_| standing.is_countable()).and_then(|budget| budget.unless_approved.clone());
    let scope = standing.scope.iter().map(|(scope, value)| format!("{}={value}", scope.id())).collect::<Vec<_>>();
    let scope = if scope.is_empty() { Scope::Fleet.id().to_owned() } else { scope.join(", ") };
    let room = match standing.room {
        Room::Fits | Room::Exceeded => BudgetRoom::Exceeded {
            fact: standing.fact.map_or("count", FactId::id).to_owned(),
            asked: standing.asked,
            left: standing.left,
            limit: standing.limit,
            fits_at_ms: standing.fits_at_ms,
        },
        Room::FactMissing(fact) => BudgetRoom::FactMissing(fact),
        Room::TooManyWindows | Room::TooManyReservations => BudgetRoom::TooManyKeys,
    };
    BudgetDenial { budget: standing.budget.clone(), scope, unless_approved: group, room }
}

fn memberships(lists: &Lists, request: &Request, now_ms: u64) -> Memberships {
    fn names<'a>(found: impl Iterator<Item = crate::lists::Listed<'a>>) -> BTreeSet<String> {
        found.map(|listed| listed.list.to_owned()).collect()
    }
    let payee = request.text(FactId::Payee).map(|payee| names(lists.payee(payee, now_ms)));
    let peer = request.text(FactId::Peer).map(|peer| names(lists.peer(peer, now_ms)));
    let destinations = match request.get(FactId::Destinations) {
        Some(Value::Texts(destinations)) => &destinations[..],
        _ => &[],
    };
    let found = destinations.iter().map(|text| match script(text) {
        Some(script) => names(lists.destination(&script, now_ms)),
        None => BTreeSet::new(),
    });
    let found = found.collect::<Vec<_>>();
    let unknown_destinations = found.iter().filter(|lists| lists.is_empty()).count() as u64;
    let every = found.into_iter().reduce(|every, lists| every.intersection(&lists).cloned().collect());
    let sorted = |lists: Option<BTreeSet<String>>| lists.into_iter().flatten().collect();
    Memberships {
        destination_lists: sorted(every),
        unknown_destinations,
        payee_lists: sorted(payee),
        peer_lists: sorted(peer),
    }
}

/// The output script of a destination: an address of any network, or `script:HEX`. `None` is on no list.
fn script(destination: &str) -> Option<ScriptBuf> {
    match destination.strip_prefix("script:") {
        Some(hex) => ScriptBuf::from_hex(hex).ok(),
        None => Address::<NetworkUnchecked>::from_str(destination).ok().map(|it| it.assume_checked().script_pubkey()),
    }
}
