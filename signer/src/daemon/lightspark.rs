//! What an account of Lightspark brings, and is given.

use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use claviger_proto::v1::{
    AccountSecretsRequest, BundleFile, NodeInfo, RecoverChannelRequest, RecoveredChannel, RecoveredTransaction,
};
use zeroize::Zeroizing;

use super::unsealed::{Unsealed, damaged, journal_failure, put};
use crate::admin::api::{AdminFailure, FailureKind};
use crate::admin::record::NodeRecord;
use crate::gateway::lightspark::{Account, Courier, Forget};
use crate::journal::{Commit, HOUSE, Journal, Put};
use crate::keys::cipher::RecordCipher;
use crate::keys::rsa::RsaKey;
use crate::lightning::engine::NodeSpec;
use crate::lightning::lightspark::{RECOVER, Recovered, letter_gone, letters, node_id};
use crate::names::{NodeKind, NodeName};
use crate::pipeline::{Outcome, Request};

/// Lightspark's secrets have some 40 characters.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
/// An id and a token have some 80 characters.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 8..=512;

/// What a node of `kind` has at Lightspark: an account has a secret of its webhooks, no other node has anything.
pub(super) fn account(
    record: &NodeRecord,
    webhook_secret: Vec<u8>,
    api_token: Vec<u8>,
) -> Result<Option<Account>, AdminFailure> {
    let (webhook_secret, api_token) = (Zeroizing::new(webhook_secret), Zeroizing::new(api_token));
    let invalid = |what: &str, hint: &str| Err(AdminFailure::new(FailureKind::Invalid, what, hint));
    if record.kind != NodeKind::Lightspark {
        if webhook_secret.is_empty() && api_token.is_empty() {
            return Ok(None);
        }
        return invalid("nodes of this kind have no account", "Leave --webhook-secret and --api-token out.");
    }
    if !SECRET_BYTES.contains(&webhook_secret.len()) {
        let hint = "Give the signing secret that Lightspark shows for the webhook with --webhook-secret.";
        return invalid("an account of Lightspark needs its webhook secret, of 16 to 256 bytes", hint);
    }
    let is_token = api_token.iter().all(u8::is_ascii_graphic)
        && api_token.iter().position(|byte| *byte == b':').is_some_and(|at| at > 0 && at + 1 < api_token.len());
    let is_good = api_token.is_empty() || (is_token && TOKEN_BYTES.contains(&api_token.len()));
    if !is_good {
        let hint = "Put the client id of the API token, a colon and the token itself on one line.";
        return invalid("the API token is not ID:TOKEN, of 8 to 512 bytes", hint);
    }
    let api_token = Some(api_token).filter(|token| !token.is_empty());
    Ok(Some(Account { network: record.network, webhook_secret, api_token }))
}

/// An account with an operation signing key has no webhooks that are answered.
pub(super) fn operations_alone(webhook_secret: &[u8], api_token: &[u8]) -> Result<(), AdminFailure> {
    if webhook_secret.is_empty() && api_token.is_empty() {
        return Ok(());
    }
    let what = "an account with an operation signing key has no remote signing";
    Err(AdminFailure::new(FailureKind::Invalid, what, "Leave --webhook-secret and --api-token out."))
}

/// The journal key of the sealed secret of an account's webhooks.
fn webhook_key(name: &NodeName) -> String {
    format!("webhook/{name}")
}

/// The journal key of an account's sealed API token, if it has one.
fn api_token_key(name: &NodeName) -> String {
    format!("api-token/{name}")
}

/// The journal key of the sealed key that an account's operations are signed with, if it is not of its seed.
fn operations_key_key(name: &NodeName) -> String {
    format!("operations-key/{name}")
}

/// The journal keys of all that an account may have beside its seed.
pub(super) fn account_keys(name: &NodeName) -> [String; 3] {
    [webhook_key(name), api_token_key(name), operations_key_key(name)]
}

/// The entry that keeps an operation signing key, sealed.
pub(super) fn operations_key_put(vault: &RecordCipher, name: &NodeName, rsa: &RsaKey) -> Put {
    let key = operations_key_key(name);
    put(&*key, vault.seal(key.as_bytes(), rsa.pkcs8()))
}

