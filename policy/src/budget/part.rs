//! What one node has spent and set aside: the windows and reservations that its tenant of the journal holds.

use std::collections::{BTreeMap, BTreeSet};

use super::record;
use super::reservation::{Charge, MAX_REMEMBERED, REMEMBERED_MS, Reservation, ReservationKey, State};
use super::scope::{ScopeKey, Shape};
use super::window::Window;
use super::{Budget, Change};
use crate::facts::FactId;

/// The most windows of one budget that one node may fill.
pub const MAX_WINDOWS: usize = 4_096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// By the budget's name; several where an edit changed what is summed.
    series: BTreeMap<String, Vec<Series>>,
    reservations: BTreeMap<ReservationKey, Reservation>,
    /// Open ones that may expire, by their end.
    expiring: BTreeSet<(u64, ReservationKey)>,
    /// Settled ones, by their end.
    remembered: BTreeSet<(u64, ReservationKey)>,
    open: usize,
}

/// All windows of a budget that sum one fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) fact: Option<FactId>,
    windows: BTreeMap<ScopeKey, Window>,
    /// How many windows there are of each shape: more than one shape where an edit changed the scope.
    shapes: BTreeMap<Shape, usize>,
}

impl Series {
    /// Every window whose amounts may belong to `key`: its own, and, where an edit changed the scope, those of earlier
    /// shapes that do not contradict it.
    pub(super) fn matching(&self, key: &ScopeKey, each: &mut impl FnMut(&Window)) {
        let shape = key.shape();
        if self.shapes.keys().all(|known| known.is_within(shape)) {
            let windows = self.shapes.keys().filter_map(|known| match *known == shape {
                true => self.windows.get(key),
                false => self.windows.get(&key.project(*known)),
            });
            windows.for_each(each);
        } else {
            // Until what was counted under scopes that are gone has slid out.
            self.windows.iter().filter(|(known, _)| known.agrees(key)).for_each(|(_, window)| each(window));
        }
    }

    /// Whether a window for `key` may be filled.
    pub(super) fn has_room(&self, key: &ScopeKey, now_ms: u64) -> bool {
        let is_live = |window: &&Window| window.is_live(now_ms);
        self.windows.len() < MAX_WINDOWS
            || self.windows.get(key).as_ref().is_some_and(is_live)
            || self.windows.values().filter(is_live).count() < MAX_WINDOWS
    }

    /// The keys of this shape under which something may count.
    pub(super) fn keys(&self, shape: Shape, now_ms: u64) -> impl Iterator<Item = &ScopeKey> {
        let live = self.windows.iter().filter(move |(key, window)| key.shape() == shape && window.is_live(now_ms));
        live.map(|(key, _)| key)
    }

    fn window(&mut self, key: &ScopeKey) -> &mut Window {
        if !self.windows.contains_key(key) {
            *self.shapes.entry(key.shape()).or_default() += 1;
        }
        self.windows.entry(key.clone()).or_default()
    }

    /// Takes out the windows that hold nothing.
    fn drop_empty(&mut self, key: &ScopeKey) {
        if self.windows.get(key).is_some_and(Window::is_empty) {
            self.windows.remove(key);
            let shape = key.shape();
            let count = self.shapes.entry(shape).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.shapes.remove(&shape);
            }
        }
    }
}

impl Part {
    pub(super) fn series(&self, budget: &str, fact: Option<FactId>) -> Option<&Series> {
        self.series.get(budget)?.iter().find(|series| series.fact == fact)
    }

    pub(super) fn reservation(&self, key: &ReservationKey) -> Option<&Reservation> {
        self.reservations.get(key)
    }

    /// Reservations that are not settled at `now_ms`.
    pub(super) fn open(&self, now_ms: u64) -> usize {
        self.open - self.expired(now_ms).count()
    }

    /// Reservations that have expired and still stand in the books.
    pub(super) fn expired(&self, now_ms: u64) -> impl Iterator<Item = &Reservation> {
        let due = self.expiring.iter().take_while(move |(expires_ms, _)| *expires_ms <= now_ms);
        due.filter_map(|(_, key)| self.reservations.get(key))
    }

