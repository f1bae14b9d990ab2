//! `claviger init`.

use std::path::Path;

use bitcoin::Network;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum, value_parser};
use claviger_hsm::file::write_atomically;
use claviger_hsm::{Argon2id, EnvelopeError};
use claviger_policy::preset::{self, Preset};
use serde_json::json;

use super::{CliError, Output, PassphraseArgs, harden};
use crate::config::{Config, NO_PRESET};
use crate::datadir::DataDir;
use crate::keys::data_key;
use crate::keys::memory::scrub_stack;

/// What `init` is told.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The Bitcoin network of all nodes.
    #[arg(long, value_enum, default_value_t = NetworkName::Mainnet)]
    network: NetworkName,
    /// The spending policy to begin with, until the first `claviger policy apply`: a preset that `claviger policy presets` lists, or
    /// "none" for the limits of claviger.toml alone.
    #[arg(long, value_name = "NAME", default_value = preset::DEFAULT, value_parser = presets())]
    preset: String,
    /// Let the signer run as root, as in a container that has no other user (signer.allow_root).
    #[arg(long)]
    allow_root: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Memory that one guess of the passphrase costs, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = Argon2id::default().memory_kib, value_parser = value_parser!(u32).range(8..=1 << 20))]
    kdf_memory_kib: u32,
    /// Passes over that memory.
    #[arg(long, value_name = "N", default_value_t = Argon2id::default().passes, value_parser = value_parser!(u32).range(1..=16))]
    kdf_passes: u32,
}

/// Networks by their usual names.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum NetworkName {
    Mainnet,
    Testnet,
    Testnet4,
    Signet,
    Regtest,
}

/// Makes the data directory.
pub(super) fn init(data_dir: &Path, args: InitArgs, output: &Output) -> Result<(), CliError> {
    harden(&args.passphrase.descriptors())?;
    let passphrase = args.passphrase.source().read_new().map_err(|error| CliError::new(&error, error.hint()))?;
    let cost = Argon2id { memory_kib: args.kdf_memory_kib, passes: args.kdf_passes, ..Argon2id::default() };
    let created = data_key::create(&passphrase, cost).map(|(envelope, _)| envelope);
    scrub_stack();
    let failed = |error: EnvelopeError| CliError::new(&error, error.hint());
    let envelope = created.map_err(failed)?;
    let dir = DataDir::create(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    envelope.write(&dir.keyslots()).map_err(failed)?;
    let mut config = Config::new(args.network.into());
    config.policy.preset = args.preset;
    config.signer.allow_root = args.allow_root;
    write_atomically(&dir.config(), config.to_commented_toml().as_bytes()).map_err(|error| {
        CliError::new(
            format!("cannot write {}: {error}", dir.config().display()),
            "Check the disk, remove the directory and try again.",
        )
    })?;
    let value = json!({ "data_dir": dir.path(), "network": config.network.to_string(), "preset": config.policy.preset, "slots": 1 });
    output.result(&value, || {
        format!(
            "{} is ready for {}, with the policy \"{}\" until another is applied.\nEdit [chain] in {}, then: claviger --data-dir {0} run\n\
             There is one key slot: if its passphrase is lost, all keys are. Keep a copy of it apart.",
            dir.path().display(),
            config.network,
            config.policy.preset,
            dir.config().display()
        )
    });
    Ok(())
}

fn presets() -> PossibleValuesParser {
    Preset::all().iter().map(|preset| preset.name).chain([NO_PRESET]).collect::<Vec<_>>().into()
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
