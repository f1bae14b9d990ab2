//! The body of a GraphQL call as a typed operation. What is not understood is not signed; the bytes stay as they came.

use std::collections::BTreeMap;
use std::str::FromStr;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Address, Network};
use lightning_signer::invoice::{Invoice, InvoiceAttributes, bolt11};

use super::super::event::EventError;
use super::super::fields::{Fields, milliseconds};
use super::super::json::{self, Json, JsonError};
use super::document::{self, Document, DocumentError};
use crate::reasons::{Reason, Refusal};

/// The largest body that is read, in bytes. Lightspark's own have some 6 KiB.
pub const MAX_OPERATION_BYTES: usize = 64 << 10;
/// What a body has beside its variables.
const HEAD: [&str; 5] = ["operationName", "query", "variables", "nonce", "expires_at"];

/// Declares the operations that are signed: variant, field of the mutation, what its input may hold.
macro_rules! operations {
    ($( $variant:ident $name:literal [$($field:literal)*]; )*) => {
        /// An operation that is signed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Name { $( #[doc = $name] $variant, )* }

        impl Name {
            const ALL: &'static [Name] = &[ $( Name::$variant, )* ];

            /// The field of the mutation.
            pub(super) const fn text(self) -> &'static str { match self { $( Name::$variant => $name, )* } }

            const fn fields(self) -> &'static [&'static str] { match self { $( Name::$variant => &[$($field),*], )* } }
        }
    };
}

operations! {
    PayInvoice "pay_invoice"
        ["node_id" "encoded_invoice" "timeout_secs" "maximum_fees_msats" "amount_msats" "idempotency_key"];
    PayUmaInvoice "pay_uma_invoice"
        ["node_id" "encoded_invoice" "timeout_secs" "maximum_fees_msats" "amount_msats" "idempotency_key" "sender_hash"];
    RequestWithdrawal "request_withdrawal"
        ["node_id" "amount_sats" "bitcoin_address" "withdrawal_mode" "idempotency_key" "fee_target" "sats_per_vbyte"];
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: Name,
    /// Lightspark's id of the node that pays.
    pub(super) node: String,
    /// What its caller knows it by if it comes again.
    pub(super) key: Option<String>,
    /// Of everything that it does: not of its nonce and its expiry, which a repeat has others of.
    pub(super) digest: sha256::Hash,
    /// Milliseconds since the Unix epoch.
    pub(super) expires_ms: u64,
    pub(super) moves: Moves,
}

/// The money that an operation moves.
#[derive(Clone, Debug)]
pub(super) enum Moves {
    /// To the payee of an invoice.
    Payment {
        /// Signed by its payee.
        invoice: Box<Invoice>,
        /// What the payee gets.
        amount_msat: u64,
        /// What routing may cost.
        max_fee_msat: u64,
        /// How long it is tried.
        timeout_s: u64,
    },
    /// To an address.
    Withdrawal {
        /// Of the account's network.
        address: Address,
        /// What the address gets, at most.
        amount_sat: u64,
    },
}

/// Why an operation is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OperationError {
    #[error("the operation cannot be read: {0}")]
    Json(#[from] JsonError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the operation's {0} is missing, unknown or malformed")]
    Field(String),
    #[error("what only reads needs no signature")]
    Reads,
    #[error("'{0}' is not an operation that is signed here")]
    Unknown(String),
    #[error("the invoice cannot be read, or its payee did not sign it")]
    Invoice,
    #[error("the operation pays on another network than {0}")]
    Network(Network),
}

impl From<EventError> for OperationError {
    fn from(error: EventError) -> Self {
        match error {
            EventError::Json(error) => Self::Json(error),
            EventError::Field(name) => Self::Field(name.to_owned()),
            other => Self::Field(other.to_string()),
        }
    }
}

impl OperationError {
    pub(super) fn refusal(&self) -> Refusal {
        let reason = match self {
            Self::Json(_) | Self::Document(_) | Self::Field(_) => Reason::Malformed,
            Self::Reads => Reason::NotAllowed,
            Self::Unknown(_) => Reason::MessageUnknown,
            Self::Invoice => Reason::InvoiceUnreadable,
            Self::Network(_) => Reason::NetworkForeign,
        };
        Refusal::new(reason, self.to_string())
    }
}

