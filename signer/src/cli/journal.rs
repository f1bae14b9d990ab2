//! `claviger journal`.

use std::path::Path;

use clap::Subcommand;
use claviger_hsm::Envelope;
use claviger_proto::v1::{
    DecisionRecord, JournalExportRequest, JournalTailRequest, JournalVerifyRequest, SignedCheckpoint,
};
use serde_json::json;

use super::{CliError, Output, PassphraseArgs, admin, harden, time};
use crate::datadir::DataDir;
use crate::journal::store::LoggedStore;
use crate::journal::{self, JournalError, Progress};
use crate::keys::data_key;
use crate::keys::memory::scrub_stack;
use crate::keys::purpose::Purpose;

const VERIFY_EXAMPLES: &str = "Examples:
  claviger journal verify              through the daemon, which goes on signing
  claviger journal verify --offline    when `unseal` says that the journal is damaged: stop the daemon first";

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// The latest decisions, and with --follow the ones to come.
    Tail {
        /// How many to begin with, at most 10,000.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u32,
        /// Keep printing.
        #[arg(short, long)]
        follow: bool,
        /// Only this node's decisions.
        #[arg(long)]
        node: Option<String>,
    },
    /// Check every record and the hash chain; names the first bad record.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// Check the file itself, where no daemon runs on it: also one that is too damaged for `unseal`. Takes the
        /// passphrase.
        #[arg(long)]
        offline: bool,
        /// Read the passphrase from this open file descriptor.
        #[arg(long, value_name = "N", requires = "offline", conflicts_with = "passphrase_credential")]
        passphrase_fd: Option<i32>,
        /// Read the passphrase from this systemd credential.
        #[arg(long, value_name = "NAME", requires = "offline")]
        passphrase_credential: Option<String>,
        /// Fail unless the latest signed checkpoint is signed by this device key, as an earlier check printed it.
        #[arg(long, value_name = "KEY")]
        signed_by: Option<String>,
    },
    /// All decisions as JSON lines.
    Export {
        /// The first decision to export.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

/// Runs one `claviger journal` command.
pub(super) fn journal(data_dir: &Path, command: JournalCommand, output: &Output) -> Result<(), CliError> {
    if let JournalCommand::Verify { offline: true, passphrase_fd, passphrase_credential, signed_by } = command {
        let passphrase = PassphraseArgs { passphrase_fd, passphrase_credential };
        return verify_offline(data_dir, &passphrase, signed_by.as_deref(), output);
    }
    let daemon = admin::connect(data_dir)?;
    match command {
        JournalCommand::Tail { lines, follow, node } => {
            let request = JournalTailRequest { lines, follow, node: node.unwrap_or_default() };
            daemon.stream(
                async |client| client.journal_tail(request).await,
                |decision| {
                    output.line(&decision, || line(&decision));
                },
            )
        }
        JournalCommand::Verify { signed_by, .. } => verify(&daemon, signed_by.as_deref(), output),
        JournalCommand::Export { from } => {
            let always_json = Output::new(false);
            daemon.stream(
                async |client| client.journal_export(JournalExportRequest { from }).await,
                |line| {
                    always_json.line(&(), || line.json);
                },
            )
        }
    }
}

fn verify(daemon: &admin::Daemon, by: Option<&str>, output: &Output) -> Result<(), CliError> {
    let mut last = None;
    daemon.stream(
        async |client| client.journal_verify(JournalVerifyRequest {}).await,
        |progress| {
            if !progress.done {
                output.progress(&format!("{} of {} records", progress.checked, progress.total));
            }
            last = Some(progress);
        },
    )?;
    let result = last.filter(|progress| progress.done);
    let result = result.ok_or_else(|| CliError::new("the check was interrupted", "Run it again."))?;
    if let Some(bad) = result.bad {
        return Err(damaged(&bad.record, &bad.detail));
    }
    verified(result.checked, &result.head_hash, result.signed, by, output)
}

/// Opens the journal as `unseal` would, without the rest of the signer.
fn verify_offline(
    data_dir: &Path,
    passphrase: &PassphraseArgs,
    by: Option<&str>,
    output: &Output,
) -> Result<(), CliError> {
    harden(&passphrase.descriptors())?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let _lock = dir.lock().map_err(|error| CliError::new(&error, error.hint()))?;
    if !dir.journal().exists() {
        return Err(CliError::new("there is no journal yet", "It is made by the first `claviger unseal`."));
    }
    let envelope = Envelope::read(&dir.keyslots()).map_err(|error| CliError::new(&error, error.hint()))?;
    let unlocked = data_key::unlock(&envelope, &passphrase.read()?);
    scrub_stack();
    let (data_key, _) = unlocked.map_err(|error| CliError::new(&error, error.hint()))?;
    let cipher = data_key.cipher(Purpose::Records);
    let mut progress = |progress: Progress| {
        output.progress(&format!("{} of {} records", progress.done, progress.total));
        true
    };
    let store = LoggedStore::open(&dir.journal(), LoggedStore::DEFAULT_CACHE).map_err(JournalError::from);
    let result =
        store.and_then(|store| journal::verify(&store, &cipher, &mut progress)).map_err(|error| match error {
            JournalError::Damaged(damage) => damaged(&damage.key, &damage.what.to_string()),
            error => CliError::new(&error, error.hint()),
        })?;
    verified(result.records, &result.head, result.signed.map(Into::into), by, output)
}

/// Prints what holds; an error if somebody else than `by` signed, or nobody.
fn verified(
    records: u64,
    head: &str,
    signed: Option<SignedCheckpoint>,
    by: Option<&str>,
    output: &Output,
) -> Result<(), CliError> {
    const HINT: &str =
        "If the device was replaced on purpose, name its new key; else the log may have been written anew.";
    match (by, &signed) {
        (Some(by), None) => {
            return Err(CliError::new(format!("no checkpoint is signed, by {by} or another key"), HINT));
        }
        (Some(by), Some(signed)) if !by.eq_ignore_ascii_case(&signed.key) => {
            return Err(CliError::new(format!("the checkpoint is signed by {}, not by {by}", signed.key), HINT));
        }
        _ => {}
    }
    let value = json!({ "records": records, "verified": true, "head": head, "signed": signed });
    output.result(&value, || {
        let mut text = format!("{records} records verified, head {head}");
        if let Some(SignedCheckpoint { sequence, at_ms, kind, key, .. }) = &signed {
            let time = time::date_time(*at_ms);
            text += &format!("\nup to decision {sequence} signed at {time} by the {kind} key {key}");
        }
        text
    });
    Ok(())
}

fn damaged(record: &str, detail: &str) -> CliError {
    let hint = "Keep the file as it is for analysis, and restore the data directory from a backup.";
    CliError::new(format!("the journal is damaged at {record}: {detail}"), hint)
}

fn line(decision: &DecisionRecord) -> String {
    let verdict = match decision.verdict.as_str() {
        "permit" => "permit".to_owned(),
        other => format!("{} {} ({})", other.to_uppercase(), decision.reason, decision.detail),
    };
    let time = time::date_time(decision.at_ms);
    format!("{} {time} {} {} {} {verdict}", decision.sequence, decision.node, decision.request, decision.action)
}
