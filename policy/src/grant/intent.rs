//! What is asked to be allowed: an intent, and what makes it one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::actions::Action;
use crate::facts::FactId;
use crate::time;
use crate::value::MAX_MONEY_MSAT;

/// The facts that an intent may pin to one value, in the order of its text.
pub const PINNED: &[FactId] = &[
    FactId::Destinations,
    FactId::Payee,
    FactId::PaymentHash,
    FactId::Peer,
    FactId::Channel,
    FactId::Client,
    FactId::MessageSha256,
    FactId::DeviceKey,
    FactId::Purpose,
];

/// The longest time an intent is valid, in seconds: a year.
pub const MAX_VALIDITY_S: u64 = 366 * 86_400;
/// The longest time a break-glass intent is valid, in seconds: a day.
pub const MAX_BREAK_GLASS_S: u64 = 86_400;
/// The most uses of one intent.
pub const MAX_USES: u32 = 1_000;
/// The longest value of a pinned fact, in bytes.
pub const MAX_PIN: usize = 128;
/// The longest reason, in bytes.
pub const MAX_REASON: usize = 200;
/// The longest name of a node, person, role, group or appliance, in bytes.
pub const MAX_NAME: usize = 64;

/// What an intent's text says where nothing is pinned or bounded.
pub(super) const ANY: &str = "any";
/// What a fact of several values is pinned to where there shall be none: destinations, where nothing leaves.
pub(super) const NONE: &str = "none";

/// What tells one grant from all others of all appliances: 16 bytes, random, or a digest for tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub [u8; 16]);

impl GrantId {
    /// The id that is written as these 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        (Self(id).to_string() == text).then_some(Self(id))
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// As its text.
impl Serialize for GrantId {
    fn serialize<S: serde::Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GrantId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as Deserialize>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the id of a grant"))
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

/// What kind of grant an intent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    /// Lifts what its own group may lift.
    Normal,
    /// For emergencies: lifts what any group may lift, once, within a day, and always raises an alarm. Only groups with
    /// `break_glass = true` approve it.
    BreakGlass,
}

impl GrantKind {
    /// All kinds.
    pub const ALL: &'static [GrantKind] = &[GrantKind::Normal, GrantKind::BreakGlass];

    /// As the text says it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::BreakGlass => "break-glass",
        }
    }

    /// What approvers sign it for: `ssh-keygen -Y sign -n NAMESPACE`. A signature for one kind is none for the other.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Normal => "claviger-grant",
            Self::BreakGlass => "claviger-break-glass",
        }
    }
}

/// Who asks. Never approves the same intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A node, by a request that was refused until approved: a ticket.
    Node(String),
    /// A person of the `allowed_signers` file, by a signature over the intent in [`REQUEST_NAMESPACE`].
    Person(String),
}

/// What a person who asks signs the intent for.
pub const REQUEST_NAMESPACE: &str = "claviger-request";

/// What is asked to be allowed. Every bound that is set must be met by a fact of the request.
///
/// Its text is the only thing that is signed or stored: [`Intent::text`], [`Intent::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Intent {
    /// The appliance, so that a signature counts on no other.
    pub appliance: String,
    /// The grant, so that a signature counts for no other.
    pub id: GrantId,
    /// Normal or break-glass.
    pub kind: GrantKind,
    /// The one node it is for.
    pub node: String,
    /// What may be done: one or more, in the order of [`Action::ALL`].
    pub actions: Vec<Action>,
    /// Facts of [`PINNED`] that must have this value; of a fact with several values, each of them.
    pub pins: BTreeMap<FactId, String>,
    /// At most so much by each request, in msat.
    pub max_amount_msat: Option<u64>,
    /// At most so much in fees by each request, in msat.
    pub max_fee_msat: Option<u64>,
    /// At most so much by all uses together, without fees, in msat.
    pub max_total_msat: Option<u64>,
    /// How many requests, repeats of the same not counted.
    pub uses: u32,
    /// From when on, in seconds since the Unix epoch.
    pub valid_from_s: u64,
    /// Until when, in seconds since the Unix epoch; not valid at this second.
    pub valid_until_s: u64,
    /// The approval group that is asked.
    pub group: String,
    /// What the group means: so many distinct people …
    pub of: u32,
    /// … with this role.
    pub role: String,
    /// Who asks.
    pub requester: Requester,
    /// Why, for the approvers: printable ASCII on one line, so that it reads as it is.
    pub reason: String,
}

