//! Budgets: how much may be done within a window of time. What a permitted request may spend is set aside, counted when it
//! succeeds, and given back when it fails or expires. docs/policy/budgets.md
//!
//! State is kept for each node apart, as its tenant of the journal keeps it; what a scope adds up over nodes is summed when
//! it is asked for. Time is the caller's, and never before a time that was acted on: a clock set back stands still here.

mod check;
mod definition;
mod part;
mod record;
mod reservation;
mod scope;
mod standing;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::definition::{
    Budget, BudgetError, BudgetFault, Entry, MAX_BUDGETS, MAX_WINDOW_S, MIN_WINDOW_S, define, parse,
};
pub use self::part::MAX_WINDOWS;
pub use self::record::{BudgetsUnreadable, PREFIX};
pub use self::reservation::{MAX_CHARGES, MAX_REMEMBERED, MAX_RESERVATIONS, REMEMBERED_MS, ReservationKey};
pub use self::scope::Scope;
pub use self::standing::{Room, Standing};

use self::part::Part;
use self::reservation::Charge;
use crate::facts::FactId;
use crate::request::Request;

/// What all nodes of an appliance have spent and set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    clock_ms: u64,
    nodes: BTreeMap<String, Part>,
}

/// A changed entry of a node's tenant in the journal, to be recorded in the commit that carries the verdict (P1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry's key; begins with [`PREFIX`].
    pub key: String,
    /// The new value; `None` deletes the entry.
    pub value: Option<Vec<u8>>,
}

impl Budgets {
    /// Replaces what is known of `node` by its tenant's entries: at the start, and after a commit that failed. Entries
    /// whose keys do not begin with [`PREFIX`] are passed over.
    pub fn load<'a>(
        &mut self,
        node: &str,
        entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), BudgetsUnreadable> {
        let (part, clock_ms) = record::read(entries)?;
        self.clock_ms = self.clock_ms.max(clock_ms);
        self.nodes.insert(node.to_owned(), part);
        Ok(())
    }

    /// The node is gone, and what it spent with it.
    pub fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// The budgets in force are `budgets` from now on: what is known of `node` is kept for their windows at least. To be
    /// called for each node when a policy comes into force, and after [`Budgets::load`].
    pub fn adopt(&mut self, node: &str, budgets: &[Budget], now_ms: u64) -> Vec<Change> {
        self.change(node, now_ms, |part, now_ms, changes| part.adopt(budgets, now_ms, changes))
    }

    /// Sets aside what a permitted `request` may spend, until `expires_ms`. A repeat under the same key widens the
    /// reservation if it asks for more, and is counted once (P5). Whether the request fits, or is approved although it
    /// does not, is for the caller to know.
    ///
    /// Where a budget cannot count the request, nothing changes, and that budget's standing is returned.
    pub fn reserve(
        &mut self,
        budgets: &[Budget],
        request: &Request,
        key: &ReservationKey,
        expires_ms: u64,
        now_ms: u64,
    ) -> Result<Vec<Change>, Box<Standing>> {
        let standings = self.check(budgets, request, Some(key), now_ms);
        if let Some(standing) = standings.into_iter().find(|standing| !standing.is_countable()) {
            return Err(Box::new(standing));
        }
        let applying = budgets.iter().filter(|budget| budget.applies(request));
        let asks: Vec<_> = applying.filter_map(|budget| Some((budget, budget.ask(request).ok()?))).collect();
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.change(&request.node, now_ms, |part, now_ms, changes| {
            part.expire(now_ms, changes);
            let mut charges = part.reservation(key).map_or_else(Vec::new, |known| known.charges.clone());
            for (budget, ask) in asks {
                let known = charges.iter().position(|charge| charge.is_in(budget, &ask.scope));
                let index = known.unwrap_or_else(|| {
                    charges.push(Charge::new(budget, ask.scope));
                    charges.len() - 1
                });
                let charge = &mut charges[index];
                charge.held += ask.amount.saturating_sub(charge.counted());
                charge.window_ms = budget.window_ms();
            }
            part.reserve(*key, charges, expires_ms, changes);
        }))
    }

    /// Whether something is set aside, or was counted lately, for the request that `node` knows by `key`.
    pub fn knows(&self, node: &str, key: &ReservationKey) -> bool {
        self.nodes.get(node).is_some_and(|part| part.reservation(key).is_some())
    }

    /// The request is on its way: what it holds does not expire, until it is settled or released.
    pub fn hold(&mut self, node: &str, key: &ReservationKey, now_ms: u64) -> Vec<Change> {
        self.change(node, now_ms, |part, _, changes| part.hold(key, changes))
    }

    /// The request succeeded: counts what it really came to, for each fact of `amounts`, and what was set aside for the
    /// others. A second call for the same key changes nothing.
    pub fn settle(&mut self, node: &str, key: &ReservationKey, amounts: &[(FactId, u64)], now_ms: u64) -> Vec<Change> {
        self.change(node, now_ms, |part, now_ms, changes| part.settle(key, amounts, now_ms, changes))
    }

    /// The request failed: gives back what was set aside. What was settled before stays counted.
    pub fn release(&mut self, node: &str, key: &ReservationKey, now_ms: u64) -> Vec<Change> {
        self.change(node, now_ms, |part, _, changes| part.release(key, changes))
    }

    /// Tidies up: takes out of the journal what has expired or slid out, which counts no longer as it is. To be called
    /// every minute or so.
    pub fn expire(&mut self, node: &str, now_ms: u64) -> Vec<Change> {
        self.change(node, now_ms, |part, now_ms, changes| {
            part.expire(now_ms, changes);
            part.forget(now_ms, changes);
        })
    }

    /// The time that counts: never before one that was acted on (P7).
    fn now_ms(&self, now_ms: u64) -> u64 {
        now_ms.max(self.clock_ms)
    }

    /// Changes one node's part. The time is acted on only if something changes, and is recorded with it.
    fn change(
        &mut self,
        node: &str,
        now_ms: u64,
        change: impl FnOnce(&mut Part, u64, &mut Vec<Change>),
    ) -> Vec<Change> {
        let now_ms = self.now_ms(now_ms);
        let mut changes = Vec::new();
        change(self.nodes.entry(node.to_owned()).or_default(), now_ms, &mut changes);
        if !changes.is_empty() {
            self.clock_ms = now_ms;
            changes.push(record::clock(now_ms));
        }
        changes
    }
}
