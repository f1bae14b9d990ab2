//! What a rule looks at, read from its text: which facts, and which comparisons decide.

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, Policy, UnaryOp, Var};

use crate::facts::FactId;
use crate::request::Request;
use crate::value::{MAX_MONEY_MSAT, Value};
use crate::verdict::{Compared, Passes};

/// A set of facts, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u64);

const _: () = assert!(FactId::ALL.len() <= 64, "a set of facts has 64 bits");

impl Facts {
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) fn contains(self, fact: FactId) -> bool {
        self.0 & (1 << fact as u64) != 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn insert(&mut self, fact: FactId) {
        self.0 |= 1 << fact as u64;
    }
}

/// What one rule looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Looks {
    /// Every fact it names; all if it uses the context as a whole.
    pub(super) reads: Facts,
    /// What each comparison would need for the request to pass.
    passes: Vec<(FactId, Passes)>,
}

impl Looks {
    /// What `policy` looks at; `forbid` turns its comparisons round.
    pub(super) fn of(policy: &Policy, forbid: bool) -> Self {
        let mut looks = Self::default();
        let Policy::Static(policy) = policy else {
            return Self { reads: Facts::ALL, ..looks };
        };
        for clause in policy.body().clauses() {
            match clause {
                Clause::When(condition) => looks.walk(condition, !forbid),
                Clause::Unless(condition) => looks.walk(condition, forbid),
            }
        }
        looks
    }

    /// Nothing is known of it: it may read anything.
    pub(super) fn unknown() -> Self {
        Self { reads: Facts::ALL, passes: Vec::new() }
    }

    /// The facts it looked at in `request`, each once, with what would have passed.
    pub(super) fn compare(&self, request: &Request) -> Vec<Compared> {
        let mut compared = Vec::new();
        for fact in FactId::of(request.action).iter().copied().filter(|fact| self.reads.contains(*fact)) {
            let value = request.get(fact).cloned();
            let passes = self.passes.iter().filter(|(of, _)| *of == fact).map(|(_, passes)| passes);
            let passes =
                passes.filter(|passes| value.as_ref().is_none_or(|value| !met(value, passes))).min_by_key(order);
            compared.push(Compared { fact, passes: passes.cloned(), value });
        }
        compared
    }

    /// `wanted`: the condition's outcome with which the request would pass.
    fn walk(&mut self, expr: &Expr, wanted: bool) {
        match expr {
            Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => {
                self.walk(left, wanted);
                self.walk(right, wanted);
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.walk(expr, !wanted),
            Expr::BinaryOp { op, left, right } => {
                self.compared(*op, left, right, wanted);
                self.walk(left, wanted);
                self.walk(right, wanted);
            }
            Expr::GetAttr { expr, attr } => self.attribute(expr, attr, wanted),
            Expr::HasAttr { expr, attrs } => self.attribute(expr, attrs.first(), wanted),
            Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } => self.walk(expr, wanted),
            Expr::Is { expr, in_expr, .. } => {
                self.walk(expr, wanted);
                in_expr.iter().for_each(|within| self.walk(within, wanted));
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                // Which branch decides is not said: its comparisons are read, and promise nothing.
                let before = self.passes.len();
                [cond, then_expr, else_expr].into_iter().for_each(|part| self.walk(part, wanted));
                self.passes.truncate(before);
            }
            Expr::Set(parts) => parts.iter().for_each(|part| self.walk(part, wanted)),
            Expr::Record(parts) => parts.values().for_each(|part| self.walk(part, wanted)),
            Expr::Literal(_) | Expr::Var(Var::Principal | Var::Action | Var::Resource) => {}
            _ => self.reads = Facts::ALL,
        }
    }

    fn attribute(&mut self, expr: &Expr, attr: &str, wanted: bool) {
        match (expr, FactId::by_id(attr)) {
            (Expr::Var(Var::Context), Some(fact)) => self.reads.insert(fact),
            (Expr::Var(Var::Context), None) => {}
            _ => self.walk(expr, wanted),
        }
    }

    fn compared(&mut self, op: BinaryOp, left: &Expr, right: &Expr, wanted: bool) {
        let found = match (fact(left), literal(right)) {
            (Some(fact), Some(literal)) => Some((fact, op, literal)),
            _ => fact(right).zip(literal(left)).map(|(fact, literal)| (fact, mirrored(op), literal)),
        };
        let Some((fact, op, literal)) = found else { return };
        let op = if wanted { op } else { opposite(op) };
        let passes = match (op, literal) {
            (BinaryOp::Less, Value::Number(limit)) => limit.checked_sub(1).map(Passes::AtMost),
            (BinaryOp::LessEq, Value::Number(limit)) => Some(Passes::AtMost(limit)),
            (BinaryOp::Greater, Value::Number(limit)) => limit.checked_add(1).map(Passes::AtLeast),
            (BinaryOp::GreaterEq, Value::Number(limit)) => Some(Passes::AtLeast(limit)),
            (BinaryOp::Eq, wanted) => Some(Passes::Exactly(wanted)),
            _ => None,
        };
        self.passes.extend(passes.map(|passes| (fact, passes)));
    }
}

/// The tightest upper bound first: what is told must be enough for this rule.
fn order(passes: &&Passes) -> (u8, u64) {
    match passes {
        Passes::AtMost(limit) => (0, *limit),
        Passes::AtLeast(limit) => (1, MAX_MONEY_MSAT.saturating_sub(*limit)),
        Passes::Exactly(_) => (2, 0),
    }
}

fn met(value: &Value, passes: &Passes) -> bool {
    match (value, passes) {
        (Value::Number(number), Passes::AtMost(limit)) => number <= limit,
        (Value::Number(number), Passes::AtLeast(limit)) => number >= limit,
        (value, Passes::Exactly(wanted)) => value == wanted,
        _ => false,
    }
}

fn fact(expr: &Expr) -> Option<FactId> {
    match expr {
        Expr::GetAttr { expr, attr } if matches!(**expr, Expr::Var(Var::Context)) => FactId::by_id(attr),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::Literal(Literal::Long(number)) => u64::try_from(*number).ok().map(Value::Number),
        Expr::Literal(Literal::Bool(flag)) => Some(Value::Flag(*flag)),
        Expr::Literal(Literal::String(text)) => Some(Value::Text(text.to_string())),
        _ => None,
    }
}

fn mirrored(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Less => BinaryOp::Greater,
        BinaryOp::LessEq => BinaryOp::GreaterEq,
        BinaryOp::Greater => BinaryOp::Less,
        BinaryOp::GreaterEq => BinaryOp::LessEq,
        other => other,
    }
}

fn opposite(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Less => BinaryOp::GreaterEq,
        BinaryOp::LessEq => BinaryOp::Greater,
        BinaryOp::Greater => BinaryOp::LessEq,
        BinaryOp::GreaterEq => BinaryOp::Less,
        BinaryOp::Eq => BinaryOp::NotEq,
        BinaryOp::NotEq => BinaryOp::Eq,
        other => other,
    }
}
