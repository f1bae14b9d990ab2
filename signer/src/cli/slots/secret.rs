//! What opens an existing slot, from the command line.

use std::path::Path;

use clap::Args;
use claviger_hsm::{Envelope, EnvelopeError, Share, SlotKind, Tries, Wrapped};

use super::super::{CliError, PassphraseArgs};
use super::failed;
use crate::datadir::DataDir;
use crate::keys::data_key::{Opener, Pin};
use crate::keys::passphrase::{Passphrase, Source};

/// Which slot, and where its secret comes from.
#[derive(Debug, Args)]
pub(in crate::cli) struct OpenArgs {
    /// Open with this slot, of whatever kind; without it, with a passphrase. Shares are read where a passphrase would be,
    /// one to a line, and so is a PIN; a helper and a TPM without a PIN need nothing.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) slot: Option<u16>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl OpenArgs {
    /// The descriptors to leave open.
    pub(in crate::cli) fn descriptors(&self) -> Vec<i32> {
        self.passphrase.descriptors()
    }

    /// Whether a source other than the terminal is given.
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.passphrase.is_given()
    }

    /// What the daemon is to be given, call by call: of shares one from the terminal, each line of another source; of other
    /// slots one, which is empty where nothing is needed.
    pub(in crate::cli) fn read_to_unseal(&self, data_dir: &Path) -> Result<Vec<Vec<u8>>, CliError> {
        let Some(slot) = self.slot else { return Ok(vec![self.passphrase.read()?.expose(<[u8]>::to_vec)]) };
        let dir = DataDir::open(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
        let envelope = Envelope::read(&dir.keyslots()).map_err(failed)?;
        let wrapped = envelope.records().find(|(id, _)| *id == slot).map(|(_, wrapped)| wrapped);
        let prompt = match wrapped.ok_or_else(|| failed(EnvelopeError::UnknownSlot(slot)))? {
            Wrapped::Passphrase(_) => "Passphrase: ",
            Wrapped::Shares(_) => "Share: ",
            Wrapped::Pkcs11(_) => "PIN: ",
            Wrapped::Tpm(record) if record.has_pin() => "PIN: ",
            Wrapped::Tpm(_) | Wrapped::Helper(_) => return Ok(vec![Vec::new()]),
        };
        let text = self.read_at(prompt)?;
        Ok(match wrapped {
            Some(Wrapped::Shares(_)) => text.expose(|text| {
                let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
                lines.map(<[u8]>::to_vec).collect()
            }),
            _ => vec![text.expose(<[u8]>::to_vec)],
        })
    }

    fn read_at(&self, prompt: &str) -> Result<Passphrase, CliError> {
        let text = match self.passphrase.source() {
            Source::Prompt => Source::ask(prompt),
            source => source.read(),
        };
        text.map_err(|error| CliError::new(&error, error.hint()))
    }

    /// The kind of the slot that is named, `Passphrase` if none is.
    pub(in crate::cli) fn kind(&self, envelope: &Envelope) -> Result<SlotKind, CliError> {
        let Some(slot) = self.slot else { return Ok(SlotKind::Passphrase) };
        let found = envelope.slots().find(|(id, _)| *id == slot).map(|(_, kind)| kind);
        found.ok_or_else(|| failed(EnvelopeError::UnknownSlot(slot)))
    }

    /// Reads what opens a slot of `kind`.
    pub(in crate::cli) fn read(&self, envelope: &Envelope, kind: SlotKind) -> Result<Opener, CliError> {
        match kind {
            SlotKind::Passphrase => self.passphrase.read().map(Opener::Passphrase),
            SlotKind::Shares => self.read_shares(envelope).map(Opener::Shares),
            SlotKind::Helper => Ok(Opener::Helper),
            SlotKind::Pkcs11 => read_pin(&self.passphrase.source()).map(Opener::Pkcs11),
            SlotKind::Tpm => {
                let named = envelope.records().find(|(id, _)| Some(*id) == self.slot);
                let has_pin = matches!(named, Some((_, Wrapped::Tpm(record))) if record.has_pin());
                let pin = has_pin.then(|| read_pin(&self.passphrase.source())).transpose()?;
                Ok(Opener::Tpm(pin))
            }
        }
    }

    /// Reads shares until there are enough: one at a time from the terminal, all at once from elsewhere. Each is judged
    /// when it is read, so that a wrong one is named.
    fn read_shares(&self, envelope: &Envelope) -> Result<Vec<Share>, CliError> {
        let mut entered: Vec<Share> = Vec::new();
        loop {
            let text = self.read_at(&format!("Share number {}: ", entered.len() + 1))?;
            for share in parse(&text)? {
                let (slot, record) = envelope.judge_share(&share, &entered).map_err(failed)?;
                if self.slot.is_some_and(|named| named != slot) {
                    let hint = "Name that slot with --slot, or use the shares of this one.";
                    return Err(CliError::new(format!("share {} is of slot {slot}", share.index()), hint));
                }
                entered.push(share);
                if entered.len() >= usize::from(record.threshold()) {
                    return Ok(entered);
                }
            }
            if self.passphrase.is_given() {
                return Ok(entered); // opening says how many are missing
            }
        }
    }
}

fn parse(text: &Passphrase) -> Result<Vec<Share>, CliError> {
    text.expose(|bytes| {
        let lines = std::str::from_utf8(bytes).unwrap_or_default().lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| line.parse::<Share>().map_err(|error| CliError::new(error, error.hint()))).collect()
    })
}

/// Reads a PIN that its device knows. Only at a terminal is somebody there to say that it is right.
pub(in crate::cli) fn read_pin(source: &Source) -> Result<Pin, CliError> {
    let (text, tries) = match source {
        Source::Prompt => (Source::ask("PIN: "), Tries::Deliberate),
        source => (source.read(), Tries::Automatic),
    };
    Ok(Pin { text: text.map_err(|error| CliError::new(&error, error.hint()))?, tries })
}
