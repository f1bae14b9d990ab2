//! `claviger lnd`: what is done on the machine of an lnd whose keys are in a signer.

mod unlocker;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use claviger_hsm::file::read_limited;
use claviger_proto::lnrpc::{InitWalletRequest, WatchOnly, WatchOnlyAccount};
use claviger_proto::v1::{LndAdoptReply, LndAdoptRequest};
use serde_json::json;

use super::{CliError, Output, admin, harden, time};
use crate::daemon::{AccountLine, AccountsFile};
use crate::keys::passphrase::Source;

/// The file in a bundle that says since when its keys may have coins.
pub(super) const BIRTHDAY_FILE: &str = "birthday";

/// No file of a bundle is larger.
const MAX_FILE_BYTES: usize = 1 << 20;

const INIT_EXAMPLES: &str = "Examples:
  claviger lnd init-wallet ~/.lnd/claviger                                          asks for a new wallet password
  claviger lnd init-wallet ~/.lnd/claviger --password-fd 0 < ~/.lnd/password        for scripts
  claviger lnd init-wallet ~/.lnd/claviger --birthday 2024-05-01                    keys that had coins since then

Needs no signer and no data directory here, only the bundle of `claviger node add NAME --kind lnd` and an lnd that runs.";

const ADOPT_EXAMPLES: &str = "Examples:
  claviger lnd adopt alice channel.backup       on the signer, with ~/.lnd/data/chain/bitcoin/mainnet/channel.backup of an lnd that has stopped

Each channel is held against what its counterparty signed; those that cannot be taken over are named, and lnd has to close them.";

/// Backups of some ten thousand channels are larger.
const MAX_BACKUP_BYTES: usize = claviger_policy::bundle::MAX_BUNDLE_BYTES;

