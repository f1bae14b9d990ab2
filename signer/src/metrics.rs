//! What is counted and measured, in one table. `docs/metrics.md` and `claviger metrics` are written from here.
//!
//! Counters live in memory and begin at 0 when the signer is unsealed, as Prometheus expects of a process that starts again.
//! Their labels are node names and ids of tables, never amounts, destinations or payment hashes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use claviger_proto::v1::{Metric as MetricInfo, Sample};

use crate::journal::{Decision, Verdict};

/// Series of one counter at most: a node that makes up messages gets no memory for it.
const MAX_SERIES: usize = 10_000;
/// What is counted beyond them.
const OTHER: &str = "other";

/// Declares the table: variant, name, type, labels, meaning.
macro_rules! metrics {
    ($( $variant:ident $name:literal $kind:ident [$($label:literal)*] $meaning:literal; )*) => {
        /// Something that is counted or measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric { $( #[doc = $meaning] $variant, )* }

        impl Metric {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Metric] = &[ $( Metric::$variant, )* ];

            /// Its name in Prometheus. Forever.
            pub const fn name(self) -> &'static str { match self { $( Metric::$variant => $name, )* } }

            /// `counter` or `gauge`.
            pub const fn kind(self) -> &'static str { match self { $( Metric::$variant => stringify!($kind), )* } }

            /// The names of its labels.
            pub const fn labels(self) -> &'static [&'static str] { match self { $( Metric::$variant => &[$($label),*], )* } }

            /// What it tells.
            pub const fn meaning(self) -> &'static str { match self { $( Metric::$variant => $meaning, )* } }
        }
    };
}

metrics! {
    Unsealed "claviger_unsealed" gauge []
        "1 while the signer is unsealed. Sealed, it has no other metric than this, uptime and warnings.";
    Uptime "claviger_uptime_seconds" gauge []
        "Since the daemon started.";
    Warnings "claviger_warnings" gauge []
        "What `claviger status` warns of: 0 when all is well.";
    Decisions "claviger_decisions_total" counter ["node" "action" "outcome"]
        "Lines of the journal. `outcome` is `answered`, or the id of the [reason](reasons.md) for a refusal. Orders of operators have no outcome but `answered`.";
    PolicyVerdicts "claviger_policy_verdicts_total" counter ["node" "action" "outcome"]
        "What the spending policy was asked, by [action](policy/facts.md): `permitted`, or the id of the [reason](policy/reasons.md).";
    NodeUp "claviger_node_up" gauge ["node"]
        "1 while the node is answered, 0 while it is stopped or being rebuilt.";
    NodeFrozen "claviger_node_frozen" gauge ["node"]
        "1 while the whole node is frozen.";
    ChannelsFrozen "claviger_channels_frozen" gauge ["node"]
        "Channels that are frozen by themselves.";
    LettersWaiting "claviger_lightspark_letters_waiting" gauge ["node"]
        "Answers to webhooks that Lightspark's API has not taken yet, of an account that is called back.";
    UnprovenStates "claviger_unproven_states" gauge ["node"]
        "Of each lnd with a watchtower: states of its channels that were replaced, and for which it has asked for no penalty yet ([lnd](lnd.md#revoked-states)).";
    BreakGlass "claviger_break_glass_grants" gauge ["node" "standing"]
        "Break-glass grants whose time is not over, however they stand. Wake somebody if it is above 0.";
    BudgetLeft "claviger_budget_left" gauge ["budget" "scope" "unit"]
        "What is left of budgets of the fleet and of nodes, of those that `claviger policy status` shows first, in msat or a count.";
    ShadowDiffers "claviger_shadow_differences" gauge ["would"]
        "Decisions that the bundle in the shadow makes otherwise: `refuse` what was permitted, `permit` what was refused.";
    ChainHeight "claviger_chain_height" gauge []
        "The tip that the signer has seen.";
    ChainStale "claviger_chain_stale" gauge []
        "1 while the view of the chain is too old to sign by.";
    ChainLag "claviger_chain_lag_blocks" gauge []
        "Blocks by which the node that is farthest behind is behind.";
    JournalWritable "claviger_journal_writable" gauge []
        "0 while the journal cannot be written, and nothing is signed.";
}

/// What one line of the journal counts for.
#[derive(Debug)]
pub struct Counted(Vec<(Metric, [String; 3])>);

