//! The desk: every node's engine asks here before it signs.
//!
//! What a decision takes, of budgets and grants, is in memory at once and durable with the commit that carries the verdict
//! (P1). If that commit fails, the node is built again from the journal, and its part of the desk with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claviger_policy::actions::Action;
use claviger_policy::budget::{self, Budgets, BudgetsUnreadable, Change, ReservationKey, Standing};
use claviger_policy::bundle::{Bundle, InForce};
use claviger_policy::decide::{self, Policy, State as Known};
use claviger_policy::facts::FactId;
use claviger_policy::grant::{self, Alarm, Effect, Grants, GrantsUnreadable};
use claviger_policy::request::Request;
use claviger_policy::tooling::{Event, Record};
use claviger_policy::verdict::{Fault, Verdict};

use super::shadow::Shadow;
use crate::facts::Fact;
use crate::journal::Put;
use crate::names::NodeName;
use crate::reasons::{Reason, Refusal};

/// One question to the desk.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked for, from parsed and booked data.
    pub request: Request,
    /// What it is known by if it comes again (P5), e.g. `payment:<hash>`; unique within the node.
    pub key: String,
    /// When what it takes counts as spent.
    pub ends: Ends,
}

/// When what a permitted request set aside is spent or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Signed is spent.
    AtOnce,
    /// When the payment has ended: [`Desk::ended`].
    WithPayment,
}

/// What the desk said.
#[derive(Clone, Debug)]
pub struct Decided {
    /// For the journal; its id is still to be named.
    pub record: Record,
    /// Why not, if not.
    pub refusal: Option<Refusal>,
    /// To be recorded with the verdict.
    pub puts: Vec<Put>,
    ends: Ends,
    /// Whether an earlier request under the same key set something aside: that stays, whatever becomes of this one.
    is_repeat: bool,
}

/// A node's budgets or grants cannot be read from the journal: it signs nothing (P4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeskUnreadable {
    /// Its budgets.
    #[error(transparent)]
    Budgets(#[from] BudgetsUnreadable),
    /// Its grants.
    #[error(transparent)]
    Grants(#[from] GrantsUnreadable),
}

/// What is in force, spent and approved, for all nodes of this signer.
pub struct Desk {
    appliance: String,
    state: Mutex<State>,
    /// Judged beside, under a lock of its own: it delays nobody who is not shown to it. Taken while `state` is held, never
    /// the other way round.
    shadow: Mutex<Option<Shadow>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) in_force: InForce,
    /// The bundle in force.
    pub(super) bundle: Option<Arc<Bundle>>,
    /// The one that waits for its time.
    pub(super) pending: Option<Arc<Bundle>>,
    budgets: Budgets,
    grants: BTreeMap<String, Grants>,
    /// Changed entries of nodes that the next commit of each has to carry.
    due: BTreeMap<String, Vec<Change>>,
}

/// No bundle in force, for nobody in particular.
impl Default for Desk {
    fn default() -> Self {
        Self::new("")
    }
}

impl Desk {
    /// A desk without a bundle in force. `appliance` names this signer in what people approve.
    pub fn new(appliance: &str) -> Self {
        Self { appliance: appliance.to_owned(), state: Mutex::default(), shadow: Mutex::default() }
    }

    /// Takes a node's budgets and grants out of the entries of its tenant; what was known of them before is forgotten.
    pub fn load(
        &self,
        node: &NodeName,
        entries: &mut BTreeMap<String, Vec<u8>>,
        now_ms: u64,
    ) -> Result<(), DeskUnreadable> {
        let spent = take(entries, budget::PREFIX);
        let approved = take(entries, grant::PREFIX);
        let state = &mut *self.lock();
        state.budgets.load(node.as_str(), spent.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
        let grants = approved.iter().map(|(key, value)| (key.as_str(), &value[..]));
        state.grants.insert(node.to_string(), Grants::load(&self.appliance, node.as_str(), grants)?);
        state.due.remove(node.as_str());
        state.adopt(node.as_str(), now_ms);
        Ok(())
    }

    /// The node is gone, and what it spent and was granted with it.
    pub fn remove(&self, node: &NodeName) {
        let state = &mut *self.lock();
        state.budgets.remove(node.as_str());
        state.grants.remove(node.as_str());
        state.due.remove(node.as_str());
        self.in_shadow(|budgets| budgets.remove(node.as_str()));
    }

    /// Names this signer in what people approve.
    pub fn appliance(&self) -> &str {
        &self.appliance
    }

    /// Whether a bundle is in force, or will be. Without one the limits of `claviger.toml` hold alone.
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        state.bundle.is_some() || state.pending.is_some()
    }

    /// Whether the bundle in force looks at `fact` when `node` asks for `action`.
    pub fn looks_at(&self, fact: FactId, action: Action, node: &NodeName, now_ms: u64) -> bool {
        self.active(now_ms).is_some_and(|bundle| bundle.policy().looks_at(fact, action, node.as_str()))
    }

