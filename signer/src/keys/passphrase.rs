//! Reading a passphrase: from the terminal, a file descriptor or a systemd credential. Never from arguments or the
//! environment, which other processes can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::memory::{Secret, duplicate};

/// The longest passphrase, in bytes.
pub const MAX_LEN: usize = 1024;
/// The shortest passphrase accepted for a new slot, in bytes.
pub const MIN_NEW_LEN: usize = 8;
/// The credential that is looked for when none is named.
pub const DEFAULT_CREDENTIAL: &str = "claviger-passphrase";

/// A passphrase in secret memory: any bytes, without the line's end.
pub struct Passphrase {
    /// One byte more than allowed, and two for the line's end, so that a longer one is noticed.
    bytes: Secret<{ MAX_LEN + 3 }>,
    len: usize,
}

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The controlling terminal, without echo.
    Prompt,
    /// An inherited file descriptor (`--passphrase-fd`), read to its end.
    Descriptor(RawFd),
    /// A file of this name in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`).
    Credential(String),
}

/// Why there is no passphrase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// There is no terminal to ask on.
    #[error("there is no terminal to ask for the passphrase on")]
    NoTerminal,
    /// The descriptor cannot be read.
    #[error("cannot read the passphrase from file descriptor {fd}: {kind}")]
    Descriptor {
        /// The descriptor.
        fd: RawFd,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// Not started by systemd with credentials.
    #[error("the service manager passed no credentials")]
    NoCredentials,
    /// A credential's name is a plain file name.
    #[error("'{0}' is not the name of a credential")]
    BadCredentialName(String),
    /// The credential cannot be read.
    #[error("cannot read the credential {}: {kind}", path.display())]
    Credential {
        /// Its file.
        path: PathBuf,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// The terminal failed while asking.
    #[error("cannot read the passphrase from the terminal: {0}")]
    Terminal(io::ErrorKind),
    /// Nothing was entered.
    #[error("the passphrase is empty")]
    Empty,
    /// Longer than `MAX_LEN`.
    #[error("the passphrase is longer than {MAX_LEN} bytes")]
    TooLong,
    /// Shorter than `MIN_NEW_LEN`; only judged when a slot is made.
    #[error("the passphrase is shorter than {MIN_NEW_LEN} bytes")]
    TooShort,
    /// The two entries differ.
    #[error("the two entries differ")]
    Mismatch,
}

impl PassphraseError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoTerminal => {
                "Run in a terminal, or pass the passphrase with --passphrase-fd or --passphrase-credential."
            }
            Self::Descriptor { .. } => "Open a file or a pipe on that descriptor: claviger … --passphrase-fd 3 3< FILE",
            Self::NoCredentials => "Add LoadCredentialEncrypted=claviger-passphrase:FILE to the systemd unit.",
            Self::BadCredentialName(_) => "Give the name that stands before the colon in LoadCredential=.",
            Self::Credential { .. } => "Compare the name with LoadCredential= in the systemd unit.",
            Self::Terminal(_) | Self::Empty | Self::Mismatch => "Try again.",
            Self::TooLong => "Check that the right file was given.",
            Self::TooShort => "Choose a longer one: several random words are easy to type and hard to guess.",
        }
    }
}

impl Source {
    /// Reads a passphrase that opens an existing slot.
    pub fn read(&self) -> Result<Passphrase, PassphraseError> {
        self.read_with("Passphrase: ", credentials_directory().as_deref())
    }

    /// Asks for one line on the terminal, without echo.
    pub fn ask(prompt: &str) -> Result<Passphrase, PassphraseError> {
        ask(prompt)
    }

    /// Reads a passphrase for a new slot: long enough, and typed twice if it is typed.
    pub fn read_new(&self) -> Result<Passphrase, PassphraseError> {
        self.read_twice("New passphrase: ")?.long_enough()
    }

    /// Reads a PIN for a new slot, typed twice if it is typed. Its device limits how often it can be guessed.
    pub fn read_new_pin(&self) -> Result<Passphrase, PassphraseError> {
        self.read_twice("New PIN: ")
    }

