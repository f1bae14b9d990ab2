//! The whole appliance in one encrypted file, or what changed since in the next one, made while it signs.

use std::fs;
use std::sync::PoisonError;

use claviger_hsm::Envelope;
use claviger_proto::v1::{BackupPiece, BackupRequest};

use super::opening::envelope_failure;
use super::policy::now_ms;
use super::{Daemon, lock};
use crate::admin::api::{AdminFailure, FailureKind, Sink};
use crate::backup::{self, BASE_SEGMENT, BackupError, Header, Sent};
use crate::journal::{CommitError, JournalError};

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

impl Daemon {
    /// Sends a backup of now, or the next segment of a directory. It holds on to the signer, so it ends when the signer closes, and waits for no reader then.
    pub(super) fn send_backup(
        &self,
        request: &BackupRequest,
        sink: &mut dyn Sink<BackupPiece>,
    ) -> Result<(), AdminFailure> {
        let unsealed = self.unsealed()?;
        let cipher = unsealed.backup.read().unwrap_or_else(PoisonError::into_inner); // before the key slots are read
        let header = self.backup_header()?;
        let open = || lock(&self.state).is_some();
        let mut send = |bytes: Vec<u8>| {
            let mut pieces = bytes.chunks(PIECE);
            pieces.all(|piece| {
                open() && sink.put_while(BackupPiece { bytes: piece.to_vec(), ..BackupPiece::default() }, &open)
            })
        };
        let journal = &unsealed.journal;
        let sent = if request.segment {
            backup::segment(journal, header, &cipher, &request.after, BASE_SEGMENT, &mut send)
        } else {
            backup::write(journal, &header, &cipher, &mut send).map(|contents| Some(Sent { contents, more: false }))
        };
        drop(cipher);
        drop(unsealed);
        let sent = sent.map_err(|error| backup_failure(&error))?;
        let (rows, more) = sent.map_or((0, false), |sent| (sent.contents.rows, sent.more));
        sink.put(BackupPiece { bytes: Vec::new(), done: true, rows, more });
        Ok(())
    }

    fn backup_header(&self) -> Result<Header, AdminFailure> {
        // Read as slots, so that no damaged file is taken along.
        let keyslots = Envelope::read(&self.dir.keyslots()).map_err(envelope_failure)?.encode();
        let unreadable = |error: std::io::Error| {
            let what = format!("cannot read {}: {error}", self.dir.config().display());
            AdminFailure::new(FailureKind::Fault, what, "Check the file and who owns it.")
        };
        let config = fs::read_to_string(self.dir.config()).map_err(unreadable)?;
        let keyslots = String::from_utf8(keyslots).expect("a key slot file is JSON below one line of text");
        Ok(Header { made_ms: now_ms(), keyslots, config, link: None })
    }
}

fn backup_failure(error: &BackupError) -> AdminFailure {
    let kind = match error {
        BackupError::Interrupted | BackupError::Journal(JournalError::Unavailable(CommitError::Closed)) => {
            FailureKind::Sealed
        }
        BackupError::Io(_) | BackupError::Journal(JournalError::Store(_) | JournalError::Unavailable(_)) => {
            FailureKind::Fault
        }
        BackupError::OtherSigner => FailureKind::Invalid,
        _ => FailureKind::Damaged,
    };
    AdminFailure::new(kind, error, error.hint())
}

#[cfg(test)]
mod tests;
