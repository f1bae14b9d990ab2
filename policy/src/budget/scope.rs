//! What an amount counts against: one node, one payee, the fleet.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::facts::FactId;
use crate::request::Request;
use crate::value::Value;

/// The longest value of a scope in bytes; a longer one counts under its SHA-256.
const MAX_VALUE: usize = 128;

/// Declares the table: variant, id, the fact that tells which one, what shares a budget.
macro_rules! scopes {
    ($( $variant:ident $id:literal $fact:expr, $doc:literal; )*) => {
        /// What one window of a budget is for. Several together: one window for each combination.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope { $( #[doc = $doc] #[serde(rename = $id)] $variant, )* }

        impl Scope {
            /// All scopes, in the order of the table.
            pub const ALL: &'static [Scope] = &[ $( Scope::$variant, )* ];

            /// How it is written in `policy.toml`.
            pub const fn id(self) -> &'static str { match self { $( Scope::$variant => $id, )* } }

            /// The scope with this id.
            pub fn by_id(id: &str) -> Option<Self> { Self::ALL.iter().copied().find(|known| known.id() == id) }

            /// The fact of a request that tells which one it is, where it is a fact.
            pub const fn fact(self) -> Option<FactId> { match self { $( Scope::$variant => $fact, )* } }

            /// What shares a window.
            pub const fn doc(self) -> &'static str { match self { $( Scope::$variant => $doc, )* } }
        }
    };
}

scopes! {
    Fleet "fleet" None, "All nodes together. Stands alone.";
    Node "node" None, "Each node has its own.";
    Channel "channel" Some(FactId::Channel), "Each channel has its own.";
    Peer "peer" Some(FactId::Peer), "Each channel peer has its own.";
    Payee "payee" Some(FactId::Payee), "Each payee has its own.";
    Client "client" Some(FactId::Client), "Each client of a front door has its own.";
}

/// Which window of a node an amount counts in: a value for each scope of the budget that is a fact, in the order of the
/// table. The node itself is known from where the window is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ScopeKey(Vec<(Scope, String)>);

/// Which scopes a key has values for, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape(u8);

impl ScopeKey {
    /// The key of `request` under `scopes`, or the fact that it lacks.
    pub(super) fn of(scopes: &[Scope], request: &Request) -> Result<Self, FactId> {
        let facts = scopes.iter().filter_map(|scope| Some((*scope, scope.fact()?)));
        let value = |(scope, fact)| match request.get(fact) {
            Some(Value::Text(text)) => Ok((scope, bounded(text))),
            _ => Err(fact),
        };
        facts.map(value).collect::<Result<_, _>>().map(Self::sorted)
    }

    /// A key of these values; `None` if a scope is named twice or is no fact.
    pub(super) fn new(values: Vec<(Scope, String)>) -> Option<Self> {
        let key = Self::sorted(values);
        let distinct = key.0.windows(2).all(|pair| pair[0].0 != pair[1].0);
        (distinct && key.0.iter().all(|(scope, _)| scope.fact().is_some())).then_some(key)
    }

    fn sorted(mut values: Vec<(Scope, String)>) -> Self {
        values.sort();
        Self(values)
    }

    pub(super) fn values(&self) -> &[(Scope, String)] {
        &self.0
    }

    pub(super) fn shape(&self) -> Shape {
        Shape(self.0.iter().fold(0, |bits, (scope, _)| bits | 1 << *scope as u8))
    }

    /// What is left of the key if only the scopes of `shape` are known.
    pub(super) fn project(&self, shape: Shape) -> Self {
        Self(self.0.iter().filter(|(scope, _)| shape.has(*scope)).cloned().collect())
    }

    /// Whether both may be the same thing: no scope has two values.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let contradicts =
            |(scope, value): &(Scope, String)| other.0.iter().any(|(theirs, other)| theirs == scope && other != value);
        !self.0.iter().any(contradicts)
    }
}

impl Shape {
    pub(super) fn of(scopes: &[Scope]) -> Self {
        let facts = scopes.iter().filter(|scope| scope.fact().is_some());
        Self(facts.fold(0, |bits, scope| bits | 1 << *scope as u8))
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether every scope of this shape is in `other`.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

fn bounded(text: &str) -> String {
    match text.len() <= MAX_VALUE {
        true => text.to_owned(),
        false => format!("sha256:{}", hex::encode(Sha256::digest(text))),
    }
}
