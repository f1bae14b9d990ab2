//! `claviger rotate`.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::Args;
use claviger_hsm::{EnvelopeError, SlotId, SlotKind, Wrapped};
use claviger_proto::v1::{RotateDataKeyRequest, StatusRequest};
use serde_json::json;

use super::slots::{Change, OpenArgs, deal, failed, hand_out, read_pin};
use super::{CliError, Output, admin, harden};
use crate::datadir::DataDir;
use crate::keys::data_key::{self, DataKey, NewSlot, Opener};
use crate::keys::memory::scrub_stack;
use crate::keys::passphrase::Source;

pub(super) const EXAMPLES: &str = "Examples:
  claviger rotate --data-key                          asks for what opens each slot, once
  claviger rotate --data-key --drop 3                 without slot 3, whose passphrase somebody else knows
  claviger rotate --data-key --slot 2 --out DIR       opens with slot 2, and deals the shares of other slots anew into DIR

What was stolen of the old data key, its slots or their secrets opens nothing that is sealed from then on. Old copies of the
data directory, backups included, still open as they did: destroy them, or keep them where that does not matter.";

/// What `rotate` is told.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// Replace the data key, which everything is sealed with.
    #[arg(long, required = true)]
    data_key: bool,
    #[command(flatten)]
    open: OpenArgs,
    /// Read what opens slot SLOT, its passphrase or PIN, from file descriptor N instead of asking.
    #[arg(long, value_name = "SLOT=N", value_parser = slot_and_descriptor)]
    slot_fd: Vec<(SlotId, RawFd)>,
    /// Read it from a systemd credential instead of asking.
    #[arg(long, value_name = "SLOT=NAME", value_parser = slot_and_credential)]
    slot_credential: Vec<(SlotId, String)>,
    /// Remove this slot instead of asking for what opens it.
    #[arg(long, value_name = "SLOT")]
    drop: Vec<SlotId>,
    /// Write the shares of a shares slot, dealt anew, into this directory: one file each.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn slot_and_descriptor(text: &str) -> Result<(SlotId, RawFd), String> {
    let parsed = text.split_once('=').and_then(|(slot, fd)| Some((slot.parse().ok()?, fd.parse().ok()?)));
    parsed.ok_or_else(|| "SLOT=N, as in 2=7".to_owned())
}

fn slot_and_credential(text: &str) -> Result<(SlotId, String), String> {
    let parsed = text.split_once('=').and_then(|(slot, name)| Some((slot.parse().ok()?, name.to_owned())));
    parsed.ok_or_else(|| "SLOT=NAME, as in 2=safe".to_owned())
}

/// Turns the key slot file to a new data key; a daemon that is unsealed takes it up at once, another one when it is unsealed.
pub(super) fn rotate(data_dir: &Path, args: &RotateArgs, output: &Output) -> Result<(), CliError> {
    let descriptors = args.slot_fd.iter().map(|(_, fd)| *fd).filter(|fd| *fd > 2);
    harden(&args.open.descriptors().into_iter().chain(descriptors).collect::<Vec<_>>())?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let turned = turn(Change::begin(&dir)?, args);
    scrub_stack();
    let (data_key, shares) = turned?;
    let finished = seal_anew(data_dir, &data_key, output)?;
    output.result(&json!({ "rotated": "data-key", "finished": finished, "shares": shares }), || {
        let told = if finished {
            "the data key is replaced; everything is sealed with the new one"
        } else {
            "the data key is replaced; everything is sealed with the new one once the signer is unsealed"
        };
        [vec![told.to_owned()], shares].concat().join("\n")
    });
    Ok(())
}

