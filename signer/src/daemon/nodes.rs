//! Adding, renewing, revoking and forgetting nodes.

use std::time::{SystemTime, UNIX_EPOCH};

use claviger_proto::bundle::Bundle;
use claviger_proto::v1::{
    CertificateInfo, EnrolmentReply, NodeAddRequest, NodeInfo, NodeRemoveRequest, NodeRevokeRequest, SeedImport,
};
use subtle::ConstantTimeEq;

use super::channels::{exemption_info, freeze_info};
use super::lightspark::{
    account, account_keys, account_puts, load_operations_key, operations_alone, operations_key_put,
};
use super::lnd::has_macaroon;
use super::unsealed::{
    Unsealed, chain_code_key, gone, journal_failure, load_seed, load_spec, node_spec, put, record_key, seed_key,
};
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::ca::{CLIENT_VALIDITY, CaError};
use crate::admin::enrol::enrol;
use crate::admin::record::{NodeRecord, Which};
use crate::journal::Commit;
use crate::keys::import::{Derivation, ImportError, ImportedSeed, import, new_root_key};
use crate::keys::memory::{Secret, scrubbed};
use crate::lightning::engine::NodeSpec;
use crate::lightning::status::NodeStatus;
use crate::names::{BadKind, NodeKind, NodeName};

impl Unsealed {
    /// Makes or takes over the keys of a node, records them, starts the node, and enrols it.
    pub(super) fn add_node(&self, request: NodeAddRequest) -> Result<EnrolmentReply, AdminFailure> {
        let _change = self.change()?;
        let name = parse_name(&request.name)?;
        let kind: NodeKind = request.kind.parse().map_err(|error: BadKind| {
            AdminFailure::new(FailureKind::Invalid, error, "Use ldk, cln, lnd or lightspark.")
        })?;
        if self.registry.get(&name).is_some() {
            let hint = "Choose another name, or renew its certificate with `claviger node renew`.";
            return Err(AdminFailure::new(FailureKind::Exists, format!("node '{name}' exists"), hint));
        }
        let ImportedSeed { seed, style, chain_code, operations_key } = match (request.import, kind) {
            (Some(source), _) => self.imported(kind, &source)?,
            (None, kind) if kind.has_chain_code() => new_root_key(),
            (None, _) => {
                let (style, chain_code, operations_key) = (Derivation::Native, None, None);
                ImportedSeed { seed: Secret::random(), style, chain_code, operations_key }
            }
        };
        let derivation = match (kind, style) {
            (kind, _) if kind.has_chain_code() => "bip32",
            (_, Derivation::Ldk) => "ldk",
            (_, Derivation::Native) => "native",
        };
        let mut record = NodeRecord::new(name.clone(), kind, derivation, self.network, now_s());
        let account = match &operations_key {
            Some(_) => operations_alone(&request.webhook_secret, &request.api_token).map(|()| None),
            None => account(&record, request.webhook_secret, request.api_token),
        }?;
        let spec = node_spec(&record, seed, chain_code, operations_key);
        let calls_back = account.as_ref().is_some_and(|account| account.api_token.is_some());
        let reply = self.enrolled(&mut record, Some((&spec, calls_back)))?;
        let mut puts = vec![put(record_key(&name), record.to_bytes())];
        let secrets = [(seed_key(&name), Some(&spec.seed)), (chain_code_key(&name), spec.chain_code.as_ref())];
        for (key, secret) in secrets {
            let sealed = secret.map(|secret| secret.expose(|secret| self.vault.seal(key.as_bytes(), secret)));
            puts.extend(sealed.map(|sealed| put(key, sealed)));
        }
        puts.extend(spec.operations_key.as_ref().map(|key| operations_key_put(&self.vault, &name, key)));
        puts.extend(account.iter().flat_map(|account| account_puts(&self.vault, &name, account)));
        self.erase_state(&name)?; // of a node of this name, if its removal was cut short
        self.record(puts)?;
        self.begin(&record, spec)?;
        if let Some(account) = account {
            self.accounts.put(name, account);
        }
        Ok(EnrolmentReply { node: Some(self.node_info(&record)), ..reply })
    }

    /// What lets the node connect, noted in `record`. Of a new node, its spec is at hand, and whether its answers are called back.
    fn enrolled(
        &self,
        record: &mut NodeRecord,
        new: Option<(&NodeSpec, bool)>,
    ) -> Result<EnrolmentReply, AdminFailure> {
        if record.kind == NodeKind::Lightspark {
            let files = self.enrol_account(record, new)?;
            return Ok(EnrolmentReply { files, ..EnrolmentReply::default() });
        }
        if has_macaroon(record.kind) {
            let files = match new {
                Some((spec, _)) => self.enrol_lnd(record, spec)?,
                None => self.renew_lnd(record)?,
            };
            return Ok(EnrolmentReply { files, ..EnrolmentReply::default() });
        }
        let bundle = self.enrol_client(record)?.to_text().to_string();
        Ok(EnrolmentReply { bundle, ..EnrolmentReply::default() })
    }