/// Why an intent is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// Not a name: appliance, node, group, role or requester.
    #[error("{key} '{value}' is not a name")]
    Name {
        /// The line's key.
        key: &'static str,
        /// As given, shortened.
        value: String,
    },
    /// No action.
    #[error("an intent without actions")]
    NoActions,
    /// The actions are not in the table's order, or one is listed twice.
    #[error("the actions are not in the order of the table, each once")]
    ActionOrder,
    /// An action does not carry the fact, so that no request would ever be within the bound.
    #[error("{action} does not carry '{fact}'")]
    NotCarried {
        /// The action.
        action: &'static str,
        /// The fact.
        fact: &'static str,
    },
    /// The fact cannot be pinned.
    #[error("'{0}' cannot be pinned")]
    NotPinnable(&'static str),
    /// The value cannot be one of the fact.
    #[error("'{value}' is no value for '{fact}'")]
    Pin {
        /// The fact.
        fact: &'static str,
        /// As given, shortened.
        value: String,
    },
    /// Moves money without bound.
    #[error("{0} moves money, and the intent does not bound how much")]
    Unbounded(&'static str),
    /// Nothing, more than all bitcoin, or a total below what one use may take.
    #[error("{key} is {value}")]
    Amount {
        /// The line's key.
        key: &'static str,
        /// In msat.
        value: u64,
    },
    /// None, too many, or more than one for break-glass.
    #[error("{0} uses")]
    Uses(u32),
    /// Ends before it begins, lasts too long or is beyond the year 9999.
    #[error("it is valid for {0} s")]
    Validity(u64),
    /// Fewer than one approval.
    #[error("it needs no approval")]
    NeedsNone,
    /// Too long, or not printable ASCII.
    #[error("the reason is not one line of printable ASCII")]
    Reason,
}

impl IntentError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Name { .. } => {
                format!("Use 1–{MAX_NAME} of a-z, 0-9, '-', '_', '.' and '@', starting with a letter or digit.")
            }
            Self::NoActions | Self::ActionOrder => {
                "List actions in the order of docs/policy/facts.md, each once.".into()
            }
            Self::NotCarried { .. } => {
                "Leave the bound out, or the action: docs/policy/facts.md lists what each carries.".into()
            }
            Self::NotPinnable(_) => {
                let facts: Vec<_> = PINNED.iter().map(|fact| fact.id()).collect();
                format!("Pin some of: {}.", facts.join(", "))
            }
            Self::Pin { .. } => {
                format!("Write the fact's value as docs/policy/facts.md shows it, at most {MAX_PIN} characters.")
            }
            Self::Unbounded(_) => "Set max_amount_msat.".into(),
            Self::Amount { .. } => {
                format!("Use 1 to {MAX_MONEY_MSAT} msat; a total is no less than what one use may take.")
            }
            Self::Uses(_) => format!("Use 1 to {MAX_USES}; a break-glass grant has one."),
            Self::Validity(_) => "At most 366 days; a break-glass grant at most 24 hours.".into(),
            Self::NeedsNone => "A group needs at least one approval.".into(),
            Self::Reason => format!("Use at most {MAX_REASON} letters, digits, signs and spaces of ASCII."),
        }
    }
}

