//! `claviger doctor`.

use std::fmt::Write;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use claviger_proto::v1::{BundleFile, CheckInfo, DoctorReply, DoctorRequest, OrderRequest};

use super::{CliError, Output, admin, channel, time};
use crate::config::Config;
use crate::datadir::DataDir;

const EXAMPLES: &str = "Examples:
  claviger doctor                                       the house, then every channel
  claviger doctor alice --repair                        and what is harmless is put right
  claviger doctor --lnd alice.lnd                       whether an lnd can connect with these files
  claviger doctor --exempt alice 7 frozen --for 1h      channel 7 goes on, frozen or not, for an hour

docs/doctor.md says what each check means, what is harmless and why, and what may be exempted.";

/// What an lnd connects with; none is larger.
const LND_FILES: [&str; 4] = ["tls.cert", "lnd.macaroon", "accounts.json", "lnd.conf"];
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What to examine, or to exempt.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Only this node's channels.
    node: Option<String>,
    /// Hold the files that an lnd connects with against the signer: the folder of `node add`, or lnd's own copy of it.
    #[arg(long, value_name = "FOLDER")]
    lnd: Option<PathBuf>,
    /// Put right what can do no harm.
    #[arg(long)]
    repair: bool,
    /// Let one channel go on in spite of one reason, for a while. Takes reasons that guard against confusion only.
    #[arg(long, num_args = 3, value_names = ["NODE", "CHANNEL", "REASON"], requires = "for_s", conflicts_with_all = ["node", "repair", "lnd"])]
    exempt: Option<Vec<String>>,
    /// For how long: a number and s, m or h; at most 24h.
    #[arg(long = "for", value_name = "TIME", requires = "exempt", value_parser = time::seconds)]
    for_s: Option<u64>,
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "exempt")]
    why: String,
}

/// Examines, or exempts.
pub(super) fn doctor(data_dir: &Path, args: DoctorArgs, output: &Output) -> Result<(), CliError> {
    if let Some(names) = args.exempt
        && let [node, channel, reason] = <[String; 3]>::try_from(names).unwrap_or_default()
    {
        let for_s = args.for_s.unwrap_or_default();
        let order = OrderRequest { node, channel, order: "exempt".to_owned(), reason, for_s, why: args.why };
        return channel::order(&admin::connect(data_dir)?, order, output);
    }
    let lnd = args.lnd.as_deref().map(lnd_files).transpose()?.unwrap_or_default();
    let request = DoctorRequest { node: args.node.unwrap_or_default(), repair: args.repair, lnd };
    let reply = match admin::connect(data_dir) {
        Ok(daemon) => daemon.call(async |client| client.doctor(request).await)?,
        Err(error) => without_daemon(data_dir, error),
    };
    output.result(&reply, || text(&reply));
    verdict(&reply)
}

/// The files of an lnd's folder that are there.
fn lnd_files(folder: &Path) -> Result<Vec<BundleFile>, CliError> {
    let mut files = Vec::new();
    for name in LND_FILES {
        let mut content = Vec::new();
        let path = folder.join(name);
        match File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut content)) {
            Ok(_) => files.push(BundleFile { name: name.to_owned(), content }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CliError::new(format!("cannot read {}: {error}", path.display()), "Check the path."));
            }
        }
    }
    if files.is_empty() {
        let error = format!("{} has none of {}", folder.display(), LND_FILES.join(", "));
        return Err(CliError::new(error, "Give the folder that `claviger node add NAME --kind lnd` wrote."));
    }
    Ok(files)
}

/// What can be seen without a daemon.
fn without_daemon(data_dir: &Path, error: CliError) -> DoctorReply {
    let mut checks = Vec::new();
    match DataDir::open(data_dir) {
        Err(error) => checks.push(fail("data-dir", &error, error.hint())),
        Ok(dir) => {
            if let Err(error) = Config::load(&dir.config()) {
                checks.push(fail("config", &error, error.hint()));
            }
            checks.push(fail("daemon", &error.error, &error.hint));
        }
    }
    DoctorReply { checks, ..DoctorReply::default() }
}

fn fail(id: &str, detail: &impl ToString, fix: &str) -> CheckInfo {
    CheckInfo { id: id.to_owned(), state: "fail".to_owned(), detail: detail.to_string(), fix: fix.to_owned() }
}

/// Whether a channel's standing needs somebody.
fn is_bad(standing: &str) -> bool {
    matches!(standing, "node-behind" | "node-ahead" | "forked")
}

/// An error if something failed: the exit code is for scripts.
fn verdict(reply: &DoctorReply) -> Result<(), CliError> {
    let checks = reply.checks.iter().filter(|check| check.state == "fail").map(|check| check.id.as_str());
    let channels = reply.channels.iter().filter(|channel| is_bad(&channel.standing));
    let bad: Vec<_> = checks.chain(channels.map(|channel| channel.channel.as_str())).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(CliError::new(format!("not well: {}", bad.join(", ")), "Each says what to do; docs/doctor.md says more."))
}

fn text(reply: &DoctorReply) -> String {
    let mut text: String = reply.repaired.iter().map(|what| row("did", "", what, "")).collect();
    text += &table(&reply.checks);
    for channel in &reply.channels {
        let state = if is_bad(&channel.standing) { "fail" } else { "ok" };
        let detail = format!("{} of {}: {}", channel.channel, channel.node, channel.detail);
        text += &row(state, &channel.standing, &detail, &channel.fix);
    }
    text
}

/// Checks, a row each, with what to do below.
pub(super) fn table(checks: &[CheckInfo]) -> String {
    checks.iter().map(|check| row(&check.state, &check.id, &check.detail, &check.fix)).collect()
}

fn row(state: &str, what: &str, detail: &str, fix: &str) -> String {
    let mut row = format!("{state:<5} {what:<13} {detail}\n");
    if !fix.is_empty() {
        let _ = writeln!(row, "{:<19} {fix}", "");
    }
    row
}
