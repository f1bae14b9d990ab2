//! The whole appliance in one encrypted file, made while it signs.

use std::fs;
use std::sync::PoisonError;

use claviger_hsm::Envelope;
use claviger_proto::v1::BackupPiece;

use super::opening::envelope_failure;
use super::policy::now_ms;
use super::{Daemon, lock};
use crate::admin::api::{AdminFailure, FailureKind, Sink};
use crate::backup::{self, BackupError, Header};

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

impl Daemon {
    /// Sends a backup of now. It holds on to the signer, so it ends when the signer closes, and waits for no reader then.
    pub(super) fn send_backup(&self, sink: &mut dyn Sink<BackupPiece>) -> Result<(), AdminFailure> {
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
        let written = backup::write(&unsealed.journal, &header, &cipher, &mut send);
        drop(cipher);
        drop(unsealed);
        let contents = written.map_err(|error| backup_failure(&error))?;
        sink.put(BackupPiece { bytes: Vec::new(), done: true, rows: contents.rows });
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
        Ok(Header { made_ms: now_ms(), keyslots, config })
    }
}

fn backup_failure(error: &BackupError) -> AdminFailure {
    let kind = match error {
        BackupError::Interrupted => FailureKind::Sealed,
        BackupError::Io(_) => FailureKind::Fault,
        _ => FailureKind::Damaged,
    };
    AdminFailure::new(kind, error, error.hint())
}
