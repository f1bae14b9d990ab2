//! `claviger backup create --follow DIR`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use claviger_proto::v1::BackupRequest;
use serde_json::json;

use super::super::{CliError, Output, admin};
use super::failed;
use crate::backup::{BackupError, Directory, Segment};

/// A directory that is kept up to date.
#[derive(Debug, Args)]
pub(in crate::cli) struct FollowArgs {
    /// Keep a backup up to date in this directory, best on another disk: a base, then what changed, in segments. Goes on where
    /// an earlier one stopped, and waits for the signer while it is sealed or does not run.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    follow: Option<PathBuf>,
    /// End once the directory is up to date.
    #[arg(long, requires = "follow")]
    once: bool,
    /// Begin with a new base; the one before is removed once the new one is a whole. By itself, one is begun when the segments
    /// have outgrown it.
    #[arg(long, requires = "follow")]
    new_base: bool,
    /// How often to look for changes, in seconds: how much a lost machine may take along.
    #[arg(long, value_name = "SECONDS", requires = "follow", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

impl FollowArgs {
    pub(super) fn run(&self, data_dir: &Path, output: &Output) -> Result<(), CliError> {
        let path = self.follow.as_deref().expect("without a file there is a directory");
        let mut directory = Directory::open(path, self.new_base).map_err(|error| unusable(path, &error))?;
        let mut told_to_wait = false;
        loop {
            match next(data_dir, path, &mut directory, output) {
                Ok(Next { more: true, .. }) => {
                    told_to_wait = false;
                    continue;
                }
                Ok(_) if self.once => return Ok(()),
                Ok(_) => told_to_wait = false,
                // The signer comes back by itself, or somebody unseals it.
                Err(error) if !self.once && matches!(&*error.id, "unreachable" | "sealed" | "fault") => {
                    if !told_to_wait {
                        output.progress(&format!("waiting: {}", error.error));
                    }
                    told_to_wait = true;
                }
                Err(error) => return Err(error),
            }
            sleep(Duration::from_secs(self.every));
        }
    }
}

/// What became of one segment.
struct Next {
    /// Whether to ask for another at once.
    more: bool,
}

/// Asks for the next segment and puts it in its place.
fn next(data_dir: &Path, path: &Path, directory: &mut Directory, output: &Output) -> Result<Next, CliError> {
    let daemon = admin::connect(data_dir)?;
    let cannot = |error: &dyn std::fmt::Display| {
        let hint =
            "Check the disk, its free space and who may write there; then run it again: it goes on where it stopped.";
        CliError::new(format!("cannot write into {}: {error}", path.display()), hint)
    };
    let after = if directory.is_outgrown() { Vec::new() } else { directory.after().to_vec() };
    let request = BackupRequest { segment: true, after };
    let mut written = directory.begin().map_err(|error| cannot(&error))?;
    let (mut bytes, mut end, mut failure) = (0, None, None::<io::Error>);
    let mut bar = output.bar("MiB", None);
    let streamed = daemon.stream_while(
        async |client| client.backup(request).await,
        |piece| {
            bytes += piece.bytes.len() as u64;
            end = piece.done.then_some((piece.rows, piece.more));
            failure = written.write_all(&piece.bytes).err();
            bar.at(bytes >> 20);
            failure.is_none()
        },
    );
    drop(bar);
    let finished = streamed.and_then(|()| match (failure, end) {
        (Some(error), _) => Err(cannot(&error)),
        (None, None) => Err(failed(&BackupError::Interrupted).with_id("sealed")),
        (None, Some(end)) => Ok(end),
    });
    let placed = finished.and_then(|(rows, more)| match bytes {
        0 => Ok(None),
        _ => {
            let placed = directory.end(&written).map_err(|error| match error {
                BackupError::Io(kind) => cannot(&kind),
                error => failed(&error),
            });
            placed.map(|place| Some((place, rows, more)))
        }
    });
    let Some((Segment { generation, segment }, rows, more)) = placed.inspect_err(|_| directory.give_up())? else {
        directory.give_up();
        return Ok(Next { more: false });
    };
    let value = json!({ "base": generation, "segment": segment, "records": rows, "bytes": bytes, "whole": !more });
    output.line(&value, || {
        let whole = if more { "; not a whole yet" } else { "" };
        format!("base {generation}, segment {segment}: {rows} records in {bytes} bytes{whole}")
    });
    Ok(Next { more })
}

fn unusable(path: &Path, error: &BackupError) -> CliError {
    let hint = match error {
        BackupError::Segment { error, .. } if matches!(**error, BackupError::NewerVersion { .. }) => error.hint(),
        BackupError::Missing { .. } | BackupError::Unchained { .. } | BackupError::Segment { .. } => {
            "Copy what is missing back, or begin anew with --new-base; what is there stays until the new base is a whole."
        }
        BackupError::Io(_) => "Name a directory that you may write to, in a directory that is there.",
        error => error.hint(),
    };
    CliError::new(format!("{}: {error}", path.display()), hint)
}
