//! `claviger slots`.

mod secret;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use claviger_hsm::file::write_atomically;
use claviger_hsm::{Argon2id, Envelope, EnvelopeError, SharesSlot, SlotError, SlotKind, Tries, Wrapped, tpm};
use serde_json::json;

pub(super) use self::secret::{OpenArgs, read_pin};
use super::{CliError, Output, harden};
use crate::datadir::{DataDir, DirLock};
use crate::keys::data_key::{self, NewSlot, Pin};
use crate::keys::memory::scrub_stack;
use crate::keys::passphrase::Source;

#[derive(Debug, Subcommand)]
pub(super) enum SlotsCommand {
    /// All slots.
    List,
    /// Whether a slot opens; changes nothing.
    Test(OpenArgs),
    /// Add a slot. Asks for what opens an existing slot, then for the new one.
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Wrap the data key anew in a slot: another passphrase or PIN, another deal of shares, the helper's key of today.
    Rotate(RotateArgs),
    /// Seal a TPM slot to the present state of the machine, after an update, opening with another slot.
    Reseal(RotateArgs),
    /// Remove a slot. The last one that can be used stays.
    Remove {
        /// The slot's number, as `slots list` shows it.
        slot: u16,
    },
}

const ADD_EXAMPLES: &str = "Examples:
  claviger slots add                                                       another passphrase
  claviger slots add --kind shares --threshold 2 --shares 3 --out DIR      one file for each of three people
  claviger slots add --kind helper -- /usr/libexec/claviger/aws-kms --key ID --region eu-central-1
  claviger slots add --kind pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token LABEL
  claviger slots add --kind tpm --pcrs 0,7 --pin                           the machine in its present state, and a PIN";

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// What the new slot is.
    #[arg(long, value_enum, default_value_t = NewKind::Passphrase)]
    kind: NewKind,
    #[command(flatten)]
    new: NewArgs,
    /// How many shares will open the slot.
    #[arg(long, value_name = "M", required_if_eq("kind", "shares"))]
    threshold: Option<u8>,
    /// How many shares there will be.
    #[arg(long, value_name = "N", required_if_eq("kind", "shares"))]
    shares: Option<u8>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The helper by its absolute path, and its arguments, which are no place for secrets.
    #[arg(last = true, value_name = "HELPER", required_if_eq("kind", "helper"))]
    helper: Vec<String>,
}

/// A device that holds the slot's key.
#[derive(Debug, Args)]
struct DeviceArgs {
    /// The PKCS#11 module of the token's vendor, by its absolute path.
    #[arg(long, value_name = "FILE", required_if_eq("kind", "pkcs11"))]
    module: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", required_if_eq("kind", "pkcs11"))]
    token: Option<String>,
    /// How to reach the TPM: device:FILE or swtpm:host=HOST,port=PORT.
    #[arg(long, value_name = "TCTI", default_value = tpm::DEFAULT_TCTI)]
    tcti: String,
    /// The TPM's registers (SHA-256) to seal to, in their present state.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = tpm::DEFAULT_PCRS.iter().copied())]
    pcrs: Vec<u8>,
    /// Seal to a PIN, too; asked for, or read from --new-passphrase-fd.
    #[arg(long)]
    pin: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The number of the slot to wrap anew.
    #[arg(value_name = "SLOT")]
    rotated: u16,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    new: NewArgs,
}

/// Where the new secret comes from, or goes to.
#[derive(Debug, Args)]
struct NewArgs {
    /// Read the new passphrase, or the PIN, from this open file descriptor.
    #[arg(long, value_name = "N", conflicts_with = "new_passphrase_credential")]
    new_passphrase_fd: Option<i32>,
    /// Read it from this systemd credential.
    #[arg(long, value_name = "NAME")]
    new_passphrase_credential: Option<String>,
    /// Write the shares into this directory, one file each, to be handed out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The kinds of slots that can be added here, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NewKind {
    Passphrase,
    Shares,
    Helper,
    Pkcs11,
    Tpm,
}

impl SlotsCommand {
    /// The descriptors to leave open.
    fn descriptors(&self) -> Vec<i32> {
        let (open, new) = match self {
            Self::Test(open) => (open, None),
            Self::Add(args) => (&args.open, args.new.new_passphrase_fd),
            Self::Rotate(args) | Self::Reseal(args) => (&args.open, args.new.new_passphrase_fd),
            Self::List | Self::Remove { .. } => return Vec::new(),
        };
        open.descriptors().into_iter().chain(new).collect()
    }
}

