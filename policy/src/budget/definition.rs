//! What a budget is, and how `policy.toml` says it.

use serde::Deserialize;
use toml::Spanned;

use super::scope::Scope;
use crate::actions::Action;
use crate::facts::{FactId, Kind, Unit};
use crate::names::is_name;
use crate::place::Place;
use crate::value::MAX_MONEY_MSAT;

/// The most budgets of a policy.
pub const MAX_BUDGETS: usize = 64;
/// The shortest window: a minute.
pub const MIN_WINDOW_S: u64 = 60;
/// The longest window: a year.
pub const MAX_WINDOW_S: u64 = 366 * 86_400;

/// How `fact` is written where requests are counted.
const COUNT: &str = "count";

/// At most `limit` within any `window_s` seconds, for each of what `scope` tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Unique within the policy. What was spent is kept under this name.
    pub name: String,
    /// Requests that count.
    pub actions: Vec<Action>,
    /// What is summed; `None` counts requests.
    pub fact: Option<FactId>,
    /// Whose window it is.
    pub scope: Vec<Scope>,
    /// The length of the window, in seconds: [`MIN_WINDOW_S`] to [`MAX_WINDOW_S`].
    pub window_s: u64,
    /// In the fact's unit.
    pub limit: u64,
    /// The approval group that may exceed it.
    pub unless_approved: Option<String>,
}

impl Budget {
    /// The length of the window, in milliseconds.
    pub(super) fn window_ms(&self) -> u64 {
        self.window_s.saturating_mul(1_000)
    }
}

/// A `[[budget]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    name: Spanned<String>,
    actions: Spanned<Vec<Spanned<String>>>,
    fact: Spanned<String>,
    scope: Spanned<Vec<Spanned<String>>>,
    window: Spanned<String>,
    limit: Spanned<u64>,
    unless_approved: Option<Spanned<String>>,
}

impl Entry {
    /// The name, as it is written.
    pub(crate) fn name(&self) -> &str {
        self.name.get_ref()
    }
}

/// What is wrong with a `[[budget]]`, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct BudgetError {
    /// In the file.
    pub place: Place,
    /// What is wrong.
    pub fault: BudgetFault,
}

/// What is wrong with a `[[budget]]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetFault {
    /// Not TOML, or not the keys of a budget.
    #[error("{0}")]
    Syntax(String),
    /// More than [`MAX_BUDGETS`].
    #[error("{0} budgets, more than {MAX_BUDGETS}")]
    TooMany(usize),
    /// Not a name.
    #[error("'{0}' is not a name")]
    Name(String),
    /// Two budgets have it.
    #[error("there is a budget '{0}' already")]
    NameTaken(String),
    /// No action, so that nothing would count.
    #[error("a budget without actions")]
    NoActions,
    /// Not in the table.
    #[error("'{0}' is not an action")]
    Action(String),
    /// Listed twice.
    #[error("'{0}' is listed twice")]
    Repeated(String),
    /// Not in the table.
    #[error("'{0}' is not a fact")]
    Fact(String),
    /// A fact that is no amount of money.
    #[error("'{0}' is not an amount in msat")]
    NotAnAmount(&'static str),
    /// Requests of an action do not carry the fact.
    #[error("{action} does not carry '{fact}'")]
    NotCarried {
        /// The action.
        action: &'static str,
        /// The fact: what is summed, or what tells whose window it is.
        fact: &'static str,
    },
    /// No scope.
    #[error("a budget without scope")]
    NoScope,
    /// Not in the table.
    #[error("'{0}' is not a scope")]
    Scope(String),
    /// The fleet and something that it contains.
    #[error("'fleet' stands alone")]
    FleetAndMore,
    /// Not a window.
    #[error("'{0}' is not a window from a minute to a year")]
    Window(String),
    /// Above all money there is.
    #[error("a limit of {0}, above all bitcoin in msat")]
    Limit(u64),
}

impl BudgetFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        fn list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
            ids.collect::<Vec<_>>().join(", ")
        }
        match self {
            Self::Syntax(_) => {
                "A budget has name, actions, fact, scope, window, limit and perhaps unless_approved.".into()
            }
            Self::TooMany(_) => "Join budgets that differ only in their actions.".into(),
            Self::Name(_) => "Use 1–32 of a-z, 0-9 and '-', starting with a letter.".into(),
            Self::NameTaken(_) => "Give each budget its own name: what was spent is kept under it.".into(),
            Self::NoActions => "Name the actions that count, e.g. actions = [\"PayInvoice\", \"Keysend\"].".into(),
            Self::Action(_) => format!("Use some of: {}.", list(Action::ALL.iter().map(|action| action.id()))),
            Self::Repeated(_) => "Leave one.".into(),
            Self::Fact(_) | Self::NotAnAmount(_) => {
                format!("Use \"{COUNT}\" to count requests, or a fact in msat from docs/policy/facts.md.")
            }
            Self::NotCarried { .. } => {
                "Take the action out, or use a fact that it carries: docs/policy/facts.md lists them.".into()
            }
            Self::NoScope => "Use scope = [\"fleet\"] for one window that all nodes share.".into(),
            Self::Scope(_) => format!("Use some of: {}.", list(Scope::ALL.iter().map(|scope| scope.id()))),
            Self::FleetAndMore => "Leave \"fleet\" out: without \"node\" a scope spans the nodes as it is.".into(),
            Self::Window(_) => "Write a number and its unit: \"90s\", \"15m\", \"24h\", \"30d\".".into(),
            Self::Limit(_) => format!("Write at most {MAX_MONEY_MSAT}, in the fact's unit."),
        }
    }
}

