//! `claviger node`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use claviger_proto::v1::{
    BundleFile, EnrolmentReply, NodeAddRequest, NodeInfo, NodeListRequest, NodeRemoveRequest, NodeRequestByName,
    NodeRevokeRequest, OrderRequest, SeedImport,
};
use serde_json::json;

use super::channel::{exemption_text, freeze_text, order};
use super::lnd::BIRTHDAY_FILE;
use super::status::node_line;
use super::{CliError, Output, admin, harden, time};
use crate::keys::memory::duplicate;
use crate::keys::passphrase::Source;

/// No seed file is larger.
const MAX_SEED_FILE_BYTES: u64 = 8_192;

const DAY_S: u64 = 86_400;

const ADD_EXAMPLES: &str = "Examples:
  claviger node add alice --kind ldk                                       new keys
  claviger node add bob --kind cln --import hsm_secret --format cln-hsm-secret
  claviger node add carol --kind ldk --import - --format bip39 < words
  claviger node add dave --kind lnd                                        needs lnd.listen in claviger.toml
  claviger node add dora --kind lnd --import - --format aezeed < words     an lnd that was there before
  claviger node add erin --kind lightspark --import seed --format lightspark-seed --webhook-secret secret
  claviger node add faye --kind lightspark --import osk --format lightspark-osk --node-password-fd 3 3< password