#[derive(Debug, Subcommand)]
pub(super) enum LndCommand {
    /// Make the wallet of a new lnd from the public accounts in its bundle.
    #[command(after_help = INIT_EXAMPLES)]
    InitWallet(InitArgs),
    /// Take over the channels that an lnd opened before its keys came here.
    #[command(after_help = ADOPT_EXAMPLES)]
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(super) struct AdoptArgs {
    /// The node that has lnd's keys.
    node: String,
    /// lnd's static channel backup, `channel.backup`, written by lnd 0.19 or newer after it stopped.
    backup: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The bundle of the node.
    folder: PathBuf,
    /// Where lnd answers gRPC.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10009")]
    rpc: String,
    /// lnd's own certificate; `tls.cert` beside the bundle if absent.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The first day on which the keys may have had coins, YYYY-MM-DD; the bundle's if absent. lnd looks at all blocks since.
    #[arg(long, value_name = "DATE", value_parser = time::day)]
    birthday: Option<u64>,
    /// How many unused addresses in a row end the search for coins; 0 for keys that never had any.
    #[arg(long, value_name = "N", default_value_t = 2_500, value_parser = clap::value_parser!(i32).range(0..=20_000))]
    recovery_window: i32,
    /// Read the new wallet password, of 8 bytes at least, from this open file descriptor.
    #[arg(long, value_name = "N")]
    password_fd: Option<i32>,
}

/// Runs one `claviger lnd` command.
pub(super) fn lnd(data_dir: &Path, command: LndCommand, output: &Output) -> Result<(), CliError> {
    match command {
        LndCommand::InitWallet(args) => init_wallet(&args, output),
        LndCommand::Adopt(args) => adopt(data_dir, args, output),
    }
}

fn adopt(data_dir: &Path, args: AdoptArgs, output: &Output) -> Result<(), CliError> {
    let hint = "Name the file channel.backup of the lnd that moves.";
    let backup = read_limited(&args.backup, MAX_BACKUP_BYTES)
        .map_err(|error| CliError::new(format!("{}: {error}", args.backup.display()), hint))?;
    let daemon = admin::connect(data_dir)?;
    let request = LndAdoptRequest { node: args.node.clone(), backup };
    let reply = daemon.call(async |client| client.lnd_adopt(request).await)?;
    output.result(&reply, || adoption_text(&reply));
    match reply.refused.len() {
        0 => Ok(()),
        n => Err(CliError::new(
            format!("{n} channels are not signed for"),
            "Let lnd close them with its old keys before it moves, or see docs/lnd.md, \"An lnd with channels\".",
        )),
    }
}

fn adoption_text(reply: &LndAdoptReply) -> String {
    let mut text = format!("recorded as {}\n", reply.request);
    let mut lines = |what: &str, channels: &[String]| {
        channels.iter().for_each(|channel| text += &format!("{what:<8} {channel}\n"));
    };
    lines("adopted", &reply.adopted);
    lines("known", &reply.known);
    for refused in &reply.refused {
        text += &format!("REFUSED  {}: {}\n", refused.channel, refused.why);
    }
    text
}

fn init_wallet(args: &InitArgs, output: &Output) -> Result<(), CliError> {
    harden(args.password_fd.filter(|fd| *fd > 2).as_slice())?;
    let accounts = accounts(&args.folder)?;
    let birthday = args.birthday.map_or_else(|| birthday(&args.folder), Ok)?;
    let certificate = args.tls_cert.clone().unwrap_or_else(|| args.folder.join("../tls.cert"));
    let certificate = read(&certificate, "Start lnd first, or say with --tls-cert where its certificate is.")?;
    let source = args.password_fd.map_or(Source::Prompt, Source::Descriptor);
    let password = source.read_new().map_err(|error| CliError::new(&error, error.hint()))?;
    let count = accounts.len();
    let request = InitWalletRequest {
        wallet_password: password.expose(<[u8]>::to_vec),
        recovery_window: args.recovery_window,
        watch_only: Some(WatchOnly { master_key_birthday_timestamp: birthday, accounts }),
    };
    unlocker::init_wallet(&args.rpc, &certificate, request)?;
    let since = time::date(birthday);
    output.result(&json!({ "accounts": count, "birthday": since }), || {
        format!("lnd has its wallet: {count} accounts, looked for since {since}. Its keys stay with the signer")
    });
    Ok(())
}

/// The accounts in the bundle.
fn accounts(folder: &Path) -> Result<Vec<WatchOnlyAccount>, CliError> {
    let hint = "Give the folder that `claviger node add NAME --kind lnd` wrote.";
    let text = read(&folder.join("accounts.json"), hint)?;
    let unreadable = |what: &str| CliError::new(format!("accounts.json cannot be read: {what}"), hint);
    let file: AccountsFile = serde_json::from_slice(&text).map_err(|error| unreadable(&error.to_string()))?;
    let account = |line: AccountLine| {
        let numbers: Option<Vec<u32>> = line
            .derivation_path
            .strip_prefix("m/")?
            .split('/')
            .map(|step| step.strip_suffix('\'')?.parse().ok())
            .collect();
        let [purpose, coin_type, account] = numbers?.try_into().ok()?;
        Some(WatchOnlyAccount { purpose, coin_type, account, xpub: line.extended_public_key })
    };
    file.accounts.into_iter().map(account).collect::<Option<_>>().ok_or_else(|| unreadable("an account's path"))
}

/// When the bundle says that its keys were made, in seconds since the Unix epoch.
fn birthday(folder: &Path) -> Result<u64, CliError> {
    let hint = "Say with --birthday since when the keys may have coins: without it lnd looks through years of blocks.";
    let text = read(&folder.join(BIRTHDAY_FILE), hint)?;
    let day = std::str::from_utf8(&text).ok().and_then(|text| time::day(text.trim()).ok());
    day.ok_or_else(|| CliError::new("the bundle's birthday is no date", hint))
}

fn read(path: &Path, hint: &str) -> Result<Vec<u8>, CliError> {
    read_limited(path, MAX_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => CliError::new(format!("there is no {}", path.display()), hint),
        _ => CliError::new(format!("cannot read {}: {error}", path.display()), "Check the path."),
    })
}
