//! `claviger explain`.

use std::path::Path;

use clap::Args;
use claviger_proto::v1::{DecisionRecord, ExplainRequest, Fact};

use super::{CliError, Output, admin, time};

/// Which decision.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The request id of a refusal, a log line or a journal line.
    #[arg(value_name = "REQUEST_ID")]
    request: String,
}

/// Prints one decision with the facts compared and the next step.
pub(super) fn explain(data_dir: &Path, args: &ExplainArgs, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    let request = ExplainRequest { request: args.request.clone() };
    let decision = daemon.call(async |client| client.explain(request).await)?;
    output.result(&json(&decision), || text(&decision));
    Ok(())
}

/// The decision, with the policy's part as a value of its own.
fn json(decision: &DecisionRecord) -> serde_json::Value {
    let mut value = serde_json::to_value(decision).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("policy_json");
        let policy = serde_json::from_str(&decision.policy_json);
        fields.insert("policy".to_owned(), policy.unwrap_or(serde_json::Value::Null));
    }
    value
}

/// What was asked, by whom, what came of it, what was compared, what would have passed, what to do.
fn text(decision: &DecisionRecord) -> String {
    let channel = if decision.channel.is_empty() { String::new() } else { format!(" on channel {}", decision.channel) };
    let asked = format!("{} by node {}{channel}, {}", decision.action, decision.node, time::date_time(decision.at_ms));
    let mut lines = vec![asked];
    let mut say = |name: &str, what: &str| {
        if !what.is_empty() {
            lines.push(format!("  {name:<10} {what}"));
        }
    };
    match decision.verdict.as_str() {
        "permit" => say("permitted", "signed, answered or carried out"),
        verdict => say(if verdict == "fault" { "failed" } else { "refused" }, &decision.reason),
    }
    say("meaning", &decision.meaning);
    say("detail", &decision.detail);
    for fact in &decision.facts {
        say("fact", &fact_text(fact));
    }
    for fact in decision.facts.iter().filter(|fact| !fact.rule.is_empty()) {
        say("passes", &format!("{} {} {}", fact.name, fact.rule.replace('-', " "), with_unit(&fact.limit, &fact.unit)));
    }
    say("next step", &decision.hint);
    if decision.retry {
        say("retry", "the same request may succeed later; the node repeats it by itself");
    }
    match decision.unrecorded {
        true => say("recorded", "no: nothing was decided; kept in memory for now"),
        false => say("recorded", &format!("as decision {}, chain hash {}", decision.sequence, decision.chain_hash)),
    }
    if !decision.policy.is_empty() {
        lines.push(format!("policy: {}", decision.policy));
    }
    lines.join("\n")
}

fn fact_text(fact: &Fact) -> String {
    format!("{} = {}", fact.name, with_unit(&fact.value, &fact.unit))
}

fn with_unit(value: &str, unit: &str) -> String {
    if unit.is_empty() { value.to_owned() } else { format!("{value} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str, value: &str, unit: &str, rule: &str, limit: &str) -> Fact {
        let [name, value, unit, rule, limit] = [name, value, unit, rule, limit].map(str::to_owned);
        Fact { name, value, unit, rule, limit }
    }

    fn refusal() -> DecisionRecord {
        DecisionRecord {
            sequence: 7,
            node: "alice".to_owned(),
            at_ms: 1_795_305_600_042,
            action: "PreapproveKeysend".to_owned(),
            verdict: "deny".to_owned(),
            reason: "limit".to_owned(),
            meaning: "The request exceeds a limit in claviger.toml.".to_owned(),
            detail: "payment: 1001 msat > limits.max_payment_msat = 1000 msat".to_owned(),
            hint: "Raise the limit.".to_owned(),
            facts: vec![
                fact("max_payment_msat", "1001", "msat", "at-most", "1000"),
                fact("rule", "policy-x", "", "", ""),
            ],
            chain_hash: "ab".to_owned(),
            ..DecisionRecord::default()
        }
    }

    #[test]
    fn a_refusal_reads_from_what_was_asked_to_what_to_do() {
        let expected = "PreapproveKeysend by node alice, 2026-11-22 00:00:00.042
  refused    limit
  meaning    The request exceeds a limit in claviger.toml.
  detail     payment: 1001 msat > limits.max_payment_msat = 1000 msat
  fact       max_payment_msat = 1001 msat
  fact       rule = policy-x
  passes     max_payment_msat at most 1000 msat
  next step  Raise the limit.
  recorded   as decision 7, chain hash ab";
        assert_eq!(text(&refusal()), expected);
    }

    #[test]
    fn what_decided_nothing_says_so() {
        let text = text(&DecisionRecord { unrecorded: true, retry: true, channel: "02ab:1".to_owned(), ..refusal() });
        assert!(text.starts_with("PreapproveKeysend by node alice on channel 02ab:1, "), "{text}");
        assert!(text.ends_with("recorded   no: nothing was decided; kept in memory for now"), "{text}");
    }
}
