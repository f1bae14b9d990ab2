//! What is in force in the running signer: shown, compared, replaced, taken back, exported.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bitcoin::Network;
use claviger_policy::bundle::{Bundle, BundleHash, Files, MAX_FILE_BYTES, text_to_roll_back};
use claviger_policy::{time as utc, tooling};
use claviger_proto::v1::{
    BudgetInfo, BundleFile, PolicyApplyRequest, PolicyBundleRequest, PolicyHistoryRequest, PolicyInfo,
    PolicyRollbackRequest, PolicyStatusRequest, PolicyVersion,
};
use serde_json::json;

use super::offline::{differences, load, shown};
use crate::cli::admin::Daemon;
use crate::cli::{CliError, Output, time};

/// `policy status`.
pub(super) fn status(daemon: &Daemon, output: &Output) -> Result<(), CliError> {
    let info = info(daemon)?;
    output.result(&info, || rows(&info).into_iter().map(|(name, row)| format!("{name:<10} {row}\n")).collect());
    Ok(())
}

/// `policy show` without a directory.
pub(super) fn show(daemon: &Daemon, cedar: bool, output: &Output) -> Result<(), CliError> {
    let bundle = in_force(daemon, network(&info(daemon)?)?)?.ok_or_else(nothing)?;
    shown(&bundle, cedar, output);
    Ok(())
}

/// `policy diff` with one directory.
pub(super) fn diff(daemon: &Daemon, path: &Path, output: &Output) -> Result<(), CliError> {
    let network = network(&info(daemon)?)?;
    let (active, candidate) = (in_force(daemon, network)?, load(path, network)?);
    differences(&tooling::diff(active.as_ref(), &candidate), output);
    Ok(())
}

/// `policy apply`: what it changes is shown, then it is put in force, at once or at `from_ms`.
pub(super) fn apply(daemon: &Daemon, path: &Path, from_ms: Option<u64>, output: &Output) -> Result<(), CliError> {
    let network = network(&info(daemon)?)?;
    let (active, candidate) = (in_force(daemon, network)?, load(path, network)?);
    let tests = tooling::test(&candidate);
    if !tests.passes() {
        let error = format!("{}: {} tests failed", path.display(), tests.failed.len());
        return Err(CliError::new(error, format!("Run `claviger policy test {}`.", path.display())));
    }
    let diff = tooling::diff(active.as_ref(), &candidate);
    let files = candidate.files().iter();
    let files = files.map(|(name, content)| BundleFile { name: name.to_owned(), content: content.to_vec() }).collect();
    let request = PolicyApplyRequest { files, from_ms: from_ms.unwrap_or(0) };
    let info = daemon.call(async |client| client.policy_apply(request).await)?;
    output.result(&json!({ "diff": diff, "tests": tests.passed, "policy": info }), || {
        let when =
            from_ms.map_or("in force".to_owned(), |from_ms| format!("in force from {}", utc::print(from_ms / 1_000)));
        format!("{diff}\n{} tests passed\nversion {} is {when}", tests.passed, candidate.version())
    });
    Ok(())
}

/// `policy apply --rollback --text-to-sign`.
pub(super) fn rollback_text(daemon: &Daemon, output: &Output) -> Result<(), CliError> {
    let info = info(daemon)?;
    let hash = |version: Option<PolicyVersion>| version.and_then(|version| BundleHash::parse(&version.sha256));
    let (Some(from), Some(to)) = (hash(info.active), hash(info.previous)) else {
        return Err(CliError::new("there is no bundle to go back to", "Apply the one you want with a higher version."));
    };
    let text = text_to_roll_back(from, to);
    output.result(&json!({ "text": text }), || text.clone());
    Ok(())
}

/// `policy apply --rollback`, with the signatures in these files.
pub(super) fn rollback(daemon: &Daemon, signatures: &[PathBuf], output: &Output) -> Result<(), CliError> {
    let mut files = Files::default();
    for (index, path) in signatures.iter().enumerate() {
        let text = read(path)?;
        files.add(&format!("signatures/s{index}.sig"), text.into_bytes()).map_err(|e| CliError::new(&e, e.hint()))?;
    }
    let signatures =
        files.iter().map(|(name, content)| BundleFile { name: name.to_owned(), content: content.to_vec() }).collect();
    let info = daemon.call(async |client| client.policy_rollback(PolicyRollbackRequest { signatures }).await)?;
    output.result(&info, || {
        format!("version {} is in force again", info.active.as_ref().map_or(0, |active| active.version))
    });
    Ok(())
}

/// `policy export`: the lines of a history.
pub(super) fn export(daemon: &Daemon, since_s: Option<u64>) -> Result<(), CliError> {
    let always_lines = Output::new(false);
    history(daemon, since_s, |line| always_lines.line(&(), || line))
}

