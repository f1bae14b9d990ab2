//! A webhook's body as typed fields. What is not understood is refused; fields that nothing here depends on are left alone.

use bitcoin::Network;

use super::fields::{Fields, milliseconds};
use super::json::{self, Json, JsonError};
use super::paths::{KeyPath, PathError};

/// A transaction of one event asks for at most so many signatures.
const MAX_JOBS: usize = 512;
/// Per-commitment secrets are counted in 48 bits (BOLT 3).
pub(super) const MAX_INDEX: u64 = (1 << 48) - 1;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique among all of Lightspark's events.
    pub id: String,
    /// When Lightspark made it: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node or the channel it is about.
    pub entity: String,
    /// What it asks for.
    pub ask: Ask,
}

/// What an event asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Nothing: it tells of something, and is acknowledged.
    Nothing,
    /// An answer with a key of this network.
    Remote(Network, SubEvent),
}

/// Declares the sub-events: variant, Lightspark's name, the number of its request in the pipeline.
macro_rules! sub_events {
    ($( $variant:ident $name:literal $number:literal; )*) => {
        /// The kinds of sub-events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $( #[doc = $name] $variant = $number, )* }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Method] = &[ $( Method::$variant, )* ];

            /// Lightspark's name.
            pub const fn name(self) -> &'static str { match self { $( Method::$variant => $name, )* } }
        }
    };
}

sub_events! {
    Ecdh "ECDH" 5000;
    GetPoint "GET_PER_COMMITMENT_POINT" 5001;
    ReleaseSecret "RELEASE_PER_COMMITMENT_SECRET" 5002;
    InvoiceHash "REQUEST_INVOICE_PAYMENT_HASH" 5003;
    ReleasePreimage "RELEASE_PAYMENT_PREIMAGE" 5004;
    SignInvoice "SIGN_INVOICE" 5005;
    Sign "DERIVE_KEY_AND_SIGN" 5006;
    RevealSecret "REVEAL_COUNTERPARTY_PER_COMMITMENT_SECRET" 5007;
}

/// One sub-event with what it carries.
#[derive(Clone, Debug, PartialEq)]
pub enum SubEvent {
    /// A shared secret with the node's identity.
    Ecdh,
    /// A per-commitment point of the channel with this number.
    GetPoint {
        /// `n` in `m/3/n`
        channel: u32,
        /// Counted down from the first one.
        index: u64,
    },
    /// The secret of a commitment that is no longer in force.
    ReleaseSecret {
        /// `n` in `m/3/n`
        channel: u32,
        /// Counted down from the first one.
        index: u64,
    },
    /// A payment hash for an invoice.
    InvoiceHash {
        /// Lightspark's id.
        invoice: String,
    },
    /// The preimage of such a hash.
    ReleasePreimage {
        /// Lightspark's id.
        invoice: String,
        /// As the answer with the hash gave it.
        nonce: Option<[u8; 32]>,
    },
    /// A signature on the digest of an invoice.
    SignInvoice,
    /// Signatures on transactions.
    Sign(Vec<Job>),
    /// The counterparty revoked a commitment.
    RevealSecret {
        /// Counted down from 2⁴⁸ − 1.
        index: u64,
        /// BOLT 3's.
        secret: [u8; 32],
    },
}

/// One signature that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Lightspark's id.
    pub id: String,
    /// The key.
    pub path: KeyPath,
    /// The digest that the signature would be on.
    pub message: [u8; 32],
    /// Added to the key, after the multiplication.
    pub add_tweak: Option<[u8; 32]>,
    /// Multiplied with the key.
    pub mul_tweak: Option<[u8; 32]>,
    /// The witness script, or the P2WPKH output. Empty if it is not shown.
    pub script: Vec<u8>,
    /// A transaction or a PSBT. Empty if it is not shown.
    pub transaction: Vec<u8>,
    /// What the spent output holds. 0 if it is not shown.
    pub amount_sat: u64,
    /// Where change or a claim goes.
    pub destination: Option<KeyPath>,
}