impl Operation {
    /// Reads the body of a call, for an account on `network`.
    pub(super) fn parse(body: &[u8], network: Network) -> Result<Self, OperationError> {
        if body.len() > MAX_OPERATION_BYTES {
            return Err(JsonError::TooLong.into());
        }
        let field = |name: &str| OperationError::Field(name.to_owned());
        // The nonce is one of 64 bits, and nothing here depends on it.
        let Json::Object(body) = json::parse_large(body)? else { return Err(JsonError::Syntax.into()) };
        if let Some(unknown) = body.keys().find(|key| !HEAD.contains(&key.as_str())) {
            return Err(field(unknown));
        }
        let head = Fields(&body);
        let mutation = match document::parse(head.text("query")?)? {
            Document::Changes(mutation) => mutation,
            Document::Reads => return Err(OperationError::Reads),
        };
        let name = Name::ALL.iter().find(|name| name.text() == mutation.field);
        let name = *name.ok_or_else(|| OperationError::Unknown(mutation.field.chars().take(64).collect()))?;
        let Some(Json::Object(variables)) = body.get("variables") else { return Err(field("variables")) };
        if !matches!(body.get("nonce"), Some(Json::Number(_) | Json::OtherNumber)) {
            return Err(field("nonce"));
        }
        let expires_ms = milliseconds(head.text("expires_at")?).ok_or_else(|| field("expires_at"))?;
        let mut input = BTreeMap::new();
        for (name_of_field, variable) in &mutation.input {
            if !name.fields().contains(&name_of_field.as_str()) {
                return Err(field(name_of_field));
            }
            match variables.get(variable) {
                None | Some(Json::Null) => {}
                Some(value @ (Json::Text(_) | Json::Number(_))) => {
                    drop(input.insert(name_of_field.clone(), value.clone()))
                }
                Some(_) => return Err(field(name_of_field)),
            }
        }
        let fields = Fields(&input);
        let key = fields.maybe_text("idempotency_key")?.map(str::to_owned);
        let moves = match name {
            Name::PayInvoice | Name::PayUmaInvoice => payment(&fields, network)?,
            Name::RequestWithdrawal => withdrawal(&fields, network)?,
        };
        let (node, digest) = (fields.id("node_id")?, digest(name, &input));
        Ok(Self { name, node, key, digest, expires_ms, moves })
    }
}

fn payment(fields: &Fields<'_>, network: Network) -> Result<Moves, OperationError> {
    let missing = |name: &str| OperationError::Field(name.to_owned());
    let encoded = bolt11::Bolt11Invoice::from_str(fields.text("encoded_invoice")?);
    let invoice = encoded.map_err(|_| OperationError::Invoice)?;
    if invoice.network() != network {
        return Err(OperationError::Network(network));
    }
    // Who pays says how much if the invoice does not.
    let named_msat = fields.maybe_number("amount_msats")?;
    let amount_msat = match (invoice.amount_milli_satoshis(), named_msat) {
        (Some(invoiced), Some(named)) if invoiced != named => return Err(missing("amount_msats")),
        (invoiced, named) => invoiced.or(named).filter(|amount_msat| *amount_msat > 0),
    };
    let amount_msat = amount_msat.ok_or_else(|| missing("amount_msats"))?;
    let max_fee_msat = fields.number("maximum_fees_msats").ok_or_else(|| missing("maximum_fees_msats"))?;
    let timeout_s = fields.number("timeout_secs").ok_or_else(|| missing("timeout_secs"))?;
    Ok(Moves::Payment { invoice: Box::new(Invoice::Bolt11(invoice)), amount_msat, max_fee_msat, timeout_s })
}

fn withdrawal(fields: &Fields<'_>, network: Network) -> Result<Moves, OperationError> {
    let missing = |name: &str| OperationError::Field(name.to_owned());
    let address = fields.text("bitcoin_address")?.parse::<Address<_>>().map_err(|_| missing("bitcoin_address"))?;
    let address = address.require_network(network).map_err(|_| OperationError::Network(network))?;
    // "Everything" is a negative number there: an amount that nobody named.
    let amount_sat = fields.number("amount_sats").filter(|amount_sat| *amount_sat > 0);
    let amount_sat = amount_sat.ok_or_else(|| missing("amount_sats"))?;
    fields.text("withdrawal_mode")?;
    Ok(Moves::Withdrawal { address, amount_sat })
}

/// Over the name and each field with its length, so that no two inputs read alike.
fn digest(name: Name, input: &BTreeMap<String, Json>) -> sha256::Hash {
    let mut engine = sha256::Hash::engine();
    let mut add = |text: &str| {
        engine.input(&(text.len() as u64).to_be_bytes());
        engine.input(text.as_bytes());
    };
    add(name.text());
    for (field, value) in input {
        add(field);
        match value {
            Json::Number(number) => add(&number.to_string()),
            Json::Text(text) => add(text),
            _ => {}
        }
    }
    sha256::Hash::from_engine(engine)
}

impl Moves {
    /// The payment hash of an invoice, in hex.
    pub(super) fn payment_hash(&self) -> Option<String> {
        match self {
            Self::Payment { invoice, .. } => Some(hex::encode(invoice.payment_hash().0)),
            Self::Withdrawal { .. } => None,
        }
    }
}