    fn read_twice(&self, prompt: &str) -> Result<Passphrase, PassphraseError> {
        let entered = self.read_with(prompt, credentials_directory().as_deref())?;
        if *self == Self::Prompt && !entered.equals(&self.read_with("Once more: ", None)?) {
            return Err(PassphraseError::Mismatch);
        }
        Ok(entered)
    }

    fn read_with(&self, prompt: &str, credentials: Option<&Path>) -> Result<Passphrase, PassphraseError> {
        match self {
            Self::Prompt => ask(prompt),
            Self::Descriptor(fd) => {
                let fail = |error: io::Error| PassphraseError::Descriptor { fd: *fd, kind: error.kind() };
                let copy = duplicate(*fd).ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
                Passphrase::read_from(File::from(copy), fail)
            }
            Self::Credential(name) => {
                let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
                let name = plain.then_some(name).ok_or_else(|| PassphraseError::BadCredentialName(name.clone()))?;
                let path = credentials.ok_or(PassphraseError::NoCredentials)?.join(name);
                let fail = |error: io::Error| PassphraseError::Credential { path: path.clone(), kind: error.kind() };
                Passphrase::read_from(File::open(&path).map_err(fail)?, fail)
            }
        }
    }
}

fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

impl Passphrase {
    /// A copy of `bytes` (1 to `MAX_LEN`); wiping the original is the caller's duty.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, PassphraseError> {
        if bytes.len() > MAX_LEN {
            return Err(PassphraseError::TooLong);
        }
        let secret = Secret::init(|buffer| buffer[..bytes.len()].copy_from_slice(bytes));
        Self { bytes: secret, len: bytes.len() }.not_empty()
    }

    /// Lends the bytes to `f`; what `f` copies is its own duty to wipe.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.bytes.expose(|bytes| f(&bytes[..self.len]))
    }

    /// The passphrase, if it may be used for a new slot.
    pub fn long_enough(self) -> Result<Self, PassphraseError> {
        if self.len < MIN_NEW_LEN { Err(PassphraseError::TooShort) } else { Ok(self) }
    }

    /// Reads `input` to its end straight into secret memory. One line's end is taken off.
    fn read_from(mut input: impl Read, fail: impl Fn(io::Error) -> PassphraseError) -> Result<Self, PassphraseError> {
        let mut len = 0;
        let bytes = Secret::try_init(|buffer: &mut [u8; MAX_LEN + 3]| {
            while len < buffer.len() {
                match input.read(&mut buffer[len..]) {
                    Ok(0) => break,
                    Ok(read) => len += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(fail(error)),
                }
            }
            let text = &buffer[..len];
            let text = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
            len = text.len();
            if len > MAX_LEN { Err(PassphraseError::TooLong) } else { Ok(()) }
        })?;
        Self { bytes, len }.not_empty()
    }

    fn not_empty(self) -> Result<Self, PassphraseError> {
        if self.len == 0 { Err(PassphraseError::Empty) } else { Ok(self) }
    }

    fn equals(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.expose(|a| other.expose(|b| a.ct_eq(b).into()))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Asks on the controlling terminal, so that neither standard input nor output need be one.
fn ask(prompt: &str) -> Result<Passphrase, PassphraseError> {
    let terminal =
        OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| PassphraseError::NoTerminal)?;
    let fail = |error: io::Error| PassphraseError::Terminal(error.kind());
    let quiet = Quiet::start(&terminal).map_err(fail)?;
    (&terminal).write_all(prompt.as_bytes()).map_err(fail)?;
    let passphrase = Passphrase::read_from(Line { terminal: &terminal, ended: false }, fail);
    drop(quiet);
    let _ = (&terminal).write_all(b"\n"); // the user's own was not echoed; only for looks
    passphrase
}

/// A terminal as input that ends after one line.
struct Line<'a> {
    terminal: &'a File,
    ended: bool,
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let read = self.terminal.read(buffer)?;
        self.ended = buffer[..read].ends_with(b"\n");
        Ok(read)
    }
}

