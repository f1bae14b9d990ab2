//! The helper slot: a program of the operator's wraps a random key-encryption key, with a cloud KMS, Vault, age or what
//! it likes. The contract is `docs/hsm/helper.md`; `child` runs the program and trusts nothing it does.

mod child;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::kek::{Sealed, random};
use crate::slot::{Binding, KeySlot, SlotError, SlotKind, Wrapped};

/// Version of the contract between Claviger and a helper.
const CONTRACT: u8 = 1;
/// The longest wrapped key that a helper may give, in bytes.
const MAX_WRAPPED: usize = 8 * 1024;
const MAX_ARGUMENTS: usize = 32;

/// What is stored for a helper slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The program and its arguments.
    command: Vec<String>,
    /// What the helper made of the key-encryption key.
    #[serde(with = "hex::serde")]
    wrapped_kek: Vec<u8>,
    sealed: Sealed,
}

impl Record {
    /// The program and its arguments.
    pub fn command(&self) -> &[String] {
        &self.command
    }
}

/// A helper that did not do its work. Nothing that it wrote is quoted: it may be secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the helper {}: {failure}", program.display())]
pub struct HelperError {
    /// The program.
    pub program: PathBuf,
    /// What went wrong.
    pub failure: HelperFailure,
}

/// What a helper did wrong, or said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HelperFailure {
    /// The program is not named by an absolute path, or has too many arguments.
    #[error("a helper is named by an absolute path and has at most {MAX_ARGUMENTS} arguments")]
    BadCommand,
    /// Somebody else could replace the program.
    #[error("it can be changed by somebody else than root and the signer's user")]
    OpenToOthers,
    /// It could not be started.
    #[error("it cannot be started: {0}")]
    Start(#[serde(with = "crate::cause")] io::ErrorKind),
    /// It did not end in time, and was killed.
    #[error("it did not end within {limit_ms} ms and was killed")]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// It wrote more than the contract allows, and was killed.
    #[error("it wrote more than {limit_bytes} bytes and was killed")]
    TooMuch {
        /// The limit.
        limit_bytes: usize,
    },
    /// It ended with another exit code than 0, or by a signal.
    #[error("it failed{}", code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    Failed {
        /// The exit code; none for a signal.
        code: Option<i32>,
    },
    /// Its reply is not one of the contract.
    #[error("its reply is not as the contract says")]
    BadReply,
    /// It said why not.
    #[error("it says: {0}")]
    Said(Refusal),
}

impl HelperFailure {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadCommand => {
                "Name the program by its whole path after `--`; put long settings into a file of its own."
            }
            Self::OpenToOthers => "Give the program to root (chown root) and close it to others (chmod go-w).",
            Self::Start(_) => "Check that the program is where the slot says, and executable: `claviger slots list`.",
            Self::TimedOut { .. } => "Run the helper by hand and see what it waits for; other slots still open.",
            Self::TooMuch { .. } | Self::BadReply => {
                "Run the helper by hand; docs/hsm/helper.md says what it may write."
            }
            Self::Failed { .. } => {
                "Run the helper by hand with the same arguments: what it writes to stderr is dropped."
            }
            Self::Said(refusal) => refusal.hint(),
        }
    }
}

/// The closed set of reasons that a helper can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The device or service does not let this user do it.
    #[error("access denied")]
    Denied,
    /// The device or service does not answer.
    #[error("not reachable")]
    Unavailable,
    /// It was wrapped under another key or another binding, or was changed.
    #[error("not wrapped by this key for this slot")]
    Foreign,
    /// The helper's own settings or tools are wrong.
    #[error("its settings are wrong")]
    Settings,
}

impl Refusal {
    fn hint(self) -> &'static str {
        match self {
            Self::Denied => "Check the helper's credentials and the key's access rules.",
            Self::Unavailable => "Check the device or the network, then try again; other slots still open.",
            Self::Foreign => "Use the key slot file and the helper's key of this installation.",
            Self::Settings => "Check the helper's arguments and the tools that it needs.",
        }
    }
}

/// Runs helpers. `command` is for wrapping; unwrapping runs the one that was stored.
#[derive(Clone, Debug)]
pub struct HelperSlot {
    /// The program by its absolute path, and its arguments. They are no place for secrets: every process can read them.
    pub command: Vec<String>,
    /// How long a helper may take.
    pub timeout: Duration,
}

impl HelperSlot {
    /// For slots that exist already.
    pub const STORED: Self = Self { command: Vec::new(), timeout: Duration::from_secs(30) };
}

