//! `claviger backup`.

mod follow;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use claviger_hsm::file::write_atomically;
use claviger_hsm::{Envelope, Wrapped};
use claviger_proto::v1::BackupRequest;
use serde_json::json;

use self::follow::FollowArgs;

use super::slots::OpenArgs;
use super::{CliError, Output, admin, harden};
use crate::backup::{BackupError, Chain, Closed, Contents, Header};
use crate::datadir::DataDir;
use crate::journal::store::{LoggedStore, Row, Store, StoredPut};
use crate::journal::{JournalError, Verified};
use crate::keys::data_key::{self, DataKey};
use crate::keys::memory::scrub_stack;

const CREATE_EXAMPLES: &str = "Examples:
  claviger backup create claviger-2026-12-01.backup      the signer goes on meanwhile
  claviger backup verify claviger-2026-12-01.backup      takes what opens one of the key slots of that day
  claviger backup create --follow /mnt/other/claviger    goes on until it is stopped, and goes on from there afterwards
  claviger backup verify /mnt/other/claviger             the same for a directory

FILE is of one moment: cut off, it is begun again. A directory keeps what is finished: cut off, only the rest is written.

A backup is old the moment a node goes on: what is restored from it starts in quarantine (docs/backup.md).";

const RESTORE_EXAMPLES: &str = "Examples:
  claviger --data-dir NEW backup restore FILE            with the passphrase of that day
  claviger --data-dir NEW backup restore FILE --slot 2   with what opens slot 2 of that day

Make sure that no signer runs on the same keys elsewhere: two of them lose money (docs/rollback.md).";

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Write a backup of now into a new file, or keep one up to date in a directory, through the running daemon.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// The file to write. There must be none of that name.
        #[arg(required_unless_present = "follow")]
        file: Option<PathBuf>,
        #[command(flatten)]
        follow: FollowArgs,
    },
    /// Prove that a backup can be restored: open it and check every record of it. Needs no data directory and changes nothing.
    Verify(BackupArgs),
    /// Make the data directory of a new machine from a backup, once all of it is checked. Nodes start in quarantine.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(BackupArgs),
}

/// A backup and what opens it.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The backup: a file, or the directory of `create --follow`.
    #[arg(value_name = "BACKUP")]
    file: PathBuf,
    /// Of a directory, take the state after this segment, not the latest.
    #[arg(long, value_name = "SEGMENT")]
    until: Option<u32>,
    #[command(flatten)]
    open: OpenArgs,
    /// The helper's command, or the module of a token, that the slot in the backup may use: it names one, and whoever made the file
    /// may have named another than yours.
    #[arg(long, value_name = "COMMAND", requires = "slot")]
    trust: Option<String>,
}

impl BackupArgs {
    /// Refuses a slot that would run a program or load a library which nobody named here: nothing of a backup is authentic before
    /// it is open.
    fn check_trust(&self, envelope: &Envelope) -> Result<(), CliError> {
        let wrapped = envelope.records().find(|(id, _)| Some(*id) == self.open.slot).map(|(_, wrapped)| wrapped);
        let named = match wrapped {
            Some(Wrapped::Helper(record)) => record.command().join(" "),
            Some(Wrapped::Pkcs11(record)) => record.module().display().to_string(),
            _ => return Ok(()),
        };
        if self.trust.as_ref() == Some(&named) {
            return Ok(());
        }
        let hint = "If that is yours, give it with --trust, in quotes; else open the backup with another slot.";
        Err(CliError::new(format!("this slot of the backup would run: {named}"), hint))
    }
}

/// Runs one `claviger backup` command.
pub(super) fn backup(data_dir: &Path, command: BackupCommand, output: &Output) -> Result<(), CliError> {
    match command {
        BackupCommand::Create { file: Some(file), .. } => create(data_dir, &file, output),
        BackupCommand::Create { file: None, follow } => follow.run(data_dir, output),
        BackupCommand::Verify(args) => {
            let unlocked = Unlocked::by(&args)?;
            let checked = unlocked.check(output, &mut |_| Ok(()))?;
            unlocked.told("can be restored", &checked, output);
            Ok(())
        }
        BackupCommand::Restore(args) => restore(data_dir, &args, output),
    }
}

fn create(data_dir: &Path, file: &Path, output: &Output) -> Result<(), CliError> {
    let cannot = |error: io::Error| {
        let hint = "Name a new file in a directory that you may write to, with room for the whole journal.";
        CliError::new(format!("cannot write {}: {error}", file.display()), hint)
    };
    if file.exists() {
        return Err(cannot(io::ErrorKind::AlreadyExists.into()));
    }
    let daemon = admin::connect(data_dir)?;
    let aside = PathBuf::from(format!("{}.partial", file.display()));
    let begun = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
    let mut written = begun().map_err(cannot)?;
    let (mut bytes, mut rows, mut failure) = (0, None, None);
    let mut bar = output.bar("MiB", None);
    let streamed = daemon.stream_while(
        async |client| client.backup(BackupRequest::default()).await,
        |piece| {
            bytes += piece.bytes.len() as u64;
            rows = piece.done.then_some(piece.rows);
            failure = written.write_all(&piece.bytes).err();
            bar.at(bytes >> 20);
            failure.is_none()
        },
    );
    drop(bar);
    let finished = streamed.and_then(|()| match (failure, rows) {
        (Some(error), _) => Err(cannot(error)),
        (None, None) => Err(failed(&BackupError::Interrupted)),
        (None, Some(rows)) => written.sync_all().and_then(|()| fs::rename(&aside, file)).map(|()| rows).map_err(cannot),
    });
    if finished.is_err() {
        let _ = fs::remove_file(&aside); // the first error is the one to report
    }
    let rows = finished?;
    let value = json!({ "file": file, "records": rows, "bytes": bytes });
    output.result(&value, || format!("{} holds {rows} records in {bytes} bytes", file.display()));
    Ok(())
}

