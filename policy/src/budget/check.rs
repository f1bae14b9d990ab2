//! How budgets stand, before a request and for display. Nothing changes here.

use std::collections::BTreeSet;

use super::Budgets;
use super::definition::Budget;
use super::part::Part;
use super::reservation::{Charge, MAX_CHARGES, MAX_RESERVATIONS, Reservation, ReservationKey};
use super::scope::{Scope, ScopeKey, Shape};
use super::standing::{Room, Standing};
use super::window::Window;
use crate::facts::FactId;
use crate::request::Request;
use crate::value::{MAX_MONEY_MSAT, Value};

/// What a request adds to a budget.
pub(super) struct Ask {
    pub(super) scope: ScopeKey,
    pub(super) amount: u64,
}

/// What is looked at: windows of one node, or of all together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct View {
    node: Option<String>,
    scope: ScopeKey,
}

impl Budget {
    /// Whether requests like this one count.
    pub(super) fn applies(&self, request: &Request) -> bool {
        self.actions.contains(&request.action)
    }

    /// What the request adds, or the fact that it lacks.
    pub(super) fn ask(&self, request: &Request) -> Result<Ask, FactId> {
        let scope = ScopeKey::of(&self.scope, request)?;
        let amount = match self.fact {
            None => 1,
            Some(fact) => match request.get(fact) {
                Some(Value::Number(amount)) => (*amount).min(MAX_MONEY_MSAT),
                _ => return Err(fact),
            },
        };
        Ok(Ask { scope, amount })
    }

    fn view(&self, node: &str, scope: ScopeKey) -> View {
        View { node: self.scope.contains(&Scope::Node).then(|| node.to_owned()), scope }
    }
}

impl Budgets {
    /// What each budget of `budgets` that applies to `request` says of it, in their order; `key` is what the request is
    /// known by, so that a repeat of one that is reserved asks for nothing more (P5).
    pub fn check(
        &self,
        budgets: &[Budget],
        request: &Request,
        key: Option<&ReservationKey>,
        now_ms: u64,
    ) -> Vec<Standing> {
        let now_ms = self.now_ms(now_ms);
        let part = self.nodes.get(&request.node);
        let known = key.and_then(|key| part?.reservation(key)).filter(|known| !known.ends(now_ms));
        let judge = |budget: &Budget| match budget.ask(request) {
            Err(fact) => {
                let view = budget.view(&request.node, ScopeKey::default());
                Standing { room: Room::FactMissing(fact), ..self.standing(budget, &view, 0, now_ms) }
            }
            Ok(Ask { scope, amount }) => {
                let charge = known.and_then(|known| known.charges.iter().find(|charge| charge.is_in(budget, &scope)));
                let asked = amount.saturating_sub(charge.map_or(0, Charge::counted));
                let full = match part {
                    Some(part) if charge.is_none() || asked > 0 => {
                        fullness(part, budget, &scope, known, budgets.len(), now_ms)
                    }
                    _ => None,
                };
                let standing = self.standing(budget, &budget.view(&request.node, scope), asked, now_ms);
                Standing { room: full.unwrap_or(standing.room), ..standing }
            }
        };
        budgets.iter().filter(|budget| budget.applies(request)).map(judge).collect()
    }

    /// How each budget's windows stand in which something counts, and in any case those of whole nodes and of the fleet:
    /// of each budget at most `most`, those with the least left first.
    pub fn show(&self, budgets: &[Budget], most: usize, now_ms: u64) -> Vec<Standing> {
        let now_ms = self.now_ms(now_ms);
        let show = |budget: &Budget| {
            let views = self.views(budget, now_ms);
            let mut standings: Vec<_> = views.iter().map(|view| self.standing(budget, view, 0, now_ms)).collect();
            standings.sort_by(|a, b| (a.left, &a.scope).cmp(&(b.left, &b.scope)));
            standings.truncate(most);
            standings
        };
        budgets.iter().flat_map(show).collect()
    }