    /// Makes or widens the reservation `key`: `charges` are what its windows hold from now on.
    pub(super) fn reserve(
        &mut self,
        key: ReservationKey,
        charges: Vec<Charge>,
        expires_ms: u64,
        changes: &mut Vec<Change>,
    ) {
        let old = self.take(&key);
        let reservation = match old.clone() {
            None => Reservation { state: State::Open, expires_ms, charges },
            Some(old) => {
                let asks = old.is_open() || old.charges != charges;
                let state = if old.state == State::Settled && asks { State::Open } else { old.state };
                let expires_ms = if asks { old.expires_ms.max(expires_ms) } else { old.expires_ms };
                Reservation { state, expires_ms, charges }
            }
        };
        if old.as_ref() != Some(&reservation) {
            changes.push(record::reservation(&key, Some(&reservation)));
        }
        self.put(key, reservation);
    }

    /// From now on the reservation does not expire.
    pub(super) fn hold(&mut self, key: &ReservationKey, changes: &mut Vec<Change>) {
        if self.reservations.get(key).is_none_or(|reservation| reservation.state != State::Open) {
            return;
        }
        let Some(reservation) = self.take(key) else { return };
        let reservation = Reservation { state: State::Held, ..reservation };
        changes.push(record::reservation(key, Some(&reservation)));
        self.put(*key, reservation);
    }

    /// Counts what the reservation came to: `amounts` by fact, and what it holds for facts that are not among them.
    pub(super) fn settle(
        &mut self,
        key: &ReservationKey,
        amounts: &[(FactId, u64)],
        now_ms: u64,
        changes: &mut Vec<Change>,
    ) {
        if !self.reservations.get(key).is_some_and(Reservation::is_open) {
            return;
        }
        let Some(mut reservation) = self.take(key) else { return };
        for charge in &mut reservation.charges {
            let actual = amounts.iter().find(|(fact, _)| charge.fact == Some(*fact)).map(|(_, amount)| *amount);
            let amount = actual.unwrap_or(charge.held);
            (charge.held, charge.spent) = (0, charge.spent.saturating_add(amount));
            self.spend(charge, amount, now_ms, changes);
        }
        reservation.state = State::Settled;
        reservation.expires_ms = reservation.expires_ms.max(now_ms.saturating_add(REMEMBERED_MS));
        self.remember(*key, reservation, changes);
    }

    /// Gives back what the reservation holds.
    pub(super) fn release(&mut self, key: &ReservationKey, changes: &mut Vec<Change>) {
        if !self.reservations.get(key).is_some_and(Reservation::is_open) {
            return;
        }
        let Some(mut reservation) = self.take(key) else { return };
        if reservation.charges.iter().all(|charge| charge.spent == 0) {
            changes.push(record::reservation(key, None));
            return;
        }
        reservation.charges.iter_mut().for_each(|charge| charge.held = 0);
        reservation.state = State::Settled;
        self.remember(*key, reservation, changes);
    }

