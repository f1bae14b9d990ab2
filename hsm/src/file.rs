//! Small files that must never be seen half written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces `path` by a file of mode 0600 that holds `bytes`. After a crash there is the old file or the new one:
/// written aside, flushed, renamed, and the directory flushed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = beside(path)?;
    remove_if_present(&aside)?; // left by a crash
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    if written.is_err() {
        let _ = remove_if_present(&aside); // the first error is the one to report
    }
    written?;
    File::open(directory_of(path))?.sync_all()
}

/// Reads all of `path`, or fails with `FileTooLarge` if it has more than `limit` bytes.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    Ok(path.with_file_name(name))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn writing_replaces_the_file_and_keeps_it_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        fs::write(dir.path().join("file.new"), "left by a crash").expect("write");
        for content in ["one", "two"] {
            write_atomically(&path, content.as_bytes()).expect("write");
            assert_eq!(read_limited(&path, 3).expect("read"), content.as_bytes());
        }
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_state() {
        let dir = tempfile::tempdir().expect("tempdir");
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).expect("dir");
        assert!(write_atomically(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        fs::write(&path, [0; 11]).expect("write");
        assert_eq!(read_limited(&path, 11).map(|bytes| bytes.len()).expect("read"), 11);
        assert_eq!(read_limited(&path, 10).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
    }
}