    /// Decides, and sets aside what a permit takes; `None` if no bundle is in force.
    pub fn decide(&self, ask: Ask, now_ms: u64) -> Option<Decided> {
        let Ask { request, key, ends } = ask;
        let reservation = ReservationKey::new(&key);
        let node = request.node.clone();
        // The rules are asked without the lock, which all nodes share. If another bundle came into force meanwhile, its
        // rules are asked.
        let (bundle, looked, mut held) = loop {
            let bundle = self.active(now_ms)?;
            let looked = decide::look(bundle.policy(), &request, now_ms);
            let held = self.lock();
            if held.bundle.as_ref().is_some_and(|active| Arc::ptr_eq(active, &bundle)) {
                break (bundle, looked, held);
            }
        };
        let state = &mut *held;
        let grants = state.grants.entry(node.clone()).or_insert_with(|| Grants::new(&self.appliance, &node));
        let known = Known { budgets: &state.budgets, grants };
        let policy = bundle.policy();
        let (inputs, mut verdict) = match request.check() {
            Ok(()) => decide::decide_looked(policy, looked, known, &request, Some(&reservation), now_ms),
            Err(error) => (decide::Inputs::default(), fault(&error)),
        };
        let is_repeat = state.budgets.knows(&node, &reservation);
        let mut changes = Vec::new();
        let mut ticket = None;
        match &verdict {
            Verdict::Permit(permit) => {
                let used = permit.groups.iter().filter_map(|group| inputs.approved.get(group));
                let taken = used.map(|id| grants.consume(&policy.approvals, *id, &request, &reservation, now_ms));
                match taken.collect::<Result<Vec<_>, _>>() {
                    Ok(effects) => effects.into_iter().for_each(|effect| changes.extend(told(&node, effect))),
                    Err(error) => verdict = fault(&error),
                }
            }
            Verdict::NeedsApproval { groups, denials } => {
                let groups: Vec<_> = groups.iter().map(String::as_str).collect();
                let why = denials.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                ticket = Some(grants.ticket(&policy.approvals, &request, &groups, &why, now_ms));
                if let Some(Ok(ticket)) = &ticket {
                    changes.extend(told(&node, grants.open(ticket, now_ms)));
                }
            }
            Verdict::Deny(_) | Verdict::Fault(_) => {}
        }
        if verdict.permits() {
            // Whether it is settled or released is told, whatever the clock says.
            match state.budgets.reserve(&policy.budgets, &request, &reservation, u64::MAX, now_ms) {
                Ok(reserved) => {
                    changes.extend(reserved);
                    changes.extend(state.budgets.hold(&node, &reservation, now_ms));
                }
                Err(standing) => verdict = fault(&format!("budget {} cannot count it", standing.budget)),
            }
        }
        let refusal = refusal(&verdict).map(|refusal| match &ticket {
            Some(Ok(ticket)) => ticket
                .intents()
                .iter()
                .fold(refusal, |refusal, intent| refusal.with_fact(Fact::text("ticket", intent.id.to_string()))),
            Some(Err(error)) => refusal.with_fact(Fact::text("no_ticket", format!("{error}. {}", error.hint()))),
            None => refusal,
        });
        drop(held);
        let record = Record { id: String::new(), bundle: bundle.hash(), request, key, inputs, verdict };
        self.show_shadow(&bundle, &record);
        Some(Decided { record, refusal, puts: puts(changes), ends, is_repeat })
    }

    /// What became of a request that the desk permitted: it was signed, or refused elsewhere. Returns the changed entries.
    pub fn close(&self, decided: &Decided, signed: bool, now_ms: u64) -> Vec<Put> {
        let (node, key) = (decided.record.request.node.as_str(), decided.record.reservation());
        if decided.refusal.is_some() {
            return Vec::new();
        }
        let end = |budgets: &mut Budgets| match (signed, decided.ends) {
            // What an earlier one may still spend is not given back. If this one asked for more, that stays counted too.
            (false, _) if decided.is_repeat => Vec::new(),
            (false, _) => budgets.release(node, &key, now_ms),
            (true, Ends::AtOnce) => budgets.settle(node, &key, &[], now_ms),
            (true, Ends::WithPayment) => Vec::new(),
        };
        self.in_shadow(|budgets| drop(end(budgets)));
        puts(end(&mut self.lock().budgets))
    }

    /// The payment under `key` has ended: with the `amounts` that it came to, or in nothing. What happened, for the
    /// journal, and the changed entries; `None` if nothing was set aside for it.
    pub fn ended(
        &self,
        node: &NodeName,
        key: &str,
        amounts: Option<&[(FactId, u64)]>,
        now_ms: u64,
    ) -> Option<(Event, Vec<Put>)> {
        let reservation = ReservationKey::new(key);
        let end = |budgets: &mut Budgets| match amounts {
            Some(amounts) => budgets.settle(node.as_str(), &reservation, amounts, now_ms),
            None => budgets.release(node.as_str(), &reservation, now_ms),
        };
        self.in_shadow(|budgets| drop(end(budgets)));
        let changes = end(&mut self.lock().budgets);
        let (node, key, at_ms) = (node.to_string(), key.to_owned(), now_ms);
        let event = match amounts {
            Some(amounts) => Event::Settled { node, key, amounts: amounts.iter().copied().collect(), at_ms },
            None => Event::Released { node, key, at_ms },
        };
        (!changes.is_empty()).then(|| (event, puts(changes)))
    }