/// Runs one `claviger slots` command. The daemon need not run: slots are a file of their own.
pub(super) fn slots(data_dir: &Path, command: SlotsCommand, output: &Output) -> Result<(), CliError> {
    harden(&command.descriptors())?;
    let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    match command {
        SlotsCommand::List => list(&Envelope::read(&dir.keyslots()).map_err(failed)?, output),
        SlotsCommand::Test(open) => test(&Envelope::read(&dir.keyslots()).map_err(failed)?, &open, output)?,
        SlotsCommand::Add(args) => add(Change::begin(&dir)?, args, output)?,
        SlotsCommand::Rotate(args) => rotate(Change::begin(&dir)?, args, output)?,
        SlotsCommand::Reseal(args) => {
            let change = Change::begin(&dir)?;
            let kind = change.envelope.slots().find(|(id, _)| *id == args.rotated).map(|(_, kind)| kind);
            if let Some(other) = kind.filter(|kind| *kind != SlotKind::Tpm) {
                return Err(failed(SlotError::OtherKind(other).into()));
            }
            rotate(change, args, output)?;
        }
        SlotsCommand::Remove { slot } => {
            let mut change = Change::begin(&dir)?;
            change.envelope.remove(slot, data_key::answers).map_err(failed)?;
            change.end()?;
            output.result(&json!({ "removed": slot }), || format!("slot {slot} removed"));
        }
    }
    Ok(())
}

pub(super) fn failed(error: EnvelopeError) -> CliError {
    CliError::new(&error, error.hint())
}

/// The key slots between reading and writing: changed by one command at a time.
pub(super) struct Change<'a> {
    pub(super) envelope: Envelope,
    dir: &'a DataDir,
    _lock: DirLock,
}

impl<'a> Change<'a> {
    pub(super) fn begin(dir: &'a DataDir) -> Result<Self, CliError> {
        let lock = dir.lock_keyslots().map_err(|error| CliError::new(&error, error.hint()))?;
        Ok(Self { envelope: Envelope::read(&dir.keyslots()).map_err(failed)?, dir, _lock: lock })
    }

    pub(super) fn end(self) -> Result<(), CliError> {
        self.envelope.write(&self.dir.keyslots()).map_err(failed)
    }
}

fn list(envelope: &Envelope, output: &Output) {
    let slots: Vec<_> = envelope.records().map(|(id, wrapped)| (id, wrapped.kind(), detail(wrapped))).collect();
    let value: Vec<_> = slots
        .iter()
        .map(|(id, kind, detail)| match detail {
            Some(detail) => json!({ "slot": id, "kind": kind.name(), "detail": detail }),
            None => json!({ "slot": id, "kind": kind.name() }),
        })
        .collect();
    output.result(&json!({ "slots": value }), || {
        let lines = slots.iter().map(|(id, kind, detail)| match detail {
            Some(detail) => format!("{id}  {kind}  {detail}"),
            None => format!("{id}  {kind}"),
        });
        let mut lines: Vec<_> = lines.collect();
        if slots.len() < 2 {
            lines.push(
                "There is one key slot: if what opens it is lost, all keys are. Add another: `claviger slots add`."
                    .into(),
            );
        }
        lines.join("\n")
    });
}

/// What an operator tells slots of a kind apart by.
fn detail(wrapped: &Wrapped) -> Option<String> {
    match wrapped {
        Wrapped::Passphrase(_) => None,
        Wrapped::Shares(record) => Some(format!("{} of {}", record.threshold(), record.count())),
        Wrapped::Helper(record) => Some(record.command().join(" ")),
        Wrapped::Pkcs11(record) => Some(format!("token '{}', {}", record.token(), record.module().display())),
        Wrapped::Tpm(record) => {
            let pcrs = record.pcrs().iter().map(u8::to_string).collect::<Vec<_>>().join(",");
            let pin = if record.has_pin() { ", PIN" } else { "" };
            Some(format!("{}, PCR {pcrs}{pin}", record.tcti()))
        }
    }
}

fn test(envelope: &Envelope, open: &OpenArgs, output: &Output) -> Result<(), CliError> {
    let kind = open.kind(envelope)?;
    let opened = data_key::unlock_with(envelope, &open.read(envelope, kind)?, open.slot).map(|(_, slot)| slot);
    scrub_stack();
    let slot = opened.map_err(failed)?;
    output.result(&json!({ "slot": slot }), || match kind {
        SlotKind::Passphrase => format!("the passphrase opens slot {slot}"),
        SlotKind::Shares => format!("the shares open slot {slot}"),
        SlotKind::Helper | SlotKind::Pkcs11 | SlotKind::Tpm => format!("slot {slot} opens"),
    });
    Ok(())
}

