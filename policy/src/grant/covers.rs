//! Whether a request is within an intent.

use super::intent::{Intent, NONE};
use crate::facts::{FactId, Source};
use crate::request::Request;
use crate::value::Value;

/// What keeps a request from being within an intent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another node's.
    #[error("it is for another node")]
    Node,
    /// Another action.
    #[error("it is for other actions")]
    Action,
    /// The request does not carry what is bound.
    #[error("the request does not show '{0}'")]
    Missing(&'static str),
    /// The request carries another value.
    #[error("'{0}' is another")]
    Other(&'static str),
    /// The request is above a bound.
    #[error("'{fact}' is {asked_msat} msat, above {max_msat} msat")]
    Above {
        /// The fact.
        fact: &'static str,
        /// In the request.
        asked_msat: u64,
        /// In the intent.
        max_msat: u64,
    },
}

impl Intent {
    /// Whether `request` is within it, apart from time, uses and the total: each bound must be met by a fact of the
    /// request, and a fact that is missing meets nothing (P4).
    pub fn covers(&self, request: &Request) -> Result<(), Mismatch> {
        if request.node != self.node {
            return Err(Mismatch::Node);
        }
        if !self.actions.contains(&request.action) {
            return Err(Mismatch::Action);
        }
        for (fact, pinned) in &self.pins {
            let same = match request.get(*fact) {
                Some(Value::Text(value)) => value == pinned,
                Some(Value::Texts(values)) if values.is_empty() => pinned == NONE,
                Some(Value::Texts(values)) => values.iter().all(|value| value == pinned),
                Some(_) => false,
                None => return Err(Mismatch::Missing(fact.id())),
            };
            if !same {
                return Err(Mismatch::Other(fact.id()));
            }
        }
        for (fact, max_msat) in [(FactId::AmountMsat, self.max_amount_msat), (FactId::FeeMsat, self.max_fee_msat)] {
            let Some(max_msat) = max_msat else { continue };
            let asked_msat = request.number(fact).ok_or(Mismatch::Missing(fact.id()))?;
            if asked_msat > max_msat {
                return Err(Mismatch::Above { fact: fact.id(), asked_msat, max_msat });
            }
        }
        if self.max_total_msat.is_some() && request.number(FactId::AmountMsat).is_none() {
            return Err(Mismatch::Missing(FactId::AmountMsat.id()));
        }
        Ok(())
    }

    /// The pins that rest on the node's word alone, for at least one of the actions. To be shown to approvers: a node that
    /// was taken over can claim what they say.
    pub fn claimed(&self) -> impl Iterator<Item = FactId> {
        let is_claimed = |fact: &FactId| self.actions.iter().any(|action| fact.source(*action) == Source::Claimed);
        self.pins.keys().copied().filter(is_claimed)
    }
}