/// What a helper reads.
#[derive(Serialize)]
struct Request<'a> {
    claviger: u8,
    #[serde(flatten)]
    operation: Operation<'a>,
    /// The associated data of the slot, in hex.
    binding: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
enum Operation<'a> {
    Wrap { key: &'a str },
    Unwrap { wrapped: &'a str },
    Health,
}

/// What a helper writes: the version, and one of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply<'a> {
    claviger: u8,
    wrapped: Option<&'a str>,
    key: Option<&'a str>,
    healthy: Option<bool>,
    error: Option<Refusal>,
}

impl KeySlot for HelperSlot {
    fn kind(&self) -> SlotKind {
        SlotKind::Helper
    }

    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError> {
        let kek = Zeroizing::new(random::<32>());
        let key = Zeroizing::new(hex::encode(kek.as_slice()));
        let reply = self.ask(&self.command, binding, Operation::Wrap { key: &key })?;
        let wrapped_kek = read(&self.command, &reply)?.wrapped.and_then(|text| hex::decode(text).ok());
        let wrapped_kek = wrapped_kek.filter(|wrapped| (1..=MAX_WRAPPED).contains(&wrapped.len()));
        let record = Record {
            command: self.command.clone(),
            wrapped_kek: wrapped_kek.ok_or_else(|| failed(&self.command, HelperFailure::BadReply))?,
            sealed: Sealed::seal(&kek, binding, data_key),
        };
        let wrapped = Wrapped::Helper(record);
        // A helper that cannot undo what it did is noticed while another slot still opens.
        self.unwrap(binding, &wrapped, &mut Zeroizing::new([0; 32]))?;
        Ok(wrapped)
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Helper(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        if record.wrapped_kek.len() > MAX_WRAPPED {
            return Err(SlotError::Parameters("length of the helper's wrapped key".into()));
        }
        let text = hex::encode(&record.wrapped_kek);
        let reply = self.ask(&record.command, binding, Operation::Unwrap { wrapped: &text })?;
        let mut kek = Zeroizing::new([0; 32]);
        let key = read(&record.command, &reply)?.key;
        if key.is_none_or(|key| hex::decode_to_slice(key, &mut *kek).is_err()) {
            return Err(failed(&record.command, HelperFailure::BadReply));
        }
        record.sealed.open(&kek, binding, data_key)
    }

    fn health(&self, wrapped: &Wrapped) -> Result<(), SlotError> {
        let Wrapped::Helper(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        let nowhere = Binding { version: 0, installation: [0; 16], slot: 0, kind: SlotKind::Helper };
        let reply = self.ask(&record.command, &nowhere, Operation::Health)?;
        if read(&record.command, &reply)?.healthy == Some(true) {
            Ok(())
        } else {
            Err(failed(&record.command, HelperFailure::BadReply))
        }
    }
}

impl HelperSlot {
    fn ask(
        &self,
        command: &[String],
        binding: &Binding,
        operation: Operation<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SlotError> {
        let binding = hex::encode(binding.associated_data());
        let request = Request { claviger: CONTRACT, operation, binding: &binding };
        let mut text = Zeroizing::new(serde_json::to_vec(&request).expect("the structure has only string keys"));
        text.push(b'\n');
        let reply = check(command).and_then(|()| child::converse(command, &text, self.timeout));
        reply.map_err(|failure| failed(command, failure))
    }
}

/// What a reply says; an error if it is none, or says why not.
fn read<'a>(command: &[String], bytes: &'a [u8]) -> Result<Reply<'a>, SlotError> {
    match serde_json::from_slice(bytes) {
        Ok(Reply { claviger: CONTRACT, error: Some(refusal), .. }) => {
            Err(failed(command, HelperFailure::Said(refusal)))
        }
        Ok(reply @ Reply { claviger: CONTRACT, .. }) => Ok(reply),
        _ => Err(failed(command, HelperFailure::BadReply)),
    }
}

fn failed(command: &[String], failure: HelperFailure) -> SlotError {
    HelperError { program: command.first().map(PathBuf::from).unwrap_or_default(), failure }.into()
}

/// Whether the program is one that only root and this process's user can have put there.
fn check(command: &[String]) -> Result<(), HelperFailure> {
    let program = command.first().map(Path::new).filter(|program| program.is_absolute());
    let program = program.filter(|_| command.len() <= MAX_ARGUMENTS).ok_or(HelperFailure::BadCommand)?;
    let metadata = program.metadata().map_err(|error| HelperFailure::Start(error.kind()))?;
    let trusted = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !trusted || metadata.mode() & 0o022 != 0 { Err(HelperFailure::OpenToOthers) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
