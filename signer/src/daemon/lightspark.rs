//! What an account of Lightspark brings, and is given.

use claviger_proto::v1::BundleFile;
use zeroize::Zeroizing;

use super::unsealed::Unsealed;
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::record::NodeRecord;
use crate::lightning::engine::NodeSpec;
use crate::lightning::lightspark::node_id;
use crate::names::NodeKind;

/// Lightspark's secrets have some 40 characters.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// The secret that the webhooks of a node of `kind` are signed with, which an account has and no other node.
pub(super) fn webhook_secret(kind: NodeKind, secret: Vec<u8>) -> Result<Option<Zeroizing<Vec<u8>>>, AdminFailure> {
    let secret = Zeroizing::new(secret);
    let invalid = |what: &str, hint: &str| Err(AdminFailure::new(FailureKind::Invalid, what, hint));
    match (kind, secret.is_empty()) {
        (NodeKind::Lightspark, _) if SECRET_BYTES.contains(&secret.len()) => Ok(Some(secret)),
        (NodeKind::Lightspark, _) => {
            let hint = "Give the signing secret that Lightspark shows for the webhook with --webhook-secret.";
            invalid("an account of Lightspark needs its webhook secret, of 16 to 256 bytes", hint)
        }
        (_, true) => Ok(None),
        (_, false) => invalid("nodes of this kind have no webhook secret", "Leave --webhook-secret out."),
    }
}

impl Unsealed {
    /// What the operator enters at Lightspark, for a new account, and a certificate for the account's services, noted in
    /// `record`. The caller makes the record durable before it hands them out (P1).
    pub(super) fn enrol_account(
        &self,
        record: &mut NodeRecord,
        spec: Option<&NodeSpec>,
    ) -> Result<Vec<BundleFile>, AdminFailure> {
        let bundle = self.enrol_client(record)?;
        let file = |name: &str, content: &str| BundleFile { name: name.to_owned(), content: content.into() };
        let mut files = vec![
            file("signer.txt", &format!("{}\n", bundle.signer)),
            file("ca.pem", &bundle.ca_certificate),
            file("client.pem", &bundle.certificate),
            file("client.key", &bundle.private_key),
        ];
        files.extend(spec.map(account_file));
        Ok(files)
    }
}

/// What the operator needs at Lightspark.
fn account_file(spec: &NodeSpec) -> BundleFile {
    let (name, node_id) = (&spec.name, node_id(spec));
    let content = format!(
        "node public key   {node_id}\n\
         network           {}\n\
         webhook path      /ln/webhooks/{name}\n\
         answers           directly (RESPOND_DIRECTLY)\n",
        spec.network
    );
    BundleFile { name: "account.txt".to_owned(), content: content.into_bytes() }
}
