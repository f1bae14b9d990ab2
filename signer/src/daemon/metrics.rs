//! What `claviger metrics` tells: counters of the journal, and the state that `status` describes, as numbers.

use std::collections::BTreeMap;

use claviger_policy::grant::{Grant, GrantKind, Standing};
use claviger_proto::v1::{Metric as MetricInfo, Sample, StatusReply};

use super::Unsealed;
use super::policy::now_ms;
use crate::lightning::status::{NodeStatus, Phase};
use crate::metrics::{Metric, info};
use crate::names::{NodeKind, NodeName};

/// All metrics of a signer in the state `status`, in the order of their table; without `unsealed`, the few that a sealed one
/// has.
pub(super) fn metrics(status: &StatusReply, unsealed: Option<&Unsealed>) -> Vec<MetricInfo> {
    let all = Metric::ALL.iter().map(|metric| (*metric, samples(*metric, status, unsealed)));
    all.filter_map(|(metric, samples)| samples.map(|samples| info(metric, samples))).collect()
}

fn samples(metric: Metric, status: &StatusReply, unsealed: Option<&Unsealed>) -> Option<Vec<Sample>> {
    Some(match metric {
        Metric::Unsealed => one(!status.sealed),
        Metric::Uptime => number(status.uptime_s),
        Metric::Warnings => number(status.warnings.len() as u64),
        Metric::Decisions | Metric::PolicyVerdicts => unsealed?.journal.counters().samples(metric),
        Metric::NodeUp => nodes(unsealed?, |node| u64::from(node.phase == Phase::Up)),
        Metric::NodeFrozen => nodes(unsealed?, |node| u64::from(node.orders.frozen.is_some())),
        Metric::ChannelsFrozen => nodes(unsealed?, |node| node.orders.frozen_channels as u64),
        Metric::LettersWaiting => {
            let (unsealed, courier) = (unsealed?, unsealed?.courier()?);
            let accounts = unsealed.registry.list().into_iter().filter(|node| node.kind == NodeKind::Lightspark);
            accounts.map(|node| sample([node.name.as_str()], courier.waiting(&node.name) as u64)).collect()
        }
        Metric::UnprovenStates => {
            let nodes = unsealed?.nodes.status();
            let watched = nodes.iter().filter_map(|node| Some((node.name.as_str(), node.unproven_states?)));
            watched.map(|(name, states)| sample([name], states)).collect()
        }
        Metric::BreakGlass => {
            let mut counts = BTreeMap::<_, u64>::new();
            for (node, standing) in unsealed?.break_glass(|node, _, standing| (node.to_owned(), standing)) {
                *counts.entry((node, standing.id())).or_default() += 1;
            }
            counts.into_iter().map(|((node, standing), count)| sample([&node, standing], count)).collect()
        }
        Metric::BudgetLeft => {
            let budgets = status.policy.as_ref()?.budgets.iter().filter(|budget| is_public(&budget.scope));
            budgets.map(|budget| sample([&budget.budget, &budget.scope, &budget.unit], budget.left)).collect()
        }
        Metric::ShadowDiffers => {
            let shadow = status.policy.as_ref()?.shadow.as_ref()?;
            vec![sample(["refuse"], shadow.newly_refused), sample(["permit"], shadow.newly_permitted)]
        }
        Metric::ChainHeight => number(u64::from(status.chain.as_ref()?.height)),
        Metric::ChainStale => one(status.chain.as_ref()?.state == "stale"),
        Metric::ChainLag => number(u64::from(status.chain.as_ref()?.lag_blocks)),
        Metric::JournalWritable => one(status.journal.as_ref()?.state == "ok"),
    })
}

impl Unsealed {
    /// `about` of each break-glass grant whose time is not over, whatever became of it: nobody breaks glass unseen.
    pub(super) fn break_glass<R>(&self, about: impl Fn(&str, &Grant, Standing) -> R) -> Vec<R> {
        let found = self.desk.look_at_grants(|grants, policy| {
            let all = grants.iter().flat_map(|(node, grants)| grants.iter().map(move |(_, grant)| (node, grant)));
            let broken = all.filter(|(_, grant)| grant.intent.kind == GrantKind::BreakGlass);
            let standing = broken.map(|(node, grant)| (node, grant, grant.standing(&policy.approvals, now_ms())));
            let live = standing.filter(|(.., standing)| *standing != Standing::Ended);
            live.map(|(node, grant, standing)| about(node, grant, standing)).collect()
        });
        found.unwrap_or_default()
    }
}

fn nodes(unsealed: &Unsealed, value: impl Fn(&NodeStatus) -> u64) -> Vec<Sample> {
    let nodes = unsealed.nodes.status();
    nodes.iter().map(|node| sample([node.name.as_str()], value(node))).collect()
}

/// Whether a budget's window is the fleet's or one node's: what payees, peers and channels get is nobody else's business.
fn is_public(scope: &str) -> bool {
    scope.is_empty() || scope.strip_prefix("node ").is_some_and(|name| NodeName::new(name).is_ok())
}

fn one(yes: bool) -> Vec<Sample> {
    number(u64::from(yes))
}

fn number(value: u64) -> Vec<Sample> {
    vec![sample::<0>([], value)]
}

fn sample<const N: usize>(labels: [&str; N], value: u64) -> Sample {
    Sample { labels: labels.map(str::to_owned).to_vec(), value: value as f64 }
}