    /// A client certificate, noted in `record`, with what it is used with.
    pub(super) fn enrol_client(&self, record: &mut NodeRecord) -> Result<Bundle, AdminFailure> {
        enrol(&self.ca, record, &self.advertised, SystemTime::now(), CLIENT_VALIDITY).map_err(ca_failure)
    }

    /// Issues another certificate.
    pub(super) fn renew_node(&self, name: &str) -> Result<EnrolmentReply, AdminFailure> {
        let _change = self.change()?;
        let mut record = self.find(name)?;
        let reply = self.enrolled(&mut record, None)?;
        self.keep(&record)?;
        Ok(EnrolmentReply { node: Some(self.node_info(&record)), ..reply })
    }

    /// Revokes certificates; the link closes what uses them.
    pub(super) fn revoke_node(&self, request: &NodeRevokeRequest) -> Result<NodeInfo, AdminFailure> {
        let _change = self.change()?;
        let mut record = self.find(&request.name)?;
        let which = if request.serial.is_empty() { Which::All } else { Which::Serial(request.serial.clone()) };
        record
            .revoke(&which, now_s())
            .map_err(|error| AdminFailure::new(FailureKind::NotFound, &error, error.hint()))?;
        self.keep(&record)?;
        Ok(self.node_info(&record))
    }

    /// Forgets a node and its keys. Its decisions stay in the log.
    pub(super) fn remove_node(&self, request: &NodeRemoveRequest) -> Result<(), AdminFailure> {
        let _change = self.change()?;
        let record = self.find(&request.name)?;
        if request.confirm != request.name {
            let hint = "Give the node's name again with --confirm: its keys cannot be brought back.";
            return Err(AdminFailure::new(FailureKind::Invalid, "the confirmation does not match the name", hint));
        }
        // Nobody asks it any more, and what it was recording has landed.
        self.registry.remove(&record.name);
        self.accounts.remove(&record.name);
        if let Some(courier) = self.courier() {
            courier.remove(&record.name);
        }
        self.nodes.remove(&record.name);
        // The keys go first: a crash in between must not leave keys without the state that says what they signed (P7).
        let mut keys = vec![gone(record_key(&record.name)), gone(seed_key(&record.name))];
        if record.kind == NodeKind::Lightspark {
            keys.extend(account_keys(&record.name).map(gone));
        }
        keys.extend(record.kind.has_chain_code().then(|| gone(chain_code_key(&record.name))));
        if let Err(failure) = self.record(keys) {
            // It is still recorded and goes on, now or, if its seed cannot be read either, from the next unseal.
            let _ = load_spec(&self.journal, &self.vault, &record).and_then(|spec| self.begin(&record, spec));
            return Err(failure);
        }
        self.desk.remove(&record.name);
        self.erase_state(&record.name)
    }

    /// All nodes as an administrator sees them.
    pub(super) fn node_infos(&self) -> Vec<NodeInfo> {
        self.registry.list().iter().map(|record| self.node_info(record)).collect()
    }

    /// One node as an administrator sees it.
    pub(super) fn show_node(&self, name: &str) -> Result<NodeInfo, AdminFailure> {
        self.find(name).map(|record| self.node_info(&record))
    }

    pub(super) fn node_info(&self, record: &NodeRecord) -> NodeInfo {
        let status = self.nodes.status().into_iter().find(|status| status.name == record.name);
        let connected = self.with_link(|link| link.connected()).unwrap_or_default();
        let connected = connected.into_iter().find(|connected| connected.node == record.name);
        let certificate = |certificate: &crate::admin::record::CertificateRecord| CertificateInfo {
            serial: certificate.serial.clone(),
            sha256: certificate.sha256.to_string(),
            not_after: certificate.not_after,
            revoked: certificate.revoked_at.is_some(),
        };
        let orders = status.as_ref().map(|status| status.orders.clone()).unwrap_or_default();
        let now_ms = now_s() * 1_000;
        let in_force = orders.exemptions.iter().filter(|exemption| exemption.until_ms > now_ms);
        NodeInfo {
            name: record.name.to_string(),
            kind: record.kind.to_string(),
            network: record.network.to_string(),
            derivation: record.derivation.clone(),
            created_at: record.created_at,
            node_id: status.as_ref().map(|status| status.node_id.clone()).unwrap_or_default(),
            connected: connected.is_some(),
            peer: connected
                .map(|connected| format!("{} ({})", connected.address, connected.client))
                .unwrap_or_default(),
            certificates: record.certificates.iter().map(certificate).collect(),
            channels: status.as_ref().map_or(0, |status| status.channels as u32),
            frozen: orders.quarantine.as_ref().or(orders.frozen.as_ref()).map(freeze_info),
            frozen_channels: orders.frozen_channels as u32,
            exemptions: in_force.map(exemption_info).collect(),
            state: status.map_or_else(|| "stopped".to_owned(), |status| state(&status)),
        }
    }

