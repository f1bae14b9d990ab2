//! The signer's certificate for the link, replaced by itself before it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::admin::ca::{Ca, CaError, SERVER_VALIDITY};

/// Issues the server certificate from the CA, anew for each start and again when half of its life is over.
#[derive(Debug)]
pub struct ServerIdentity {
    ca: Arc<Ca>,
    names: Vec<String>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    issued: SystemTime,
    not_after: u64,
}

impl ServerIdentity {
    /// An identity for the given host names and IP addresses.
    pub fn new(ca: Arc<Ca>, names: Vec<String>) -> Result<Self, CaError> {
        let current = Mutex::new(issue(&ca, &names, SystemTime::now())?);
        Ok(Self { ca, names, current })
    }

    /// When the certificate in use ends, in seconds since the Unix epoch.
    pub fn not_after(&self) -> u64 {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// The host names and addresses in it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The CA that signed it, which is also the only one accepted for clients.
    pub(super) fn authority(&self) -> &CertificateDer<'static> {
        self.ca.certificate_der()
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock set back far looks like no age at all; the certificate is then not valid yet, and a new one is no worse.
        let fresh = now.duration_since(current.issued).is_ok_and(|age| age < SERVER_VALIDITY / 2);
        if !fresh {
            match issue(&self.ca, &self.names, now) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!(%error, "link: the server certificate could not be renewed"),
            }
        }
        Arc::clone(&current.key)
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

fn issue(ca: &Ca, names: &[String], now: SystemTime) -> Result<Current, CaError> {
    let issued = ca.issue_server(names, now)?;
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&PrivateKeyDer::Pkcs8(issued.key_der()))
        .map_err(|error| CaError::Sign(error.to_string()))?;
    let key = Arc::new(CertifiedKey::new(vec![issued.certificate_der().clone()], key));
    Ok(Current { key, issued: now.max(UNIX_EPOCH), not_after: issued.record.not_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_certificate_is_replaced_in_time_and_not_before() {
        let ca = Arc::new(Ca::create(SystemTime::now()).unwrap());
        let identity = ServerIdentity::new(ca, vec![]).unwrap();
        let first = identity.at(SystemTime::now());
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(identity.at(SystemTime::now() + 14 * day).cert, first.cert);
        assert_ne!(identity.at(SystemTime::now() + 16 * day).cert, first.cert);
    }
}