fn add(mut change: Change<'_>, args: AddArgs, output: &Output) -> Result<(), CliError> {
    let kind = args.open.kind(&change.envelope)?;
    let opener = args.open.read(&change.envelope, kind)?;
    let (data_key, _) = data_key::unlock_with(&change.envelope, &opener, args.open.slot).map_err(failed)?;
    let new = match args.kind {
        NewKind::Passphrase => args.new.passphrase()?,
        NewKind::Shares => deal(args.threshold.unwrap_or_default(), args.shares.unwrap_or_default())?,
        NewKind::Helper => NewSlot::Helper(args.helper),
        NewKind::Pkcs11 => NewSlot::Pkcs11 {
            module: args.device.module.unwrap_or_default(),
            token: args.device.token.unwrap_or_default(),
            pin: args.new.pin()?,
        },
        NewKind::Tpm => {
            let pin = args.device.pin.then(|| args.new.new_pin()).transpose()?;
            NewSlot::Tpm { tcti: args.device.tcti, pcrs: args.device.pcrs, pin }
        }
    };
    let slot = data_key::add(&mut change.envelope, &data_key, &new);
    scrub_stack();
    let slot = slot.map_err(failed)?;
    let written = hand_out(args.new.out.as_deref(), &new)?;
    change.end()?;
    output.result(&json!({ "slot": slot, "shares": written }), || {
        [vec![format!("slot {slot} added")], written].concat().join("\n")
    });
    Ok(())
}

fn rotate(mut change: Change<'_>, args: RotateArgs, output: &Output) -> Result<(), CliError> {
    let slot = args.rotated;
    let found = change.envelope.records().find(|(id, _)| *id == slot).map(|(_, wrapped)| wrapped.clone());
    let record = found.ok_or_else(|| failed(EnvelopeError::UnknownSlot(slot)))?;
    let kind = args.open.kind(&change.envelope)?;
    let opener = args.open.read(&change.envelope, kind)?;
    let (data_key, _) = data_key::unlock_with(&change.envelope, &opener, args.open.slot).map_err(failed)?;
    let new = match &record {
        Wrapped::Passphrase(_) => args.new.passphrase()?,
        Wrapped::Shares(record) => deal(record.threshold(), record.count())?,
        Wrapped::Helper(record) => NewSlot::Helper(record.command().to_vec()),
        Wrapped::Pkcs11(record) => NewSlot::Pkcs11 {
            module: record.module().to_owned(),
            token: record.token().to_owned(),
            pin: args.new.pin()?,
        },
        Wrapped::Tpm(record) => {
            let pin = record.has_pin().then(|| args.new.new_pin()).transpose()?;
            NewSlot::Tpm { tcti: record.tcti().to_owned(), pcrs: record.pcrs(), pin }
        }
    };
    let rotated = data_key::rewrap(&mut change.envelope, slot, &data_key, &new);
    scrub_stack();
    rotated.map_err(failed)?;
    let written = hand_out(args.new.out.as_deref(), &new)?;
    change.end()?;
    output.result(&json!({ "rotated": slot, "shares": written }), || {
        [vec![format!("slot {slot} rotated")], written].concat().join("\n")
    });
    Ok(())
}

pub(super) fn deal(threshold: u8, count: u8) -> Result<NewSlot, CliError> {
    SharesSlot::deal(threshold, count).map(NewSlot::Shares).map_err(|error| CliError::new(error, error.hint()))
}

impl NewArgs {
    fn source(&self) -> Source {
        match (&self.new_passphrase_credential, self.new_passphrase_fd) {
            (Some(name), _) => Source::Credential(name.clone()),
            (None, Some(fd)) => Source::Descriptor(fd),
            (None, None) => Source::Prompt,
        }
    }

    fn passphrase(&self) -> Result<NewSlot, CliError> {
        let new = self.source().read_new().map_err(|error| CliError::new(&error, error.hint()))?;
        Ok(NewSlot::Passphrase(new, Argon2id::default()))
    }

    /// The PIN that a token has already.
    fn pin(&self) -> Result<Pin, CliError> {
        read_pin(&self.source())
    }

    /// A PIN that a TPM slot shall have. No TPM counts its entering.
    fn new_pin(&self) -> Result<Pin, CliError> {
        let text = self.source().read_new_pin().map_err(|error| CliError::new(&error, error.hint()))?;
        Ok(Pin { text, tries: Tries::Deliberate })
    }
}

/// Writes dealt shares into files in `out`, before the slot counts: a share that is nowhere would be missed too late.
pub(super) fn hand_out(out: Option<&Path>, new: &NewSlot) -> Result<Vec<String>, CliError> {
    let NewSlot::Shares(dealt) = new else { return Ok(Vec::new()) };
    let out = out.ok_or_else(|| {
        CliError::new("there is no place for the shares", "Name a directory for their files with --out.")
    })?;
    let mut written = Vec::new();
    for share in dealt.shares() {
        let path = out.join(format!("share-{}", share.index()));
        let fail = |kind| {
            let hint = "Name an existing, empty directory with --out; nothing was changed.";
            CliError::new(format!("cannot write {}: {kind}", path.display()), hint)
        };
        if path.exists() {
            return Err(fail(std::io::ErrorKind::AlreadyExists));
        }
        write_atomically(&path, format!("{}\n", *share.reveal()).as_bytes()).map_err(|error| fail(error.kind()))?;
        written.push(path.display().to_string());
    }
    Ok(written)
}
