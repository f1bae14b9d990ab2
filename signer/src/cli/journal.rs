//! `claviger journal`.

use std::path::Path;

use clap::Subcommand;
use claviger_proto::v1::{DecisionRecord, JournalExportRequest, JournalTailRequest, JournalVerifyRequest};
use serde_json::json;

use super::{CliError, Output, admin, time};

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// The latest decisions, and with --follow the ones to come.
    Tail {
        /// How many to begin with.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u32,
        /// Keep printing.
        #[arg(short, long)]
        follow: bool,
        /// Only this node's.
        #[arg(long)]
        node: Option<String>,
    },
    /// Check every record and the hash chain; names the first bad record.
    Verify,
    /// All decisions as JSON lines.
    Export {
        /// The first decision to export.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

/// Runs one `claviger journal` command.
pub(super) fn journal(data_dir: &Path, command: JournalCommand, output: &Output) -> Result<(), CliError> {
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
        JournalCommand::Verify => verify(&daemon, output),
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

fn verify(daemon: &admin::Daemon, output: &Output) -> Result<(), CliError> {
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
        let hint = "Keep the file as it is for analysis, and restore the data directory from a backup.";
        return Err(CliError::new(format!("the journal is damaged at {}: {}", bad.record, bad.detail), hint));
    }
    let value = json!({ "records": result.checked, "verified": true, "head": result.head_hash });
    output.result(&value, || format!("{} records verified, head {}", result.checked, result.head_hash));
    Ok(())
}

fn line(decision: &DecisionRecord) -> String {
    let verdict = match decision.verdict.as_str() {
        "permit" => "permit".to_owned(),
        other => format!("{} {} ({})", other.to_uppercase(), decision.reason, decision.detail),
    };
    let time = time::date_time(decision.at_ms);
    format!("{} {time} {} {} {} {verdict}", decision.sequence, decision.node, decision.request, decision.action)
}
