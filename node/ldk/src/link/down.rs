//! Why the link is down, in words an operator can act on.

use claviger_proto::v1;
use prost::Message;
use rustls::{AlertDescription, CertificateError, Error as Tls};
use tonic::Status;

use crate::transport::{Fact, Refusal, RefusalReason};

/// Why the signer cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Down {
    /// The first attempt is under way.
    #[error("still connecting")]
    Connecting,
    /// Nothing answers at the signer's address.
    #[error("the signer at {address} cannot be reached: {cause}")]
    Unreachable {
        /// As in the bundle.
        address: String,
        /// The system's words.
        cause: String,
    },
    /// Something answers that is not the signer that made the bundle.
    #[error("{address} is not the signer of this bundle: its certificate is from another CA")]
    WrongSigner {
        /// As in the bundle.
        address: String,
    },
    /// Something answers that does not speak the link's TLS.
    #[error("{address} does not speak like a signer: {cause}")]
    NotASigner {
        /// As in the bundle.
        address: String,
        /// What it did.
        cause: String,
    },
    /// The signer does not accept certificates of this bundle's CA.
    #[error("the signer does not know the CA of this bundle")]
    CertificateForeign,
    /// The bundle's certificate has ended.
    #[error("the certificate of this bundle has ended")]
    CertificateExpired,
    /// The signer closed the link and said why.
    #[error("{}", words(.0))]
    Denied(Refusal),
    /// The signer took this node for another, or is on another network.
    #[error("the signer calls this node '{node}' on {network}, the bundle says otherwise")]
    WrongNode {
        /// The signer's name for it.
        node: String,
        /// The signer's network.
        network: String,
    },
    /// The connection broke.
    #[error("the connection to the signer broke: {0}")]
    Lost(String),
}

impl Down {
    /// Whether the link may come up without anybody's help.
    pub fn temporary(&self) -> bool {
        match self {
            Self::Connecting | Self::Unreachable { .. } | Self::Lost(_) => true,
            Self::Denied(refusal) => refusal.retry,
            Self::WrongSigner { .. }
            | Self::NotASigner { .. }
            | Self::CertificateForeign
            | Self::CertificateExpired
            | Self::WrongNode { .. } => false,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Connecting | Self::Lost(_) => "Wait; the link connects by itself.",
            Self::Unreachable { .. } => {
                "Look at `claviger status` on the signer: it must run and be unsealed, and `signer` in the bundle must be its address."
            }
            Self::WrongSigner { .. } => "Correct `signer` in the bundle, or take the bundle that this signer wrote.",
            Self::NotASigner { .. } => "Correct `signer` in the bundle: it is the address of [link] listen.",
            Self::CertificateForeign => "Take the bundle that this signer wrote: `claviger node renew`.",
            Self::CertificateExpired => "Write a new bundle: `claviger node renew`.",
            Self::WrongNode { .. } => "Take the bundle of the right node, or correct `node` and `network` in it.",
            Self::Denied(refusal) => refusal.reasons.first().map_or("", |reason| reason.hint.as_str()),
        }
    }

    /// A handshake with `address` that failed here.
    pub(super) fn from_handshake(address: &str, error: &std::io::Error) -> Self {
        let address = address.to_owned();
        match tls_error(error) {
            Some(Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
                Self::WrongSigner { address }
            }
            Some(Tls::InvalidCertificate(_) | Tls::InvalidMessage(_) | Tls::PeerIncompatible(_)) => {
                Self::NotASigner { address, cause: error.to_string() }
            }
            Some(tls) => Self::from_alert(tls).unwrap_or_else(|| Self::Lost(error.to_string())),
            None => Self::Lost(error.to_string()),
        }
    }

    /// A stream that ended with `status`; `fault` is what TLS had to say, if anything. A TLS 1.3 server judges the client's
    /// certificate after the client's handshake is done, so its verdict arrives here.
    pub(super) fn from_status(status: &Status, fault: Option<&Tls>) -> Self {
        if let Some(down) = fault.and_then(Self::from_alert) {
            return down;
        }
        match v1::Refusal::decode(status.details()) {
            Ok(refusal) if !refusal.reasons.is_empty() => Self::Denied(from_wire(refusal)),
            _ => Self::Lost(fault.map_or_else(|| status.message().to_owned(), ToString::to_string)),
        }
    }

    fn from_alert(error: &Tls) -> Option<Self> {
        match error {
            Tls::AlertReceived(AlertDescription::CertificateExpired) => Some(Self::CertificateExpired),
            Tls::AlertReceived(
                AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError,
            ) => Some(Self::CertificateForeign),
            _ => None,
        }
    }
}

/// The TLS error inside an I/O error.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&Tls> {
    error.get_ref()?.downcast_ref()
}

/// A refusal as it came over the link.
pub(super) fn from_wire(refusal: v1::Refusal) -> Refusal {
    let fact = |v1::Fact { name, value, unit, rule, limit }| Fact { name, value, unit, rule, limit };
    let reason = |v1::Reason { id, detail, hint, facts }| {
        let facts = facts.into_iter().map(fact).collect();
        RefusalReason { id, detail, hint, facts }
    };
    Refusal {
        request: refusal.request,
        reasons: refusal.reasons.into_iter().map(reason).collect(),
        retry: refusal.retry,
    }
}

fn words(refusal: &Refusal) -> String {
    let reasons = refusal.reasons.iter().map(|reason| format!("{} ({})", reason.detail, reason.id));
    format!("the signer closed the link: {}", reasons.collect::<Vec<_>>().join(", "))
}
