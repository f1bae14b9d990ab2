//! `claviger hardening`.

use std::path::Path;

use claviger_proto::v1::HardeningRequest;

use super::{CliError, Output, admin, doctor};

/// Prints what holds; an error if something fails.
pub(super) fn hardening(data_dir: &Path, output: &Output) -> Result<(), CliError> {
    let reply = admin::connect(data_dir)?.call(async |client| client.hardening(HardeningRequest {}).await)?;
    output.result(&reply, || doctor::table(&reply.checks));
    let failed: Vec<_> =
        reply.checks.iter().filter(|check| check.state == "fail").map(|check| check.id.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::new(format!("missing: {}", failed.join(", ")), "Each says what to do.")),
    }
}