    /// Entries of a node that changed without a request of its own: what slid out of windows, grants that are over, and
    /// what a new bundle needs kept for longer.
    pub fn tidy(&self, node: &NodeName, now_ms: u64) -> Vec<Put> {
        self.in_shadow(|budgets| drop(budgets.expire(node.as_str(), now_ms)));
        let state = &mut *self.lock();
        let mut changes = state.due.remove(node.as_str()).unwrap_or_default();
        changes.extend(state.budgets.expire(node.as_str(), now_ms));
        changes.extend(state.grants.get_mut(node.as_str()).map(|grants| grants.tidy(now_ms)).unwrap_or_default());
        puts(changes)
    }

    /// Lets `change` work on a node's grants under the policy in force. The entries it changes are the node's to record.
    pub fn with_grants<E>(
        &self,
        node: &NodeName,
        change: impl FnOnce(&mut Grants, &Policy) -> Result<Effect, E>,
    ) -> Option<Result<Vec<Put>, E>> {
        let state = &mut *self.lock();
        let bundle = state.bundle.clone()?;
        let name = node.to_string();
        let grants = state.grants.entry(name.clone()).or_insert_with(|| Grants::new(&self.appliance, &name));
        Some(change(grants, bundle.policy()).map(|effect| puts(told(&name, effect))))
    }

    /// The grants of all nodes, with the policy that they stand under.
    pub fn look_at_grants<R>(&self, look: impl FnOnce(&BTreeMap<String, Grants>, &Policy) -> R) -> Option<R> {
        let state = self.lock();
        state.bundle.as_ref().map(|bundle| look(&state.grants, bundle.policy()))
    }

    /// What is left of the budgets in force; at most `most` keys of each.
    pub fn standings(&self, most: usize, now_ms: u64) -> Vec<Standing> {
        let state = self.lock();
        state.bundle.as_ref().map_or_else(Vec::new, |bundle| state.budgets.show(&bundle.policy().budgets, most, now_ms))
    }

    /// The bundle in force, after the one that waits for its time took its place.
    fn active(&self, now_ms: u64) -> Option<Arc<Bundle>> {
        let state = &mut *self.lock();
        self.activate_due(state, now_ms);
        state.bundle.clone()
    }

    /// The bundle in force.
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        self.lock().bundle.clone()
    }

    /// Which bundles were, are and will be in force.
    pub fn in_force(&self) -> InForce {
        self.lock().in_force.clone()
    }

    // The same holds for this one.
    pub(super) fn shadowing(&self) -> MutexGuard<'_, Option<Shadow>> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A panic while it is held is in pure code on one node's request; each change is one insertion.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Amounts and destinations of a company are nobody else's business.
impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("in_force", &self.in_force().active).finish_non_exhaustive()
    }
}

impl State {
    /// What is known of all nodes is kept for the windows of the bundle in force.
    pub(super) fn adopt_all(&mut self, now_ms: u64) {
        let nodes: Vec<_> = self.grants.keys().cloned().collect();
        nodes.iter().for_each(|node| self.adopt(node, now_ms));
    }

    fn adopt(&mut self, node: &str, now_ms: u64) {
        let Some(bundle) = &self.bundle else { return };
        let changes = self.budgets.adopt(node, &bundle.policy().budgets, now_ms);
        self.due.entry(node.to_owned()).or_default().extend(changes);
    }
}

/// The entries below `prefix`, taken out.
fn take(entries: &mut BTreeMap<String, Vec<u8>>, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    entries.extract_if(prefix.to_owned().., |key, _| key.starts_with(prefix)).collect()
}

/// Breaks glass loudly: what comes of it is logged each time.
fn told(node: &str, effect: Effect) -> Vec<Change> {
    if let Some(Alarm { grant, event }) = effect.alarm {
        tracing::error!(node, %grant, event = event.id(), "break-glass");
    }
    effect.changes
}

fn fault(error: &impl ToString) -> Verdict {
    Verdict::Fault(Fault { rule: None, message: error.to_string() })
}

pub(super) fn puts(changes: Vec<Change>) -> Vec<Put> {
    changes.into_iter().map(|Change { key, value }| Put { key, value }).collect()
}

/// The refusal that a verdict is, with the rules and numbers it names.
fn refusal(verdict: &Verdict) -> Option<Refusal> {
    let reason = Reason::of_policy(verdict.reason()?);
    let denials = match verdict {
        Verdict::Permit(_) => return None,
        Verdict::Deny(denials) | Verdict::NeedsApproval { denials, .. } => &denials[..],
        Verdict::Fault(fault) => return Some(Refusal::new(reason, fault.message.clone())),
    };
    let detail = denials.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Some(Refusal::new(reason, detail))
}