/// The budgets of a file that holds nothing but `[[budget]]` tables.
///
/// Returns every error that is found.
pub fn parse(text: &str) -> Result<Vec<Budget>, Vec<BudgetError>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        budget: Vec<Spanned<Entry>>,
    }
    match toml::from_str::<File>(text) {
        Ok(file) => define(text, &file.budget),
        Err(error) => {
            let place = Place::of(text, error.span().map_or(0, |span| span.start));
            Err(vec![BudgetError { place, fault: BudgetFault::Syntax(error.message().to_owned()) }])
        }
    }
}

/// The budgets that `entries` of the file `text` define.
///
/// Returns every error that is found. That a group of `unless_approved` exists is for the caller to check.
pub fn define(text: &str, entries: &[Spanned<Entry>]) -> Result<Vec<Budget>, Vec<BudgetError>> {
    let mut checker = Checker { text, errors: Vec::new() };
    let mut budgets: Vec<Budget> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if index == MAX_BUDGETS {
            checker.fault(entry, BudgetFault::TooMany(entries.len()));
            break;
        }
        let budget = checker.budget(entry.get_ref());
        if budgets.iter().any(|other| other.name == budget.name) {
            checker.fault(&entry.get_ref().name, BudgetFault::NameTaken(budget.name.clone()));
        }
        budgets.push(budget);
    }
    if checker.errors.is_empty() { Ok(budgets) } else { Err(checker.errors) }
}

struct Checker<'a> {
    text: &'a str,
    errors: Vec<BudgetError>,
}

impl Checker<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, fault: BudgetFault) {
        self.errors.push(BudgetError { place: Place::of(self.text, at.span().start), fault });
    }

    /// The budget, without what is wrong with it.
    fn budget(&mut self, entry: &Entry) -> Budget {
        let name = entry.name.get_ref().clone();
        if !is_name(&name) {
            self.fault(&entry.name, BudgetFault::Name(name.clone()));
        }
        let actions = self.known(&entry.actions, Action::by_id, BudgetFault::NoActions, BudgetFault::Action);
        let scope = self.known(&entry.scope, Scope::by_id, BudgetFault::NoScope, BudgetFault::Scope);
        if scope.contains(&Scope::Fleet) && scope.len() > 1 {
            self.fault(&entry.scope, BudgetFault::FleetAndMore);
        }
        let fact = self.fact(&entry.fact);
        for action in &actions {
            self.carries(&entry.fact, *action, fact);
            for scope in &scope {
                self.carries(&entry.scope, *action, scope.fact());
            }
        }
        let window_s = seconds(entry.window.get_ref()).unwrap_or_else(|| {
            self.fault(&entry.window, BudgetFault::Window(entry.window.get_ref().clone()));
            MAX_WINDOW_S
        });
        let limit = *entry.limit.get_ref();
        if limit > MAX_MONEY_MSAT {
            self.fault(&entry.limit, BudgetFault::Limit(limit));
        }
        let unless_approved = entry.unless_approved.as_ref().map(|group| group.get_ref().clone());
        Budget { name, actions, fact, scope, window_s, limit, unless_approved }
    }

    fn known<T: PartialEq>(
        &mut self,
        ids: &Spanned<Vec<Spanned<String>>>,
        by_id: impl Fn(&str) -> Option<T>,
        none: BudgetFault,
        unknown: impl Fn(String) -> BudgetFault,
    ) -> Vec<T> {
        if ids.get_ref().is_empty() {
            self.fault(ids, none);
        }
        let mut found = Vec::new();
        for id in ids.get_ref() {
            match by_id(id.get_ref()) {
                None => self.fault(id, unknown(id.get_ref().clone())),
                Some(known) if found.contains(&known) => self.fault(id, BudgetFault::Repeated(id.get_ref().clone())),
                Some(known) => found.push(known),
            }
        }
        found
    }

    fn fact(&mut self, id: &Spanned<String>) -> Option<FactId> {
        if id.get_ref() == COUNT {
            return None;
        }
        let Some(fact) = FactId::by_id(id.get_ref()) else {
            self.fault(id, BudgetFault::Fact(id.get_ref().clone()));
            return None;
        };
        if fact.kind() != Kind::Number(Unit::Msat) {
            self.fault(id, BudgetFault::NotAnAmount(fact.id()));
        }
        Some(fact)
    }

    fn carries<T>(&mut self, at: &Spanned<T>, action: Action, fact: Option<FactId>) {
        if let Some(fact) = fact.filter(|fact| !FactId::of(action).contains(fact)) {
            self.fault(at, BudgetFault::NotCarried { action: action.id(), fact: fact.id() });
        }
    }
}

/// A number and `s`, `m`, `h` or `d`, within the bounds of a window.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let window_s = number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(unit_s)?;
    (MIN_WINDOW_S..=MAX_WINDOW_S).contains(&window_s).then_some(window_s)
}
