//! `claviger explain`.

use std::path::Path;

use clap::Args;
use claviger_proto::v1::{DecisionRecord, ExplainRequest};

use super::{CliError, Output, admin, time};

/// Which decision.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The request id of a refusal, a log line or a journal line.
    #[arg(value_name = "REQUEST_ID")]
    request: String,
}

/// Prints one decision with the facts compared and the next step.
pub(super) fn explain(data_dir: &Path, args: &ExplainArgs, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    let request = ExplainRequest { request: args.request.clone() };
    let decision = daemon.call(async |client| client.explain(request).await)?;
    output.result(&decision, || text(&decision));
    Ok(())
}

fn text(decision: &DecisionRecord) -> String {
    let mut text = format!(
        "{} of node {}, {}\n{}: {}",
        decision.action,
        decision.node,
        time::date_time(decision.at_ms),
        decision.verdict,
        if decision.reason.is_empty() { "signed or answered" } else { &decision.reason },
    );
    for line in [&decision.detail, &decision.hint].into_iter().filter(|line| !line.is_empty()) {
        text += "\n  ";
        text += line;
    }
    text
}