fn restore(data_dir: &Path, args: &BackupArgs, output: &Output) -> Result<(), CliError> {
    let unlocked = Unlocked::by(args)?;
    unlocked.check(output, &mut |_| Ok(()))?; // a bad backup leaves nothing behind
    let dir = DataDir::create(data_dir).map_err(|error| CliError::new(&error, error.hint()))?;
    let store = LoggedStore::open(&dir.journal(), LoggedStore::DEFAULT_CACHE);
    let store = store.map_err(|error| failed(&JournalError::from(error).into()))?;
    let put = |Row { key, version, value }| StoredPut { key, version, value: Some(value) };
    let mut take = |rows: Vec<Row>| {
        let batch: Vec<_> = rows.into_iter().map(put).collect();
        store.apply(&batch).map_err(|error| JournalError::from(error).into())
    };
    let checked = unlocked.check(output, &mut take)?;
    let header = &checked.0;
    drop(store);
    let write = |path: &Path, text: &str| write_atomically(path, text.as_bytes()).map_err(BackupError::from);
    // The key slots last: a directory without them is not opened.
    write(&dir.config(), &header.config).map_err(|error| failed(&error))?;
    write(&dir.keyslots(), &header.keyslots).map_err(|error| failed(&error))?;
    let what = format!("is restored in {}; its nodes start in quarantine (docs/backup.md)", dir.path().display());
    unlocked.told(&what, &checked, output);
    Ok(())
}

/// What was found in it.
type Checked = (Header, Contents, Verified);

/// A backup whose data key is known, to be read more than once.
struct Unlocked<'a> {
    path: &'a Path,
    /// Its segments, if it is a directory.
    chain: Option<Chain>,
    data_key: DataKey,
}

impl<'a> Unlocked<'a> {
    fn by(args: &'a BackupArgs) -> Result<Self, CliError> {
        harden(&args.open.descriptors())?;
        let path = &*args.file;
        let (chain, envelope) = if path.is_dir() {
            let chain = Chain::read(path, args.until).map_err(|error| failed(&error))?;
            let envelope = chain.last().envelope().clone();
            (Some(chain), envelope)
        } else {
            let closed = closed(path)?;
            if let Some(link) = &closed.header().link {
                return Err(failed(&BackupError::OneSegment { segment: link.segment }));
            }
            (None, closed.envelope().clone())
        };
        if args.until.is_some() && chain.is_none() {
            return Err(CliError::new("--until is for a directory", "Leave it out: a file is of one moment."));
        }
        args.check_trust(&envelope)?;
        let opener = args.open.read(&envelope, args.open.kind(&envelope)?)?;
        let unlocked = data_key::unlock_with(&envelope, &opener, args.open.slot);
        scrub_stack();
        let (data_key, _) = unlocked.map_err(|error| failed(&error.into()))?;
        Ok(Self { path, chain, data_key })
    }

    /// Checks all of it, as [`Opened::check`](crate::backup::Opened::check) does.
    fn check(
        &self,
        output: &Output,
        take: &mut dyn FnMut(Vec<Row>) -> Result<(), BackupError>,
    ) -> Result<Checked, CliError> {
        let (mut count, mut bar) = (0, output.bar("records", None));
        let mut counting = |rows: Vec<Row>| {
            count += rows.len() as u64;
            bar.at(count);
            take(rows)
        };
        let (header, checked) = match &self.chain {
            None => {
                let opened = closed(self.path)?.open(&self.data_key);
                (opened.header().clone(), opened.check(&mut counting))
            }
            Some(chain) => (chain.last().header().clone(), chain.check(&self.data_key, &mut counting)),
        };
        let (contents, verified) = checked.map_err(|error| failed(&error))?;
        Ok((header, contents, verified))
    }

    fn told(&self, what: &str, (header, contents, verified): &Checked, output: &Output) {
        let (path, made_ms, Contents { rows, bytes }) = (self.path, header.made_ms, contents);
        let (decisions, head) = (verified.decisions, &verified.head);
        let mut value = json!({ "file": path, "made_ms": made_ms, "records": rows, "bytes": bytes, "decisions": decisions, "head": head });
        let mut until = String::new();
        if let Some(chain) = &self.chain {
            value["segments"] = chain.segments().into();
            until = format!(" (segments 0 to {})", chain.segments() - 1);
        }
        output.result(&value, || {
            let made = super::time::date_time(made_ms);
            let path = path.display();
            format!("{path} of {made}{until} {what}\n{rows} records, all good; {decisions} decisions, head {head}")
        });
    }
}

fn closed(file: &Path) -> Result<Closed<BufReader<File>>, CliError> {
    let unreadable = |error| {
        CliError::new(format!("cannot read {}: {error}", file.display()), "Check the path and who may read the file.")
    };
    let opened = File::open(file).map_err(unreadable)?;
    Closed::read(BufReader::new(opened)).map_err(|error| failed(&error))
}

fn failed(error: &BackupError) -> CliError {
    CliError::new(error, error.hint())
}
