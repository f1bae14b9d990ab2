//! The envelope: the data key, wrapped once for each key slot. The format is `docs/envelope.md`.
//!
//! The first line names the format and its version and carries a checksum of the rest, so that a newer file, a damaged
//! file and a wrong passphrase are told apart. What protects the key is the slots' authenticated encryption.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::file;
use crate::shares::{self, Share};
use crate::slot::{Binding, KeySlot, SlotError, SlotId, SlotKind, Wrapped};

const MAGIC: &str = "claviger-keyslots";
/// 1 had passphrase slots only, 2 no previous data key.
const VERSION: u16 = 3;
/// More than an operator needs, few enough that a hostile file cannot keep the host deriving keys.
const MAX_SLOTS: usize = 16;
const MAX_BYTES: usize = 64 * 1024;

/// A data key at rest. Without the secret of a slot it tells only which slots there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    #[serde(with = "crate::hexed")]
    installation: [u8; 16],
    slots: Vec<Slot>,
    /// While the data key is rotated: the previous one, sealed under the current one by whoever holds both.
    #[serde(default, with = "hex::serde", skip_serializing_if = "Vec::is_empty")]
    previous: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    id: SlotId,
    /// Of the envelope that the slot was made in; part of its binding.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    version: u16,
    wrapped: Wrapped,
}

const fn first_version() -> u16 {
    1
}

const fn is_first_version(version: &u16) -> bool {
    *version == first_version()
}

/// Why an envelope could not be read, opened or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The file could not be read.
    #[error("cannot read {}: {kind}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// The file could not be written: there is the previous one, or, if only the directory could not be flushed, the new.
    #[error("cannot write {}: {kind}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// The file is something else.
    #[error("this is not a key slot file")]
    NotAnEnvelope,
    /// The file was written by a newer Claviger.
    #[error("the key slot file has format version {found}, this program knows version {VERSION}")]
    NewerVersion {
        /// The version in the file.
        found: u16,
    },
    /// The file was changed or cut since it was written.
    #[error("the key slot file is damaged: {0}")]
    Damaged(&'static str),
    /// Slots of the kind exist, and the secret opens none of them.
    #[error("wrong {}", .0.secret())]
    WrongSecret(SlotKind),
    /// There is no slot of this kind.
    #[error("the envelope has no {0} slot")]
    NoSlotOfKind(SlotKind),
    /// The secret is counted by the device, and there are several devices: it is tried on the one that is named.
    #[error("there are several {0} slots")]
    SeveralSlots(SlotKind),
    /// There is no slot of this number.
    #[error("there is no key slot {0}")]
    UnknownSlot(SlotId),
    /// Without this slot nothing could open the envelope any more.
    #[error("slot {0} is the last one")]
    LastSlot(SlotId),
    /// None of the other slots can be used from here.
    #[error("slot {0} is the last one that can be used here")]
    LastUsable(SlotId),
    /// The data key before is still kept: a second one cannot be.
    #[error("the data key is being rotated already")]
    Rotating,
    /// Every slot is taken.
    #[error("all {MAX_SLOTS} key slots are taken")]
    Full,
    /// The slot could not do its work.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl EnvelopeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "Check the data directory and who owns it, or run `claviger init` for a new one."
            }
            Self::Unwritable { .. } => {
                "Check permissions and free space of the data directory, then look with `claviger slots list`."
            }
            Self::NotAnEnvelope | Self::Damaged(_) => {
                "Restore the key slot file from a backup; the slots do not change."
            }
            Self::NewerVersion { .. } => "Use the version of Claviger that wrote it, or a newer one.",
            Self::WrongSecret(_) => "Try again, or use another slot: `claviger slots list`.",
            Self::NoSlotOfKind(_) | Self::UnknownSlot(_) => "See which slots there are: `claviger slots list`.",
            Self::SeveralSlots(_) => "Name the slot with --slot; `claviger slots list` shows their numbers.",
            Self::LastSlot(_) => "Add another slot first: `claviger slots add`.",
            Self::LastUsable(_) => "Mend another slot first: `claviger slots test --slot N` says what it lacks.",
            Self::Rotating => {
                "Unseal the signer: it seals everything anew by itself. `claviger status` shows how far it is."
            }
            Self::Full => "Remove a slot that is not used: `claviger slots remove`.",
            Self::Slot(error) => error.hint(),
        }
    }
}

