//! A policy and requests to measure: what a verdict costs, fact building included. `claviger bench` and the example
//! `verdict` use it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::actions::Action;
use crate::decide::Policy;
use crate::engine::{RuleError, Rules, Source};
use crate::facts::FactId;
use crate::grant::Approvals;
use crate::lists::Lists;
use crate::preset;
use crate::request::Request;

/// The default preset with `further` rules of a security team, spread over the actions in turn: caps, hours of the day and
/// payees, none of which applies to [`request`].
pub fn policy(further: usize) -> Result<Policy, Vec<RuleError>> {
    let expanded = preset::expand(preset::DEFAULT, &BTreeMap::new()).unwrap_or_else(|errors| {
        unreachable!("a preset's own numbers fit: {errors:?}") // a test expands them all
    });
    let mut own = String::new();
    for at in 0..further {
        let action = Action::ALL[at % Action::ALL.len()];
        let condition = match (at / Action::ALL.len() % 3, FactId::AmountMsat.always(action)) {
            (0, true) => format!("context.amount_msat > {}", 1_000_000_000_000 + at),
            (1, true) => format!("context.amount_msat > {at} && context.hour_utc > 22 && context.weekday_utc == 7"),
            _ => format!("context has client && context.client == \"stranger-{at}\""),
        };
        let _ = writeln!(
            own,
            "@id(\"own-{at}\") forbid (principal, action == Action::\"{action}\", resource) when {{ {condition} }};"
        );
    }
    let preset = Source { file: format!("preset:{}", preset::DEFAULT), text: expanded.cedar };
    Ok(Policy {
        rules: Rules::compile(&[preset, Source { file: "own.cedar".to_owned(), text: own }])?,
        budgets: expanded.budgets,
        lists: Lists::default(),
        approvals: Approvals::default(),
        limits: BTreeMap::new(),
        hash: [0; 32],
    })
}

/// The `at`th payment of a node, which [`policy`] permits as far as its budgets allow.
pub fn request(at: u64) -> Request {
    Request::new("alice", Action::PayInvoice, 1_795_456_799_999)
        .with(FactId::AmountMsat, 250_000 + at % 1_000)
        .with(FactId::Payee, "03cdab2b1d0ad8ae84c8e2bb6fdc07bb1d4b6b4b0ab37cb5a8c6ae9a15a4a7d4f0")
        .with(FactId::PaymentHash, format!("{at:064x}"))
        .with(FactId::Description, "coffee")
        .with(FactId::ExpiresInS, 3_600)
        .with(FactId::FeeMsat, 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budgets;
    use crate::decide::{State, decide};
    use crate::grant::Grants;

    #[test]
    fn what_is_measured_is_a_permit() {
        for further in [0, 200] {
            let policy = policy(further).expect("valid");
            assert!(policy.rules.iter().count() >= further);
            let (budgets, grants) = (Budgets::default(), Grants::new("bench", "alice"));
            let state = State { budgets: &budgets, grants: &grants };
            let (_, verdict) = decide(&policy, state, &request(7), None, 1_795_456_799_999);
            assert!(verdict.permits(), "{verdict:?}");
        }
    }
}
