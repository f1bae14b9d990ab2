//! The signer's own certificate authority: it names the signer to its nodes and each node to the signer, and nobody else.
//!
//! ECDSA on P-256, X.509 v3. A server certificate cannot pose as a client and a client's not as a server (extended key
//! usage, RFC 5280 §4.2.1.12). The caller keeps the key, encrypted, in the journal.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger_proto::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::admin::fingerprint::Fingerprint;
use crate::admin::record::CertificateRecord;
use crate::names::{NodeKind, NodeName};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the CA itself lasts.
pub const CA_VALIDITY: Duration = DAY.saturating_mul(20 * 365);

/// How long a node's certificate lasts.
pub const CLIENT_VALIDITY: Duration = DAY.saturating_mul(365);

/// How long the server's certificate lasts; the link replaces it by itself well before.
pub const SERVER_VALIDITY: Duration = DAY.saturating_mul(30);

/// Certificates begin a little in the past, for nodes whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Why the CA cannot be used or cannot issue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The stored certificate or key cannot be read.
    #[error("the stored CA is damaged: {0}")]
    Damaged(String),
    /// The stored key is not the certificate's.
    #[error("the stored CA key does not belong to the stored CA certificate")]
    Mismatch,
    /// A host name for the server certificate is not a DNS name or IP address.
    #[error("'{0}' is neither a host name nor an IP address")]
    BadHostName(String),
    /// The library could not sign.
    #[error("the CA could not sign: {0}")]
    Sign(String),
}

impl CaError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Damaged(_) | Self::Mismatch => "Run `claviger journal verify --offline`, then restore from a backup.",
            Self::BadHostName(_) => "Correct link.names or link.advertise in claviger.toml and restart.",
            Self::Sign(_) => "Report this with the daemon's log.",
        }
    }
}

/// The certificate authority, ready to issue.
pub struct Ca {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    not_after: u64,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate just issued, with its private key.
pub struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
    /// What the registry keeps of it.
    pub record: CertificateRecord,
}

impl Ca {
    /// A new CA whose life begins at `now`.
    pub fn create(now: SystemTime) -> Result<Self, CaError> {
        let key = new_key()?;
        let mut params = valid_for(now, CA_VALIDITY);
        // The random part tells two signers' CAs apart, for TLS libraries and for people.
        params.distinguished_name.push(DnType::CommonName, format!("Claviger CA {}", &random_serial().1[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(sign_error)?;
        Self::load(&Zeroizing::new(key.serialize_der()), &certificate.pem())
    }

    /// A CA from what `key_der` and `certificate_pem` returned.
    pub fn load(key_der: &[u8], certificate_pem: &str) -> Result<Self, CaError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| CaError::Damaged(format!("certificate: {error}")))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key_der), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| CaError::Damaged("key: not a P-256 key in PKCS#8 form".to_owned()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| CaError::Damaged(format!("certificate: {error}")))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::Mismatch);
        }
        let not_after = parsed.validity().not_after.timestamp().try_into().unwrap_or(0);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| CaError::Damaged(format!("certificate: {error}")))?;
        Ok(Self { certificate_pem: certificate_pem.to_owned(), certificate, not_after, issuer })
    }

    /// The private key, PKCS#8 DER. For the journal only.
    pub fn key_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// The CA's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's certificate, DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When the CA ends, in seconds since the Unix epoch.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// A certificate for the signer, valid for [`SERVER_VALIDITY`] from `now`, for [`SERVER_NAME`] and the given host
    /// names and IP addresses.
    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<Issued, CaError> {
        let mut params = valid_for(now, SERVER_VALIDITY);
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in std::iter::once(SERVER_NAME).chain(names.iter().map(String::as_str)) {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into().map_err(|_| CaError::BadHostName(name.to_owned()))?),
            });
        }
        self.issue(params, now, SERVER_VALIDITY)
    }

    /// A certificate for a node, valid for `validity` from `now`. It names the node twice: as common name for people and
    /// as the URI `claviger:KIND:NAME`. The link goes by its fingerprint alone.
    pub fn issue_client(
        &self,
        node: &NodeName,
        kind: NodeKind,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = valid_for(now, validity);
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("claviger:{kind}:{node}");
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(sign_error)?));
        self.issue(params, now, validity)
    }

    fn issue(&self, mut params: CertificateParams, now: SystemTime, validity: Duration) -> Result<Issued, CaError> {
        let (serial_number, serial) = random_serial();
        params.serial_number = Some(serial_number);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign_error)?;
        let record = CertificateRecord {
            serial,
            sha256: Fingerprint::of(certificate.der()),
            issued_at: unix_seconds(now),
            not_after: unix_seconds(now + validity),
            revoked_at: None,
        };
        Ok(Issued { certificate, key, record })
    }
}

impl Issued {
    /// The certificate, DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The private key, PKCS#8 DER.
    pub fn key_der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der())
    }

    /// The private key, PKCS#8 PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("record", &self.record).finish_non_exhaustive()
    }
}

fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_error)
}

fn valid_for(now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + validity).into();
    params
}

/// 128 random bits with the top bit clear (RFC 5280 §4.1.2.2: positive, at most 20 bytes), and the same as hex.
fn random_serial() -> (SerialNumber, String) {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    (SerialNumber::from_slice(&bytes), hex::encode(bytes))
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn sign_error(error: rcgen::Error) -> CaError {
    CaError::Sign(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_survives_storage_and_still_issues() {
        let now = SystemTime::now();
        let ca = Ca::create(now).unwrap();
        let again = Ca::load(&ca.key_der(), ca.certificate_pem()).unwrap();
        assert_eq!(again.not_after(), unix_seconds(now + CA_VALIDITY));
        let issued = again.issue_server(&["localhost".to_owned(), "::1".to_owned()], now).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(issued.certificate_der()).unwrap();
        let (_, authority) = x509_parser::parse_x509_certificate(ca.certificate_der()).unwrap();
        assert_eq!(certificate.issuer(), authority.subject());
        assert_eq!(certificate.serial.to_str_radix(16), issued.record.serial);
        assert_eq!(certificate.validity().not_after.timestamp() as u64, issued.record.not_after);
    }

    #[test]
    fn a_client_certificate_names_its_node_and_cannot_serve() {
        let now = SystemTime::now();
        let node = NodeName::new("alice").unwrap();
        let issued = Ca::create(now).unwrap().issue_client(&node, NodeKind::Ldk, now, CLIENT_VALIDITY).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(issued.certificate_der()).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=alice");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
    }

    #[test]
    fn a_damaged_or_foreign_key_is_named() {
        let now = SystemTime::now();
        let (ca, other) = (Ca::create(now).unwrap(), Ca::create(now).unwrap());
        assert_eq!(Ca::load(&other.key_der(), ca.certificate_pem()).unwrap_err(), CaError::Mismatch);
        assert!(matches!(Ca::load(b"not a key", ca.certificate_pem()).unwrap_err(), CaError::Damaged(_)));
        assert!(matches!(Ca::load(&ca.key_der(), "not a certificate").unwrap_err(), CaError::Damaged(_)));
    }

    #[test]
    fn a_host_name_must_be_one() {
        let now = SystemTime::now();
        let error = Ca::create(now).unwrap().issue_server(&["bücher".to_owned()], now).unwrap_err();
        assert_eq!(error, CaError::BadHostName("bücher".to_owned()));
    }
}