impl Envelope {
    /// A new installation's envelope: `data_key` in one slot.
    pub fn create(data_key: &[u8; 32], slot: &dyn KeySlot) -> Result<Self, EnvelopeError> {
        let mut installation = [0; 16];
        getrandom::fill(&mut installation).expect("the operating system provides randomness");
        let mut envelope = Self { installation, slots: Vec::new(), previous: Vec::new() };
        envelope.add(data_key, slot)?;
        Ok(envelope)
    }

    /// Writes the data key into `data_key`, and says which slot gave it: slot `only`, or the first that opens. On failure
    /// `data_key` stays as it is, and the error is that of the first slot that could not even judge the secret.
    pub fn open(
        &self,
        slot: &dyn KeySlot,
        only: Option<SlotId>,
        data_key: &mut [u8; 32],
    ) -> Result<SlotId, EnvelopeError> {
        let kind = slot.kind();
        let candidates = self.of_kind(kind, only)?;
        // A wrong PIN counts wherever it is tried.
        if matches!(kind, SlotKind::Pkcs11 | SlotKind::Tpm) && candidates.len() > 1 {
            return Err(EnvelopeError::SeveralSlots(kind));
        }
        let mut failure = EnvelopeError::WrongSecret(kind);
        for stored in candidates {
            match slot.unwrap(&self.binding(stored), &stored.wrapped, data_key) {
                Ok(()) => return Ok(stored.id),
                Err(SlotError::WrongSecret) => {}
                Err(other) if failure == EnvelopeError::WrongSecret(kind) => failure = other.into(),
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Which slot `share` was dealt for, and its record, if it goes with the `entered` ones.
    pub fn judge_share(&self, share: &Share, entered: &[Share]) -> Result<(SlotId, &shares::Record), EnvelopeError> {
        let mut failure = EnvelopeError::NoSlotOfKind(SlotKind::Shares);
        for stored in &self.slots {
            let Wrapped::Shares(record) = &stored.wrapped else { continue };
            match record.judge(&self.binding(stored), share, entered) {
                Ok(()) => return Ok((stored.id, record)),
                // That it is not of one set says nothing if it is of another.
                Err(error @ shares::ShareError::Foreign { .. }) => {
                    if matches!(failure, EnvelopeError::NoSlotOfKind(_)) {
                        failure = SlotError::from(error).into();
                    }
                }
                Err(error) => failure = SlotError::from(error).into(),
            }
        }
        Err(failure)
    }

    /// Wraps `data_key`, as `open` gave it, for one more slot; returns the slot's number.
    pub fn add(&mut self, data_key: &[u8; 32], slot: &dyn KeySlot) -> Result<SlotId, EnvelopeError> {
        let id = (1..=MAX_SLOTS as SlotId)
            .find(|id| self.slots.iter().all(|slot| slot.id != *id))
            .ok_or(EnvelopeError::Full)?;
        let wrapped = slot.wrap(&self.binding_of(id, VERSION, slot.kind()), data_key)?;
        self.slots.push(Slot { id, version: VERSION, wrapped });
        self.slots.sort_by_key(|slot| slot.id);
        Ok(id)
    }

    /// Wraps `data_key`, as `open` gave it, anew for slot `id`, with another secret, cost or device of the same kind.
    pub fn rewrap(&mut self, id: SlotId, data_key: &[u8; 32], slot: &dyn KeySlot) -> Result<(), EnvelopeError> {
        let at = self.slots.iter().position(|slot| slot.id == id).ok_or(EnvelopeError::UnknownSlot(id))?;
        let kind = self.slots[at].wrapped.kind();
        if kind != slot.kind() {
            return Err(SlotError::OtherKind(kind).into());
        }
        let wrapped = slot.wrap(&self.binding_of(id, VERSION, kind), data_key)?;
        self.slots[at] = Slot { id, version: VERSION, wrapped };
        Ok(())
    }

    /// Forgets slot `id`, if a slot stays that is `usable`. Copies of the file made before still open with its secret: rotate
    /// the data key if that matters.
    pub fn remove(&mut self, id: SlotId, usable: impl Fn(&Wrapped) -> bool) -> Result<(), EnvelopeError> {
        let at = self.slots.iter().position(|slot| slot.id == id).ok_or(EnvelopeError::UnknownSlot(id))?;
        if self.slots.len() == 1 {
            return Err(EnvelopeError::LastSlot(id));
        }
        if !self.slots.iter().any(|slot| slot.id != id && usable(&slot.wrapped)) {
            return Err(EnvelopeError::LastUsable(id));
        }
        self.slots.remove(at);
        Ok(())
    }

    /// The previous data key as it was given to [`Envelope::keep_previous`], while the data key is rotated.
    pub fn previous(&self) -> Option<&[u8]> {
        Some(&*self.previous).filter(|previous| !previous.is_empty())
    }

    /// Keeps the previous data key, sealed. Every slot must wrap the current one by then.
    pub fn keep_previous(&mut self, sealed: Vec<u8>) {
        self.previous = sealed;
    }

    /// Forgets the previous data key.
    pub fn forget_previous(&mut self) {
        self.previous.clear();
    }

    /// The slots there are, in the order of their numbers.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, SlotKind)> {
        self.records().map(|(id, wrapped)| (id, wrapped.kind()))
    }

    /// The slots with what is stored for them.
    pub fn records(&self) -> impl Iterator<Item = (SlotId, &Wrapped)> {
        self.slots.iter().map(|slot| (slot.id, &slot.wrapped))
    }

    /// The random id of the installation.
    pub fn installation(&self) -> [u8; 16] {
        self.installation
    }

    /// Reads and decodes the file at `path`.
    pub fn read(path: &Path) -> Result<Self, EnvelopeError> {
        match file::read_limited(path, MAX_BYTES) {
            Ok(bytes) => Self::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(EnvelopeError::NotAnEnvelope),
            Err(error) => Err(EnvelopeError::Unreadable { path: path.to_owned(), kind: error.kind() }),
        }
    }

    /// Encodes and writes the file at `path`, atomically and with mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), EnvelopeError> {
        file::write_atomically(path, &self.encode())
            .map_err(|error| EnvelopeError::Unwritable { path: path.to_owned(), kind: error.kind() })
    }

    /// The envelope as the bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = serde_json::to_string_pretty(self).expect("the structure has only string keys");
        body.push('\n');
        format!("{MAGIC} {VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes()
    }

    /// Checks and decodes the bytes of a file. The version is judged before anything that may change with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let split = bytes.iter().position(|byte| *byte == b'\n').ok_or(EnvelopeError::NotAnEnvelope)?;
        let (head, body) = (&bytes[..split], &bytes[split + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| EnvelopeError::NotAnEnvelope)?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        let version = match words.next().map(str::parse) {
            Some(Ok(found @ 1..=VERSION)) => found,
            Some(Ok(found)) if found > VERSION => return Err(EnvelopeError::NewerVersion { found }),
            _ => return Err(EnvelopeError::Damaged("its version is unreadable")),
        };
        if words.next() != Some(checksum(body).as_str()) || words.next().is_some() {
            return Err(EnvelopeError::Damaged("its checksum does not match"));
        }
        let envelope: Self =
            serde_json::from_slice(body).map_err(|_| EnvelopeError::Damaged("its content cannot be decoded"))?;
        let ids: std::collections::BTreeSet<_> = envelope.slots.iter().map(|slot| slot.id).collect();
        if ids.is_empty() || ids.len() != envelope.slots.len() || ids.len() > MAX_SLOTS {
            return Err(EnvelopeError::Damaged("its slots are missing, doubled or too many"));
        }
        if version < 3 && envelope.previous().is_some() {
            return Err(EnvelopeError::Damaged("it has a previous data key, which its version does not know"));
        }
        // A slot made under a later version does not become an earlier one's by its heading.
        let fits = |slot: &Slot| (slot.wrapped.kind().since()..=version).contains(&slot.version);
        if !envelope.slots.iter().all(fits) {
            return Err(EnvelopeError::Damaged("a slot is of another version than the file"));
        }
        Ok(envelope)
    }

    fn of_kind(&self, kind: SlotKind, only: Option<SlotId>) -> Result<Vec<&Slot>, EnvelopeError> {
        let slots: Vec<_> = match only {
            Some(id) => {
                let stored = self.slots.iter().find(|slot| slot.id == id).ok_or(EnvelopeError::UnknownSlot(id))?;
                match stored.wrapped.kind() {
                    found if found == kind => vec![stored],
                    found => return Err(SlotError::OtherKind(found).into()),
                }
            }
            None => self.slots.iter().filter(|slot| slot.wrapped.kind() == kind).collect(),
        };
        if slots.is_empty() { Err(EnvelopeError::NoSlotOfKind(kind)) } else { Ok(slots) }
    }

    fn binding(&self, slot: &Slot) -> Binding {
        self.binding_of(slot.id, slot.version, slot.wrapped.kind())
    }

    fn binding_of(&self, slot: SlotId, version: u16, kind: SlotKind) -> Binding {
        Binding { version, installation: self.installation, slot, kind }
    }
}

fn checksum(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

#[cfg(test)]
mod tests;
