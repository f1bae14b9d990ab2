//! `claviger unseal` and `claviger seal`.

use std::path::Path;

use claviger_proto::v1::{SealRequest, UnsealRequest};
use serde_json::json;

use super::{CliError, Output, PassphraseArgs, admin, harden};

/// Hands the passphrase to the running daemon.
pub(super) fn unseal(data_dir: &Path, args: &PassphraseArgs, output: &Output) -> Result<(), CliError> {
    harden(&args.descriptors())?;
    let daemon = admin::connect(data_dir)?;
    let passphrase = args.read()?;
    let request = UnsealRequest { passphrase: passphrase.expose(<[u8]>::to_vec) };
    let reply = daemon.call(async |client| client.unseal(request).await)?;
    output.result(&json!({ "sealed": false, "nodes": reply.nodes }), || format!("unsealed; {} nodes", reply.nodes));
    Ok(())
}

/// Closes the running daemon.
pub(super) fn seal(data_dir: &Path, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    daemon.call(async |client| client.seal(SealRequest {}).await)?;
    output.result(&json!({ "sealed": true }), || "sealed; keys are wiped from memory".to_owned());
    Ok(())
}
