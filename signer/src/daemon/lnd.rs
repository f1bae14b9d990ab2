//! What an lnd node is given: its public accounts, the signer's certificate, a macaroon, and the lines for `lnd.conf`.

use claviger_proto::v1::BundleFile;
use serde::Deserialize;
use serde_json::json;

use super::nodes::now_s;
use super::unsealed::{Unsealed, load_spec};
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::record::{CertificateRecord, NodeRecord};
use crate::lightning::engine::NodeSpec;
use crate::lightning::lnd::keys::{Account, accounts};
use crate::names::NodeKind;

/// Where the lines for `lnd.conf` look for the other files; a home is expanded by lnd.
const ON_THE_NODE: &str = "~/.lnd/claviger";

impl Unsealed {
    /// Mints a macaroon for the node of `record`, adds it there, and returns the node's files. The caller makes the record
    /// durable before it hands them out (P1).
    pub(super) fn enrol_lnd(&self, record: &mut NodeRecord, spec: &NodeSpec) -> Result<Vec<BundleFile>, AdminFailure> {
        let Some(signer) = &self.lnd_advertised else {
            let hint = "Set lnd.listen = \"127.0.0.1:10019\" (or another address) in claviger.toml and restart.";
            return Err(AdminFailure::new(FailureKind::Invalid, "there is no door for lnd nodes", hint));
        };
        let Some(chain_code) = &spec.chain_code else {
            return Err(AdminFailure::new(FailureKind::Damaged, "the node has no chain code", "Restore a backup."));
        };
        let minted = self.mint.mint(&record.name);
        let certificate = CertificateRecord {
            serial: minted.serial,
            sha256: minted.fingerprint,
            issued_at: now_s(),
            // As long as the signer's CA, by which lnd knows the signer.
            not_after: self.ca.not_after(),
            revoked_at: None,
        };
        record.add_certificate(certificate, now_s());
        let accounts = accounts(&spec.seed, chain_code, spec.network);
        let file = |name: &str, content: Vec<u8>| BundleFile { name: name.to_owned(), content };
        Ok(vec![
            file("accounts.json", accounts_json(&accounts)),
            file("tls.cert", self.ca.certificate_pem().as_bytes().to_vec()),
            file("lnd.macaroon", minted.bytes.to_vec()),
            file("lnd.conf", conf(signer).into_bytes()),
        ])
    }

    /// The files of a node with a macaroon more.
    pub(super) fn renew_lnd(&self, record: &mut NodeRecord) -> Result<Vec<BundleFile>, AdminFailure> {
        let spec = load_spec(&self.journal, &self.vault, record)?;
        self.enrol_lnd(record, &spec)
    }
}

/// Whether a node connects with a macaroon instead of a certificate.
pub(super) fn has_macaroon(kind: NodeKind) -> bool {
    kind == NodeKind::Lnd
}

/// What is read of an `accounts.json`.
#[derive(Deserialize)]
pub struct AccountsFile {
    /// All accounts.
    pub accounts: Vec<AccountLine>,
}

/// One account.
#[derive(Deserialize)]
pub struct AccountLine {
    /// `xpub…` or `tpub…`.
    pub extended_public_key: String,
    /// `m/…`
    pub derivation_path: String,
}

/// What `lncli createwatchonly` reads.
fn accounts_json(accounts: &[Account]) -> Vec<u8> {
    let account = |account: &Account| {
        let address_type = match account.purpose {
            49 => "HYBRID_NESTED_WITNESS_PUBKEY_HASH",
            86 => "TAPROOT_PUBKEY",
            _ => "WITNESS_PUBKEY_HASH",
        };
        json!({
            "name": if account.path.starts_with("m/1017'") { "act" } else { "default" },
            "address_type": address_type,
            "extended_public_key": account.xpub.to_string(),
            "master_key_fingerprint": "",
            "derivation_path": account.path,
            "external_key_count": 0,
            "internal_key_count": 0,
            "watch_only": false,
        })
    };
    let accounts: Vec<_> = accounts.iter().map(account).collect();
    serde_json::to_vec_pretty(&json!({ "accounts": accounts })).expect("text always encodes")
}

/// The lines for `lnd.conf`: where the signer is, and patience with it.
fn conf(signer: &str) -> String {
    format!(
        "[remotesigner]\n\
         remotesigner.enable=true\n\
         remotesigner.rpchost={signer}\n\
         remotesigner.tlscertpath={ON_THE_NODE}/tls.cert\n\
         remotesigner.macaroonpath={ON_THE_NODE}/lnd.macaroon\n\
         ; lnd shuts down when its signer does not answer in this time, or fails so many health checks.\n\
         remotesigner.timeout=30s\n\
         \n\
         [healthcheck]\n\
         healthcheck.remotesigner.attempts=10\n\
         healthcheck.remotesigner.timeout=5s\n\
         healthcheck.remotesigner.backoff=30s\n"
    )
}
