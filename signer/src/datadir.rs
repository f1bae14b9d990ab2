//! The data directory: what is in it, who may open it, and that only one daemon does.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use claviger_hsm::file::{read_limited, write_atomically};
use rustix::process::Uid;

/// The version of the directory's layout.
const VERSION: u32 = 1;
const VERSION_FILE: &str = "VERSION";
const KEYSLOTS_FILE: &str = "keyslots";
const LOCK_FILE: &str = "lock";

/// A data directory that passed the checks. It is not locked: the daemon calls `lock` before it opens anything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

/// Holds the directory or its key slots for one process, until dropped or until the process ends in whatever way.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why a data directory could not be made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataDirError {
    /// There is no such directory.
    #[error("there is no data directory {}", .0.display())]
    Missing(PathBuf),
    /// `create` makes a new directory or fills an empty one.
    #[error("{} exists and is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The path leads to something else.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A directory, but not a finished data directory.
    #[error("{} is not a Claviger data directory, or `claviger init` did not finish: it has no {missing}", path.display())]
    NotInitialised {
        /// The directory.
        path: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// Owned by somebody else.
    #[error("{} belongs to user {owner}, not to user {user}", path.display())]
    WrongOwner {
        /// The directory or the file in it.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
        /// User id that was expected: this process's, or that of the directory around it.
        user: u32,
    },
    /// Others may read or write it.
    #[error("{} is open to other users (mode {mode:03o})", path.display())]
    TooOpen {
        /// The directory or the file in it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Written by a newer Claviger.
    #[error("{} has version {found}, this program knows version {VERSION}", path.display())]
    NewerVersion {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The version file holds no version.
    #[error("the VERSION file of {} is damaged", .0.display())]
    DamagedVersion(PathBuf),
    /// A daemon runs on it.
    #[error("{} is in use by {}", path.display(), .pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it has written its id.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot use {}: {kind}", path.display())]
    Io {
        /// What was tried to read or write.
        path: PathBuf,
        /// What it said.
        kind: io::ErrorKind,
    },
}

impl DataDirError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => "Make one with `claviger init`, or name the right one with --data-dir.",
            Self::NotEmpty(_) => {
                "Name another directory with --data-dir, or remove this one if an earlier `claviger init` did not finish."
            }
            Self::NotADirectory(_) => "Name a directory with --data-dir.",
            Self::NotInitialised { .. } => {
                "Check --data-dir; after an interrupted `claviger init` remove the directory and run it again."
            }
            Self::WrongOwner { .. } => {
                "Run as the owner (sudo -u); if the owner is wrong, give the whole directory to the user Claviger runs as."
            }
            Self::TooOpen { .. } => "Close it to other users (chmod go= on it), and ask who could have read it.",
            Self::NewerVersion { .. } => "Use the version of Claviger that wrote it, or a newer one.",
            Self::DamagedVersion(_) => "Restore the file from a backup, or from a directory of the same version.",
            Self::InUse { .. } => "Stop that process first; `claviger status` shows whether it answers.",
            Self::Io { .. } => "Check the disk and the permissions along the path.",
        }
    }
}

