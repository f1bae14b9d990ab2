//! What can be told of a rule without evaluating it: its actions, the bounds it sets on numbers, and what it mentions.
//!
//! It reads Cedar's JSON form of a policy. What is not a plain comparison of a fact with a number is left as *opaque*: nothing
//! is concluded from it, so that a finding is never a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::slice;

use serde_json::{Value as Json, json};

use crate::actions::{Action, Group};

/// Permit or forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Permit,
    Forbid,
}

/// Whole numbers from `min` to `max`. Empty if `min` is above `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Range {
    /// Facts are never negative.
    pub(crate) const ALL: Self = Self { min: 0, max: i64::MAX };

    pub(crate) fn is_empty(self) -> bool {
        self.min > self.max
    }

    fn contains(self, other: Self) -> bool {
        other.is_empty() || (self.min <= other.min && other.max <= self.max)
    }

    fn and(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }
}

/// `at most 5`, `at least 6`, `5`, `6 to 9`, `never`.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            range if range.is_empty() => f.write_str("never"),
            Self { min, max } if min == max => write!(f, "{min}"),
            Self { min: ..=0, max: i64::MAX } => f.write_str("any"),
            Self { min, max: i64::MAX } => write!(f, "at least {min}"),
            Self { min: ..=0, max } => write!(f, "at most {max}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// What a rule applies to, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) effect: Effect,
    /// Groups are taken apart.
    pub(crate) actions: BTreeSet<Action>,
    /// Principal and resource, as Cedar writes them.
    scope: [Json; 2],
    /// A request outside of them does not meet the rule.
    pub(crate) bounds: BTreeMap<String, Range>,
    /// Facts that a request must carry to meet the rule, beside those with bounds.
    pub(crate) has: BTreeSet<String>,
    /// Conditions beside the bounds, as Cedar writes them, sorted. Without any, each request within the bounds meets the rule.
    pub(crate) opaque: Vec<String>,
    /// One of the conditions is never true.
    never: bool,
    /// Attributes of the context that the conditions mention.
    pub(crate) mentions: BTreeSet<String>,
    /// Texts that an attribute of the context is asked for, with the attribute: `context.lists.contains("exchange")`.
    pub(crate) texts: BTreeSet<(String, String)>,
}

impl Shape {
    /// Reads Cedar's JSON form of one policy.
    pub(crate) fn of(policy: &Json) -> Self {
        let mut shape = Self {
            effect: if policy["effect"] == "permit" { Effect::Permit } else { Effect::Forbid },
            actions: actions(&policy["action"]),
            scope: [policy["principal"].clone(), policy["resource"].clone()],
            bounds: BTreeMap::new(),
            has: BTreeSet::new(),
            opaque: Vec::new(),
            never: false,
            mentions: BTreeSet::new(),
            texts: BTreeSet::new(),
        };
        for condition in policy["conditions"].as_array().into_iter().flatten() {
            shape.conjunct(&condition["body"], condition["kind"] == "when");
            shape.mention(&condition["body"]);
        }
        shape.opaque.sort();
        shape.opaque.dedup();
        shape
    }

    /// Whether no request meets the rule.
    pub(crate) fn is_never(&self) -> bool {
        self.never || self.bounds.values().any(|range| range.is_empty())
    }

    /// Whether each request that meets `other` meets this rule too, whatever it is.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let all = |json: &Json| json["op"] == "All";
        let scope = self.scope.iter().zip(&other.scope).all(|(mine, others)| all(mine) || mine == others);
        scope
            && other.actions.is_subset(&self.actions)
            && self.opaque.iter().all(|condition| other.opaque.contains(condition))
            && self.has.iter().all(|fact| other.has.contains(fact) || other.bounds.contains_key(fact))
            && self.bounds.iter().all(|(fact, range)| {
                range.contains(other.bounds.get(fact).copied().unwrap_or(Range { min: i64::MIN, max: i64::MAX }))
            })
    }

    /// Principal and resource, for people.
    pub(crate) fn scope_text(&self) -> String {
        let text = |json: &Json| match (&json["op"], &json["entity"]["id"]) {
            (_, Json::String(id)) => id.clone(),
            (Json::String(op), _) if op == "All" => "any".to_owned(),
            _ => json.to_string(),
        };
        format!("{} {}", text(&self.scope[0]), text(&self.scope[1]))
    }

    /// Takes in that `body` is `truth`.
    fn conjunct(&mut self, body: &Json, truth: bool) {
        let Some((operator, arguments)) = body.as_object().and_then(|object| object.iter().next()) else {
            return self.leave(body, truth);
        };
        match (operator.as_str(), truth) {
            ("&&", true) | ("||", false) => {
                self.conjunct(&arguments["left"], truth);
                self.conjunct(&arguments["right"], truth);
            }
            ("!", _) => self.conjunct(&arguments["arg"], !truth),
            ("Value", _) if arguments.is_boolean() => self.never |= *arguments != truth,
            ("has", true) if arguments["left"]["Var"] == "context" => {
                self.has.extend(arguments["attr"].as_str().map(str::to_owned));
            }
            ("<" | "<=" | ">" | ">=" | "==" | "!=", _) => match comparison(operator, arguments, truth) {
                Some((fact, range)) => {
                    let known = self.bounds.entry(fact).or_insert(Range::ALL);
                    *known = known.and(range);
                }
                None => self.leave(body, truth),
            },
            _ => self.leave(body, truth),
        }
    }

    fn leave(&mut self, body: &Json, truth: bool) {
        let text = cedar(body).unwrap_or_else(|| body.to_string());
        self.opaque.push(if truth { text } else { format!("!({text})") });
    }

    fn mention(&mut self, body: &Json) {
        if let Some(attribute) = attribute(body) {
            self.mentions.insert(attribute.to_owned());
        }
        for operator in ["contains", "==", "!="] {
            if let Some(attribute) = attribute(&body[operator]["left"])
                && let Some(text) = body[operator]["right"]["Value"].as_str()
            {
                self.texts.insert((attribute.to_owned(), text.to_owned()));
            }
        }
        match body {
            Json::Object(object) => object.values().for_each(|inner| self.mention(inner)),
            Json::Array(array) => array.iter().for_each(|inner| self.mention(inner)),
            _ => {}
        }
    }
}