impl Intent {
    /// Checks that it makes sense by itself and can be written.
    pub fn check(&self) -> Result<(), IntentError> {
        let (requester, person_or_node) = match &self.requester {
            Requester::Node(name) | Requester::Person(name) => ("requester", name),
        };
        let names = [
            ("appliance", &self.appliance),
            ("node", &self.node),
            ("group", &self.group),
            ("role", &self.role),
            (requester, person_or_node),
        ];
        for (key, value) in names {
            if !is_name(value) {
                return Err(IntentError::Name { key, value: shortened(value) });
            }
        }
        self.check_actions()?;
        self.check_amounts()?;
        let break_glass = self.kind == GrantKind::BreakGlass;
        if !(1..=if break_glass { 1 } else { MAX_USES }).contains(&self.uses) {
            return Err(IntentError::Uses(self.uses));
        }
        let valid_s = self.valid_until_s.saturating_sub(self.valid_from_s);
        let longest_s = if break_glass { MAX_BREAK_GLASS_S } else { MAX_VALIDITY_S };
        if !(1..=longest_s).contains(&valid_s) || self.valid_until_s > time::MAX_S {
            return Err(IntentError::Validity(valid_s));
        }
        if self.of == 0 {
            return Err(IntentError::NeedsNone);
        }
        let printable = self.reason.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if self.reason.is_empty() || self.reason.len() > MAX_REASON || !printable || self.reason.trim() != self.reason {
            return Err(IntentError::Reason);
        }
        Ok(())
    }

    fn check_actions(&self) -> Result<(), IntentError> {
        if self.actions.is_empty() {
            return Err(IntentError::NoActions);
        }
        let mut table = Action::ALL.iter();
        if !self.actions.iter().all(|action| table.any(|known| known == action)) {
            return Err(IntentError::ActionOrder);
        }
        for (fact, value) in &self.pins {
            let fact = *fact;
            if !PINNED.contains(&fact) {
                return Err(IntentError::NotPinnable(fact.id()));
            }
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
            if value.is_empty() || value.len() > MAX_PIN || value == ANY || !value.bytes().all(plain) {
                return Err(IntentError::Pin { fact: fact.id(), value: shortened(value) });
            }
        }
        let amount = (self.max_amount_msat.or(self.max_total_msat)).map(|_| FactId::AmountMsat);
        let fee = self.max_fee_msat.map(|_| FactId::FeeMsat);
        for fact in self.pins.keys().copied().chain(amount).chain(fee) {
            for action in &self.actions {
                if !FactId::of(*action).contains(&fact) {
                    return Err(IntentError::NotCarried { action: action.id(), fact: fact.id() });
                }
            }
        }
        Ok(())
    }

    fn check_amounts(&self) -> Result<(), IntentError> {
        if self.max_amount_msat.is_none()
            && let Some(action) = self.actions.iter().find(|action| FactId::of(**action).contains(&FactId::AmountMsat))
        {
            return Err(IntentError::Unbounded(action.id()));
        }
        let least_total_msat = self.max_amount_msat.unwrap_or(1);
        for (key, value, least_msat) in [
            ("max_amount_msat", self.max_amount_msat, 0),
            ("max_fee_msat", self.max_fee_msat, 0),
            ("max_total_msat", self.max_total_msat, least_total_msat),
        ] {
            if let Some(value) = value.filter(|value| !(least_msat..=MAX_MONEY_MSAT).contains(value)) {
                return Err(IntentError::Amount { key, value });
            }
        }
        Ok(())
    }

    /// Whether both ask the same of the same people, whenever and with whichever reason.
    pub(super) fn asks_the_same(&self, other: &Intent) -> bool {
        fn asked(intent: &Intent) -> impl PartialEq + '_ {
            let bounds = (intent.max_amount_msat, intent.max_fee_msat, intent.max_total_msat, intent.uses);
            let what = (&intent.appliance, &intent.node, &intent.actions, &intent.pins, bounds);
            (what, intent.kind, &intent.group, intent.of, &intent.role, &intent.requester)
        }
        asked(self) == asked(other)
    }

    /// Whether it is valid at `now_ms`.
    pub fn is_valid(&self, now_ms: u64) -> bool {
        (self.valid_from_s..self.valid_until_s).contains(&(now_ms / 1_000))
    }

    /// Whether it is over at `now_ms`.
    pub fn has_ended(&self, now_ms: u64) -> bool {
        now_ms / 1_000 >= self.valid_until_s
    }
}

/// Whether `text` names a node, person, role, group or appliance. Capitals, letters beyond ASCII and blanks are out, so
/// that two names that look alike are rare and two that are told apart by case do not exist.
pub(super) fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_NAME
        && text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || b"-_.@".contains(&byte))
}

/// What is quoted of text that may be of any length.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}