/// The operation signing key of an account that has one.
pub(super) fn load_operations_key(
    journal: &Journal,
    vault: &RecordCipher,
    record: &NodeRecord,
) -> Result<Option<RsaKey>, AdminFailure> {
    let what = format!("the operation signing key of {}", record.name);
    let pkcs8 = open(journal, vault, operations_key_key(&record.name), &what)?;
    pkcs8.map(RsaKey::from_pkcs8).transpose().map_err(|error| damaged(&what, &error))
}

fn open(
    journal: &Journal,
    vault: &RecordCipher,
    key: String,
    what: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, AdminFailure> {
    let sealed = journal.get(HOUSE, &key).map_err(journal_failure)?;
    let opened = sealed.map(|sealed| vault.open(key.as_bytes(), &sealed).map(Zeroizing::new)).transpose();
    opened.map_err(|error| damaged(what, &error))
}

/// The entries that keep what an account has at Lightspark, sealed.
pub(super) fn account_puts(vault: &RecordCipher, name: &NodeName, account: &Account) -> Vec<Put> {
    let seal = |key: String, secret: &[u8]| put(&*key, vault.seal(key.as_bytes(), secret));
    let token = account.api_token.as_ref().map(|token| seal(api_token_key(name), token));
    [seal(webhook_key(name), &account.webhook_secret)].into_iter().chain(token).collect()
}

/// What an account has at Lightspark, from its entries; nothing if its operations alone are signed, or if it is none.
pub(super) fn load_account(
    journal: &Journal,
    vault: &RecordCipher,
    record: &NodeRecord,
) -> Result<Option<Account>, AdminFailure> {
    let name = &record.name;
    if record.kind != NodeKind::Lightspark {
        return Ok(None);
    }
    let what = format!("the webhook secret of {name}");
    let api_token = open(journal, vault, api_token_key(name), &format!("the API token of {name}"))?;
    match open(journal, vault, webhook_key(name), &what)? {
        Some(webhook_secret) => Ok(Some(Account { network: record.network, webhook_secret, api_token })),
        None if load_operations_key(journal, vault, record)?.is_some() => Ok(None),
        None => Err(damaged(&what, &"it is missing")),
    }
}

/// Forgets letters in `journal`, as long as it is open.
pub(super) fn forget_letters(journal: Weak<Journal>) -> Forget {
    Box::new(move |account, event| {
        if let Some(journal) = journal.upgrade() {
            let commit = Commit { tenant: account.to_string(), puts: vec![letter_gone(event)], decision: None };
            // What is not forgotten is delivered again.
            journal.submit(commit, Box::new(drop));
        }
    })
}

/// Sends what was decided before the signer ended, and not delivered. Before the account's node runs.
pub(super) fn send_letters(journal: &Arc<Journal>, courier: &Courier, name: &NodeName) -> Result<(), AdminFailure> {
    let entries = journal.load(name.as_str()).map_err(journal_failure)?;
    for (event, letter) in letters(&entries) {
        // The node says so of one that cannot be read, and does not start.
        letter.into_iter().for_each(|letter| courier.send(name, event, letter));
    }
    Ok(())
}

/// A channel has at most some thousand transactions to sign.
const RECOVER_WITHIN: Duration = Duration::from_secs(60);

impl Unsealed {
    /// Replaces an account's webhook secret, its API token, or both; the door and the courier use them at once.
    pub(super) fn account_secrets(&self, request: AccountSecretsRequest) -> Result<NodeInfo, AdminFailure> {
        let _change = self.change()?;
        let record = self.find(&request.name)?;
        let Some(known) = load_account(&self.journal, &self.vault, &record)? else {
            let what = format!("node '{}' has no webhooks of Lightspark", record.name);
            return Err(AdminFailure::new(FailureKind::Invalid, what, "`claviger node list` shows what nodes are."));
        };
        let or = |new: Vec<u8>, known: Option<&Zeroizing<Vec<u8>>>| match new.is_empty() {
            true => known.map(|known| known.to_vec()).unwrap_or_default(),
            false => new,
        };
        let webhook_secret = or(request.webhook_secret, Some(&known.webhook_secret));
        let api_token = or(request.api_token, known.api_token.as_ref());
        if let Some(account) = account(&record, webhook_secret, api_token)? {
            self.record(account_puts(&self.vault, &record.name, &account))?;
            self.accounts.put(record.name.clone(), account);
        }
        Ok(self.node_info(&record))
    }

    /// Has an account's node sign one channel of a recovery kit.
    pub(super) fn recover_channel(&self, request: &RecoverChannelRequest) -> Result<RecoveredChannel, AdminFailure> {
        let record = self.find(&request.node)?;
        if record.kind != NodeKind::Lightspark {
            let what = format!("node '{}' is no account of Lightspark", record.name);
            return Err(AdminFailure::new(FailureKind::Invalid, what, "`claviger node list` shows what nodes are."));
        }
        let message = [&RECOVER.to_be_bytes()[..], &request.kit].concat();
        let (reply, outcome) = mpsc::sync_channel(1);
        let respond = Box::new(move |outcome| drop(reply.try_send(outcome)));
        self.nodes.submit(&record.name, Request { request_id: 0, channel: None, message }, respond);
        match outcome.recv_timeout(RECOVER_WITHIN) {
            Ok(Outcome::Reply(reply)) => recovered(&reply),
            Ok(Outcome::Refused { request, refusal }) => {
                let what = match request.is_empty() {
                    true => format!("{}: {}", refusal.reason.id(), refusal.detail),
                    false => format!("{}: {} (request {request})", refusal.reason.id(), refusal.detail),
                };
                Err(AdminFailure::new(FailureKind::Invalid, what, refusal.reason.hint()))
            }
            Err(_) => Err(AdminFailure::new(FailureKind::Fault, "there is no answer yet", "Ask again.")),
        }
    }

    /// What the operator enters at Lightspark, for a new account, and a certificate for the account's services, noted in
    /// `record`. The caller makes the record durable before it hands them out (P1).
    pub(super) fn enrol_account(
        &self,
        record: &mut NodeRecord,
        new: Option<(&NodeSpec, bool)>,
    ) -> Result<Vec<BundleFile>, AdminFailure> {
        let bundle = self.enrol_client(record)?;
        let file = |name: &str, content: &str| BundleFile { name: name.to_owned(), content: content.into() };
        let mut files = vec![
            file("signer.txt", &format!("{}\n", bundle.signer)),
            file("ca.pem", &bundle.ca_certificate),
            file("client.pem", &bundle.certificate),
            file("client.key", &bundle.private_key),
        ];
        files.extend(new.map(|(spec, calls_back)| account_file(spec, calls_back)));
        Ok(files)
    }
}

fn recovered(reply: &[u8]) -> Result<RecoveredChannel, AdminFailure> {
    let report: Recovered = serde_json::from_slice(reply).map_err(|error| {
        AdminFailure::new(FailureKind::Fault, format!("the report cannot be read: {error}"), "Report this.")
    })?;
    let transactions = report.transactions.into_iter().map(|signed| RecoveredTransaction {
        what: signed.what,
        txid: signed.txid,
        hex: signed.hex,
        amount_sat: signed.amount_sat,
        after_blocks: signed.after_blocks,
        not_before_height: signed.not_before_height,
    });
    Ok(RecoveredChannel { channel: report.channel, transactions: transactions.collect() })
}

/// What the operator needs at Lightspark, or compares with it.
fn account_file(spec: &NodeSpec, calls_back: bool) -> BundleFile {
    let (name, network) = (&spec.name, spec.network);
    let answers = if calls_back { "called back" } else { "directly (RESPOND_DIRECTLY)" };
    let content = match &spec.operations_key {
        Some(key) => format!(
            "operation signing key   RSA, {} bits\n\
             SHA-256 of its public   {}\n\
             network                 {network}\n",
            key.bits(),
            sha256::Hash::hash(key.public_key())
        ),
        None => format!(
            "node public key   {}\n\
             network           {network}\n\
             webhook path      /ln/webhooks/{name}\n\
             answers           {answers}\n",
            node_id(spec)
        ),
    };
    BundleFile { name: "account.txt".to_owned(), content: content.into_bytes() }
}
