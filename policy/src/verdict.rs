//! What policy answers: a closed set, of which one permits.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::facts::{FactId, Unit};
use crate::reasons::Reason;
use crate::value::Value;

/// A rule's `@id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub Arc<str>);

/// What policy says to a request. Made again from the same policy, state and request, it has the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// May be signed, once what it takes is reserved and consumed in the same commit (P1).
    Permit(Permit),
    /// Refused; one denial or more, each sufficient.
    Deny(Vec<Denial>),
    /// Refused until approved: every denial can be lifted by a grant of its group.
    NeedsApproval {
        /// The groups whose grants are needed, sorted, each once.
        groups: Vec<String>,
        /// What the grants would lift.
        denials: Vec<Denial>,
    },
    /// Could not be judged. Refused.
    Fault(Fault),
}

/// A permit and what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The rules that permit it, sorted.
    pub determining: Vec<RuleId>,
    /// The budgets that it takes from.
    pub budgets: Vec<String>,
    /// The approval groups whose grants it uses, sorted, each once.
    pub groups: Vec<String>,
}

/// Why it could not be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The rule that failed, if one did.
    pub rule: Option<RuleId>,
    /// What happened, in words.
    pub message: String,
}

/// One reason to refuse, with what was compared and what would have passed (P11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// A `forbid` rule applies.
    Forbidden {
        /// Which one.
        rule: RuleId,
        /// The approval group that may lift it.
        unless_approved: Option<String>,
        /// The facts it looked at.
        compared: Vec<Compared>,
    },
    /// No `permit` rule applies.
    NothingPermits {
        /// Rules for this action and node, and what they looked at; the closest first.
        closest: Vec<Closest>,
    },
    /// A budget has not enough left, or cannot count the request.
    Budget(BudgetDenial),
}

/// A rule that would permit the action, had the facts been others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closest {
    /// Which one.
    pub rule: RuleId,
    /// The facts it looked at.
    pub compared: Vec<Compared>,
}

/// A fact that a rule looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Which fact.
    pub fact: FactId,
    /// What it was; absent if the request does not carry it.
    pub value: Option<Value>,
    /// What would have passed; absent if the rule does not say it plainly.
    pub passes: Option<Passes>,
}

/// What would have passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passes {
    /// This or less.
    AtMost(u64),
    /// This or more.
    AtLeast(u64),
    /// Only this.
    Exactly(Value),
}

/// A budget that refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetDenial {
    /// The budget's name.
    pub budget: String,
    /// Whose share of it, as its scope says: `node=alice`.
    pub scope: String,
    /// The approval group that may lift it.
    pub unless_approved: Option<String>,
    /// What is wrong.
    pub room: BudgetRoom,
}

/// Why a budget refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetRoom {
    /// More is asked than is left.
    Exceeded {
        /// What is counted: a fact's id, or `count`.
        fact: String,
        /// What is asked for.
        asked: u64,
        /// What is left.
        left: u64,
        /// What there is in the whole window.
        limit: u64,
        /// When enough is left again, if nothing else is spent: ms since 1970 UTC. Absent if never.
        fits_at_ms: Option<u64>,
    },
    /// The request lacks a fact that the budget counts by.
    FactMissing(FactId),
    /// The budget holds as many keys as it can.
    TooManyKeys,
}

impl Denial {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forbidden { .. } => Reason::Forbidden,
            Self::NothingPermits { .. } => Reason::NothingPermits,
            Self::Budget(denial) => match denial.room {
                BudgetRoom::Exceeded { .. } => Reason::BudgetExceeded,
                BudgetRoom::FactMissing(_) => Reason::BudgetUnmeasured,
                BudgetRoom::TooManyKeys => Reason::BudgetCrowded,
            },
        }
    }

    /// The approval group whose grant lifts it; `None` if nothing does.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Forbidden { unless_approved, .. } => unless_approved.as_deref(),
            Self::NothingPermits { .. } => None,
            Self::Budget(denial) => denial.unless_approved.as_deref(),
        }
    }
}

impl Verdict {
    /// Whether it may be signed.
    pub fn permits(&self) -> bool {
        matches!(self, Self::Permit(_))
    }

    /// The stable reason; `None` for a permit.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Permit(_) => None,
            Self::Deny(denials) => Some(denials.first().map_or(Reason::Fault, Denial::reason)),
            Self::NeedsApproval { .. } => Some(Reason::ApprovalNeeded),
            Self::Fault(_) => Some(Reason::Fault),
        }
    }
}

impl RuleId {
    /// As the rule writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RuleId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RuleId {
    fn serialize<S: serde::Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RuleId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|id| Self(id.into()))
    }
}

/// `amount_msat 1001 msat (at most 1000 msat would pass)`.
impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.fact.unit().map_or("", Unit::text);
        let space = if unit.is_empty() { "" } else { " " };
        match &self.value {
            Some(value) => write!(f, "{} {value}{space}{unit}", self.fact.id())?,
            None => write!(f, "{} not known", self.fact.id())?,
        }
        match &self.passes {
            None => Ok(()),
            Some(Passes::AtMost(limit)) => write!(f, " (at most {limit}{space}{unit} would pass)"),
            Some(Passes::AtLeast(limit)) => write!(f, " (at least {limit}{space}{unit} would pass)"),
            Some(Passes::Exactly(wanted)) => write!(f, " (only {wanted}{space}{unit} would pass)"),
        }
    }
}

/// What refuses, in a sentence for logs and replies. Holds no secret.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden { rule, compared, .. } => {
                write!(f, "forbidden by {rule}")?;
                list(f, compared)
            }
            Self::NothingPermits { closest } => {
                f.write_str("no rule permits it")?;
                match closest.first() {
                    Some(Closest { rule, compared }) => {
                        write!(f, "; closest is {rule}")?;
                        list(f, compared)
                    }
                    None => Ok(()),
                }
            }
            Self::Budget(BudgetDenial { budget, scope, room, .. }) => {
                write!(f, "budget {budget} ({scope}): ")?;
                match room {
                    BudgetRoom::Exceeded { fact, asked, left, limit, .. } => {
                        write!(f, "{fact} {asked}, {left} left of {limit}")
                    }
                    BudgetRoom::FactMissing(fact) => write!(f, "the request has no {}", fact.id()),
                    BudgetRoom::TooManyKeys => f.write_str("it is counted for too many"),
                }
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, compared: &[Compared]) -> fmt::Result {
    for (at, compared) in compared.iter().enumerate() {
        write!(f, "{} {compared}", if at == 0 { ":" } else { "," })?;
    }
    Ok(())
}