impl Counted {
    /// Of the line `decision` of `tenant`.
    pub fn of(tenant: &str, decision: &Decision) -> Self {
        let outcome = match &decision.verdict {
            Verdict::Permit => "answered",
            Verdict::Deny { reason, .. } => reason,
            Verdict::Fault { .. } => "fault",
        };
        let line = (Metric::Decisions, [tenant, &decision.action, outcome].map(str::to_owned));
        let asked = decision.policy.iter().map(|record| {
            let outcome = record.verdict.reason().map_or("permitted", |reason| reason.id());
            (Metric::PolicyVerdicts, [tenant, record.request.action.id(), outcome].map(str::to_owned))
        });
        Self([line].into_iter().chain(asked).collect())
    }
}

/// What was counted since the signer was unsealed.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<Metric, BTreeMap<[String; 3], u64>>>);

impl Counters {
    /// Counts it.
    pub fn add(&self, counted: Option<Counted>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (metric, mut labels) in counted.into_iter().flat_map(|counted| counted.0) {
            let series = all.entry(metric).or_default();
            if series.len() >= MAX_SERIES && !series.contains_key(&labels) {
                labels = [OTHER; 3].map(str::to_owned);
            }
            *series.entry(labels).or_default() += 1;
        }
    }

    /// What was counted of `metric`: values of its labels, and how often.
    pub fn samples(&self, metric: Metric) -> Vec<Sample> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.get(&metric).into_iter().flatten();
        series.map(|(labels, count)| Sample { labels: labels.to_vec(), value: *count as f64 }).collect()
    }
}

/// `metric` with its samples, as the administration socket carries it.
pub fn info(metric: Metric, samples: Vec<Sample>) -> MetricInfo {
    let labels = metric.labels().iter().map(ToString::to_string).collect();
    let (name, kind, help) = (metric.name().to_owned(), metric.kind().to_owned(), metric.meaning().to_owned());
    MetricInfo { name, kind, help, labels, samples }
}

/// The text format of Prometheus, version 0.0.4.
pub fn text(metrics: &[MetricInfo]) -> String {
    let mut text = String::new();
    for MetricInfo { name, kind, help, labels, samples } in metrics {
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", help.replace('\\', "\\\\"));
        for sample in samples {
            let pairs =
                labels.iter().zip(&sample.labels).map(|(label, value)| format!("{label}=\"{}\"", escape(value)));
            let pairs = pairs.collect::<Vec<_>>().join(",");
            let pairs = if pairs.is_empty() { pairs } else { format!("{{{pairs}}}") };
            let _ = writeln!(text, "{name}{pairs} {}", sample.value);
        }
    }
    text
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::Reason;

    fn decision(action: &str, verdict: Verdict) -> Decision {
        Decision { verdict, ..Decision::unasked("1".to_owned(), 0, action) }
    }

    fn count(counters: &Counters, tenant: &str, action: &str, verdict: Verdict) {
        counters.add(Some(Counted::of(tenant, &decision(action, verdict))));
    }

    #[test]
    fn what_is_counted_is_written_as_prometheus_reads_it() {
        let counters = Counters::default();
        count(&counters, "alice", "Ecdh", Verdict::Permit);
        count(&counters, "alice", "Ecdh", Verdict::Permit);
        count(&counters, "bob", "Ecdh", Verdict::deny(Reason::Frozen, "the node was frozen"));
        let decisions = info(Metric::Decisions, counters.samples(Metric::Decisions));
        let height = info(Metric::ChainHeight, vec![Sample { labels: Vec::new(), value: 840_000.0 }]);
        let written = text(&[decisions, height]);
        let lines: Vec<_> = written.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE claviger_decisions_total counter",
                "claviger_decisions_total{node=\"alice\",action=\"Ecdh\",outcome=\"answered\"} 2",
                "claviger_decisions_total{node=\"bob\",action=\"Ecdh\",outcome=\"frozen\"} 1",
                "# TYPE claviger_chain_height gauge",
                "claviger_chain_height 840000",
            ]
        );
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn a_hostile_node_that_makes_up_messages_fills_no_memory_and_an_honest_one_is_still_counted() {
        let counters = Counters::default();
        count(&counters, "alice", "Ecdh", Verdict::Permit);
        for number in 0..2 * MAX_SERIES {
            count(&counters, "mallory", &format!("message {number}"), Verdict::Permit);
        }
        count(&counters, "alice", "Ecdh", Verdict::Permit);
        let samples = counters.samples(Metric::Decisions);
        assert_eq!(samples.len(), MAX_SERIES + 1);
        let of = |node: &str| {
            samples.iter().filter(|sample| sample.labels[0] == node).map(|sample| sample.value).sum::<f64>()
        };
        assert_eq!((of("alice"), of(OTHER)), (2.0, (MAX_SERIES + 1) as f64));
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(
                name.starts_with("claviger_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
            assert_eq!(name.ends_with("_total"), metric.kind() == "counter", "{name}");
        }
    }
}
