//! A request as policy sees it: who, what, when, and the facts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::actions::Action;
use crate::facts::FactId;
use crate::value::Value;

/// What a node asks for. Stored in the journal with its verdict, so that the verdict can be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
pub struct Request {
    /// Whose keys would sign.
    pub node: String,
    /// What is asked for.
    pub action: Action,
    /// When, in ms since 1970 UTC, by a clock that never goes back.
    pub time_ms: u64,
    /// Sorted, each once.
    facts: Vec<(FactId, Value)>,
}

/// Why a request cannot be judged: the front door that made it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A fact that every such request carries is not there.
    #[error("{action} without {fact}")]
    Missing {
        /// What was asked for.
        action: Action,
        /// The fact's id.
        fact: &'static str,
    },
    /// A fact that such a request never carries, or that front doors may not set.
    #[error("{action} does not carry {fact}")]
    Foreign {
        /// What was asked for.
        action: Action,
        /// The fact's id.
        fact: &'static str,
    },
    /// A fact's value is not of its kind.
    #[error("{fact} is of another kind")]
    Kind {
        /// The fact's id.
        fact: &'static str,
    },
    /// A text is longer, a list has more entries, or a number is larger than [`Value`] allows.
    #[error("{fact} is too long or too large")]
    TooLong {
        /// The fact's id, or `node`.
        fact: &'static str,
    },
}

impl Request {
    /// The longest name of a node, in bytes.
    pub const MAX_NODE: usize = 64;

    /// A request of `node` without facts yet.
    pub fn new(node: impl Into<String>, action: Action, time_ms: u64) -> Self {
        Self { node: node.into(), action, time_ms, facts: Vec::with_capacity(8) }
    }

    /// The same with a fact; a fact that is there already is replaced.
    #[must_use]
    pub fn with(mut self, fact: FactId, value: impl Into<Value>) -> Self {
        match self.position(fact) {
            Ok(at) => self.facts[at].1 = value.into(),
            Err(at) => self.facts.insert(at, (fact, value.into())),
        }
        self
    }

    /// The same with the addresses that are paid and are not the node's own: `destinations`, and `destination` if it
    /// is one.
    #[must_use]
    pub fn paying_to(self, addresses: Vec<String>) -> Self {
        let this = match &addresses[..] {
            [only] => self.with(FactId::Destination, only.as_str()),
            _ => self,
        };
        this.with(FactId::Destinations, addresses)
    }

    /// A fact's value.
    pub fn get(&self, fact: FactId) -> Option<&Value> {
        self.position(fact).ok().map(|at| &self.facts[at].1)
    }

    /// A fact's number.
    pub fn number(&self, fact: FactId) -> Option<u64> {
        match self.get(fact) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A fact's text.
    pub fn text(&self, fact: FactId) -> Option<&str> {
        match self.get(fact) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// All facts, in the order of their ids.
    pub fn facts(&self) -> &[(FactId, Value)] {
        &self.facts
    }

    /// Whether it carries what the table says such a request carries, and nothing else. Rules are checked against the
    /// table, so they can rely on it.
    pub fn check(&self) -> Result<(), RequestError> {
        let action = self.action;
        if self.node.len() > Self::MAX_NODE {
            return Err(RequestError::TooLong { fact: "node" });
        }
        let mut facts = self.facts.iter().peekable();
        for wanted in FactId::of(action) {
            match facts.next_if(|(fact, _)| fact == wanted) {
                Some((fact, _)) if fact.derived() => return Err(RequestError::Foreign { action, fact: fact.id() }),
                Some((fact, value)) if !fact.kind().holds(value) => return Err(RequestError::Kind { fact: fact.id() }),
                Some((fact, value)) if !value.fits() => return Err(RequestError::TooLong { fact: fact.id() }),
                Some(_) => {}
                None if !wanted.derived() && wanted.always(action) => {
                    return Err(RequestError::Missing { action, fact: wanted.id() });
                }
                None => {}
            }
        }
        match facts.next() {
            Some((fact, _)) => Err(RequestError::Foreign { action, fact: fact.id() }),
            None => Ok(()),
        }
    }

    /// Two requests have the same bytes if and only if they are equal. Version 1.
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        put(&mut bytes, &self.node);
        put(&mut bytes, self.action.id());
        bytes.extend(self.time_ms.to_be_bytes());
        for (fact, value) in &self.facts {
            put(&mut bytes, fact.id());
            match value {
                Value::Number(number) => {
                    bytes.push(b'n');
                    bytes.extend(number.to_be_bytes());
                }
                Value::Flag(flag) => bytes.extend([b'f', u8::from(*flag)]),
                Value::Text(text) => {
                    bytes.push(b't');
                    put(&mut bytes, text);
                }
                Value::Texts(texts) => {
                    bytes.push(b'l');
                    bytes.extend((texts.len() as u64).to_be_bytes());
                    texts.iter().for_each(|text| put(&mut bytes, text));
                }
            }
        }
        bytes
    }

    /// SHA-256 of [`Self::canonical`].
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical()).into()
    }

    fn position(&self, fact: FactId) -> Result<usize, usize> {
        self.facts.binary_search_by_key(&fact, |(known, _)| *known)
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// The stored form: facts as a map by id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    node: String,
    action: Action,
    time_ms: u64,
    #[serde(default)]
    facts: BTreeMap<FactId, Value>,
}