    /// The record of the node called `name`.
    pub(super) fn find(&self, name: &str) -> Result<NodeRecord, AdminFailure> {
        self.registry.get(&parse_name(name)?).ok_or_else(|| {
            AdminFailure::new(
                FailureKind::NotFound,
                format!("there is no node '{name}'"),
                "`claviger node list` shows all nodes.",
            )
        })
    }

    /// The seed in `source`, if no node has it: two state machines on one set of keys would each sign what the other
    /// revoked (P7).
    fn imported(&self, kind: NodeKind, source: &SeedImport) -> Result<ImportedSeed, AdminFailure> {
        let invalid = |error: ImportError| AdminFailure::new(FailureKind::Invalid, error, error.hint());
        let passphrase =
            std::str::from_utf8(&source.passphrase).map_err(|_| invalid(ImportError::PassphraseNotText))?;
        let format = source.format.parse().map_err(invalid)?;
        let imported = scrubbed(|| import(kind, format, &source.secret, passphrase)).map_err(invalid)?;
        for record in self.registry.list() {
            let other = load_seed(&self.journal, &self.vault, &record.name)?;
            let is_seed = imported.seed.expose(|a| other.expose(|b| bool::from(a.ct_eq(b))));
            let is_key = imported.operations_key.as_ref().is_some_and(|key| {
                let other = load_operations_key(&self.journal, &self.vault, &record);
                other.is_ok_and(|other| other.is_some_and(|other| other.public_key() == key.public_key()))
            });
            if is_seed || is_key {
                let what = format!("node '{}' has these keys", record.name);
                let hint = "Use that node: `claviger node renew` writes another bundle for it.";
                return Err(AdminFailure::new(FailureKind::Exists, what, hint));
            }
        }
        Ok(imported)
    }

    /// Starts a node that is recorded and lets it connect.
    fn begin(&self, record: &NodeRecord, spec: NodeSpec) -> Result<(), AdminFailure> {
        let hint = "Seal and unseal the signer.";
        self.nodes.add(spec).map_err(|error| AdminFailure::new(FailureKind::Fault, &error, hint))?;
        self.registry.put(record.clone());
        self.wake_follower();
        Ok(())
    }

    /// Erases what the journal holds of a node's state, apart from its decisions. The node must not run.
    fn erase_state(&self, name: &NodeName) -> Result<(), AdminFailure> {
        let entries = self.journal.load(name.as_str()).map_err(journal_failure)?;
        let puts = entries.into_keys().map(gone).collect();
        let commit = Commit { tenant: name.to_string(), puts, decision: None };
        self.journal.commit(commit).map_err(|error| AdminFailure::new(FailureKind::Fault, &error, error.hint()))
    }

    fn keep(&self, record: &NodeRecord) -> Result<(), AdminFailure> {
        self.record(vec![put(record_key(&record.name), record.to_bytes())])?;
        self.registry.put(record.clone());
        Ok(())
    }
}

fn state(status: &NodeStatus) -> String {
    let mut text = match (&status.phase, status.tip) {
        (crate::lightning::status::Phase::Up, Some((height, _))) => format!("ready at height {height}"),
        (crate::lightning::status::Phase::Up, None) => "ready".to_owned(),
        (crate::lightning::status::Phase::Down, _) => "waiting for the chain or being rebuilt".to_owned(),
        (crate::lightning::status::Phase::Stopped, _) => "stopped".to_owned(),
    };
    if let Some(states) = status.unproven_states {
        text += &format!(", {states} unproven states");
    }
    if let Some(fault) = &status.last_fault {
        text += &format!(", {} faults, last: {fault}", status.faults);
    }
    if status.left_out > 0 {
        text += &format!(", {} requests refused ({} counted, not recorded)", status.refused, status.left_out);
    }
    if !status.held_back.is_zero() {
        text += &format!(", refusals held back for {:.1} s", status.held_back.as_secs_f64());
    }
    text
}

/// A node's name, or the failure to say.
pub(super) fn parse_name(name: &str) -> Result<NodeName, AdminFailure> {
    NodeName::new(name).map_err(|error| AdminFailure::new(FailureKind::Invalid, &error, "Choose another name."))
}

fn ca_failure(error: CaError) -> AdminFailure {
    AdminFailure::new(FailureKind::Fault, &error, error.hint())
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
