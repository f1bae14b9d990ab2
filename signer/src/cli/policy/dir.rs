//! A bundle's directory: which files are read, and which are refused unread.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use claviger_policy::bundle::{BundleError, BundleFault, Files, FilesError, MAX_ERRORS, MAX_FILE_BYTES, Part};

/// So many names are looked at. A directory with more is something else, a home directory perhaps.
const MAX_ENTRIES: usize = 4_096;
/// So deep below the directory.
const MAX_DEPTH: usize = 8;

/// Reads the parts of the bundle in `dir`; all else is passed over, hidden files and directories too. Nothing is read of a
/// file that is too large, and no more than a bundle may have of any.
pub(super) fn read(dir: &Path) -> Result<Files, Vec<BundleError>> {
    let mut reading = Reading { files: Files::default(), errors: Vec::new(), entries: 0 };
    reading.directory(dir, "", 0);
    if reading.errors.is_empty() { Ok(reading.files) } else { Err(reading.errors) }
}

struct Reading {
    files: Files,
    errors: Vec<BundleError>,
    entries: usize,
}

impl Reading {
    /// Reads what is below `path`, whose name in the bundle is `name`, with its `/`.
    fn directory(&mut self, path: &Path, name: &str, depth: usize) {
        let entries = fs::read_dir(path).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            names.take(MAX_ENTRIES + 1).collect::<io::Result<Vec<_>>>()
        });
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.refuse(system(name, &error)),
        };
        self.entries += entries.len();
        if self.entries > MAX_ENTRIES || depth > MAX_DEPTH {
            let fault = format!("more than {MAX_ENTRIES} files, or {MAX_DEPTH} directories in each other");
            return self.refuse(refused(name, fault, "Name the directory that holds policy.toml and nothing else."));
        }
        entries.sort();
        for entry in entries {
            let file = entry.to_string_lossy();
            if file.starts_with('.') || self.errors.len() == MAX_ERRORS {
                continue;
            }
            let (path, name) = (path.join(&entry), format!("{name}{file}"));
            match fs::metadata(&path) {
                Err(error) => self.refuse(system(&name, &error)),
                Ok(metadata) if metadata.is_dir() => self.directory(&path, &format!("{name}/"), depth + 1),
                Ok(_) => match Part::of(&name) {
                    Ok(None) => {}
                    Ok(Some(_)) => self.part(&path, &name),
                    Err(error) => self.refuse(error.into()),
                },
            }
        }
    }

    fn part(&mut self, path: &Path, name: &str) {
        match contents(path, name) {
            Ok(contents) => {
                let added = self.files.add(name, contents);
                added.unwrap_or_else(|error| self.refuse(error.into()));
            }
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: BundleError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

fn contents(path: &Path, name: &str) -> Result<Vec<u8>, BundleError> {
    // A pipe would wait, and a device never end.
    let metadata = fs::metadata(path).map_err(|error| system(name, &error))?;
    if !metadata.is_file() {
        return Err(refused(name, "not a regular file".to_owned(), "Put a file there."));
    }
    let too_large = || FilesError::FileTooLarge(name.to_owned()).into();
    if metadata.len() > MAX_FILE_BYTES as u64 {
        return Err(too_large());
    }
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut contents));
    read.map_err(|error| system(name, &error))?;
    if contents.len() > MAX_FILE_BYTES { Err(too_large()) } else { Ok(contents) }
}

fn system(name: &str, error: &io::Error) -> BundleError {
    refused(name, format!("cannot be read: {error}"), "Check the path and who may read it.")
}

fn refused(name: &str, fault: String, hint: &str) -> BundleError {
    let file = if name.is_empty() { "." } else { name }.to_owned();
    BundleError { file, place: None, fault: BundleFault::File(fault), hint: hint.to_owned() }
}