/// Echo is off while this lives.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn start(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Flush, &self.before); // nothing better is possible
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn text(passphrase: Result<Passphrase, PassphraseError>) -> Result<String, PassphraseError> {
        passphrase.map(|passphrase| passphrase.expose(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    fn read(input: &[u8]) -> Result<String, PassphraseError> {
        text(Passphrase::read_from(input, |_| PassphraseError::NoTerminal))
    }

    #[test]
    fn one_line_end_is_not_part_of_a_passphrase_and_everything_else_is() {
        for (input, expected) in
            [("a b", "a b"), ("a b\n", "a b"), ("a b\r\n", "a b"), (" a\n\n", " a\n"), ("a\r", "a\r")]
        {
            assert_eq!(read(input.as_bytes()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn lengths_have_limits() {
        let longest = "x".repeat(MAX_LEN);
        assert_eq!(read(format!("{longest}\r\n").as_bytes()), Ok(longest.clone()));
        assert_eq!(text(Passphrase::copy_from(longest.as_bytes())), Ok(longest.clone()));
        for input in [format!("{longest}x"), longest.repeat(9)] {
            assert_eq!(read(input.as_bytes()), Err(PassphraseError::TooLong));
            assert_eq!(text(Passphrase::copy_from(input.as_bytes())), Err(PassphraseError::TooLong));
        }
        for input in ["", "\n", "\r\n"] {
            assert_eq!(read(input.as_bytes()), Err(PassphraseError::Empty));
        }
        assert_eq!(text(Passphrase::copy_from(b"")), Err(PassphraseError::Empty));
        assert_eq!(
            text(Passphrase::copy_from(b"1234567").and_then(Passphrase::long_enough)),
            Err(PassphraseError::TooShort)
        );
        assert_eq!(text(Passphrase::copy_from(b"12345678").and_then(Passphrase::long_enough)), Ok("12345678".into()));
    }

    #[test]
    fn a_descriptor_may_be_a_pipe_a_file_or_a_socket() {
        let (reader, mut writer) = io::pipe().expect("pipe");
        writer.write_all(b"from a pipe\n").expect("write");
        drop(writer);
        assert_eq!(text(Source::Descriptor(reader.as_raw_fd()).read()).as_deref(), Ok("from a pipe"));

        let mut file = tempfile::tempfile().expect("tempfile");
        file.write_all(b"not this; from a file").expect("write");
        file.seek(io::SeekFrom::Start(10)).expect("seek");
        assert_eq!(text(Source::Descriptor(file.as_raw_fd()).read_new()).as_deref(), Ok("from a file"));

        // Cannot be opened by name, as a pipe of another user cannot (sudo).
        let (ours, mut theirs) = UnixStream::pair().expect("socket pair");
        theirs.write_all(b"from a socket").expect("write");
        drop(theirs);
        assert_eq!(text(Source::Descriptor(ours.as_raw_fd()).read()).as_deref(), Ok("from a socket"));

        let fd = 987_654;
        let missing = PassphraseError::Descriptor { fd, kind: io::ErrorKind::NotFound };
        assert_eq!(text(Source::Descriptor(fd).read()), Err(missing));
    }

    #[test]
    fn a_credential_is_a_file_in_the_directory_of_credentials() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("mine"), "secret").expect("write");
        let read = |name: &str, dir| text(Source::Credential(name.to_owned()).read_with("", dir));
        assert_eq!(read("mine", Some(dir.path())).as_deref(), Ok("secret"));
        assert_eq!(read("mine", None), Err(PassphraseError::NoCredentials));
        let missing = PassphraseError::Credential { path: dir.path().join("other"), kind: io::ErrorKind::NotFound };
        assert_eq!(read("other", Some(dir.path())), Err(missing));
        for name in ["", ".", "..", "../mine", "/etc/passwd"] {
            assert_eq!(read(name, Some(dir.path())), Err(PassphraseError::BadCredentialName(name.to_owned())));
        }
    }

    #[test]
    fn passphrases_compare_by_content_and_print_as_nothing() {
        let passphrase = |text: &[u8]| Passphrase::copy_from(text).expect("short enough");
        assert!(passphrase(b"same").equals(&passphrase(b"same")));
        assert!(!passphrase(b"same").equals(&passphrase(b"same!")));
        assert_eq!(format!("{:?}", passphrase(b"same")), "Passphrase");
    }
}
