//! What opens an existing slot, from the command line.

use clap::Args;
use claviger_hsm::{Envelope, EnvelopeError, Share, SlotKind, Tries, Wrapped};

use super::super::{CliError, PassphraseArgs};
use super::failed;
use crate::keys::data_key::{Opener, Pin};
use crate::keys::passphrase::{Passphrase, Source};

/// Which slot, and where its secret comes from.
#[derive(Debug, Args)]
pub(in crate::cli) struct OpenArgs {
    /// Open with this slot, of whatever kind; without it, with a passphrase. Shares are read where a passphrase would be,
    /// one to a line, and so is a PIN; a helper and a TPM without a PIN need nothing.
    #[arg(long, value_name = "N")]
    pub(super) slot: Option<u16>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl OpenArgs {
    /// The descriptors to leave open.
    pub(super) fn descriptors(&self) -> Vec<i32> {
        self.passphrase.descriptors()
    }

    /// The kind of the slot that is named, `Passphrase` if none is.
    pub(super) fn kind(&self, envelope: &Envelope) -> Result<SlotKind, CliError> {
        let Some(slot) = self.slot else { return Ok(SlotKind::Passphrase) };
        let found = envelope.slots().find(|(id, _)| *id == slot).map(|(_, kind)| kind);
        found.ok_or_else(|| failed(EnvelopeError::UnknownSlot(slot)))
    }

    /// Reads what opens a slot of `kind`.
    pub(super) fn read(&self, envelope: &Envelope, kind: SlotKind) -> Result<Opener, CliError> {
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
            let text = match self.passphrase.source() {
                Source::Prompt => Source::ask(&format!("Share number {}: ", entered.len() + 1)),
                source => source.read(),
            };
            let text = text.map_err(|error| CliError::new(&error, error.hint()))?;
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
pub(super) fn read_pin(source: &Source) -> Result<Pin, CliError> {
    let (text, tries) = match source {
        Source::Prompt => (Source::ask("PIN: "), Tries::Deliberate),
        source => (source.read(), Tries::Automatic),
    };
    Ok(Pin { text: text.map_err(|error| CliError::new(&error, error.hint()))?, tries })
}
