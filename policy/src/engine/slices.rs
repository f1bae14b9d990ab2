//! Which rules can concern an action and a node, found once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint};

use super::Compiled;
use super::looks::Facts;
use crate::actions::{Action, Group};

/// The rules for one action.
pub(super) struct Slice {
    /// For every node.
    general: Arc<Set>,
    /// For one node only.
    nodes: BTreeMap<String, Arc<Set>>,
}

/// Rules that are evaluated together.
#[derive(Default)]
pub(super) struct Set {
    /// All of them.
    pub(super) all: PolicySet,
    /// Those that permit.
    pub(super) permits: PolicySet,
    /// The same, by their place in the rules.
    pub(super) permit_rules: Vec<usize>,
    /// The facts that any of them reads.
    pub(super) reads: Facts,
}

impl Slice {
    /// The sets that can concern `node`; together they are what one large set would be.
    pub(super) fn sets(&self, node: &str) -> impl Iterator<Item = &Set> + Clone {
        [Some(&self.general), self.nodes.get(node)].into_iter().flatten().map(Arc::as_ref)
    }
}

/// The slices of all actions, in the order of [`Action::ALL`].
pub(super) fn slices(rules: &[Compiled]) -> Vec<Slice> {
    let mut sets = HashMap::new();
    let mut set = |members: Vec<usize>| {
        sets.entry(members).or_insert_with_key(|members| Arc::new(Set::new(rules, members))).clone()
    };
    let slice = |action: &Action| {
        let mut general = Vec::new();
        let mut nodes = BTreeMap::<_, Vec<usize>>::new();
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| concerns(&rule.policy, *action)) {
            match node(&rule.policy) {
                Some(node) => nodes.entry(node).or_default().push(at),
                None => general.push(at),
            }
        }
        Slice { general: set(general), nodes: nodes.into_iter().map(|(node, rules)| (node, set(rules))).collect() }
    };
    Action::ALL.iter().map(slice).collect()
}

/// The node that the rule's scope names; `None` if it is for all.
pub(super) fn node(policy: &Policy) -> Option<String> {
    match policy.principal_constraint() {
        PrincipalConstraint::Eq(node) | PrincipalConstraint::In(node) | PrincipalConstraint::IsIn(_, node) => {
            Some(node.id().unescaped().to_owned())
        }
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
    }
}

fn concerns(policy: &Policy, action: Action) -> bool {
    let named = match policy.action_constraint() {
        ActionConstraint::Any => return true,
        ActionConstraint::Eq(named) => vec![named],
        ActionConstraint::In(named) => named,
    };
    let within = named.iter().flat_map(actions).collect::<BTreeSet<_>>();
    within.contains(&action)
}

fn actions(named: &EntityUid) -> Vec<Action> {
    let id = named.id().unescaped();
    match Group::by_id(id) {
        Some(group) => group.actions().collect(),
        None => Action::by_id(id).into_iter().collect(),
    }
}

impl Set {
    fn new(rules: &[Compiled], members: &[usize]) -> Self {
        let mut set = Self::default();
        for at in members {
            let rule = &rules[*at];
            set.reads = set.reads.union(rule.looks.reads);
            let add = |policies: &mut PolicySet| {
                policies.add(rule.policy.clone()).expect("ids are unique, and rules no templates")
            };
            add(&mut set.all);
            if !rule.forbid {
                add(&mut set.permits);
                set.permit_rules.push(*at);
            }
        }
        set
    }
}