fn actions(scope: &Json) -> BTreeSet<Action> {
    let named = match scope["op"].as_str() {
        Some("All") | None => return Action::ALL.iter().copied().collect(),
        Some(_) => scope["entities"].as_array().map_or(slice::from_ref(&scope["entity"]), Vec::as_slice),
    };
    let ids = named.iter().filter_map(|entity| entity["id"].as_str());
    ids.flat_map(|id| {
        let group = Group::by_id(id).into_iter().flat_map(Group::actions);
        Action::by_id(id).into_iter().chain(group)
    })
    .collect()
}

/// The name in `context.NAME`.
fn attribute(expression: &Json) -> Option<&str> {
    let access = &expression["."];
    if access["left"]["Var"] == "context" { access["attr"].as_str() } else { None }
}

/// The numbers of `context.NAME` for which the comparison is `truth`, if they are a range.
fn comparison(operator: &str, arguments: &Json, truth: bool) -> Option<(String, Range)> {
    let (left, right) = (&arguments["left"], &arguments["right"]);
    let mirrored = |operator| match operator {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        other => other,
    };
    let (fact, operator, number) = match (attribute(left), attribute(right)) {
        (Some(fact), None) => (fact, operator, right["Value"].as_i64()?),
        (None, Some(fact)) => (fact, mirrored(operator), left["Value"].as_i64()?),
        _ => return None,
    };
    let below = |number| Range { min: i64::MIN, max: number };
    let from = |number| Range { min: number, max: i64::MAX };
    let range = match (operator, truth) {
        ("<", true) | (">=", false) => below(number.checked_sub(1)?),
        ("<=", true) | (">", false) => below(number),
        (">", true) | ("<=", false) => from(number.checked_add(1)?),
        (">=", true) | ("<", false) => from(number),
        ("==", true) | ("!=", false) => Range { min: number, max: number },
        _ => return None,
    };
    Some((fact.to_owned(), range))
}

/// A condition as Cedar writes it, for people.
fn cedar(body: &Json) -> Option<String> {
    let all = json!({ "op": "All" });
    let policy = json!({
        "effect": "permit", "principal": all, "action": all, "resource": all,
        "conditions": [{ "kind": "when", "body": body }],
    });
    let text = cedar_policy::Policy::from_json(None, policy).ok()?.to_cedar()?;
    let (condition, _) = text.split_once("when")?.1.trim().strip_prefix('{')?.rsplit_once('}')?;
    Some(condition.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context(fact: &str) -> Json {
        json!({ ".": { "left": { "Var": "context" }, "attr": fact } })
    }

    fn compare(operator: &str, fact: &str, number: i64) -> Json {
        json!({ operator: { "left": context(fact), "right": { "Value": number } } })
    }

    fn rule(effect: &str, action: Json, conditions: Json) -> Shape {
        let all = json!({ "op": "All" });
        Shape::of(&json!({
            "effect": effect, "principal": all, "action": action, "resource": all, "conditions": conditions
        }))
    }

    fn pay() -> Json {
        json!({ "op": "==", "entity": { "type": "Action", "id": "PayInvoice" } })
    }

    fn when(body: Json) -> Json {
        json!([{ "kind": "when", "body": body }])
    }

    #[test]
    fn comparisons_become_ranges_in_either_order_and_under_negation() {
        let above = rule("forbid", pay(), when(compare(">", "amount_msat", 5)));
        assert_eq!(above.bounds.get("amount_msat").map(ToString::to_string), Some("at least 6".to_owned()));
        let mirrored = json!({ "<": { "left": { "Value": 5 }, "right": context("amount_msat") } });
        assert_eq!(rule("forbid", pay(), when(mirrored)).bounds, above.bounds);
        let unless = json!([{ "kind": "unless", "body": compare("<=", "amount_msat", 5) }]);
        assert_eq!(rule("forbid", pay(), unless).bounds, above.bounds);
    }

    #[test]
    fn a_range_that_nothing_is_in_is_never_met_and_its_twin_is() {
        let both = |low, high| json!({ "&&": { "left": compare(">", "amount_msat", low), "right": compare("<", "amount_msat", high) } });
        assert!(rule("permit", pay(), when(both(7, 8))).is_never());
        assert!(!rule("permit", pay(), when(both(7, 9))).is_never());
    }

    #[test]
    fn a_wider_rule_covers_a_narrower_one_and_not_the_other_way_round() {
        let wide = rule("permit", pay(), when(compare("<=", "amount_msat", 9)));
        let narrow = rule("permit", pay(), when(compare("<=", "amount_msat", 5)));
        assert!(wide.covers(&narrow));
        assert!(!narrow.covers(&wide));
    }

    #[test]
    fn what_is_not_a_plain_comparison_is_opaque_and_covers_nothing_but_itself() {
        let odd = compare("like", "payee", 0);
        let opaque = rule("forbid", pay(), when(odd));
        let plain = rule("forbid", pay(), json!([]));
        assert!(plain.covers(&opaque) && opaque.covers(&opaque) && !opaque.covers(&plain));
        assert!(opaque.bounds.is_empty());
    }
}
