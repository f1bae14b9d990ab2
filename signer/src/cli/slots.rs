//! `claviger slots`.

use std::path::Path;

use clap::Subcommand;
use claviger_hsm::{Argon2id, Envelope};
use serde_json::json;

use super::{CliError, Output, PassphraseArgs, harden};
use crate::datadir::DataDir;
use crate::keys::data_key;
use crate::keys::memory::scrub_stack;

#[derive(Debug, Subcommand)]
pub(super) enum SlotsCommand {
    /// All slots.
    List,
    /// Whether the passphrase opens a slot; changes nothing.
    Test(PassphraseArgs),
    /// Add a passphrase slot. Asks for a passphrase that opens an existing slot, then for the new one.
    Add {
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Read the new passphrase from this open file descriptor.
        #[arg(long, value_name = "N")]
        new_passphrase_fd: Option<i32>,
    },
    /// Remove a slot. The last one stays.
    Remove {
        /// The slot's number, as `slots list` shows it.
        slot: u16,
    },
}

impl SlotsCommand {
    /// The descriptors to leave open.
    fn descriptors(&self) -> Vec<i32> {
        match self {
            Self::Test(passphrase) => passphrase.descriptors(),
            Self::Add { passphrase, new_passphrase_fd } => {
                passphrase.descriptors().into_iter().chain(*new_passphrase_fd).collect()
            }
            Self::List | Self::Remove { .. } => Vec::new(),
        }
    }
}

/// Runs one `claviger slots` command. The daemon need not run: slots are a file of their own.
pub(super) fn slots(data_dir: &Path, command: SlotsCommand, output: &Output) -> Result<(), CliError> {
    harden(&command.descriptors())?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    // Read, changed and written back by one command at a time.
    let _lock = match &command {
        SlotsCommand::Add { .. } | SlotsCommand::Remove { .. } => {
            Some(dir.lock_keyslots().map_err(|error| CliError::new(&error, error.hint()))?)
        }
        SlotsCommand::List | SlotsCommand::Test(_) => None,
    };
    let mut envelope = Envelope::read(&dir.keyslots()).map_err(|error| CliError::new(&error, error.hint()))?;
    let failed = |error: claviger_hsm::EnvelopeError| CliError::new(&error, error.hint());
    match command {
        SlotsCommand::List => {
            let slots: Vec<_> = envelope.slots().map(|(id, kind)| json!({ "slot": id, "kind": kind.name() })).collect();
            output.result(&json!({ "slots": slots }), || {
                let lines: Vec<_> = envelope.slots().map(|(id, kind)| format!("{id}  {}", kind.name())).collect();
                lines.join("\n")
            });
        }
        SlotsCommand::Test(passphrase) => {
            let opened = data_key::unlock(&envelope, &passphrase.read()?).map(|(_, slot)| slot);
            scrub_stack();
            let slot = opened.map_err(failed)?;
            output.result(&json!({ "slot": slot }), || format!("the passphrase opens slot {slot}"));
        }
        SlotsCommand::Add { passphrase, new_passphrase_fd } => {
            let new = PassphraseArgs { passphrase_fd: new_passphrase_fd, passphrase_credential: None };
            let (data_key, _) = data_key::unlock(&envelope, &passphrase.read()?).map_err(failed)?;
            let new = new.source().read_new().map_err(|error| CliError::new(&error, error.hint()))?;
            let slot = data_key::add_passphrase(&mut envelope, &data_key, &new, Argon2id::default()).map_err(failed)?;
            scrub_stack();
            envelope.write(&dir.keyslots()).map_err(failed)?;
            output.result(&json!({ "slot": slot }), || format!("slot {slot} added"));
        }
        SlotsCommand::Remove { slot } => {
            envelope.remove(slot).map_err(failed)?;
            envelope.write(&dir.keyslots()).map_err(failed)?;
            output.result(&json!({ "removed": slot }), || format!("slot {slot} removed"));
        }
    }
    Ok(())
}
