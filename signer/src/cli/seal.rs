//! `claviger unseal` and `claviger seal`.

use std::path::Path;

use claviger_proto::v1::{SealRequest, SharesProgress, UnsealReply, UnsealRequest};
use serde_json::json;

use super::slots::OpenArgs;
use super::{CliError, Output, admin, harden};

/// Hands what opens a slot to the running daemon: one call, or one for each share that is given.
pub(super) fn unseal(data_dir: &Path, args: &OpenArgs, output: &Output) -> Result<(), CliError> {
    harden(&args.descriptors())?;
    let daemon = admin::connect(data_dir)?;
    let mut reply = UnsealReply::default();
    for secret in args.read_to_unseal(data_dir)? {
        let (slot, deliberate) = (args.slot.unwrap_or_default().into(), !args.is_given());
        let request = UnsealRequest { passphrase: secret, slot, deliberate };
        reply = daemon.call(async |client| client.unseal(request).await)?;
    }
    let Some(shares) = reply.shares else {
        output.result(&json!({ "sealed": false, "nodes": reply.nodes }), || format!("unsealed; {} nodes", reply.nodes));
        return Ok(());
    };
    output.result(&json!({ "sealed": true, "shares": shares }), || still_sealed(&shares));
    Ok(())
}

/// How far people have come with their shares.
pub(super) fn still_sealed(shares: &SharesProgress) -> String {
    let numbers: Vec<_> = shares.entered.iter().map(u32::to_string).collect();
    format!(
        "slot {} has {} of {} shares (number {}); still sealed",
        shares.slot,
        shares.entered.len(),
        shares.needed,
        numbers.join(", ")
    )
}

/// Closes the running daemon.
pub(super) fn seal(data_dir: &Path, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    daemon.call(async |client| client.seal(SealRequest {}).await)?;
    output.result(&json!({ "sealed": true }), || "sealed; keys are wiped from memory".to_owned());
    Ok(())
}