/// Each line of what was decided within `since_s`.
pub(super) fn history(daemon: &Daemon, since_s: Option<u64>, mut each: impl FnMut(String)) -> Result<(), CliError> {
    let from_ms = since_s.map_or(0, |since_s| time::now_ms().saturating_sub(since_s.saturating_mul(1_000)));
    let request = PolicyHistoryRequest { from_ms };
    daemon.stream(async |client| client.policy_history(request).await, |line| each(line.json))
}

/// What is in force, and what is left.
pub(in crate::cli) fn info(daemon: &Daemon) -> Result<PolicyInfo, CliError> {
    daemon.call(async |client| client.policy_status(PolicyStatusRequest {}).await)
}

/// The signer's network.
pub(in crate::cli) fn network(info: &PolicyInfo) -> Result<Network, CliError> {
    Network::from_str(&info.network).map_err(|error| {
        CliError::new(error.to_string(), "Use the command line of the signer's version: it names a network of its own.")
    })
}

/// The bundle in force, if one is.
pub(in crate::cli) fn in_force(daemon: &Daemon, network: Network) -> Result<Option<Bundle>, CliError> {
    let request = PolicyBundleRequest { sha256: String::new() };
    let sent = daemon.call(async |client| client.policy_bundle(request).await)?.files;
    if sent.is_empty() {
        return Ok(None);
    }
    let mut files = Files::default();
    for BundleFile { name, content } in sent {
        files.add(&name, content).map_err(|error| CliError::new(&error, error.hint()))?;
    }
    Bundle::parse(files, network).map(Some).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        CliError::new(format!("the policy in force: {first}"), "Use the command line of the signer's version.")
    })
}

pub(in crate::cli) fn nothing() -> CliError {
    CliError::new("no policy is in force", "Apply one: `claviger policy apply DIR`.")
}

/// A small text that somebody signed, or a signature.
pub(in crate::cli) fn read(path: &Path) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::new(format!("cannot read {}: {error}", path.display()), "Check the path; it is a small text file.")
    };
    match fs::metadata(path) {
        Err(error) => Err(failed(&error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES as u64 => {
            Err(failed(&"not a small file"))
        }
        Ok(_) => fs::read_to_string(path).map_err(|error| failed(&error)),
    }
}

/// What `policy status` and `status` say of the policy: name and text of each row.
pub(in crate::cli) fn rows(info: &PolicyInfo) -> Vec<(&'static str, String)> {
    let version = |version: &PolicyVersion| format!("version {} sha256 {}", version.version, version.sha256);
    let from = |version: &PolicyVersion| utc::print(version.from_ms / 1_000);
    let mut rows = Vec::new();
    rows.push(match &info.active {
        Some(active) => ("policy", format!("{}, in force since {}", version(active), from(active))),
        None => {
            ("policy", "none in force: the limits of claviger.toml hold alone (claviger policy apply DIR)".to_owned())
        }
    });
    rows.extend(
        info.pending.iter().map(|pending| ("pending", format!("{}, from {}", version(pending), from(pending)))),
    );
    rows.extend(info.shadow.iter().map(|shadow| ("shadow", super::shadow::counts(shadow))));
    rows.extend(info.budgets.iter().map(|budget| ("budget", left(budget))));
    rows
}

/// `hourly, node alice: 5 of 20 msat left, refills from …`.
fn left(budget: &BudgetInfo) -> String {
    let BudgetInfo { budget: name, scope, unit, limit, reserved, left, refills_at_ms, .. } = budget;
    let mut text = [name.as_str(), scope].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    text += format!(": {left} of {limit} {unit}").trim_end();
    text += " left";
    if *reserved > 0 {
        text += &format!(", {reserved} set aside");
    }
    if let Some(at_ms) = refills_at_ms {
        text += &format!(", refills from {}", utc::print(at_ms / 1_000));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_says_of_what_and_when_it_refills() {
        let hourly = BudgetInfo {
            budget: "hourly".to_owned(),
            scope: "node alice".to_owned(),
            unit: "msat".to_owned(),
            limit: 20,
            spent: 10,
            reserved: 5,
            left: 5,
            refills_at_ms: Some(1_796_119_200_000),
        };
        assert_eq!(
            left(&hourly),
            "hourly, node alice: 5 of 20 msat left, 5 set aside, refills from 2026-12-01T10:00:00Z"
        );
        let often = BudgetInfo { budget: "often".to_owned(), limit: 3, left: 3, ..BudgetInfo::default() };
        assert_eq!(left(&often), "often: 3 of 3 left");
        assert!(rows(&PolicyInfo::default())[0].1.starts_with("none in force"));
    }
}
