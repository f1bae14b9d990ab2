//! What is left of a budget, and when it refills.

use serde::{Deserialize, Serialize};

use super::scope::Scope;
use crate::facts::FactId;

/// One window of one budget, as a request meets it, or as it is shown. Amounts are in the budget's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The budget's name.
    pub budget: String,
    /// What it sums; `None` if it counts requests.
    pub fact: Option<FactId>,
    /// Which window: a value for each scope but the fleet's.
    pub scope: Vec<(Scope, String)>,
    /// What may be spent within the window.
    pub limit: u64,
    /// What was, within the window that ends now.
    pub spent: u64,
    /// What is set aside for requests that were permitted and did not come to an end.
    pub reserved: u64,
    /// What the request adds: nothing if it repeats one that is counted already.
    pub asked: u64,
    /// What is left of the limit, without the request.
    pub left: u64,
    /// When something that was spent slides out next. In milliseconds since the Unix epoch, as all times.
    pub refills_at_ms: Option<u64>,
    /// For a request that exceeds the budget: from when on it fits if nothing else is spent or released; `None` if
    /// waiting does not help.
    pub fits_at_ms: Option<u64>,
    /// Whether the request fits.
    pub room: Room,
}

/// Whether a request fits into a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// It does.
    Fits,
    /// It would spend more than is left. An approval may lift this one, as the budget says.
    Exceeded,
    /// The request lacks the fact that is summed, or that tells whose window it is.
    FactMissing(FactId),
    /// The node has filled [`super::MAX_WINDOWS`] windows of this budget.
    TooManyWindows,
    /// The node has [`super::MAX_RESERVATIONS`] reservations, or the one [`super::MAX_CHARGES`] budgets and keys.
    TooManyReservations,
}

impl Room {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Fits => "Nothing.",
            Self::Exceeded => "Wait until the window refills, ask for an approval, or raise the budget's limit.",
            Self::FactMissing(_) => "Budget what every request of the action carries; docs/policy/facts.md tells.",
            Self::TooManyWindows => "Wait for windows to end, or budget by something with fewer values.",
            Self::TooManyReservations => "Wait for payments to end; look at what opens so many.",
        }
    }
}

impl Standing {
    /// Whether the budget refuses the request. A missing fact or a full book is no permit (P4).
    pub fn refuses(&self) -> bool {
        self.room != Room::Fits
    }

    /// Whether the request could be counted at all. What cannot be counted no approval lifts.
    pub fn is_countable(&self) -> bool {
        matches!(self.room, Room::Fits | Room::Exceeded)
    }
}
