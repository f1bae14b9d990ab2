//! Budgets against their rules, and against a model that is too simple to be wrong.

mod bounds;
mod definition;
mod edits;
mod model;
mod random;
mod records;
mod rules;

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::actions::Action;

pub(super) const MINUTE_MS: u64 = 60_000;
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;

/// One of `from`.
fn pick<'a, T>(dice: &mut Rng, from: &'a [T]) -> &'a T {
    &from[dice.usize(..from.len())]
}

/// The journal of all nodes.
#[derive(Clone, Default)]
pub(super) struct Disk(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Disk {
    pub(super) fn write(&mut self, node: &str, changes: Vec<Change>) {
        let entries = self.0.entry(node.to_owned()).or_default();
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => assert!(entries.remove(&key).is_some(), "{key} is deleted and was not there"),
            }
        }
    }

    pub(super) fn read(&self, node: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.0.get(node).into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    pub(super) fn start(&self) -> Budgets {
        let mut budgets = Budgets::default();
        for node in self.0.keys() {
            budgets.load(node, self.read(node)).expect("written by this version");
        }
        budgets
    }
}

/// `limit` msat within an hour per node.
pub(super) fn hourly(limit: u64) -> Budget {
    Budget {
        name: "hourly".into(),
        actions: vec![Action::PayInvoice],
        fact: Some(FactId::AmountMsat),
        scope: vec![Scope::Node],
        window_s: 3_600,
        limit,
        unless_approved: None,
    }
}

pub(super) fn pay(node: &str, payee: &str, amount_msat: u64) -> Request {
    let request = Request::new(node, Action::PayInvoice, 0).with(FactId::AmountMsat, amount_msat);
    request.with(FactId::Payee, payee).with(FactId::Channel, "1").with(FactId::FeeMsat, amount_msat / 10)
}

pub(super) fn key(id: u64) -> ReservationKey {
    ReservationKey::new(&id.to_string())
}

/// Reserves if it fits, and settles in full.
pub(super) fn spend(budgets: &mut Budgets, defs: &[Budget], request: &Request, id: u64, now_ms: u64) -> bool {
    let fits = try_reserve(budgets, defs, request, id, now_ms);
    if fits {
        budgets.settle(&request.node, &key(id), &[], now_ms);
    }
    fits
}

/// Reserves for an hour if it fits.
pub(super) fn try_reserve(budgets: &mut Budgets, defs: &[Budget], request: &Request, id: u64, now_ms: u64) -> bool {
    let fits = !budgets.check(defs, request, Some(&key(id)), now_ms).iter().any(Standing::refuses);
    if fits {
        budgets.reserve(defs, request, &key(id), now_ms + HOUR_MS, now_ms).expect("countable");
    }
    fits
}

pub(super) fn left(budgets: &Budgets, def: &Budget, request: &Request, now_ms: u64) -> u64 {
    budgets.check(std::slice::from_ref(def), request, None, now_ms)[0].left
}