impl DataDir {
    /// Makes the directory (mode 0700; its parent must exist) or takes an empty one, and writes its version.
    pub fn create(path: &Path) -> Result<Self, DataDirError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                check_directory(path, rustix::process::geteuid().as_raw())?;
                if fs::read_dir(path).map_err(io_error(path))?.next().is_some() {
                    return Err(DataDirError::NotEmpty(path.to_owned()));
                }
            }
            Err(error) => return Err(io_error(path)(error)),
        }
        File::open(path.join("..")).and_then(|parent| parent.sync_all()).map_err(io_error(path))?;
        let dir = Self { path: path.to_owned() };
        let version = dir.file(VERSION_FILE);
        write_atomically(&version, format!("{VERSION}\n").as_bytes()).map_err(io_error(&version))?;
        Ok(dir)
    }

    /// Opens an initialised directory: owned by this user, closed to others, of a version that is known.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_as(path, rustix::process::geteuid().as_raw())
    }

    /// The same for commands that only talk to the daemon: root may do so whoever the daemon runs as.
    pub fn open_to_connect(path: &Path) -> Result<Self, DataDirError> {
        match rustix::process::geteuid() {
            Uid::ROOT => Self::open_as(path, fs::metadata(path).map_or(0, |metadata| metadata.uid())),
            _ => Self::open(path),
        }
    }

    /// Opens a directory that belongs to `user`.
    fn open_as(path: &Path, user: u32) -> Result<Self, DataDirError> {
        check_directory(path, user)?;
        let dir = Self { path: path.to_owned() };
        for required in [VERSION_FILE, KEYSLOTS_FILE] {
            if !dir.file(required).exists() {
                return Err(DataDirError::NotInitialised { path: path.to_owned(), missing: required });
            }
        }
        dir.check_version()?;
        for file in [dir.keyslots(), dir.config(), dir.journal(), dir.file(LOCK_FILE)] {
            match fs::symlink_metadata(&file) {
                Ok(metadata) => check_private(&file, &metadata, user)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(&file)(error)),
            }
        }
        Ok(dir)
    }

    /// Takes the directory for this process.
    pub fn lock(&self) -> Result<DirLock, DataDirError> {
        let path = self.file(LOCK_FILE);
        let fail = io_error(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(&fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let pid = (&file).take(16).read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
                return Err(DataDirError::InUse { path: self.path.clone(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        // The id is for people only; the lock is what counts.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(&fail)?;
        Ok(DirLock { _file: file })
    }

    /// Takes the key slots for one change to them. A daemon may run meanwhile: it only reads them.
    pub fn lock_keyslots(&self) -> Result<DirLock, DataDirError> {
        let directory = File::open(&self.path).map_err(io_error(&self.path))?;
        match directory.try_lock() {
            Ok(()) => Ok(DirLock { _file: directory }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: self.keyslots(), pid: None }),
            Err(TryLockError::Error(error)) => Err(io_error(&self.path)(error)),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings.
    pub fn config(&self) -> PathBuf {
        self.file("claviger.toml")
    }

    /// The wrapped data key (`docs/envelope.md`).
    pub fn keyslots(&self) -> PathBuf {
        self.file(KEYSLOTS_FILE)
    }

    /// The journal's store.
    pub fn journal(&self) -> PathBuf {
        self.file("journal.redb")
    }

    /// The socket of the administration interface.
    pub fn admin_socket(&self) -> PathBuf {
        self.file("admin.sock")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn check_version(&self) -> Result<(), DataDirError> {
        let file = self.file(VERSION_FILE);
        let damaged = || DataDirError::DamagedVersion(self.path.clone());
        let bytes = match read_limited(&file, 16) {
            Err(error) if error.kind() != io::ErrorKind::FileTooLarge => return Err(io_error(&file)(error)),
            read => read.map_err(|_| damaged())?,
        };
        match std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()) {
            Some(VERSION) => Ok(()),
            Some(found) if found > VERSION => Err(DataDirError::NewerVersion { path: self.path.clone(), found }),
            _ => Err(damaged()),
        }
    }
}

fn check_directory(path: &Path, user: u32) -> Result<(), DataDirError> {
    // Followed: the path may be a link; what it leads to is judged.
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DataDirError::Missing(path.to_owned()),
        kind => DataDirError::Io { path: path.to_owned(), kind },
    })?;
    if !metadata.is_dir() {
        return Err(DataDirError::NotADirectory(path.to_owned()));
    }
    check_private(path, &metadata, user)
}

fn check_private(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), DataDirError> {
    let (path, owner) = (path.to_owned(), metadata.uid());
    let mode = metadata.mode() & 0o777;
    if owner != user {
        Err(DataDirError::WrongOwner { path, owner, user })
    } else if mode & 0o077 != 0 {
        Err(DataDirError::TooOpen { path, mode })
    } else {
        Ok(())
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> DataDirError {
    move |error| DataDirError::Io { path: path.to_owned(), kind: error.kind() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An initialised directory, in a temporary one that goes away with the first value.
    fn initialised() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().expect("tempdir");
        let dir = DataDir::create(&temporary.path().join("data")).expect("created");
        for file in [dir.keyslots(), dir.config(), dir.journal()] {
            write_atomically(&file, b"x").expect("written");
        }
        (temporary, dir)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_new_directory_is_private_and_opens() {
        let (_temporary, dir) = initialised();
        assert_eq!(fs::metadata(dir.path()).expect("metadata").mode() & 0o777, 0o700);
        assert_eq!(DataDir::open(dir.path()), Ok(dir));
    }

    #[test]
    fn creating_takes_an_empty_directory_and_no_other() {
        let temporary = tempfile::tempdir().expect("tempdir");
        let path = temporary.path().join("data");
        let parentless = path.join("deeper");
        let error = DataDirError::Io { path: parentless.clone(), kind: io::ErrorKind::NotFound };
        assert_eq!(DataDir::create(&parentless), Err(error));

        fs::create_dir(&path).expect("mkdir");
        chmod(&path, 0o750);
        assert_eq!(DataDir::create(&path), Err(DataDirError::TooOpen { path: path.clone(), mode: 0o750 }));
        chmod(&path, 0o700);
        assert!(DataDir::create(&path).is_ok());
        assert_eq!(DataDir::create(&path), Err(DataDirError::NotEmpty(path.clone())));

        let file = temporary.path().join("file");
        write_atomically(&file, b"").expect("written");
        assert_eq!(DataDir::create(&file), Err(DataDirError::NotADirectory(file)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_temporary, dir) = initialised();
        let path = dir.path().to_owned();
        fs::remove_file(dir.keyslots()).expect("removed");
        let unfinished = |missing| Err(DataDirError::NotInitialised { path: path.clone(), missing });
        assert_eq!(DataDir::open(&path), unfinished("keyslots"));
        fs::remove_file(dir.file(VERSION_FILE)).expect("removed");
        assert_eq!(DataDir::open(&path), unfinished("VERSION"));
        fs::remove_dir_all(&path).expect("removed");
        assert_eq!(DataDir::open(&path), Err(DataDirError::Missing(path.clone())));
    }

    #[test]
    fn a_directory_or_file_open_to_others_is_refused() {
        let (_temporary, dir) = initialised();
        for (path, bad, good) in
            [(dir.path().to_owned(), 0o701, 0o700), (dir.keyslots(), 0o640, 0o600), (dir.journal(), 0o602, 0o600)]
        {
            chmod(&path, bad);
            assert_eq!(DataDir::open(dir.path()), Err(DataDirError::TooOpen { path: path.clone(), mode: bad }));
            chmod(&path, good);
            assert!(DataDir::open(dir.path()).is_ok());
        }
    }

    #[test]
    fn somebody_elses_directory_is_refused() {
        let (_temporary, dir) = initialised();
        let user = rustix::process::geteuid().as_raw();
        if std::os::unix::fs::chown(dir.keyslots(), Some(user + 1), None).is_err() {
            eprintln!("NOTE: not root, cannot give a file away: skipped");
            return;
        }
        let error = DataDirError::WrongOwner { path: dir.keyslots(), owner: user + 1, user };
        assert_eq!(DataDir::open(dir.path()), Err(error));
    }

    #[test]
    fn root_may_talk_to_a_daemon_of_another_user_and_not_touch_its_files() {
        let (_temporary, dir) = initialised();
        let user = rustix::process::geteuid().as_raw();
        let everything = [dir.path().to_owned(), dir.keyslots(), dir.config(), dir.journal()];
        let given = everything.iter().try_for_each(|path| std::os::unix::fs::chown(path, Some(user + 1), None));
        if user != 0 || given.is_err() {
            eprintln!("NOTE: not root, cannot give a directory away: skipped");
            return;
        }
        assert_eq!(DataDir::open_to_connect(dir.path()), Ok(dir.clone()));
        let error = DataDirError::WrongOwner { path: dir.path().to_owned(), owner: user + 1, user };
        assert_eq!(DataDir::open(dir.path()), Err(error));
        // What somebody else put into it is not the daemon's, for root neither.
        std::os::unix::fs::chown(dir.keyslots(), Some(user + 2), None).expect("given away");
        let error = DataDirError::WrongOwner { path: dir.keyslots(), owner: user + 2, user: user + 1 };
        assert_eq!(DataDir::open_to_connect(dir.path()), Err(error));
    }

    #[test]
    fn a_newer_version_is_told_from_a_damaged_one() {
        let (_temporary, dir) = initialised();
        let path = dir.path().to_owned();
        for (content, error) in [
            ("2\n", DataDirError::NewerVersion { path: path.clone(), found: 2 }),
            ("0\n", DataDirError::DamagedVersion(path.clone())),
            ("one", DataDirError::DamagedVersion(path.clone())),
            ("", DataDirError::DamagedVersion(path.clone())),
            ("1                           ", DataDirError::DamagedVersion(path.clone())),
        ] {
            write_atomically(&dir.file(VERSION_FILE), content.as_bytes()).expect("written");
            assert_eq!(DataDir::open(&path), Err(error));
        }
    }

    #[test]
    fn one_process_at_a_time_and_the_next_after_it() {
        let (_temporary, dir) = initialised();
        let lock = dir.lock().expect("locked");
        let in_use = DataDirError::InUse { path: dir.path().to_owned(), pid: Some(std::process::id()) };
        assert_eq!(dir.lock().map(|_| ()), Err(in_use));
        drop(lock);
        assert!(dir.lock().is_ok());
    }

    #[test]
    fn one_change_of_key_slots_at_a_time_beside_a_daemon() {
        let (_temporary, dir) = initialised();
        let _daemon = dir.lock().expect("locked");
        let change = dir.lock_keyslots().expect("locked");
        let in_use = DataDirError::InUse { path: dir.keyslots(), pid: None };
        assert_eq!(dir.lock_keyslots().map(|_| ()), Err(in_use));
        drop(change);
        assert!(dir.lock_keyslots().is_ok());
    }
}