/// A new data key in every slot that stays, and the files that shares were written to; the key as it is if it is being
/// rotated already.
fn turn(mut change: Change<'_>, args: &RotateArgs) -> Result<(DataKey, Vec<String>), CliError> {
    let opener = args.open.read(&change.envelope, args.open.kind(&change.envelope)?)?;
    let (data_key, opened_by) = data_key::unlock_with(&change.envelope, &opener, args.open.slot).map_err(failed)?;
    if data_key.previous().is_some() {
        // Told again, it goes on with what was begun, which is not what a slot to be left out asks for.
        return if args.drop.is_empty() { Ok((data_key, Vec::new())) } else { Err(failed(EnvelopeError::Rotating)) };
    }
    if let Some(unknown) = args.drop.iter().find(|drop| change.envelope.slots().all(|(id, _)| id != **drop)) {
        return Err(failed(EnvelopeError::UnknownSlot(*unknown)));
    }
    let mut opener = Some(opener);
    let mut slots = Vec::new();
    for (id, wrapped) in change.envelope.records().filter(|(id, _)| !args.drop.contains(id)) {
        let opener = if id == opened_by { opener.take() } else { args.ask(id, wrapped)? };
        if let Some(opener) = opener.as_ref().filter(|_| id != opened_by) {
            // A mistyped passphrase would be noticed when it is too late.
            data_key::unlock_with(&change.envelope, opener, Some(id)).map_err(|error| {
                CliError::new(format!("slot {id}: {error}"), format!("{} Or leave it out: --drop {id}.", error.hint()))
            })?;
        }
        slots.push((id, again(wrapped, opener)?));
    }
    if slots.iter().filter(|(_, new)| matches!(new, NewSlot::Shares(_))).count() > 1 {
        let hint = "Remove one of them (--drop SLOT), and add it again afterwards.";
        return Err(CliError::new("there are several shares slots", hint));
    }
    let data_key = data_key::turn(&mut change.envelope, data_key, &slots).map_err(failed)?;
    let mut shares = Vec::new();
    for (_, new) in &slots {
        shares.extend(hand_out(args.out.as_deref(), new)?);
    }
    change.end()?;
    Ok((data_key, shares))
}

impl RotateArgs {
    /// What opens slot `id`; nothing for shares, which are dealt anew.
    fn ask(&self, id: SlotId, wrapped: &Wrapped) -> Result<Option<Opener>, CliError> {
        let descriptor = self.slot_fd.iter().find(|(slot, _)| *slot == id).map(|(_, fd)| Source::Descriptor(*fd));
        let credential = || self.slot_credential.iter().find(|(slot, _)| *slot == id);
        let source = descriptor.or_else(|| credential().map(|(_, name)| Source::Credential(name.clone())));
        let source = source.unwrap_or(Source::Prompt);
        let pin = || read_pin(&source);
        Ok(Some(match wrapped {
            Wrapped::Shares(_) => return Ok(None),
            Wrapped::Passphrase(_) => {
                let text = match &source {
                    Source::Prompt => Source::ask(&format!("Passphrase of slot {id}: ")),
                    source => source.read(),
                };
                Opener::Passphrase(text.map_err(|error| {
                    let hint = format!("{} Or leave it out: --drop {id}.", error.hint());
                    CliError::new(format!("slot {id}: {error}"), hint)
                })?)
            }
            Wrapped::Helper(_) => Opener::Helper,
            Wrapped::Pkcs11(_) => Opener::Pkcs11(pin()?),
            Wrapped::Tpm(record) => Opener::Tpm(record.has_pin().then(pin).transpose()?),
        }))
    }
}

/// The same slot once more: the secret, device and cost that it had; shares are dealt anew.
fn again(wrapped: &Wrapped, opener: Option<Opener>) -> Result<NewSlot, CliError> {
    Ok(match (wrapped, opener) {
        (Wrapped::Passphrase(record), Some(Opener::Passphrase(text))) => NewSlot::Passphrase(text, record.cost()),
        (Wrapped::Shares(record), _) => deal(record.threshold(), record.count())?,
        (Wrapped::Helper(record), _) => NewSlot::Helper(record.command().to_vec()),
        (Wrapped::Pkcs11(record), Some(Opener::Pkcs11(pin))) => {
            NewSlot::Pkcs11 { module: record.module().to_owned(), token: record.token().to_owned(), pin }
        }
        (Wrapped::Tpm(record), Some(Opener::Tpm(pin))) => {
            NewSlot::Tpm { tcti: record.tcti().to_owned(), pcrs: record.pcrs(), pin }
        }
        (other, _) => {
            let opener: SlotKind = other.kind();
            return Err(CliError::new(
                format!("a {opener} slot was opened otherwise"),
                "Report this: it cannot happen.",
            ));
        }
    })
}

/// Has the running daemon seal everything anew. False if none runs unsealed: then it does so by itself after the next unseal.
fn seal_anew(data_dir: &Path, data_key: &DataKey, output: &Output) -> Result<bool, CliError> {
    let Ok(daemon) = admin::connect(data_dir) else { return Ok(false) };
    if daemon.call(async |client| client.status(StatusRequest {}).await)?.sealed {
        return Ok(false);
    }
    let request = RotateDataKeyRequest { data_key: data_key.current().expose(|key| key.to_vec()) };
    let mut finished = false;
    let mut bar = None;
    daemon.stream(
        async |client| client.rotate_data_key(request).await,
        |progress| {
            finished = progress.finished;
            bar.get_or_insert_with(|| output.bar("sealing", Some(progress.total))).at(progress.done);
        },
    )?;
    drop(bar);
    Ok(finished)
}
