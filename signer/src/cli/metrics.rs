//! `claviger metrics`.

use std::path::Path;

use claviger_proto::v1::MetricsRequest;

use super::{CliError, Output, admin};
use crate::metrics;

/// Prints what is counted and measured, in the text format of Prometheus.
pub(super) fn metrics(data_dir: &Path, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    let reply = daemon.call(async |client| client.metrics(MetricsRequest {}).await)?;
    output.result(&reply, || metrics::text(&reply.metrics).trim_end().to_owned());
    Ok(())
}