    fn views(&self, budget: &Budget, now_ms: u64) -> BTreeSet<View> {
        let shape = Shape::of(&budget.scope);
        let views = |(node, part): (&String, &Part)| {
            let series = part.series(&budget.name, budget.fact);
            let keys = series.into_iter().flat_map(|series| series.keys(shape, now_ms)).cloned();
            let whole = (shape == Shape::default()).then(ScopeKey::default);
            keys.chain(whole).map(|scope| budget.view(node, scope)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(views).collect()
    }

    fn standing(&self, budget: &Budget, view: &View, asked: u64, now_ms: u64) -> Standing {
        let (mut spent, mut reserved, mut refills_at_ms) = (0u128, 0u128, None::<u64>);
        self.windows(budget, view, &mut |window| {
            reserved += window.reserved;
            for (until_ms, amount) in window.counting(budget.window_ms(), now_ms) {
                spent += u128::from(amount);
                refills_at_ms = Some(refills_at_ms.map_or(until_ms, |known| known.min(until_ms)));
            }
        });
        let reserved = reserved - self.expired(budget, view, now_ms);
        let limit = u128::from(budget.limit);
        let total = spent + reserved + u128::from(asked);
        let exceeds = asked > 0 && total > limit;
        let node = view.node.iter().map(|node| (Scope::Node, node.clone()));
        Standing {
            budget: budget.name.clone(),
            fact: budget.fact,
            scope: node.chain(view.scope.values().iter().cloned()).collect(),
            limit: budget.limit,
            spent: clamped(spent),
            reserved: clamped(reserved),
            asked,
            left: clamped(limit.saturating_sub(spent + reserved)),
            refills_at_ms,
            fits_at_ms: if exceeds { self.fits_at_ms(budget, view, total - limit, now_ms) } else { None },
            room: if exceeds { Room::Exceeded } else { Room::Fits },
        }
    }

    /// When `missing` will have slid out.
    fn fits_at_ms(&self, budget: &Budget, view: &View, mut missing: u128, now_ms: u64) -> Option<u64> {
        let mut counting = Vec::new();
        self.windows(budget, view, &mut |window| counting.extend(window.counting(budget.window_ms(), now_ms)));
        counting.sort_unstable();
        counting.into_iter().find_map(|(until_ms, amount)| {
            missing = missing.saturating_sub(amount.into());
            (missing == 0).then_some(until_ms)
        })
    }

    /// What reservations hold that have expired and were not tidied up yet.
    fn expired(&self, budget: &Budget, view: &View, now_ms: u64) -> u128 {
        let charges = self.parts(view).flat_map(|part| part.expired(now_ms)).flat_map(|expired| &expired.charges);
        let here = charges.filter(|charge| charge.is_of(budget) && charge.scope.agrees(&view.scope));
        here.map(|charge| u128::from(charge.held)).sum()
    }

    fn windows(&self, budget: &Budget, view: &View, each: &mut impl FnMut(&Window)) {
        let series = self.parts(view).filter_map(|part| part.series(&budget.name, budget.fact));
        series.for_each(|series| series.matching(&view.scope, each));
    }

    fn parts(&self, view: &View) -> impl Iterator<Item = &Part> {
        let all = view.node.is_none().then(|| self.nodes.values());
        let one = view.node.as_ref().and_then(|node| self.nodes.get(node));
        all.into_iter().flatten().chain(one)
    }
}

/// Why `part` cannot count one more in the window of `scope`, or nothing if it can. `known` is the reservation that
/// would be widened, by at most `budgets` charges.
fn fullness(
    part: &Part,
    budget: &Budget,
    scope: &ScopeKey,
    known: Option<&Reservation>,
    budgets: usize,
    now_ms: u64,
) -> Option<Room> {
    let series = part.series(&budget.name, budget.fact);
    if series.is_some_and(|series| !series.has_room(scope, now_ms)) {
        return Some(Room::TooManyWindows);
    }
    let opens = !known.is_some_and(Reservation::is_open);
    let charges = known.map_or(0, |known| known.charges.len()) + budgets;
    let full = charges > MAX_CHARGES || (opens && part.open(now_ms) >= MAX_RESERVATIONS);
    full.then_some(Room::TooManyReservations)
}

fn clamped(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}
