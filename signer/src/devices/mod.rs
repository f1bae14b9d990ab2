//! Devices are asked by processes of their own. The signer itself starts no program and loads no library once it is confined
//! (`harden/`), and what a vendor's module does to its memory it does elsewhere.
//!
//! ```text
//! signer ── one end of a socket pair ──▶ broker ── starts ──▶ worker, with that end as its stdin
//!    └───────────── the task, the answer ─────────────────────┘
//! ```
//!
//! The broker starts before the signer is confined and knows no secret. A worker asks one device once. It speaks to those devices
//! only that the key slot file and the configuration named when the signer started: whoever takes the signer over cannot name
//! another program.

mod broker;
mod talk;
mod worker;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use claviger_hsm::device_key::Signature;
use claviger_hsm::{
    Absent, Binding, Counter, CounterError, DeviceKeyError, KeyRecord, KeySlot, Reading, SlotError, SlotKind, Wrapped,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub use self::broker::{Known, broker};
pub use self::talk::NewKey;
use self::talk::{Answer, Step, Task, Text, receive, send};
pub use self::worker::worker;
use crate::keys::data_key::{Opener, Pin};
use crate::keys::passphrase::Passphrase;

/// Longer than any device takes to open a slot, people's fingers included.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// Longer than any device takes to sign or to count. A signer that ends waits for it.
const WORK_LIMIT: Duration = Duration::from_secs(15);

/// The way to the devices, while the broker lives.
#[derive(Debug)]
pub struct Devices {
    /// None if nothing is known that could be asked.
    broker: Option<Mutex<UnixStream>>,
}

impl Devices {
    /// Has a worker do `task`.
    fn ask(&self, task: &Task, limit: Duration) -> Result<Answer, Absent> {
        let broker = self.broker.as_ref().ok_or(Absent::Unknown)?;
        let (mut mine, theirs) = UnixStream::pair().map_err(|_| Absent::Gone)?;
        {
            let broker = broker.lock().unwrap_or_else(PoisonError::into_inner);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let ends = [theirs.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&ends));
            sendmsg(&*broker, &[IoSlice::new(b"!")], &mut control, SendFlags::NOSIGNAL).map_err(|_| Absent::Gone)?;
        }
        drop(theirs);
        mine.set_read_timeout(Some(limit)).map_err(|_| Absent::Gone)?;
        send(&mut mine, task).map_err(|_| Absent::Gone)?;
        receive(&mut mine).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Absent::TimedOut { limit_s: limit.as_secs() },
            _ => Absent::Gone,
        })
    }

    /// Makes a signing key in a device.
    pub fn make_key(&self, new: NewKey, pin: Option<&Passphrase>) -> Result<KeyRecord, DeviceKeyError> {
        match self.ask(&Task::MakeKey { new, pin: pin.map(text) }, WORK_LIMIT)? {
            Answer::Made(record) => Ok(record),
            Answer::DeviceKey(error) => Err(error),
            _ => Err(Absent::Gone.into()),
        }
    }

    /// Signs `message` with a device's key. What the worker brings is checked here, too.
    pub fn sign(&self, key: &KeyRecord, pin: Option<&Passphrase>, message: &[u8]) -> Result<Signature, DeviceKeyError> {
        let task = Task::Sign { key: key.clone(), pin: pin.map(text), message: message.to_vec() };
        match self.ask(&task, WORK_LIMIT)? {
            Answer::Signature(signature) if key.public.verifies(message, &signature) => Ok(signature),
            Answer::Signature(_) => Err(DeviceKeyError::Faulty),
            Answer::DeviceKey(error) => Err(error),
            _ => Err(Absent::Gone.into()),
        }
    }

    /// The slot that `opener` opens, if a device is behind it.
    pub fn slot<'a>(&'a self, opener: &'a Opener) -> Option<DeviceSlot<'a>> {
        let (kind, pin) = match opener {
            Opener::Passphrase(_) | Opener::Shares(_) => return None,
            Opener::Helper => (SlotKind::Helper, None),
            Opener::Pkcs11(pin) => (SlotKind::Pkcs11, Some(pin)),
            Opener::Tpm(pin) => (SlotKind::Tpm, pin.as_ref()),
        };
        Some(DeviceSlot { devices: self, kind, pin })
    }
}

fn text(pin: &Passphrase) -> Text {
    Text(pin.expose(<[u8]>::to_vec))
}

/// A slot whose device is asked by a worker. It only opens: slots are made by commands.
#[derive(Debug)]
pub struct DeviceSlot<'a> {
    devices: &'a Devices,
    kind: SlotKind,
    pin: Option<&'a Pin>,
}

impl KeySlot for DeviceSlot<'_> {
    fn kind(&self) -> SlotKind {
        self.kind
    }

    fn wrap(&self, _: &Binding, _: &[u8; 32]) -> Result<Wrapped, SlotError> {
        Err(Absent::Unknown.into())
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let task = Task::Unwrap {
            binding: *binding,
            wrapped: wrapped.clone(),
            pin: self.pin.map(|pin| text(&pin.text)),
            tries: self.pin.map(|pin| pin.tries),
        };
        match self.devices.ask(&task, OPEN_LIMIT)? {
            Answer::Key(key) => *data_key = key,
            Answer::Slot(error) => return Err(error),
            _ => return Err(Absent::Gone.into()),
        }
        Ok(())
    }

    fn health(&self, _: &Wrapped) -> Result<(), SlotError> {
        Err(Absent::Unknown.into())
    }
}

/// The counter of a TPM that is asked by a worker.
#[derive(Debug)]
pub struct DeviceCounter<'a> {
    /// The way to it.
    pub devices: &'a Devices,
    /// How a worker reaches the TPM.
    pub tcti: &'a str,
}

impl DeviceCounter<'_> {
    fn step(&self, step: Step) -> Result<Reading, CounterError> {
        match self.devices.ask(&Task::Count { tcti: self.tcti.to_owned(), step }, WORK_LIMIT)? {
            Answer::Reading(reading) => Ok(reading),
            Answer::Counter(error) => Err(error),
            _ => Err(Absent::Gone.into()),
        }
    }
}

impl Counter for DeviceCounter<'_> {
    fn create(&self) -> Result<Reading, CounterError> {
        self.step(Step::Create)
    }

    fn read(&self) -> Result<Reading, CounterError> {
        self.step(Step::Read)
    }

    fn increment(&self) -> Result<Reading, CounterError> {
        self.step(Step::Increment)
    }
}