impl From<Request> for Stored {
    fn from(request: Request) -> Self {
        let Request { node, action, time_ms, facts } = request;
        Self { node, action, time_ms, facts: facts.into_iter().collect() }
    }
}

impl From<Stored> for Request {
    fn from(stored: Stored) -> Self {
        let Stored { node, action, time_ms, facts } = stored;
        Self { node, action, time_ms, facts: facts.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::MAX_MONEY_MSAT;

    fn payment() -> Request {
        Request::new("alice", Action::PayInvoice, 1_000)
            .with(FactId::Payee, "03cd")
            .with(FactId::AmountMsat, 5)
            .with(FactId::PaymentHash, "e3b0")
    }

    #[test]
    fn a_request_is_the_same_after_it_was_stored() {
        let request = payment().with(FactId::Client, "payroll").with(FactId::Description, "\"x\" = 1\n");
        let stored = toml::to_string(&request).expect("plain data");
        assert_eq!(toml::from_str::<Request>(&stored).expect("the same"), request);
        assert_eq!(toml::from_str::<Request>(&stored).expect("the same").digest(), request.digest());
        assert!(toml::from_str::<Request>(&stored.replace("payee", "paye")).is_err());
    }

    #[test]
    fn the_digest_depends_on_every_part_and_not_on_the_order_of_making() {
        let request = payment();
        let other_way = Request::new("alice", Action::PayInvoice, 1_000)
            .with(FactId::PaymentHash, "e3b0")
            .with(FactId::AmountMsat, 5)
            .with(FactId::Payee, "03cd");
        assert_eq!(other_way, request);
        let others = [
            request.clone().with(FactId::AmountMsat, 6),
            request.clone().with(FactId::Payee, "03ce"),
            request.clone().with(FactId::Client, ""),
            Request { node: "alic".into(), ..request.clone() },
            Request { time_ms: 1_001, ..request.clone() },
            Request { action: Action::Keysend, ..request.clone() },
        ];
        assert!(others.iter().all(|other| other.digest() != request.digest()));
    }

    #[test]
    fn a_request_that_lacks_a_fact_or_carries_a_strange_one_cannot_be_judged() {
        assert_eq!(payment().check(), Ok(()));
        let bare = Request::new("alice", Action::PayInvoice, 0);
        assert_eq!(bare.check(), Err(RequestError::Missing { action: Action::PayInvoice, fact: "amount_msat" }));
        for fact in [FactId::PushMsat, FactId::HourUtc] {
            let strange = payment().with(fact, 3);
            assert_eq!(strange.check(), Err(RequestError::Foreign { action: Action::PayInvoice, fact: fact.id() }));
        }
        let lists = payment().with(FactId::PayeeLists, vec!["suppliers".to_owned()]);
        assert_eq!(lists.check(), Err(RequestError::Foreign { action: Action::PayInvoice, fact: "payee_lists" }));
        assert_eq!(payment().with(FactId::Payee, 3).check(), Err(RequestError::Kind { fact: "payee" }));
        let long = "x".repeat(Value::MAX_TEXT + 1);
        assert_eq!(payment().with(FactId::Client, long).check(), Err(RequestError::TooLong { fact: "client" }));
        assert_eq!(Request { node: "x".repeat(65), ..payment() }.check(), Err(RequestError::TooLong { fact: "node" }));
    }

    #[test]
    fn amounts_are_clamped_to_all_money_so_that_sums_fit() {
        let request = payment().with(FactId::AmountMsat, u64::MAX);
        assert_eq!(request.number(FactId::AmountMsat), Some(MAX_MONEY_MSAT));
        assert!(MAX_MONEY_MSAT.checked_mul(4).is_some_and(|sum| i64::try_from(sum).is_ok()));
    }

    #[test]
    fn one_address_is_the_destination_and_two_are_not() {
        let to = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
            Request::new("alice", Action::Withdraw, 0).paying_to(addresses)
        };
        assert_eq!(to(&["a"]).text(FactId::Destination), Some("a"));
        assert_eq!(to(&["a", "b"]).text(FactId::Destination), None);
        assert_eq!(to(&[]).get(FactId::Destinations), Some(&Value::Texts(vec![])));
    }
}
