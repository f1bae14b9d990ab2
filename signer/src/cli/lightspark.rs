//! `claviger lightspark`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Subcommand};
use claviger_proto::v1::{AccountSecretsRequest, RecoverChannelRequest, RecoveredChannel, RecoveredTransaction};
use serde_json::Value;

use super::node::read_text;
use super::status::node_line;
use super::{CliError, Output, admin, harden};

/// No kit is larger.
const MAX_KIT_BYTES: u64 = 64 << 20;

const RECOVER_EXAMPLES: &str = "Examples:
  claviger lightspark recover acme kit.json --out signed.json

The kit is the newest that Lightspark wrote. Of each channel, the newest commitment that the signer knows is signed, and what
collects its outputs, which must pay an address in limits.allow. From then on the channel is closing: nothing new is signed in
it. Send the transactions of a channel in their order, with `bitcoin-cli sendrawtransaction`.";

#[derive(Debug, Subcommand)]
pub(super) enum LightsparkCommand {
    /// Sign a recovery kit: close the account's channels without Lightspark and collect what they pay.
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover {
        /// The account.
        name: String,
        /// The kit: JSON, one channel or a list of them.
        kit: PathBuf,
        /// Where to write the signed transactions, in JSON.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Replace the webhook secret or the API token of an account that is there. What waits is delivered with the new one.
    #[command(group = ArgGroup::new("new").required(true).multiple(true))]
    Secrets {
        /// The account.
        name: String,
        /// A file with the text with which Lightspark signs webhooks from now on.
        #[arg(long, value_name = "FILE", group = "new")]
        webhook_secret: Option<PathBuf>,
        /// A file with ID:TOKEN of Lightspark's API. Answers are called back from now on.
        #[arg(long, value_name = "FILE", group = "new")]
        api_token: Option<PathBuf>,
    },
}

/// Runs one `claviger lightspark` command.
pub(super) fn lightspark(data_dir: &Path, command: LightsparkCommand, output: &Output) -> Result<(), CliError> {
    match command {
        LightsparkCommand::Recover { name, kit, out } => recover(data_dir, &name, &kit, &out, output),
        LightsparkCommand::Secrets { name, webhook_secret, api_token } => {
            harden(&[])?;
            let text = |file: Option<PathBuf>| file.map(|file| read_text(&file)).transpose();
            let (webhook_secret, api_token) = (text(webhook_secret)?, text(api_token)?);
            let (webhook_secret, api_token) = (webhook_secret.unwrap_or_default(), api_token.unwrap_or_default());
            let request = AccountSecretsRequest { name, webhook_secret, api_token };
            let node = admin::connect(data_dir)?.call(async |client| client.account_secrets(request).await)?;
            output.result(&node, || node_line(&node));
            Ok(())
        }
    }
}

fn recover(data_dir: &Path, name: &str, kit: &Path, out: &Path, output: &Output) -> Result<(), CliError> {
    let kits = read_kit(kit)?;
    let daemon = admin::connect(data_dir)?;
    let unwritable = |error: std::io::Error| {
        CliError::new(format!("cannot write {}: {error}", out.display()), "Choose another path with --out.")
    };
    // Before anything is signed.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = file.map_err(unwritable)?;
    let (mut signed, mut refused) = (Vec::new(), 0);
    for (at, kit) in kits.iter().enumerate() {
        let request = RecoverChannelRequest { node: name.to_owned(), kit: kit.to_string().into_bytes() };
        let place = format!("{} of {}", at + 1, kits.len());
        match daemon.call(async |client| client.recover_channel(request).await) {
            Ok(channel) => {
                output.line(&channel, || report(&place, &channel));
                signed.push(channel);
            }
            Err(error) => {
                refused += 1;
                output.line(&error, || format!("channel {place}: REFUSED {}\n  {}", error.error, error.hint));
            }
        }
    }
    let text = serde_json::to_string_pretty(&signed).unwrap_or_default();
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    if refused > 0 {
        let error = format!("{refused} of {} channels were refused; the others are in {}", kits.len(), out.display());
        return Err(CliError::new(error, "`claviger explain` says more of each."));
    }
    Ok(())
}

/// The channels of a kit, as they stand in the file.
fn read_kit(path: &Path) -> Result<Vec<Value>, CliError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CliError::new(format!("cannot read {}: {error}", path.display()), "Give the kit as Lightspark wrote it.")
    };
    let length = std::fs::metadata(path).map_err(|error| unreadable(&error))?.len();
    if length > MAX_KIT_BYTES {
        return Err(unreadable(&format!("it has more than {MAX_KIT_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(&error))?;
    match serde_json::from_slice(&text).map_err(|error| unreadable(&error))? {
        Value::Array(channels) if !channels.is_empty() => Ok(channels),
        channel @ Value::Object(_) => Ok(vec![channel]),
        _ => Err(unreadable(&"it holds no channel")),
    }
}

fn report(place: &str, channel: &RecoveredChannel) -> String {
    let mut text = format!("channel {place}: {}", channel.channel);
    for RecoveredTransaction { what, txid, amount_sat, after_blocks, not_before_height, .. } in &channel.transactions {
        text += &format!("\n  {what:18} {txid} pays {amount_sat} sat");
        if *after_blocks > 0 {
            text += &format!(", {after_blocks} blocks after the one that it spends");
        }
        if *not_before_height > 0 {
            text += &format!(", not before height {not_before_height}");
        }
    }
    text
}