Keys of a node that has channels are not enough: the signer does not know their state. Close them first.";

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Make keys for a node, or take over its own, and write the bundle it connects with.
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// 1–32 of a-z, 0-9 and '-'.
        name: String,
        /// What the node runs.
        #[arg(long, value_enum)]
        kind: Kind,
        /// Take over the seed in this file; `-` reads standard input.
        #[arg(long, value_name = "FILE", requires = "format")]
        import: Option<PathBuf>,
        /// What the file holds.
        #[arg(long, value_enum, requires = "import")]
        format: Option<SeedFormat>,
        /// Read the passphrase of the words, if they have one, from this open file descriptor.
        #[arg(long, value_name = "N", requires = "import")]
        mnemonic_passphrase_fd: Option<i32>,
        /// For lightspark-osk: read the node password, which opens it, from this open file descriptor.
        #[arg(long, value_name = "N", requires = "import", conflicts_with = "mnemonic_passphrase_fd")]
        node_password_fd: Option<i32>,
        /// For lnd: the first day on which the keys may have had coins, YYYY-MM-DD; yesterday for new keys.
        #[arg(long, value_name = "DATE", value_parser = time::day)]
        birthday: Option<u64>,
        /// For lightspark: a file with the text with which Lightspark signs webhooks. Not with lightspark-osk, which has none
        /// that are answered.
        #[arg(long, value_name = "FILE")]
        webhook_secret: Option<PathBuf>,
        /// For lightspark: a file with ID:TOKEN of Lightspark's API. Answers are called back there, not given directly.
        #[arg(long, value_name = "FILE")]
        api_token: Option<PathBuf>,
        /// Where to write the bundle; NAME.claviger if absent, for lnd and lightspark the folder NAME.KIND. It holds what
        /// the node connects with.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// All nodes.
    List,
    /// One node, its certificates and its state.
    Show {
        /// The node.
        name: String,
    },
    /// Issue another certificate. The one before stays valid until it is revoked or the node is renewed again.
    Renew {
        /// The node.
        name: String,
        /// Where to write the new bundle; NAME.claviger if absent, for lnd the folder NAME.lnd.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke certificates and close the link that uses one, at once.
    Revoke {
        /// The node.
        name: String,
        /// Only this certificate; all of the node's if absent.
        #[arg(long)]
        serial: Option<String>,
    },
    /// Sign no new state of any channel and no new spending until it is thawed. Closing and punishing go on.
    Freeze {
        /// The node.
        name: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// Take a node's freeze back. Channels that are frozen by themselves stay frozen.
    Thaw {
        /// The node.
        name: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// Forget a node and its keys, for good.
    Remove {
        /// The node.
        name: String,
        /// The name again: its keys cannot be brought back.
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

/// What a node runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    /// An LDK node with claviger-ldk.
    Ldk,
    /// Core Lightning.
    Cln,
    /// A stock lnd.
    Lnd,
    /// A Lightspark account with remote signing.
    Lightspark,
}

/// What an imported seed looks like.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SeedFormat {
    /// 32 bytes, or 64 hex digits, as LDK's KeysManager takes them.
    LdkSeed,
    /// Core Lightning's hsm_secret of 32 bytes.
    ClnHsmSecret,
    /// 12 to 24 words.
    Bip39,
    /// A BIP 32 root key, xprv… or tprv…, of an lnd.
    Xprv,
    /// The 24 words that an lnd showed when its wallet was made.
    Aezeed,
    /// 16, 32 or 64 bytes in hex, as a Lightspark account has them.
    LightsparkSeed,
    /// The encrypted RSA key of a Lightspark account without remote signing: `encrypted_signing_private_key`, in JSON.
    LightsparkOsk,
}

/// Runs one `claviger node` command.
pub(super) fn node(data_dir: &Path, command: NodeCommand, output: &Output) -> Result<(), CliError> {
    let passphrase_fd = match &command {
        NodeCommand::Add { mnemonic_passphrase_fd, node_password_fd, .. } => {
            mnemonic_passphrase_fd.or(*node_password_fd)
        }
        _ => None,
    };
    harden(passphrase_fd.as_slice())?;
    let daemon = admin::connect(data_dir)?;
    match command {
        NodeCommand::Add { name, kind, import, format, birthday, webhook_secret, api_token, out, .. } => {
            let birthday = match kind {
                Kind::Lnd => birthday.or_else(|| import.is_none().then(|| time::now_ms() / 1_000 - DAY_S)),
                _ if birthday.is_some() => {
                    return Err(CliError::new("only keys of an lnd have a birthday", "Leave --birthday out."));
                }
                _ => None,
            };
            let text = |file: Option<PathBuf>| file.map(|file| read_text(&file)).transpose();
            let (webhook_secret, api_token) =
                (text(webhook_secret)?.unwrap_or_default(), text(api_token)?.unwrap_or_default());
            let import = format.zip(import).map(|(format, file)| read_seed(format, &file, passphrase_fd));
            let import = import.transpose()?;
            let kind = value_name(kind);
            let bundle = out.unwrap_or_else(|| bundle_path(&name, &kind));
            refuse_overwrite(&bundle)?;
            let request = NodeAddRequest { name, kind, import, webhook_secret, api_token };
            let mut reply = daemon.call(async |client| client.node_add(request).await)?;
            if let Some(birthday) = birthday {
                let content = format!("{}\n", time::date(birthday)).into_bytes();
                reply.files.push(BundleFile { name: BIRTHDAY_FILE.to_owned(), content });
            }
            enrolled(&reply, &bundle, output)
        }
        NodeCommand::Renew { name, out } => {
            let known = daemon.call(async |client| client.node_show(NodeRequestByName { name: name.clone() }).await)?;
            let bundle = out.unwrap_or_else(|| bundle_path(&name, &known.kind));
            refuse_overwrite(&bundle)?;
            let reply = daemon.call(async |client| client.node_renew(NodeRequestByName { name }).await)?;
            enrolled(&reply, &bundle, output)
        }
        NodeCommand::List => {
            let reply = daemon.call(async |client| client.node_list(NodeListRequest {}).await)?;
            output.result(&reply, || {
                let lines: Vec<_> = reply.nodes.iter().map(node_line).collect();
                if lines.is_empty() {
                    "no nodes yet: claviger node add NAME --kind ldk".to_owned()
                } else {
                    lines.join("\n")
                }
            });
            Ok(())
        }
        NodeCommand::Show { name } => {
            let node = daemon.call(async |client| client.node_show(NodeRequestByName { name }).await)?;
            output.result(&node, || details(&node));
            Ok(())
        }
        NodeCommand::Revoke { name, serial } => {
            let request = NodeRevokeRequest { name, serial: serial.unwrap_or_default() };
            let node = daemon.call(async |client| client.node_revoke(request).await)?;
            output.result(&node, || details(&node));
            Ok(())
        }
        NodeCommand::Freeze { name, why } => {
            let request = OrderRequest { node: name, order: "freeze".to_owned(), why, ..OrderRequest::default() };
            order(&daemon, request, output)
        }
        NodeCommand::Thaw { name, why } => {
            let request = OrderRequest { node: name, order: "thaw".to_owned(), why, ..OrderRequest::default() };
            order(&daemon, request, output)
        }
        NodeCommand::Remove { name, confirm } => {
            let request = NodeRemoveRequest { name: name.clone(), confirm };
            daemon.call(async |client| client.node_remove(request).await)?;
            output.result(&json!({ "removed": name }), || format!("{name} is forgotten"));
            Ok(())
        }
    }
}

fn enrolled(reply: &EnrolmentReply, path: &Path, output: &Output) -> Result<(), CliError> {
    let is_folder = !reply.files.is_empty();
    let written = if is_folder { folder(reply, path) } else { claviger_proto::bundle::create(&reply.bundle, path) };
    written.map_err(|error| {
        let hint = "The certificate was issued: choose another --out path with `claviger node renew`.";
        CliError::new(format!("cannot write {}: {error}", path.display()), hint)
    })?;
    let is_account = reply.node.as_ref().is_some_and(|node| node.kind == "lightspark");
    output.result(&json!({ "node": reply.node, "bundle": path }), || {
        let (node, path) = (reply.node.as_ref().map(node_line).unwrap_or_default(), path.display());
        match is_folder {
            true if is_account => format!("{node}\nbundle: {path} (says what to enter at Lightspark; its certificate is for the services that call it)"),
            true => format!("{node}\nbundle: {path}\n{}", LND_STEPS.replace("BUNDLE", &path.to_string())),
            false => format!("{node}\nbundle: {path} (copy it to the node's machine, mode 0600)"),
        }
    });
    Ok(())
}

/// What comes next on the machine of an lnd node.
const LND_STEPS: &str = "next, with lnd stopped:
  scp -rp BUNDLE LND-HOST:.lnd/claviger
  cat ~/.lnd/claviger/lnd.conf >> ~/.lnd/lnd.conf          on LND-HOST, as the next ones
  lnd
  claviger lnd init-wallet ~/.lnd/claviger                 or: lncli createwatchonly ~/.lnd/claviger/accounts.json";

/// A new folder of files that nobody else reads.
fn folder(reply: &EnrolmentReply, path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    for file in &reply.files {
        // A name from the daemon is a name, not a path.
        let name = Path::new(&file.name).file_name().ok_or(ErrorKind::InvalidData)?;
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(name))?;
        out.write_all(&file.content)?;
        out.sync_all()?;
    }
    Ok(())
}

fn bundle_path(name: &str, kind: &str) -> PathBuf {
    format!("{name}.{}", if matches!(kind, "lnd" | "lightspark") { kind } else { "claviger" }).into()
}

fn refuse_overwrite(path: &Path) -> Result<(), CliError> {
    if !path.exists() {
        return Ok(());
    }
    Err(CliError::new(format!("{} exists", path.display()), "Move it away, or choose another path with --out."))
}

/// The text in a file, without what surrounds it.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_SEED_FILE_BYTES).read_to_end(&mut text));
    file.map_err(|error| CliError::new(format!("cannot read {}: {error}", path.display()), "Check the path."))?;
    Ok(text.trim_ascii().to_vec())
}

