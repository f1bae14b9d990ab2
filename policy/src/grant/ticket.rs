//! Tickets: a request that only lacks approval asks for it by itself. The node goes on when it asks again.
//!
//! A ticket pins what the request shows, allows it once, and ends after a day. The same request gets the same ticket as long
//! as that is open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::group::{Approvals, Group};
use super::intent::{GrantId, Intent, IntentError, MAX_REASON, NONE, PINNED, Requester};
use super::standing::{Grant, Standing};
use super::{Effect, GrantError, Grants};
use crate::facts::FactId;
use crate::request::Request;
use crate::value::Value;

/// How long a ticket may be approved and used, in seconds: a day.
pub const TICKET_S: u64 = 86_400;

/// What a refused request needs: each of these intents approved by its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket {
    intents: Vec<Intent>,
}

/// Why a request cannot be approved by a ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The group is not in the policy.
    #[error("the policy has no approval group '{0}'")]
    NoGroup(String),
    /// A fact of the request has several values, or one that an intent cannot say.
    #[error("'{0}' cannot be pinned to one value")]
    NotPinnable(&'static str),
    /// Somebody took the same ticket back.
    #[error("the ticket {0} was revoked")]
    Revoked(GrantId),
    /// No intent can be made of the request.
    #[error(transparent)]
    Intent(#[from] IntentError),
    /// The node has too many that wait, or its tickets cannot be met.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl TicketError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoGroup(group) => format!("Add [approvals.{group}] to policy.toml."),
            Self::NotPinnable(_) | Self::Intent(_) => {
                "Have a person ask for it in advance: `claviger grant create`.".into()
            }
            Self::Revoked(_) => {
                "Ask who revoked it: `claviger grant list`. It is forgotten when its time is over.".into()
            }
            Self::Grant(error) => error.hint(),
        }
    }
}

impl Ticket {
    /// What has to be approved, one intent a group.
    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }
}

impl Grants {
    /// The ticket of a `request` that lacks the approval of `groups`; `why` says what asks for it, e.g. the rule. Nothing is
    /// changed; [`Grants::open`] records it.
    pub fn ticket(
        &self,
        approvals: &Approvals,
        request: &Request,
        groups: &[&str],
        why: &str,
        now_ms: u64,
    ) -> Result<Ticket, TicketError> {
        let mut intents = Vec::<Intent>::new();
        for name in groups {
            let group = approvals.group(name).ok_or_else(|| TicketError::NoGroup((*name).to_owned()))?;
            let intent = self.asked(name, group, request, why, now_ms)?;
            if intents.iter().any(|other| other.group == intent.group) {
                continue;
            }
            let intent = match self.pending(&intent, approvals, now_ms) {
                Some(grant) if grant.revoked.is_some() => return Err(TicketError::Revoked(grant.intent.id)),
                Some(grant) => grant.intent.clone(),
                None => {
                    self.check_new(approvals, &intent, now_ms)?;
                    intent
                }
            };
            intents.push(intent);
        }
        let new = intents.iter().filter(|intent| !self.grants.contains_key(&intent.id)).count();
        self.check_room(approvals, new, now_ms)?;
        Ok(Ticket { intents })
    }

    /// Records the ticket. What is open already changes nothing.
    pub fn open(&mut self, ticket: &Ticket, now_ms: u64) -> Effect {
        let mut effect = Effect::default();
        let new = |intent: &&Intent| intent.node == self.node && !self.grants.contains_key(&intent.id);
        let new: Vec<_> = ticket.intents.iter().filter(new).cloned().collect();
        if !new.is_empty() {
            effect.changes = self.tidy(now_ms);
        }
        for intent in new {
            self.insert(intent, now_ms, &mut effect);
        }
        effect
    }

    /// The intent that the request asks of one group.
    fn asked(
        &self,
        name: &str,
        group: &Group,
        request: &Request,
        why: &str,
        now_ms: u64,
    ) -> Result<Intent, TicketError> {
        let carried = |fact: &FactId| FactId::of(request.action).contains(fact);
        let mut pins = BTreeMap::new();
        for fact in PINNED.iter().copied().filter(carried) {
            if let Some(value) = request.get(fact) {
                pins.insert(fact, one(value).ok_or(TicketError::NotPinnable(fact.id()))?);
            }
        }
        let number = |fact: FactId| request.number(fact).filter(|_| carried(&fact));
        let valid_from_s = now_ms / 1_000;
        let mut intent = Intent {
            appliance: self.appliance.clone(),
            id: GrantId([0; 16]),
            kind: group.kind,
            node: request.node.clone(),
            actions: vec![request.action],
            pins,
            max_amount_msat: number(FactId::AmountMsat),
            max_fee_msat: number(FactId::FeeMsat),
            max_total_msat: None,
            uses: 1,
            valid_from_s,
            valid_until_s: valid_from_s.saturating_add(TICKET_S),
            group: name.to_owned(),
            of: group.of,
            role: group.role.clone(),
            requester: Requester::Node(request.node.clone()),
            reason: reason(why),
        };
        intent.id = self.id(&intent, now_ms);
        intent.check()?;
        Ok(intent)
    }

    /// The open ticket that asks the same, or the one that was taken back.
    fn pending(&self, asked: &Intent, approvals: &Approvals, now_ms: u64) -> Option<&Grant> {
        let same = |grant: &&Grant| grant.intent.asks_the_same(asked);
        let open = |grant: &&Grant| {
            !matches!(grant.standing(approvals, now_ms), Standing::Ended | Standing::UsedUp | Standing::GroupChanged)
        };
        self.grants.values().filter(same).find(open)
    }

    /// An id that no other grant of this or another appliance has: a digest of what is asked, and when. Two tickets of one
    /// millisecond are told apart by counting.
    fn id(&self, intent: &Intent, now_ms: u64) -> GrantId {
        let digest = |number: u64| {
            let mut digest = Sha256::new();
            digest.update(now_ms.to_be_bytes());
            digest.update(number.to_be_bytes());
            digest.update(intent.text());
            let digest: [u8; 32] = digest.finalize().into();
            let mut id = [0; 16];
            id.copy_from_slice(&digest[..16]);
            GrantId(id)
        };
        let free = (0..).map(digest).find(|id| !self.grants.contains_key(id));
        free.expect("there are fewer grants than numbers")
    }
}

/// The one value of a fact, as text.
fn one(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Texts(texts) => match texts.split_first() {
            None => Some(NONE.to_owned()),
            Some((first, rest)) => rest.iter().all(|text| text == first).then(|| first.clone()),
        },
        _ => None,
    }
}

/// `why` as an intent can say it.
fn reason(why: &str) -> String {
    let plain = |character: char| if character == ' ' || character.is_ascii_graphic() { character } else { '?' };
    let why: String = why.chars().take(MAX_REASON).map(plain).collect();
    let why = why.trim();
    if why.is_empty() { "asked by the node".to_owned() } else { why.to_owned() }
}