/// Why an event is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The body.
    #[error("the event cannot be read: {0}")]
    Json(#[from] JsonError),
    /// A field is missing, or is not what it should be.
    #[error("the event's {0} is missing or malformed")]
    Field(&'static str),
    /// A key's path.
    #[error("{0}")]
    Path(#[from] PathError),
    /// No such event is known.
    #[error("events of this type are not known")]
    UnknownType,
    /// No such sub-event is known.
    #[error("sub-events of this type are not known")]
    UnknownSubEvent,
}

/// Lightspark's other events, which tell of something.
const TELLING: &[&str] = &[
    "CHANNEL_OPENING_FEES",
    "FORCE_CLOSURE",
    "FUNDS_RECEIVED",
    "HIGH_BALANCE",
    "HOLD_INVOICE_ACCEPTED",
    "LOW_BALANCE",
    "NODE_STATUS",
    "PAYMENT_FINISHED",
    "UMA_INVITATION_CLAIMED",
    "WALLET_FUNDS_RECEIVED",
    "WALLET_INCOMING_PAYMENT_FINISHED",
    "WALLET_OUTGOING_PAYMENT_FINISHED",
    "WALLET_STATUS",
    "WALLET_WITHDRAWAL_FINISHED",
    "WITHDRAWAL_FINISHED",
];

impl Event {
    /// Reads the body of a webhook. `network` is the one that the paths of its keys are read for.
    pub fn parse(body: &[u8], network: Network) -> Result<Self, EventError> {
        let Json::Object(event) = json::parse(body)? else { return Err(JsonError::Syntax.into()) };
        let event = Fields(&event);
        let head = |ask| -> Result<Self, EventError> {
            let at_ms = milliseconds(event.text("timestamp")?).ok_or(EventError::Field("timestamp"))?;
            let (id, entity) = (event.id("event_id")?, event.id("entity_id")?);
            Ok(Self { id, at_ms, entity, ask })
        };
        match event.text("event_type")? {
            "REMOTE_SIGNING" => {
                let Some(Json::Object(data)) = event.0.get("data") else { return Err(EventError::Field("data")) };
                let data = Fields(data);
                let asked = match data.text("bitcoin_network")? {
                    "MAINNET" => Network::Bitcoin,
                    "TESTNET" => Network::Testnet,
                    "SIGNET" => Network::Signet,
                    "REGTEST" => Network::Regtest,
                    _ => return Err(EventError::Field("bitcoin_network")),
                };
                head(Ask::Remote(asked, sub_event(&data, network)?))
            }
            telling if TELLING.contains(&telling) => head(Ask::Nothing),
            _ => Err(EventError::UnknownType),
        }
    }
}

impl SubEvent {
    /// Its kind.
    pub fn method(&self) -> Method {
        match self {
            Self::Ecdh => Method::Ecdh,
            Self::GetPoint { .. } => Method::GetPoint,
            Self::ReleaseSecret { .. } => Method::ReleaseSecret,
            Self::InvoiceHash { .. } => Method::InvoiceHash,
            Self::ReleasePreimage { .. } => Method::ReleasePreimage,
            Self::SignInvoice => Method::SignInvoice,
            Self::Sign(_) => Method::Sign,
            Self::RevealSecret { .. } => Method::RevealSecret,
        }
    }
}

fn sub_event(data: &Fields<'_>, network: Network) -> Result<SubEvent, EventError> {
    let name = data.text("sub_event_type")?;
    let method = Method::ALL.iter().find(|method| method.name() == name).ok_or(EventError::UnknownSubEvent)?;
    let channel = || match KeyPath::parse(data.text("derivation_path")?, network)? {
        KeyPath::Channel(channel) => Ok(channel),
        _ => Err(EventError::Path(PathError::NoPurpose)),
    };
    let index = |field| data.number(field).filter(|index| *index <= MAX_INDEX).ok_or(EventError::Field(field));
    Ok(match method {
        Method::Ecdh => SubEvent::Ecdh,
        Method::GetPoint => SubEvent::GetPoint { channel: channel()?, index: index("per_commitment_point_idx")? },
        Method::ReleaseSecret => {
            SubEvent::ReleaseSecret { channel: channel()?, index: index("per_commitment_point_idx")? }
        }
        Method::InvoiceHash => SubEvent::InvoiceHash { invoice: data.id("invoice_id")? },
        Method::ReleasePreimage => {
            SubEvent::ReleasePreimage { invoice: data.id("invoice_id")?, nonce: data.bytes32("preimage_nonce")? }
        }
        Method::SignInvoice => SubEvent::SignInvoice,
        Method::Sign => {
            let Some(Json::List(jobs)) = data.0.get("signing_jobs") else {
                return Err(EventError::Field("signing_jobs"));
            };
            if jobs.is_empty() || jobs.len() > MAX_JOBS {
                return Err(EventError::Field("signing_jobs"));
            }
            SubEvent::Sign(jobs.iter().map(|job| self::job(job, network)).collect::<Result<_, _>>()?)
        }
        Method::RevealSecret => SubEvent::RevealSecret {
            index: index("per_commitment_secret_idx")?,
            secret: data.bytes32("per_commitment_secret")?.ok_or(EventError::Field("per_commitment_secret"))?,
        },
    })
}

fn job(job: &Json, network: Network) -> Result<Job, EventError> {
    let Json::Object(job) = job else { return Err(EventError::Field("signing_jobs")) };
    let job = Fields(job);
    let destination = job.maybe_text("destination_derivation_path")?;
    Ok(Job {
        id: job.id("id")?,
        path: KeyPath::parse(job.text("derivation_path")?, network)?,
        message: job.bytes32("message")?.ok_or(EventError::Field("message"))?,
        add_tweak: job.bytes32("add_tweak")?,
        mul_tweak: job.bytes32("mul_tweak")?,
        script: job.bytes("script")?,
        transaction: job.bytes("transaction")?,
        amount_sat: job.maybe_number("amount")?.unwrap_or_default(),
        destination: destination.map(|path| KeyPath::parse(path, network)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the official SDKs' tests have it.
    const POINT: &str = r#"{"event_type": "REMOTE_SIGNING", "event_id": "018fe6a810f306a80000685529f591ec", "api_version": "2023-09-13", "timestamp": "2024-06-05T04:28:45.171899+00:00", "entity_id": "Channel:018fe6a8-1096-69e3-0000-b60765430f65", "data": {"sub_event_type": "GET_PER_COMMITMENT_POINT", "bitcoin_network": "REGTEST", "derivation_path": "m/3/19328", "per_commitment_point_idx": 27363191, "node_id": "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19"}}"#;

    fn parse(text: &str) -> Result<Event, EventError> {
        Event::parse(text.as_bytes(), Network::Regtest)
    }

    #[test]
    fn a_real_event_is_read() {
        let event = parse(POINT).expect("an event");
        assert_eq!(event.at_ms, 1_717_561_725_171);
        assert_eq!(event.entity, "Channel:018fe6a8-1096-69e3-0000-b60765430f65");
        let sub_event = SubEvent::GetPoint { channel: 19_328, index: 27_363_191 };
        assert_eq!(event.ask, Ask::Remote(Network::Regtest, sub_event));
    }

    #[test]
    fn hostile_fields_are_refused() {
        for (from, to, error) in [
            ("27363191", "281474976710656", EventError::Field("per_commitment_point_idx")),
            ("27363191", "-1", EventError::Field("per_commitment_point_idx")),
            ("27363191", "1.5", EventError::Field("per_commitment_point_idx")),
            ("27363191", "\"27363191\"", EventError::Field("per_commitment_point_idx")),
            ("27363191", "9007199254740993", EventError::Json(JsonError::NumberTooLarge)),
            ("27363191", "1, \"derivation_path\": \"m/3/1\"", EventError::Json(JsonError::DuplicateKey)),
            ("m/3/19328", "m/03/19328", EventError::Path(PathError::NotCanonical)),
            ("m/3/19328", "m/3/19328/0", EventError::Path(PathError::NoPurpose)),
            ("REGTEST", "SIMNET", EventError::Field("bitcoin_network")),
            ("GET_PER_COMMITMENT_POINT", "VLS_MESSAGE", EventError::UnknownSubEvent),
            ("\"REMOTE_SIGNING\"", "\"SOMETHING_NEW\"", EventError::UnknownType),
            ("018fe6a810f306a80000685529f591ec", "a/b", EventError::Field("event_id")),
            ("+00:00", "+01:00", EventError::Field("timestamp")),
            ("2024-06-05", "2023-02-29", EventError::Field("timestamp")),
        ] {
            assert!(POINT.contains(from));
            assert_eq!(parse(&POINT.replacen(from, to, 1)), Err(error), "{to}");
        }
        // Indices go up to 2^48 - 1, beyond what 32 bits hold.
        assert!(parse(&POINT.replacen("27363191", "281474976710655", 1)).is_ok());
        assert!(parse(&POINT.replacen("2024-06-05", "2024-02-29", 1)).is_ok());
    }

    #[test]
    fn an_event_that_only_tells_asks_for_nothing() {
        let event = parse(&POINT.replacen("REMOTE_SIGNING", "PAYMENT_FINISHED", 1)).expect("an event");
        assert_eq!(event.ask, Ask::Nothing);
    }
}