fn read_seed(format: SeedFormat, path: &Path, passphrase_fd: Option<i32>) -> Result<SeedImport, CliError> {
    let unreadable = |error: std::io::Error| CliError::new(format!("cannot read the seed: {error}"), "Check --import.");
    let file = match path.to_str() {
        // Not `std::io::stdin`, whose buffer would keep a copy.
        Some("-") => duplicate(0).map(File::from).ok_or_else(|| ErrorKind::NotFound.into()),
        _ => File::open(path),
    };
    let mut secret = Vec::new();
    file.and_then(|file| file.take(MAX_SEED_FILE_BYTES).read_to_end(&mut secret)).map_err(unreadable)?;
    let passphrase = passphrase_fd.map(|fd| Source::Descriptor(fd).read()).transpose();
    let passphrase = passphrase.map_err(|error| CliError::new(&error, error.hint()))?;
    let passphrase = passphrase.map_or_else(Vec::new, |passphrase| passphrase.expose(<[u8]>::to_vec));
    Ok(SeedImport { format: value_name(format), secret, passphrase })
}

/// The name clap shows is the name the protocol uses.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn details(node: &NodeInfo) -> String {
    let mut text = format!("{}\nnode id    {}\nderivation {}", node_line(node), node.node_id, node.derivation);
    for certificate in &node.certificates {
        let state = if certificate.revoked { "REVOKED" } else { "valid" };
        text += &format!("\ncertificate {} {state} until {}", certificate.serial, time::date(certificate.not_after));
    }
    if let Some(frozen) = &node.frozen {
        text += &format!("\nFROZEN     {}", freeze_text(frozen));
    }
    if node.frozen_channels > 0 {
        text += &format!("\n{} channels are frozen by themselves", node.frozen_channels);
    }
    for exemption in &node.exemptions {
        text += &format!("\nexempt     channel {} {}", exemption.channel, exemption_text(exemption));
    }
    text
}
