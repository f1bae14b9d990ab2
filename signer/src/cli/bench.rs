//! `claviger bench`.

use clap::Args;

use super::{CliError, Output};

/// What to measure.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {}

/// Measures.
pub(super) fn bench(_: &BenchArgs, _: &Output) -> Result<(), CliError> {
    Err(CliError::new("not there yet", ""))
}
