//! `policy shadow`: a candidate judged beside the policy in force.

use std::path::Path;

use claviger_policy::time as utc;
use claviger_proto::v1::{BundleFile, PolicyShadowRequest, ShadowDifference, ShadowInfo};

use super::applied::{info, network};
use super::offline::load;
use crate::cli::admin::Daemon;
use crate::cli::{CliError, Output};

/// Begins with the bundle in `path`, or ends it, or neither; then shows what came of it so far.
pub(super) fn shadow(daemon: &Daemon, path: Option<&Path>, stop: bool, output: &Output) -> Result<(), CliError> {
    let candidate = path.map(|path| load(path, network(&info(daemon)?)?)).transpose()?;
    let files = candidate.iter().flat_map(|candidate| candidate.files().iter());
    let files = files.map(|(name, content)| BundleFile { name: name.to_owned(), content: content.to_vec() }).collect();
    let reply = daemon.call(async |client| client.policy_shadow(PolicyShadowRequest { files, stop }).await)?;
    output.result(&reply, || match &reply.shadow {
        Some(shadow) => {
            let listed = reply.differing.iter().map(|differing| difference(differing) + "\n").collect::<String>();
            listed + &counts(shadow)
        }
        None => "no policy is judged beside the one in force".to_owned(),
    });
    Ok(())
}

/// `version 8 sha256 …, since …: of 20 decisions 1 would be refused, 2 permitted, 0 refused otherwise`.
pub(super) fn counts(shadow: &ShadowInfo) -> String {
    let ShadowInfo { version, decisions, newly_refused, newly_permitted, refused_otherwise } = shadow;
    let version = version.as_ref().map_or_else(String::new, |version| {
        let since = utc::print(version.from_ms / 1_000);
        format!("version {} sha256 {}, since {since}: ", version.version, version.sha256)
    });
    format!(
        "{version}of {decisions} decisions {newly_refused} would be refused, {newly_permitted} permitted, \
         {refused_otherwise} refused otherwise"
    )
}

/// `2026-12-01T10:00:00Z alice PayInvoice payment:e3b0…: permit -> deny (rule large)`.
fn difference(differing: &ShadowDifference) -> String {
    let ShadowDifference { key, at_ms, node, action, in_force, shadow, because } = differing;
    format!("{} {node} {action} {key}: {in_force} -> {shadow} ({})", utc::print(at_ms / 1_000), because.join("; "))
}
