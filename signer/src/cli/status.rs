//! `claviger status`.

use std::fmt::Write;
use std::path::Path;

use claviger_proto::v1::{NodeInfo, StatusReply, StatusRequest};

use super::seal::still_sealed;
use super::{CliError, Output, admin, policy, time};

/// Prints what holds and what is missing.
pub(super) fn status(data_dir: &Path, output: &Output) -> Result<(), CliError> {
    let daemon = admin::connect(data_dir)?;
    let status = daemon.call(async |client| client.status(StatusRequest {}).await)?;
    output.result(&status, || text(&status));
    Ok(())
}

fn text(status: &StatusReply) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    let seal = if status.sealed { "SEALED (claviger unseal)" } else { "unsealed" };
    row("signer", format!("{} {seal}, pid {}, up {} s", status.version, status.pid, status.uptime_s));
    row("network", status.network.clone());
    row("data", status.data_dir.clone());
    if let Some(shares) = &status.shares {
        row("shares", still_sealed(shares));
    }
    if let Some(memory) = &status.memory {
        let off = |off| if off { "off" } else { "ON" };
        row(
            "secrets",
            format!("in {}; core files {}", memory.secrets, off(memory.core_dumps_off && memory.not_dumpable)),
        );
        row("heap", memory.heap.clone());
    }
    if !status.sealed {
        row("link", format!("{}, certificate until {}", status.link_address, time::date(status.server_not_after)));
    }
    if let Some(chain) = &status.chain {
        row(
            "chain",
            format!("{} at height {}, {} behind {}", chain.state, chain.height, chain.lag_blocks, chain.detail),
        );
    }
    if let Some(journal) = &status.journal {
        row("journal", format!("{}, {} decisions {}", journal.state, journal.decisions, journal.detail));
        if !journal.head_hash.is_empty() {
            row("head", journal.head_hash.clone());
        }
    }
    if let Some(rotation) = status.rotation.filter(|rotation| !rotation.finished) {
        row("rotation", format!("the data key, {} of {} records", rotation.done, rotation.total));
    }
    for (name, text) in status.policy.iter().flat_map(policy::applied::rows) {
        row(name, text);
    }
    for node in &status.nodes {
        row("node", node_line(node));
    }
    for warning in &status.warnings {
        row("WARNING", warning.clone());
    }
    text
}

/// One node in one line.
pub(super) fn node_line(node: &NodeInfo) -> String {
    let link = if node.connected { format!("connected from {}", node.peer) } else { "not connected".to_owned() };
    let expiry = node.certificates.iter().filter(|certificate| !certificate.revoked).map(|c| c.not_after).max();
    let expiry =
        expiry.map_or_else(|| "no valid certificate".to_owned(), |at| format!("certificate until {}", time::date(at)));
    let channels = if node.channels == 1 { "1 channel".to_owned() } else { format!("{} channels", node.channels) };
    let frozen = if node.frozen.is_some() { " FROZEN," } else { "" };
    format!("{} ({}){frozen} {}, {channels}, {link}, {expiry}", node.name, node.kind, node.state)
}
