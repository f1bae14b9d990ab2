//! `claviger init`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bitcoin::Network;
use clap::{Args, ValueEnum};
use claviger_hsm::Argon2id;
use serde_json::json;

use super::{CliError, Output, PassphraseArgs};
use crate::config::Config;
use crate::datadir::DataDir;
use crate::harden::Hardening;
use crate::keys::data_key;
use crate::keys::memory::scrub_stack;

/// What `init` is told.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The Bitcoin network of all nodes.
    #[arg(long, value_enum, default_value_t = NetworkName::Mainnet)]
    network: NetworkName,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Memory that one guess of the passphrase costs, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = Argon2id::default().memory_kib)]
    kdf_memory_kib: u32,
    /// Passes over that memory.
    #[arg(long, value_name = "N", default_value_t = Argon2id::default().passes)]
    kdf_passes: u32,
}

/// Networks by their usual names.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkName {
    Mainnet,
    Testnet,
    Testnet4,
    Signet,
    Regtest,
}

/// Makes the data directory.
pub(super) fn init(data_dir: &Path, args: InitArgs, output: &Output) -> Result<(), CliError> {
    Hardening::apply(&args.passphrase.descriptors()).map_err(|error| CliError::new(&error, error.hint()))?;
    let passphrase = args.passphrase.source().read_new().map_err(|error| CliError::new(&error, error.hint()))?;
    let dir = DataDir::create(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let cost = Argon2id { memory_kib: args.kdf_memory_kib, passes: args.kdf_passes, ..Argon2id::default() };
    let created = data_key::create(&passphrase, cost).and_then(|(envelope, _)| envelope.write(&dir.keyslots()));
    scrub_stack();
    created.map_err(|error| CliError::new(&error, error.hint()))?;
    let config = Config::new(args.network.into());
    write_config(&dir, &config).map_err(|error| {
        CliError::new(
            format!("cannot write {}: {error}", dir.config().display()),
            "Check the disk, remove the directory and try again.",
        )
    })?;
    let value = json!({ "data_dir": dir.path(), "network": config.network.to_string(), "slots": 1 });
    output.result(&value, || {
        format!(
            "{} is ready for {}.\nEdit [chain] in {}, then: claviger run\n\
             There is one key slot: if its passphrase is lost, all keys are. Keep a copy of it apart.",
            dir.path().display(),
            config.network,
            dir.config().display()
        )
    });
    Ok(())
}

fn write_config(dir: &DataDir, config: &Config) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.config())?;
    file.write_all(config.to_commented_toml().as_bytes())?;
    file.sync_all()
}

impl From<NetworkName> for Network {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::Mainnet => Self::Bitcoin,
            NetworkName::Testnet => Self::Testnet,
            NetworkName::Testnet4 => Self::Testnet4,
            NetworkName::Signet => Self::Signet,
            NetworkName::Regtest => Self::Regtest,
        }
    }
}
