//! Enrolment: a new certificate for a node, in its record and in a bundle for its operator.

use std::time::{Duration, SystemTime};

use claviger_proto::bundle::{BUNDLE_VERSION, Bundle};

use crate::admin::ca::{Ca, CaError};
use crate::admin::record::NodeRecord;

/// Issues a certificate for the node of `record`, adds it there, and returns the bundle that lets the node connect to
/// `signer` (`host:port`). The caller makes the record durable before it hands out the bundle (P1), which is the only copy
/// of the private key.
pub fn enrol(
    ca: &Ca,
    record: &mut NodeRecord,
    signer: &str,
    now: SystemTime,
    validity: Duration,
) -> Result<Bundle, CaError> {
    let issued = ca.issue_client(&record.name, record.kind, now, validity)?;
    record.add_certificate(issued.record.clone(), issued.record.issued_at);
    Ok(Bundle {
        version: BUNDLE_VERSION,
        node: record.name.to_string(),
        kind: record.kind.to_string(),
        network: record.network.to_string(),
        signer: signer.to_owned(),
        not_after: issued.record.not_after,
        ca_certificate: ca.certificate_pem().to_owned(),
        certificate: issued.certificate_pem(),
        private_key: issued.key_pem(),
    })
}