    /// Releases and forgets the reservations whose time has come.
    pub(super) fn expire(&mut self, now_ms: u64, changes: &mut Vec<Change>) {
        let due = |ends: &BTreeSet<(u64, ReservationKey)>| ends.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms);
        while let Some((_, key)) = due(&self.expiring).or_else(|| due(&self.remembered)) {
            self.take(&key);
            changes.push(record::reservation(&key, None));
        }
    }

    /// Forgets every amount that has slid out.
    pub(super) fn forget(&mut self, now_ms: u64, changes: &mut Vec<Change>) {
        self.series.retain(|budget, kinds| {
            kinds.retain_mut(|series| {
                for (key, window) in &mut series.windows {
                    let dead = window.forget(now_ms).into_iter();
                    changes.extend(dead.map(|number| record::chunk_gone(budget, series.fact, key, number)));
                }
                let empty = series.windows.extract_if(.., |_, window| window.is_empty());
                for (key, _) in empty {
                    let count = series.shapes.entry(key.shape()).or_default();
                    *count = count.saturating_sub(1);
                }
                series.shapes.retain(|_, count| *count > 0);
                !series.windows.is_empty()
            });
            !kinds.is_empty()
        });
    }

    /// Keeps what is known for the windows of `budgets` at least.
    pub(super) fn adopt(&mut self, budgets: &[Budget], now_ms: u64, changes: &mut Vec<Change>) {
        for budget in budgets {
            let window_ms = budget.window_ms();
            for series in self.series.get_mut(&budget.name).into_iter().flatten() {
                for (key, window) in &mut series.windows {
                    let longer = window.lengthen(window_ms, now_ms);
                    changes.extend(longer.map(|chunk| record::chunk(&budget.name, series.fact, key, chunk)));
                }
            }
        }
        for (key, reservation) in self.reservations.iter_mut().filter(|(_, reservation)| reservation.is_open()) {
            let mut changed = false;
            for charge in &mut reservation.charges {
                let budget = budgets.iter().find(|budget| budget.name == charge.budget);
                let window_ms = budget.map_or(0, Budget::window_ms).max(charge.window_ms);
                changed |= std::mem::replace(&mut charge.window_ms, window_ms) != window_ms;
            }
            if changed {
                changes.push(record::reservation(key, Some(reservation)));
            }
        }
    }

    /// A settled reservation; forgets the oldest if there are too many.
    fn remember(&mut self, key: ReservationKey, reservation: Reservation, changes: &mut Vec<Change>) {
        changes.push(record::reservation(&key, Some(&reservation)));
        self.put(key, reservation);
        while self.remembered.len() > MAX_REMEMBERED {
            let Some((_, oldest)) = self.remembered.first().copied() else { break };
            self.take(&oldest);
            changes.push(record::reservation(&oldest, None));
        }
    }

    fn spend(&mut self, charge: &Charge, amount: u64, now_ms: u64, changes: &mut Vec<Change>) {
        let series = self.series_mut(&charge.budget, charge.fact);
        let window = series.window(&charge.scope);
        let dead = window.forget(now_ms).into_iter();
        changes.extend(dead.map(|number| record::chunk_gone(&charge.budget, charge.fact, &charge.scope, number)));
        if amount > 0 {
            let chunk = window.spend(amount, charge.window_ms, now_ms);
            changes.push(record::chunk(&charge.budget, charge.fact, &charge.scope, chunk));
        }
        self.drop_empty(charge);
    }

    /// Puts a reservation into the books: everything that follows from reservations is derived here and in
    /// [`Part::take`].
    pub(super) fn put(&mut self, key: ReservationKey, reservation: Reservation) {
        match reservation.state {
            State::Open => drop(self.expiring.insert((reservation.expires_ms, key))),
            State::Held => {}
            State::Settled => drop(self.remembered.insert((reservation.expires_ms, key))),
        }
        if reservation.is_open() {
            self.open += 1;
            for charge in &reservation.charges {
                let window = self.series_mut(&charge.budget, charge.fact).window(&charge.scope);
                window.reserved += u128::from(charge.held);
                window.holders += 1;
            }
        }
        self.reservations.insert(key, reservation);
    }

    fn take(&mut self, key: &ReservationKey) -> Option<Reservation> {
        let reservation = self.reservations.remove(key)?;
        let end = (reservation.expires_ms, *key);
        self.expiring.remove(&end);
        self.remembered.remove(&end);
        if reservation.is_open() {
            self.open -= 1;
            for charge in &reservation.charges {
                let window = self.series_mut(&charge.budget, charge.fact).window(&charge.scope);
                window.reserved -= u128::from(charge.held);
                window.holders -= 1;
                self.drop_empty(charge);
            }
        }
        Some(reservation)
    }

    pub(super) fn window_mut(&mut self, budget: &str, fact: Option<FactId>, key: &ScopeKey) -> &mut Window {
        self.series_mut(budget, fact).window(key)
    }

    fn series_mut(&mut self, budget: &str, fact: Option<FactId>) -> &mut Series {
        let kinds = self.series.entry(budget.to_owned()).or_default();
        let index = kinds.iter().position(|series| series.fact == fact).unwrap_or_else(|| {
            kinds.push(Series { fact, windows: BTreeMap::new(), shapes: BTreeMap::new() });
            kinds.sort_by_key(|series| series.fact.map(FactId::id));
            kinds.iter().position(|series| series.fact == fact).expect("it was pushed")
        });
        &mut kinds[index]
    }

    fn drop_empty(&mut self, charge: &Charge) {
        let Some(kinds) = self.series.get_mut(&charge.budget) else { return };
        for series in kinds.iter_mut().filter(|series| series.fact == charge.fact) {
            series.drop_empty(&charge.scope);
        }
        kinds.retain(|series| !series.windows.is_empty());
        if kinds.is_empty() {
            self.series.remove(&charge.budget);
        }
    }
}
